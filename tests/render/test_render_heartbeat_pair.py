"""A real heartbeat 3.0.6 pair from generated files alone: the address leaves a dead proxy and a dead node."""

from __future__ import annotations

import pytest

from tests.render.world import made, until

TIMING = """
[timing]
keepalive = "200ms"
warntime = "500ms"
deadtime = "1s"
initdead = "3s"
"""
# The package's own files lie under the generated ones; /var/lib/heartbeat and /run are the node's own.
BOOT = """
set -e
hostname "$2"
cp -a --update=none /etc/ha.d/. "$1/etc/ha.d/" 2>/dev/null || cp -an /etc/ha.d/. "$1/etc/ha.d/"
cp -a /var/lib/heartbeat "$1/varlib"
mount --bind "$1/etc/ha.d" /etc/ha.d
mount --bind "$1/varlib" /var/lib/heartbeat
mount --bind "$1/etc/haproxy" /etc/haproxy
mkdir -p "$1/run" && cp -a /run/heartbeat "$1/run/" && mkdir -p "$1/run/haproxy" "$1/run/resource-agents" "$1/run/lock"
mount --bind "$1/run" /run
haproxy -D -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid
/usr/libexec/heartbeat/heartbeat -f &
while :; do sleep 1000 & wait $! || :; done
"""


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.real("heartbeat", "haproxy", "curl", "ip", "nsenter", "unshare")
def test_the_address_leaves_a_dead_proxy_and_a_dead_node() -> None:
    with made("heartbeat", TIMING, BOOT, "eth0") as world:
        one, two = world.nodes["lb1"], world.nodes["lb2"]
        one.boot()
        two.boot()
        world.held_by("lb1")
        until("the pair is settled", lambda: "transition" not in one.inside("cl_status rscstatus || :"), world.logs)
        one.kill_proxy()
        world.held_by("lb2")
        one.start_proxy()
        two.kill()
        world.held_by("lb1")
