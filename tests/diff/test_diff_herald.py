"""What the log says when servers change, line by line as the real haproxy says it: checks, 404s, administrators, tracking, names."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import PROGRAMS, Program, free_ports, start
from tests.diff.test_diff_resolvers import Dns
from tests.proxy.conftest import ScriptedServer

pytestmark = [pytest.mark.timeout(180)]
FILE = """global
 stats socket {directory}/{kind}.sock level admin

defaults
 mode http
 log @LOG@ local0
 timeout client 5s
 timeout server 5s
 timeout connect 1s
 default-server inter 100ms fall 2 rise 1

resolvers dns
 nameserver one 127.0.0.1:{dns}
 timeout resolve 200ms
 hold valid 300ms
 hold nx 300ms

listen web
 bind 127.0.0.1:{port}
 option httpchk GET /
 http-check disable-on-404
 server app 127.0.0.1:{app} check

backend follows
 option httpchk GET /
 http-check disable-on-404
 server leader 127.0.0.1:{app} track web/app
 server spare 127.0.0.1:{app} backup

backend said
 {option}
 option httpchk GET /
 server app 127.0.0.1:{app} check backup

backend named
 server app app.test:{app} resolvers dns resolve-prefer ipv4 init-addr none
"""


class Application:
    """A server whose health the test sets."""

    def __init__(self) -> None:
        self.status = 200
        self.server = ScriptedServer(self._answer)

    def _answer(self, server: ScriptedServer, channel: socket.socket, _number: int) -> None:
        if server.read_head(channel)[0]:
            channel.sendall(b"HTTP/1.1 %d Some Text\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % self.status)


class World:
    """One program on the file, its log, and what the test does to it."""

    def __init__(self, kind: str, directory: Path, option: str) -> None:
        self.dns = Dns(directory)
        self.app = Application()
        self.socket = directory / f"{kind}.sock"
        (port,) = free_ports(1)
        values = {"directory": directory, "kind": kind, "dns": self.dns.port, "port": port, "app": self.app.server.port}
        text = FILE.format(option=option, **values)
        self.program: Program = start(kind, text, directory, [("127.0.0.1", port)])
        self.at = 0

    def say(self, command: str) -> None:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(10)
            channel.connect(str(self.socket))
            channel.sendall(command.encode() + b"\n")
            while channel.recv(4096):
                pass

    def hear(self, count: int) -> list[str]:
        """The next `count` lines of every backend together, without what differs from run to run; sorted."""
        deadline = time.monotonic() + 20
        while len(lines := self._lines()[self.at :]) < count:
            assert time.monotonic() < deadline, f"{len(lines)} of {count}: {lines}"
            time.sleep(0.02)
        time.sleep(0.3)  # and no more than that
        lines = self._lines()[self.at :]
        self.at += len(lines)
        return sorted(lines)

    def _lines(self) -> list[str]:
        heard = [line for lines in list(self.program.log.lines.values()) for line in list(lines)]
        told = [re.sub(r"^<(\d+)>.*?\]: ", r"<\1> ", line) for line in heard if re.search(r"erver|IP from", line)]
        return [re.sub(r"check duration: \d+ms", "check duration: Nms", line) for line in told]

    def close(self) -> None:
        self.program.stop()
        self.app.server.close()
        self.dns.stop()


@pytest.fixture(scope="module", params=["", "option log-health-checks"], ids=["changes", "every check"])
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, list[str]]]]:
    """program -> step -> lines."""
    found: dict[str, dict[str, list[str]]] = {}
    for kind in PROGRAMS:
        world = World(kind, tmp_path_factory.mktemp(kind), request.param)
        try:
            found[kind] = play(world, more=1 if request.param else 0)
        finally:
            world.close()
    yield found


def play(world: World, more: int) -> dict[str, list[str]]:
    """Lead a program through every change; `more` says whether checks themselves are logged."""
    told = {"start": world.hear(more)}
    world.app.status = 500
    told["goes down"] = world.hear(5 + 2 * more)
    world.app.status = 404
    time.sleep(0.5)
    told["404 brings nobody up"] = world.hear(0)
    world.app.status = 200
    told["comes up"] = world.hear(3 + more)
    world.app.status = 404
    told["stops"] = world.hear(5 + 2 * more)
    world.app.status = 200
    told["comes up again"] = world.hear(3 + more)
    for name, command, count in (
        ("enters maintenance", "set server web/app state maint", 3),
        ("leaves maintenance", "set server web/app state ready", 2),
        ("drains", "set server said/app state drain", 2),
        ("drains no more", "set server said/app state ready", 1),
        ("moves", "set server follows/spare addr 127.0.0.9", 0),
    ):
        world.say(command)
        told[name] = world.hear(count)
    world.say("set server said/app state drain")
    world.hear(2)
    world.app.status = 500
    told["goes down while it drains"] = world.hear(5 + 2 * more)
    world.say("set server web/app state maint")
    told["enters maintenance when it is down"] = world.hear(2)
    world.dns.say("127.0.0.2 app.test")
    told["has a name"] = world.hear(3)
    world.dns.say("127.0.0.3 app.test")
    told["moves with its name"] = world.hear(1)
    world.dns.say("127.0.0.3 other.test")
    told["loses its name"] = world.hear(2)
    return told


STEPS = (
    "start", "goes down", "404 brings nobody up", "comes up", "stops", "comes up again", "enters maintenance", "leaves maintenance",
    "drains", "drains no more", "moves", "goes down while it drains", "enters maintenance when it is down", "has a name",
    "moves with its name", "loses its name",
)  # fmt: skip


@pytest.mark.real("haproxy", "dnsmasq")
@pytest.mark.parametrize("program", ["fast", "reference"])
@pytest.mark.parametrize("step", STEPS)
def test_the_lines_are_haproxys(told: dict[str, dict[str, list[str]]], step: str, program: str) -> None:
    assert told[program][step] == told["haproxy"][step]
