"""A real keepalived pair from generated files alone: what moves an Elastic IP of the lab's cloud, and what does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from haptk.io import clock
from tests.render.world import World, made, until

TIMING = """
[timing]
keepalive = "300ms"
warntime = "600ms"
deadtime = "1200ms"
initdead = "3s"
"""
# The node's own view: generated files at their paths, nothing of the machine's in /run.
BOOT = """
set -e
mount --bind "$1/etc/keepalived" /etc/keepalived
mount --bind "$1/etc/haproxy" /etc/haproxy
mount -t tmpfs tmpfs /usr/libexec
mkdir /usr/libexec/haptk
cp "$1"/usr/libexec/haptk/* /usr/libexec/haptk/
mount -t tmpfs tmpfs /run
mkdir -p /run/haproxy
haproxy -D -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid
keepalived --dont-fork --log-console --log-detail &
wait
"""


@pytest.fixture
def world() -> Iterator[World]:
    with made("keepalived", TIMING, BOOT, "ens5") as found:
        yield found


@pytest.mark.root
@pytest.mark.real("keepalived", "haproxy", "curl", "ip", "nsenter", "unshare")
def test_the_address_leaves_a_dead_proxy_and_a_dead_node_and_does_not_fail_back(world: World) -> None:
    one, two = world.nodes["lb1"], world.nodes["lb2"]
    one.boot()
    two.boot()
    world.held_by("lb1")
    assert one.is_master() and not two.is_master()

    one.kill_proxy()
    world.held_by("lb2")
    until("lb1 is no master", lambda: not one.is_master(), world.logs)

    one.start_proxy()
    until(
        "lb1 is well again",
        lambda: "proxy_runs) succeeded" in one.log.read_text().split("proxy_runs) failed")[-1],
        world.logs,
    )
    until(
        "lb1 answers again",
        lambda: one.log.read_text().count("Changing effective priority from 40 to 100") >= 1,
        world.logs,
    )
    clock.sleep(1.5)
    assert world.holder() == "lb2" and two.is_master(), "without auto_failback the address stays"

    two.kill()
    world.held_by("lb1")
    assert one.is_master()


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.real("keepalived", "haproxy", "curl", "ip", "nsenter", "unshare")
def test_nopreempt_would_ignore_a_failed_check(world: World) -> None:
    """Why generated files have none: the reason that the template, the rules and `haptk init` give, seen in keepalived."""
    for node, priority in zip(world.nodes.values(), (150, 100), strict=True):
        path = node.root / "etc/keepalived/keepalived.conf"
        path.write_text(path.read_text().replace("    priority 100\n", f"    priority {priority}\n    nopreempt\n"))
        node.boot()
    one, two = world.nodes["lb1"], world.nodes["lb2"]
    world.held_by("lb1")
    one.kill_proxy()
    until("lb1 is lowered", lambda: "Changing effective priority from 150 to 90" in one.log.read_text(), world.logs)
    clock.sleep(3)
    assert one.is_master() and not two.is_master() and world.holder() == "lb1"
