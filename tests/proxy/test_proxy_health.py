"""Health checks as the shell around core/health.py runs them: real sockets, short intervals."""

from __future__ import annotations

import contextlib
import socket
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


def _silent_port():
    """A port whose packets are as good as dropped: its queue is full for ever."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        channel = socket.socket()
        channel.setblocking(False)
        channel.connect_ex(listener.getsockname())
        waiting.append(channel)
    return listener, waiting


def test_silent_servers_delay_nobody(moody):
    """500 servers that never answer; one that lives is seen to die and to return as if it were alone."""
    moods, ports = moody
    listener, waiting = _silent_port()
    tables = tables_for(ports)
    alive = replace(
        tables.backends[0].servers[0],
        check=CheckPlan("http", "127.0.0.1", ports[0], inter_s=0.5, rise=2, fall=2, send=HttpSend("GET", "/check")),
    )
    silent = [
        replace(alive, name=f"dead{number}", id=number + 10, cookie=None, port=listener.getsockname()[1],
                check=CheckPlan("tcp", "127.0.0.1", listener.getsockname()[1], inter_s=1.0))
        for number in range(500)
    ]  # fmt: skip
    with contextlib.closing(
        RunningProxy(replace(tables, backends=(replace(tables.backends[0], servers=(alive, *silent)),)))
    ) as proxy:
        _until(lambda: all(_state(proxy, index) == "DOWN" for index in range(1, 501)))
        assert _state(proxy) == "UP"
        for mood, state in ((b"503 No", "DOWN"), (b"200 OK", "UP")):
            began = time.monotonic()
            moods[0].mood = mood
            _until(lambda state=state: _state(proxy) == state)
            assert time.monotonic() - began < 6, "two checks of half a second apart took much longer"
    for channel in (listener, *waiting):
        channel.close()


def test_results_that_change_nothing_stay_in_compiled_code(moody):
    """A server that is fully up and passes is not handed to Python, and what it found is still seen."""
    _, ports = moody
    with contextlib.closing(_start(ports)) as proxy:
        health = proxy.engine.health
        one = health.servers[0]
        _until(lambda: all(each.health.health == each.health.rules.full for each in health.servers))
        time.sleep(0.3)  # the results that made them so are dealt with
        heard = []
        settle = health._settle
        health._settle = lambda *args: (heard.append(args), settle(*args))
        _until(lambda: health.checks.counters()["quiet"] > 20)
        assert not heard
        number = health.checks.number(one.check)
        _until(lambda: health.checks.number(one.check) > number + 3)
        assert one.last.code == "L7OK" and one.last.status == 200


def test_a_server_comes_goes_and_moves_while_checks_run(moody):
    moods, ports = moody
    with contextlib.closing(_start(ports)) as proxy:
        health = proxy.engine.health
        one = health.servers[0]
        _until(lambda: one.last is not None)
        moods[1].mood = b"503 No"
        _until(lambda: _state(proxy, 1) == "DOWN")
        health.relocate(0, replace(one.at, port=ports[1]))  # where nobody is well
        _until(lambda: _state(proxy) == "DOWN")
        health.detach(one)
        _until(lambda: one.check < 0)
        assert one.last is not None
        moods[1].mood = b"200 OK"
        _until(lambda: _state(proxy, 1) == "UP")
        assert _state(proxy) == "DOWN"
        health.attach(one, at_once=True)
        _until(lambda: _state(proxy) == "UP")


def test_a_result_that_cannot_be_dealt_with_ends_no_checks(moody, monkeypatch, caplog):
    """What goes wrong with one result costs that result only: its own server and all others are checked on."""
    moods, ports = moody
    with contextlib.closing(_start(ports)) as proxy:
        _until(lambda: _state(proxy, 0) == "UP")
        runner = proxy.engine.health
        settle, faults = runner._settle, []

        def failing(one, result):
            if one.gid == 0 and len(faults) < 3:
                faults.append(result)
                raise RuntimeError("a fault")
            settle(one, result)

        monkeypatch.setattr(runner, "_settle", failing)
        runner._do(lambda _: 1 / 0)
        for mood in moods:
            mood.mood = b"500 Oops"
        _until(lambda: _state(proxy, 0) == _state(proxy, 1) == "DOWN")
        assert len(faults) == 3
        for mood in moods:
            mood.mood = b"200 OK"
        _until(lambda: _state(proxy, 0) == _state(proxy, 1) == "UP")
    told = [record.getMessage() for record in caplog.records if record.exc_info]
    assert len([line for line in told if "could not be dealt with" in line]) == 3
    assert len([line for line in told if "could not be carried out" in line]) == 1
