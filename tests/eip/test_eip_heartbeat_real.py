"""The real ResourceManager and harc of heartbeat 3 with a haresources line, in namespaces of the test's own.

A failed stop makes ResourceManager kill heartbeat and reboot: the process and mount namespaces keep that here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from haptk.eip.install import Installer

pytestmark = [pytest.mark.root, pytest.mark.real("ResourceManager")]
MANAGER = "/usr/share/heartbeat/ResourceManager"


class Node:
    """/etc/ha.d of one node, and its scripts run in namespaces where that directory is /etc/ha.d."""

    def __init__(self, lab: Any, name: str, scratch: Path, haresources: str) -> None:
        self.lab = lab
        self.directory = scratch / f"ha-{name}"
        shutil.copytree("/etc/ha.d", self.directory / "etc/ha.d", symlinks=True)
        self.log = scratch / f"{name}.log"
        Installer(self.directory).install(["heartbeat"])
        (self.directory / "etc/ha.d/haresources").write_text(haresources)
        (self.directory / "etc/ha.d/ha.cf").write_text("keepalive 1\ndeadtime 5\n")
        self.env = lab.env(
            name,
            HA_CURHOST=name,
            HA_DIR="/etc/ha.d",
            HA_FUNCS="/etc/ha.d/shellfuncs",
            HA_RCDIR="/etc/ha.d/rc.d",
            HA_RESOURCEDIR="/etc/ha.d/resource.d",
            HA_NOARCHBIN="/usr/share/heartbeat",
            HA_LOGFILE=str(self.log),
            HA_DEBUGLOG=str(self.log),
            HA_LOGFACILITY="none",
            HA_FIFO=str(scratch / "fifo"),
            HA_STOPRETRYMAX="1",
        )

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        mount = f'mount --bind {self.directory}/etc/ha.d /etc/ha.d && exec "$@"'
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", mount, "sh", *command],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def owns(self, resource: str) -> bool:
        return self.run(MANAGER, "status", resource).returncode == 0


@pytest.fixture
def nodes(lab: Any, tmp_path: Path) -> tuple[Node, Node, str]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    resource = f"haptk-eip::{lab.ip()}"
    line = f"lb1 {resource}\n"
    return Node(lab, "lb1", tmp_path, line), Node(lab, "lb2", tmp_path, line), resource


def test_the_real_resource_manager_takes_and_gives(lab: Any, nodes: tuple[Node, Node, str]) -> None:
    lb1, lb2, resource = nodes
    assert not lb1.owns(resource)
    done = lb1.run(MANAGER, "takegroup", resource)
    assert done.returncode == 0, done.stderr + lb1.log.read_text()
    assert lab.holder() == "lb1"
    lab.settle()
    assert lb1.owns(resource) and not lb2.owns(resource)
    assert lb1.run(MANAGER, "givegroup", resource).returncode == 0
    assert lab.holder() is None
    assert not lb1.owns(resource)


def test_the_real_harc_takes_over_the_resources_of_a_dead_node(lab: Any, nodes: tuple[Node, Node, str]) -> None:
    lb1, lb2, resource = nodes
    lab.give("lb1")
    done = lb2.run("sh", "/etc/ha.d/harc", "status", "status", HA_st="dead", HA_src="lb1", HA_NICEFAILBACK="no")
    assert done.returncode == 0, done.stderr + lb2.log.read_text()
    assert lab.holder() == "lb2", lb2.log.read_text()
    # The dead node comes back and lets go of what it no longer has: nothing happens to the new holder.
    assert lb1.run(MANAGER, "givegroup", resource).returncode == 0
    assert lab.holder() == "lb2"


def test_an_unknown_address_is_not_taken_for_owned_and_reboots_nobody(lab: Any, nodes: tuple[Node, Node, str]) -> None:
    lb1, _lb2, resource = nodes
    lab.give("lb1")
    assert lb1.owns(resource)
    lab.power("lb1", False)
    lab.fault("reset")
    assert not lb1.owns(resource)
    lb1.run(MANAGER, "givegroup", resource)
    text = lb1.log.read_text()
    assert "Return code 1" in text  # the stop failed, and said so
    assert "Reboot required" not in text
    lab.power("lb1", True)
    assert lab.holder() == "lb1"
