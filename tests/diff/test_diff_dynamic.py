"""`add server` and `del server`: the answers beside the real haproxy, and service discovery under load."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Program, ask, free_ports, start
from tests.diff.test_diff_moves import Machine, until
from tests.proxy.conftest import read_answer

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(240)]
FILE = """global
 stats socket {folder}/{kind}.sock level admin
 maxconn 2000
 nbthread {threads}
defaults
 mode http
 timeout connect 5s
 timeout client 20s
 timeout server 20s
listen web
 bind {host}:{port}
 option httpchk GET /check
 balance roundrobin
 default-server weight 7
 stick-table type string len 16 size 1k expire 1h
 stick on hdr(x-key)
 server a 127.0.0.1:{one}
backend hash
 balance source
 server a 127.0.0.1:{one}
backend least
 balance leastconn
backend followed
 server a 127.0.0.1:{one} check inter 100s
 server b 127.0.0.1:{one} track a
"""


class Side:
    def __init__(self, kind: str, folder: Path, one: int, threads: int = 1) -> None:
        self.kind, self.folder = kind, folder
        self.host = "127.0.0.1" if kind == "haproxy" else "127.0.0.9"
        (self.port,) = free_ports(1)
        text = FILE.format(folder=folder, kind=kind, host=self.host, port=self.port, one=one, threads=threads)
        self.program: Program = start(kind, text, folder, [(self.host, self.port)])

    def say(self, command: str) -> str:
        return ask(self.folder / f"{self.kind}.sock", command)

    def states(self) -> list[list[str]]:
        """Every line of `show servers state` without times and states of checks."""
        rows = [line.split() for line in self.say("show servers state").splitlines()]
        rows = [row for row in rows if len(row) > 20 and row[0] != "#" and row[1] != "followed"]
        # HAProxy pauses (8) a check when its server is taken out, not one that is enabled while it is out
        return [[*row[:9], str(int(row[13]) & ~8), *row[14:]] for row in rows]


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine("one")
    yield made
    made.close()


COMMANDS = """
add server
add server web
add server web/
add server /x
add server nope/x
add server web/x
add server web/x 127.0.0.1:80 cookie c
add server web/x 127.0.0.1:80 resolvers r
add server web/x 127.0.0.1:80 redir http://a
add server web/x 127.0.0.1:80 nonsense
add server web/x 127.0.0.1:80 weight 3 check inter 200ms
add server web/x 127.0.0.1:80
add server web/a 127.0.0.1:80
add server web/p 127.0.0.1
add server web/n 127.0.0.1 check
add server hash/x 127.0.0.1:80
add server least/x 127.0.0.1:80 id 5
add server least/y 127.0.0.1:80 id 5
add server least/y 127.0.0.1:80
add server least/z 127.0.0.1:80 track web/a
add server least/z 127.0.0.1:80 track followed/a
add server least/w 127.0.0.1:80 track followed/no
add server least/w 127.0.0.1:80 track no/no
add server web/d 127.0.0.1:80 disabled
add server web/e 127.0.0.1:80 enabled weight 20
add server web/u unix@/tmp/x
add server web/h1 localhost:80
add server web/h2 nope.invalid:80 check weight 3
add server web/h3 nope..invalid:80
add server web/h4 nope.invalid
add server web/h5 127.0.0.1:80 init-addr none
del server web/h1
del server web/h2
del server web/h4
add server web/ag 127.0.0.1:80 agent-check agent-port 9
add server web/mc 127.0.0.1:80 maxconn 5 backup
enable health web/p
enable health web/x
disable health web/x
enable server web/x
get weight web/x
get weight web/p
set server web/p weight 9
set server web/p addr 127.0.0.2 port 99
set server web/d ssl on
set server web/a ssl on
set server web/d fqdn a.test
set server web/d state drain
set server web/d state ready
disable server web/d
del server
del server web
del server nope/x
del server web/nope
del server web/x
disable server web/x
del server web/x
del server web/x
del server followed/a
disable server followed/a
del server followed/a
del server least/z
del server web/e
del server web/d
del server web/u
add server web/x 127.0.0.1:81 weight 4
add server web/x 127.0.0.1:81 weight 4
disable server web/a
del server web/a
add server web/a 127.0.0.1:82 weight 2
help add server
""".strip().splitlines()


def test_every_answer_is_the_same(tmp_path: Path, machine: Machine) -> None:
    sides: list[Side] = []
    wrong = []
    try:
        for kind in ("haproxy", "fast"):
            sides.append(Side(kind, tmp_path, machine.port))
        for command in COMMANDS:
            theirs, ours = (side.say(command) for side in sides)
            if theirs != ours:
                wrong.append(f"{command}\n  haproxy {theirs!r}\n  haptk   {ours!r}")
            theirs_, ours_ = (side.states() for side in sides)
            if theirs_ != ours_:
                differ = [pair for pair in zip(theirs_, ours_, strict=False) if pair[0] != pair[1]]
                wrong.append(f"after {command}: {len(theirs_)} and {len(ours_)} servers, {differ[:2]}")
        assert not wrong, "\n".join(wrong[:9])
    finally:
        for side in sides:
            side.program.stop()


WRONG = """
set server web/a weight 300
set server web/a weight -1
set server web/a weight abc
set server web/a weight 200%
set server web/a weight 12%x
set server web/a weight 5x
set server web/a weight
set weight web/a 300
set weight web/a 5%5
set weight web/a %
set weight web/a
get weight web
get weight web/no
get weight
set server web/a addr foo
set server web/a addr 1.2.3.4 port 70000
set server web/a addr 1.2.3.4 port x
set server web/a addr 1.2.3.4 prt 8
set server web/a addr
set server web/a state x
set server web/a state
set server web/a health x
set server web/a agent x
set server web/a agent up
set server web/a check-port x
set server web/a check-port 70000
set server web/a check-addr
set server web/a agent-addr
set server web/a agent-port x
set server web/a agent-send
set server web/a xyz
set server web/a
set server web/no weight 1
set server no/a weight 1
set server a weight 1
set server
set maxconn server web/a x
set maxconn server web/a
set maxconn frontend web x
set maxconn frontend no 3
set maxconn frontend web
set maxconn global x
set maxconn global
set maxconn x
set rate-limit connections global x
set rate-limit sessions x
set rate-limit x
set timeout cli x
set timeout cli
set timeout x
set server web/a fqdn a.b
set server web/a ssl on
disable agent web/a
enable agent web/a
disable health web/a
enable health web
disable frontend no
disable frontend
enable server web
enable server web/no
shutdown sessions server web
shutdown sessions server web/no
shutdown session 0x1
shutdown session
shutdown frontend no
show servers state no
show servers conn no
show table no
clear table no
show errors no
""".strip().splitlines()


def test_invalid_values_are_refused_in_haproxys_words(tmp_path: Path, machine: Machine) -> None:
    sides: list[Side] = []
    try:
        for kind in ("haproxy", "fast"):
            sides.append(Side(kind, tmp_path, machine.port))
        wrong = []
        for command in WRONG:
            theirs, ours = (re.sub(r"\[[^]]*\]", "[]", side.say(command)) for side in sides)
            if theirs != ours:
                wrong.append(f"{command}\n  haproxy {theirs!r}\n  haptk   {ours!r}")
        assert not wrong, "\n".join(wrong)
        assert sides[0].states() == sides[1].states()
    finally:
        for side in sides:
            side.program.stop()


class Keeping(http.server.BaseHTTPRequestHandler):
    """Answers, and keeps the connection."""

    protocol_version = "HTTP/1.1"
    open = 0

    def handle(self) -> None:
        Keeping.open += 1
        with contextlib.suppress(ConnectionError):
            super().handle()
        Keeping.open -= 1

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


def test_maintenance_closes_idle_connections_and_the_server_can_go(tmp_path: Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keeping)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    heard = {}
    try:
        for kind in ("haproxy", "fast"):
            side = Side(kind, tmp_path, server.server_address[1])
            try:
                side.say(f"add server web/x 127.0.0.1:{server.server_address[1]} pool-purge-delay 1h")
                side.say("disable server web/a; enable server web/x")
                with socket.create_connection((side.host, side.port), 20) as sock:
                    sock.settimeout(20)
                    for _ in range(2):  # a first request is not trusted to a connection that others use
                        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                        assert b" 200 " in read_answer(sock)[0]
                side.say("disable server web/x")
                heard[kind] = side.say("del server web/x")
                deadline = time.monotonic() + 30
                while Keeping.open:
                    assert time.monotonic() < deadline, (kind, "a connection to a server that is gone stays open")
                    time.sleep(0.05)
            finally:
                side.program.stop()
    finally:
        server.shutdown()
        server.server_close()
    assert heard["fast"] == heard["haproxy"] == "Server deleted.\n"


class Load:
    """Clients with lasting connections that ask all the time; `wrong` is what should not have happened."""

    def __init__(self, address: tuple[str, int], clients: int = 4) -> None:
        self.ending, self.wrong = threading.Event(), []
        self.names: set[str] = set()
        self.served = 0
        self.threads = [threading.Thread(target=self._run, args=(address, n), daemon=True) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def _run(self, address: tuple[str, int], number: int) -> None:
        key = 0
        while not self.ending.is_set():
            try:
                with socket.create_connection(address, 20) as sock:
                    sock.settimeout(20)
                    for _ in range(50):
                        key += 1
                        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX-Key: %d-%d\r\n\r\n" % (number, key // 3))
                        head, body, _ = read_answer(sock)
                        if b" 200 " not in head.partition(b"\r\n")[0]:
                            self.wrong.append(head.partition(b"\r\n")[0].decode())
                        self.names.add(body.decode())
                        self.served += 1
            except (OSError, AssertionError) as error:
                self.wrong.append(repr(error))

    def stop(self) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join(30)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_hundred_servers_come_move_and_go_under_load(tmp_path: Path, machine: Machine, threads: int) -> None:
    """No request is lost, and in the end only the first server is left. Machines drain before they are removed."""
    side = Side("fast", tmp_path, machine.port, threads)
    others = [Machine(f"m{number}") for number in range(4)]
    load = Load((side.host, side.port))
    try:
        for number in range(100):
            words = "check inter 100ms rise 1" if number % 3 == 0 else ""
            answer = side.say(f"add server web/s{number} 127.0.0.1:{others[number % 2].port} {words}")
            assert answer == "New server registered.\n\n"
            if words:
                side.say(f"enable health web/s{number}")
            side.say(f"set server web/s{number} weight {1 + number % 5}")
            side.say(f"enable server web/s{number}")
        until(lambda: {"m0", "m1"} <= load.names, "the new servers serve")
        for number in range(0, 100, 2):
            side.say(f"set server web/s{number} addr 127.0.0.1 port {others[2 + number % 4 // 2].port}")
        until(lambda: {"m2", "m3"} <= load.names, "those that have moved serve")

        def all_up() -> bool:
            lines = side.say("show stat web 4 -1").splitlines()
            rows = [row.split(",")[17] for row in lines if row.startswith("web,s")]
            return len(rows) == 100 and all(row.startswith(("UP", "no check")) for row in rows)

        until(all_up, "every server is up")
        for number in range(100):
            side.say(f"set server web/s{number} state drain")
            side.say(f"set server web/s{number} state maint")
            until(
                lambda number=number: side.say(f"del server web/s{number}") == "Server deleted.\n", f"s{number} is free"
            )
        load.names.clear()
        time.sleep(0.3)
        until(lambda: load.names == {"one"}, f"only the first one is left: {load.names}")
        assert len(side.states()) == 2, "a and the one of `hash`"
        count = load.served
        until(lambda: load.served > count + 200, "it goes on")
    finally:
        load.stop()
        text = side.program.output.read_text()
        side.program.stop()
        for each in others:
            each.close()
    assert not load.wrong, load.wrong[:5]
    assert "Traceback" not in text


def test_there_is_an_end_to_it(tmp_path: Path, machine: Machine) -> None:
    side = Side("fast", tmp_path, machine.port)
    try:
        answers = [
            side.say(";".join(f"add server web/n{n} 127.0.0.1:80" for n in range(at, at + 64)))
            for at in range(0, 1088, 64)
        ]
        assert "New server registered" in answers[0]
        assert "no room for another server before a reload" in answers[-1]
        assert "show info" in side.say("help")
    finally:
        side.program.stop()


def test_whatever_there_is_for_each_server_has_room_for_those_that_are_added() -> None:
    """The count of servers grows while it runs: it says how far to look, never how much to allocate."""
    wrong = []
    for file in sorted((Path(__file__).parents[2] / "haptk/_fast").rglob("*.pyx")):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if "server_count" in line and re.search(r"(alloc|block)\(", line):
                wrong.append(f"{file.name}:{number}: {line.strip()}")
    assert not wrong
