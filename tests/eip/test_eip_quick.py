"""The quick answer and the whole agent never disagree, and the quick one imports nothing that costs."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from haptk.core.vip import Ours
from haptk.eip import quick
from haptk.eip.agent import Agent
from haptk.eip.memory import Memory

CHEAP = {
    "socket",
    "typing",
    "dataclasses",
    "http",
    "re",
    "json",
    "pathlib",
    "enum",
    "logging",
    "botocore",
    "click",
    "ssl",
}


@pytest.mark.parametrize(
    ("holder", "last", "metadata_on"),
    list(product(["lb1", "lb2", None], ["ours", "not-ours", None], [True, False])),
)
def test_a_quick_yes_is_a_yes_of_the_agent(
    lab: Any, monkeypatch: pytest.MonkeyPatch, holder: str | None, last: str | None, metadata_on: bool
) -> None:
    for key, value in lab.env("lb1").items():
        monkeypatch.setenv(key, value)
    env = lab.env("lb1")
    agent = Agent(lab.ip(), env=env)
    agent.status()  # learns the node
    if holder:
        lab.give(holder)
    memory = Memory(env["HAPTK_RUN_DIR"], env["AWS_EC2_METADATA_SERVICE_ENDPOINT"], None, None)
    if last is None:
        for path in Path(env["HAPTK_RUN_DIR"]).glob("last*"):
            path.unlink()
    else:
        memory.remember_last(lab.ip(), last)
    lab.power("lb1", metadata_on)
    mark = lab.mark()
    answer = quick.held(lab.ip(), None, None)
    assert not lab.calls(mark)  # it never asks the API
    assert answer is True or not answer
    expected = metadata_on and holder == "lb1" and last != "not-ours"
    assert bool(answer) == expected
    if answer:
        assert isinstance(Agent(lab.ip(), env=env).status(), Ours)
    assert (answer is None) == (not metadata_on and last != "not-ours")
    lab.power("lb1", True)


def test_a_pinned_private_address_counts(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in lab.env("lb1").items():
        monkeypatch.setenv(key, value)
    instance = lab.region.instance("lb1")
    lab.give("lb1")
    for private_ip, expected in ((instance.private_ip, True), (instance.secondary_ips[0], False)):
        Agent(lab.ip(), private_ip=private_ip, env=lab.env("lb1")).status()
        assert quick.held(lab.ip(), None, private_ip) is expected


def test_by_allocation_id_once_the_address_is_known(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in lab.env("lb1").items():
        monkeypatch.setenv(key, value)
    lab.give("lb1")
    assert quick.held(lab.allocation(), None, None) is False
    Agent(lab.allocation(), env=lab.env("lb1")).status()
    assert quick.held(lab.allocation(), None, None) is True


def test_the_quick_answer_imports_nothing_that_costs(lab: Any) -> None:
    lab.give("lb1")
    subprocess.run([str(Path(sys.executable).with_name("haptk")), "eip", "status", lab.ip()], env=lab.env("lb1"))
    command = [sys.executable, "-I", "-S", "-X", "importtime", quick.__file__, sysconfig.get_path("purelib")]
    done = subprocess.run(
        [*command, "heartbeat", lab.ip(), "status"], env=lab.env("lb1"), capture_output=True, text=True
    )
    assert done.stdout == "running\n"
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "haptk" in imported and not imported & CHEAP
