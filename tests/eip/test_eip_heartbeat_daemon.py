"""The real heartbeat 3.0.6, two nodes, with `haptk-eip` in haresources: start, crash, return, clean stop."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haptk.eip.install import Installer
from tests.interop.heartbeat_nodes import Machine, Pair, wait_for

pytestmark = [pytest.mark.real("heartbeat", "nsenter"), pytest.mark.root, pytest.mark.timeout(240)]
NODES = {"a": "lb1", "b": "lb2"}


def equip(lab: Any, machine: Machine, host_net: Path) -> None:
    """Put the installed script on the machine. The machine's network leads only to its peer; a node's would lead to the
    cloud too, so the script runs in the network of the test."""
    root = machine.dir / "root"
    Installer(root).install(["heartbeat"])
    node = NODES[machine.name]
    settings = machine.dir / "eip.env"
    keep = {key: value for key, value in lab.env(node).items() if key.startswith(("AWS_", "HAPTK_"))}
    settings.write_text("".join(f"{key}={value}\n" for key, value in keep.items()))
    script = machine.dir / "ha.d" / "resource.d" / "haptk-eip"
    script.write_text(
        f"#!/bin/sh\nexport HAPTK_EIP_ENV={settings}\n"
        f'echo "$2" >> {machine.dir}/calls.log\n'
        f'exec nsenter --net={host_net} {Installer(root).path("heartbeat")} "$@"\n'
    )
    script.chmod(0o755)


@pytest.fixture
def pair(lab: Any, tmp_path: Path) -> Iterator[Pair]:
    host_net = tmp_path / "net"
    host_net.touch()
    subprocess.run(["mount", "--bind", "/proc/self/ns/net", str(host_net)], check=True)
    made = Pair(tmp_path / "pair", failback="on")
    made.haresources = f"a haptk-eip::{lab.ip()}\n"
    try:
        made.up()
        for machine in (made.a, made.b):
            equip(lab, machine, host_net)
        yield made
    finally:
        made.close()
        subprocess.run(["umount", str(host_net)], check=True)


def until(lab: Any, pair: Pair, node: str | None, timeout_s: float = 45) -> None:
    logs = lambda: pair.a.log[-2000:] + pair.b.log[-2000:]  # noqa: E731
    wait_for(lambda: lab.holder() == node, timeout_s, f"{node} does not hold the address\n{logs()}")


def test_the_real_heartbeat_moves_the_address(lab: Any, pair: Pair) -> None:
    pair.a.start_real()
    pair.b.start_real()
    until(lab, pair, "lb1")
    pair.a.crash()
    until(lab, pair, "lb2")
    assert "Taking over resource group" in pair.b.log
    # It comes back and, with auto_failback on, gets its own again: the other one gives it up first.
    pair.a.start_real()
    until(lab, pair, "lb1")
    wait_for(lambda: "stop" in (pair.b.dir / "calls.log").read_text(), 30, "b was never told to stop")
    assert lab.holder() == "lb1"
    pair.a.stop_real()
    until(lab, pair, "lb2")
    for machine in (pair.a, pair.b):
        assert "Reboot required" not in machine.log
        assert "Return code" not in machine.log, machine.log[-3000:]
