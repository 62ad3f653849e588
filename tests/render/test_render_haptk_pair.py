"""A pair of `haptk heartbeat` and `haptk proxy` from generated files alone, started as the generated units start them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.render.world import Node, made, until

HAPTK = Path(sys.executable).parent / "haptk"
CONTRACT = f'heartbeat"\nheartbeat = "haptk"\nproxy = "haptk"\nhaptk = "{HAPTK}'
TIMING = """
[timing]
keepalive = "200ms"
warntime = "500ms"
deadtime = "1s"
initdead = "3s"
"""
# RuntimeDirectory and StateDirectory are made by systemd where there is one.
BOOT = """
set -e
hostname "$2"
mkdir -p "$1/var" "$1/etc/ha.d"
mount --bind "$1/etc/ha.d" /etc/ha.d
mount --bind "$1/etc/haproxy" /etc/haproxy
mount -t tmpfs tmpfs /run
mount --bind "$1/var" /var/lib
mkdir -p /run/haproxy /run/haptk /var/lib/haptk
for unit in haptk-proxy haptk-heartbeat; do
  sh -c "exec $(sed -n 's/^ExecStart=//p' "$1/etc/systemd/system/$unit.service")" &
done
while :; do sleep 1000 & wait $! || :; done
"""


def start_proxy(node: Node) -> None:
    """As systemd would, which brings it back after a second."""
    unit = (node.root / "etc/systemd/system/haptk-proxy.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.M)
    node.inside(f"setsid {command} </dev/null >/dev/null 2>&1 &")


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.real("curl", "ip", "nsenter", "unshare")
def test_the_address_leaves_a_dead_proxy_and_a_dead_node() -> None:
    with made(CONTRACT, TIMING, BOOT, "eth0") as world:
        one, two = world.nodes["lb1"], world.nodes["lb2"]
        one.boot()
        two.boot()
        world.held_by("lb1")
        health = "curl -sS --max-time 5 http://127.0.0.1:8404/haptk-health"
        for node in (one, two):
            until("each answers its own check", lambda node=node: bool(node.inside(f"{health} || :")), world.logs)
        one.kill_proxy()
        world.held_by("lb2")
        start_proxy(one)
        until("lb1 answers again", lambda: bool(one.inside(f"{health} || :")), world.logs)
        two.kill()
        world.held_by("lb1")
