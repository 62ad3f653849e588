"""Health checks as the shell around core/health.py runs them: real sockets, short intervals."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace

import pytest

from haptk.proxy.tables import CheckPlan, HttpSend
from tests.proxy.conftest import OK, RunningProxy, tables_for

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Moody:
    """Answers 200 to traffic, and to checks what `mood` says."""

    def __init__(self) -> None:
        self.mood = b"200 OK"
        self.hold = threading.Event()

    def __call__(self, server, sock, _number):
        rest = b""
        while True:
            head, rest = server.read_head(sock, rest)
            if not head:
                return
            if head.startswith(b"GET /check"):
                sock.sendall(b"HTTP/1.0 " + self.mood + b"\r\n\r\n")
                return
            if head.startswith(b"GET /slow"):
                self.hold.wait(10)
            sock.sendall(OK)


def _start(ports, **words):
    tables = tables_for(ports)
    servers = tuple(
        replace(
            server,
            check=CheckPlan(
                "http", server.host, server.port, inter_s=0.05, rise=2, fall=2, send=HttpSend("GET", "/check"),
                timeout_s=1.0, connect_timeout_s=1.0, disable_on_404=True,
            ),
            **words,
        )
        for server in tables.backends[0].servers
    )  # fmt: skip
    return RunningProxy(replace(tables, backends=(replace(tables.backends[0], servers=servers),)))


@pytest.fixture
def moody(scripted):
    moods = [Moody(), Moody()]
    servers = [scripted(mood) for mood in moods]
    yield moods, [server.port for server in servers]


def _state(proxy, index=0):
    return proxy.engine.image.server(index)["state"]


def _until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def test_down_and_up_again(moody):
    moods, ports = moody
    with contextlib.closing(_start(ports)) as proxy:
        time.sleep(0.3)
        assert _state(proxy) == "UP"
        moods[0].mood = b"503 No"
        _until(lambda: _state(proxy) == "DOWN")
        for _ in range(4):
            answer = proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: SID=s1~x\r\n\r\n", quiet_s=0.1)[0]
            assert answer.endswith(b"ok")
        assert proxy.engine.tallies().servers[0].sessions == 0
        moods[0].mood = b"200 OK"
        _until(lambda: _state(proxy) == "UP")


def test_404_drains(moody):
    moods, ports = moody
    with contextlib.closing(_start(ports)) as proxy:
        moods[0].mood = b"404 Gone"
        _until(lambda: _state(proxy) == "DRAIN")
        for _ in range(4):
            proxy.talk(GET, quiet_s=0.05)
        assert proxy.engine.tallies().servers[0].sessions == 0
        proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: SID=s1~x\r\n\r\n", quiet_s=0.1)
        assert proxy.engine.tallies().servers[0].sessions == 1


def test_sessions_are_cut_when_their_server_goes_down(moody):
    moods, ports = moody
    with contextlib.closing(_start(ports, on_marked_down="shutdown-sessions")) as proxy, proxy.connect() as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\nCookie: SID=s1~x\r\n\r\n")
        time.sleep(0.2)
        moods[0].mood = b"500 No"
        sock.settimeout(5)
        assert sock.recv(100) == b""
        moods[0].hold.set()


def test_slowstart_begins_with_less_than_the_whole_weight(moody):
    moods, ports = moody
    with contextlib.closing(_start(ports, slowstart_s=2.0)) as proxy:
        assert proxy.engine.image.server(0)["weight"] == 1
        moods[0].mood = b"500 No"
        _until(lambda: _state(proxy) == "DOWN")
        moods[0].mood = b"200 OK"
        _until(lambda: _state(proxy) == "UP")
        assert 0 < proxy.engine.image.server(0)["weight"] < 1
        _until(lambda: proxy.engine.image.server(0)["weight"] == 1)
