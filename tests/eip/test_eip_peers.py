"""What the agents that people use today get wrong, shown on the real one, and the answer of ours to the same question.

The peer is the awseip of resource-agents with the real aws CLI, against the same cloud and metadata. Its metadata
address is fixed, so a shim of curl sends it to the node's own.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haptk.eip.install import PLACES, Installer
from haptk.io import clock

AWSEIP = "/usr/lib/ocf/resource.d/heartbeat/awseip"
pytestmark = [pytest.mark.real("awseip", "aws", "curl")]


class Both:
    """The peer and ours on one node, asked the same."""

    def __init__(self, lab: Any, node: str, name: str, scratch: Path, ours: Path) -> None:
        shim = scratch / f"shim-{node}"
        shim.mkdir(exist_ok=True)
        curl = shim / "curl"
        real = shutil.which("curl")
        curl.write_text(
            '#!/bin/bash\nargs=()\nfor word in "$@"; do '
            f'args+=("${{word/http:\\/\\/169.254.169.254/{lab.imds[node].replace("/", chr(92) + "/")}}}"); done\n'
            f'exec {real} "${{args[@]}}"\n'
        )
        curl.chmod(0o755)
        (scratch / ".aws").mkdir(exist_ok=True)
        (scratch / ".aws" / "config").write_text("[default]\nregion = eu-west-1\n")
        env = lab.env(node, OCF_ROOT="/usr/lib/ocf", OCF_RESOURCE_INSTANCE="eip", HA_LOGFACILITY="none")
        aws = shutil.which("aws", path=env["PATH"])
        self.env = {
            **env,
            "PATH": f"{shim}:{env['PATH']}",
            "HOME": str(scratch),
            "OCF_RESKEY_awscli": str(aws),
            "OCF_RESKEY_elastic_ip": lab.ip(name),
            "OCF_RESKEY_allocation_id": lab.allocation(name),
            "OCF_RESKEY_api_delay": "0",
            "OCF_RESKEY_address": lab.ip(name),
        }
        self.path = ours

    def peer(self, action: str, **env: str) -> int:
        done = subprocess.run([AWSEIP, action], env={**self.env, **env}, capture_output=True, timeout=60)
        return done.returncode

    def ours(self, action: str, **env: str) -> int:
        done = subprocess.run([str(self.path), action], env={**self.env, **env}, capture_output=True, timeout=60)
        return done.returncode


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="haptk-peers-"))
    Installer(root).install(["ocf"])
    yield root / PLACES["ocf"][0]
    shutil.rmtree(root)


@pytest.fixture
def both(lab: Any, tmp_path: Path, installed: Path) -> Any:
    def make(node: str = "lb1", name: str = "web") -> Both:
        return Both(lab, node, name, tmp_path, installed)

    return make


def test_the_shim_lets_the_peer_work_at_all(lab: Any, both: Any) -> None:
    pair = both()
    assert pair.peer("monitor") == 7
    assert pair.peer("start") == 0 and lab.holder() == "lb1"
    assert pair.peer("monitor") == 0


def test_api_down(lab: Any, both: Any) -> None:
    """Peer: monitor 7 (which makes the cluster fail over), stop 0 (which lies), start 7 (which is not allowed)."""
    lab.give("lb1")
    pair = both()
    assert pair.ours("monitor") == 0
    lab.power("lb1", True)
    lab.fault("reset")
    assert [pair.peer(action) for action in ("monitor", "stop", "start")] == [7, 0, 7]
    assert pair.ours("monitor") == 0  # metadata still answers
    assert [pair.ours(action) for action in ("stop", "start")] == [1, 0]  # a start of what is here has nothing to do
    lab.power("lb1", False)
    assert pair.ours("monitor") == 190
    assert [pair.ours(action) for action in ("stop", "start")] == [1, 1]
    lab.power("lb1", True)
    assert lab.holder() == "lb1"


def test_empty_parameters(both: Any) -> None:
    """Peer: validate-all 0, and monitor 0, because an empty pattern matches everything."""
    pair = both()
    empty = {"OCF_RESKEY_elastic_ip": "", "OCF_RESKEY_allocation_id": "", "OCF_RESKEY_address": ""}
    assert [pair.peer(action, **empty) for action in ("validate-all", "monitor")] == [0, 0]
    assert [pair.ours(action, **empty) for action in ("validate-all", "monitor")] == [6, 6]


def test_an_address_that_is_a_prefix_of_another(lab: Any, both: Any) -> None:
    """Peer: monitor of ...15 is 0 on the node that holds ...155."""
    lab.give("lb1", "longer")
    pair = both("lb1", "web")
    assert lab.ip("longer").startswith(lab.ip("web"))
    assert pair.peer("monitor") == 0
    assert pair.ours("monitor") == 7


def test_a_stop_that_races_with_a_takeover(lab: Any, both: Any) -> None:
    """Peer: looks up the association id at the end, so it is the new owner's, and disassociates that.

    The race is made by a slow question: the address moves between the peer's two looks.
    """
    for who, expected in (("peer", None), ("ours", "lb2")):
        lab.free()
        lab.give("lb1")
        pair = both("lb1")
        lab.fault("slow", action="DescribeAddresses", slow_ms=3000, count=1)
        mark = lab.mark()
        process = subprocess.Popen(
            [AWSEIP if who == "peer" else str(pair.path), "stop"],
            env=pair.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # The peer has decided to stop once it has asked for the instance; ours once its question is under way.
        _wait_for_look(lab, mark, "DescribeInstances" if who == "peer" else None)
        lab.give("lb2")
        assert process.wait(30) == 0
        assert lab.holder() == expected, who


def _wait_for_look(lab: Any, mark: int, action: str | None) -> None:
    """Until the process has asked this (None: until its first question is certainly under way)."""
    for _ in range(1000 if action else 40):
        if action is not None and lab.calls(mark, action):
            break
        clock.sleep(0.02)
    clock.sleep(0.3)


def test_an_action_that_the_dtd_does_not_know(both: Any) -> None:
    """Peer: offers `validate`, so its meta-data is not valid and ocf-tester fails it."""
    pair = both()
    assert pair.peer("validate") == 0
    assert pair.ours("validate") == 3


@pytest.mark.root
@pytest.mark.timeout(400)
@pytest.mark.real("ocf-tester")
def test_the_peer_fails_the_tester_that_ours_passes(lab: Any, both: Any) -> None:
    pair = both()
    options = [f"elastic_ip={lab.ip()}", f"allocation_id={lab.allocation()}", "api_delay=0",
               f"awscli={pair.env['OCF_RESKEY_awscli']}"]  # fmt: skip
    command = ["/usr/sbin/ocf-tester", "-q", "-n", "eip"]
    for option in options:
        command += ["-o", option]
    done = subprocess.run([*command, AWSEIP], env=pair.env, capture_output=True, text=True, timeout=360)
    assert done.returncode != 0 and "ra-api-1.dtd" in done.stdout + done.stderr


def test_disassociate_then_associate_leaves_a_gap_that_one_call_does_not(lab: Any, both: Any) -> None:
    """The failover scripts of nginx and F5 let go first: for a moment nobody owns the address."""
    from haptk.io.control import call

    lab.give("lb1")
    version = call(lab.control, {"op": "associations", "after": 0})["version"]
    lab.ec2.disassociate_address(AssociationId=lab.association())
    lab.ec2.associate_address(AllocationId=lab.allocation(), NetworkInterfaceId=lab.eni("lb2"))
    lab.settle()
    assert _holders(lab, version) == [None, lab.eni("lb2")]
    version = call(lab.control, {"op": "associations", "after": 0})["version"]
    assert both("lb1").ours("start") == 0
    lab.settle()
    assert _holders(lab, version) == [lab.eni("lb1")]


def _holders(lab: Any, version: int) -> list[str | None]:
    from haptk.io.control import call

    history = call(lab.control, {"op": "associations", "after": version})["history"]
    return [one["network_interface_id"] for one in history if one["public_ip"] == lab.ip()]
