"""Servers that are moved, renamed and checked elsewhere by the runtime API: the answers and what becomes of traffic and
checks, through the real haproxy and through haptk; then over a reload and over a restart with a server-state file."""

from __future__ import annotations

import contextlib
import http.server
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Program, ask, exchange, free_ports, start

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(240)]
GET = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
FILE = """global
 stats socket {folder}/{name}.sock level admin
 server-state-file {folder}/{name}.state
resolvers none
 nameserver nobody 127.0.0.1:{dead}
 timeout retry 100ms
defaults
 mode http
 timeout connect 1s
 timeout client 9s
 timeout server 9s
 retries 0
 load-server-state-from-file global
backend quick
 server q 127.0.0.1:{one} check inter 1s
listen web
 bind {host}:{port}
 option httpchk GET /check
 cookie SRV insert dynamic
 dynamic-cookie-key secret
 server plain 127.0.0.1:{one} check inter 150ms fastinter 100ms downinter 100ms rise 1 fall 1
listen slots
 bind {host}:{slots}
 option httpchk GET /check
 server-template slot 3 127.0.0.1:{dead} check inter 150ms downinter 100ms rise 1 fall 1
listen words
 bind {host}:{words}
 server unchecked 127.0.0.1:{one}
 server elsewhere 127.0.0.1:{one} check port {two} inter 10000s
 server mapped 127.0.0.1 check port {two} inter 10000s
 server unix unix@/tmp/no.such.socket
 server agented 127.0.0.1:{one} agent-check agent-port {dead} agent-inter 10000s
 server named localhost:{one} resolvers none init-addr libc,none check inter 10000s
 server six [::1]:{one}
"""


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Machine:
    """A server that says its name and counts its checks."""

    def __init__(self, name: str) -> None:
        machine = self
        self.checks = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                machine.checks += self.path == "/check"
                self.send_response(200)
                self.send_header("content-length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Side:
    """One program on its own addresses."""

    def __init__(self, kind: str, folder: Path, values: dict[str, int]) -> None:
        self.kind, self.folder, self.values = kind, folder, values
        self.host = "127.0.0.1" if kind == "haproxy" else "127.0.0.9"
        (folder / f"{kind}.state").touch()
        self.program: Program | None = None
        self.start()

    def start(self) -> None:
        text = FILE.format(folder=self.folder, name=self.kind, host=self.host, **self.values)
        self.program = start(self.kind, text, self.folder, [(self.host, self.values["port"])])

    def stop(self) -> None:
        if self.program is not None:
            self.program.stop()

    def say(self, command: str) -> str:
        return ask(self.folder / f"{self.kind}.sock", command)

    def get(self, section: str = "port") -> str:
        got = exchange((self.host, self.values[section]), GET)
        return got.body.decode() if got.status == 200 else str(got.status)

    def cookie(self) -> str:
        got = exchange((self.host, self.values["port"]), GET)
        return "".join(got.values("set-cookie"))

    def row(self, server: str) -> list[str]:
        """What `show servers state` says of a server, without times and states of checks."""
        lines = [line.split() for line in self.say("show servers state").splitlines()]
        found = next(line for line in lines if len(line) > 20 and line[3] == server)
        # HAProxy shows with the next change of state only that the name was changed (64)
        return [*found[4:6], str(int(found[6]) & ~64), *found[17:]]

    def status(self, server: str) -> str:
        return next(
            line.split(",")[17] for line in self.say("show stat -1 4 -1").splitlines() if f",{server}," in f",{line}"
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[list[Side], list[Machine]]]:
    machines = [Machine("one"), Machine("two")]
    port, slots, words, dead = free_ports(4)
    values = {
        "port": port, "slots": slots, "words": words, "dead": dead, "one": machines[0].port, "two": machines[1].port,
    }  # fmt: skip
    sides: list[Side] = []
    try:
        for kind in ("haproxy", "fast"):
            sides.append(Side(kind, tmp_path, values))
        yield sides, machines
    finally:
        for each in (*sides, *machines):
            (each.stop if isinstance(each, Side) else each.close)()


def test_checks_follow_a_server_that_moves(world: tuple[list[Side], list[Machine]]) -> None:
    sides, machines = world
    dead = sides[0].values["dead"]
    for side in sides:
        until(lambda side=side: side.status("plain") == "UP", f"{side.kind}: it is up at its first port")
        before = side.cookie()
        side.say(f"set server web/plain addr 127.0.0.1 port {dead}")
        until(lambda side=side: side.status("plain").startswith("DOWN"), f"{side.kind}: nobody is at the new port")
        side.say(f"set server web/plain addr 127.0.0.1 port {machines[1].port}")
        until(lambda side=side: side.status("plain") == "UP", f"{side.kind}: somebody is at the third one")
        assert side.get() == "two"
        after = side.cookie()
        assert before and after and before != after, f"{side.kind}: a dynamic cookie says where the server is"
    assert sides[0].cookie() == sides[1].cookie()


def test_slots_of_a_template_that_are_filled_at_run_time(world: tuple[list[Side], list[Machine]]) -> None:
    sides, machines = world
    for side in sides:
        for number in (1, 2, 3):
            until(
                lambda side=side, number=number: "DOWN" in side.status(f"slot{number}"), f"{side.kind}: nobody is there"
            )
        for number, machine in enumerate(machines, 1):
            side.say(f"set server slots/slot{number} addr 127.0.0.1 port {machine.port}")
        for number in (1, 2):
            until(lambda side=side, number=number: side.status(f"slot{number}") == "UP", f"{side.kind}: slot{number}")
        assert {side.get("slots"), side.get("slots")} == {"one", "two"}, side.kind
        assert side.status("slot3").startswith("DOWN")


def test_where_checks_go_may_be_changed_alone(world: tuple[list[Side], list[Machine]]) -> None:
    sides, machines = world
    dead = sides[0].values["dead"]
    for side in sides:
        until(lambda side=side: side.status("plain") == "UP", f"{side.kind}: it is up")
        assert side.say(f"set server web/plain check-port {dead}") == "\n"
        until(lambda side=side: side.status("plain").startswith("DOWN"), f"{side.kind}: its checks go to a dead port")
        side.say(f"set server web/plain check-addr 127.0.0.1 port {machines[1].port}")
        until(lambda side=side: side.status("plain") == "UP", f"{side.kind}: its checks go to another machine")
        assert side.get() == "one"
        side.say(f"set server web/plain addr 127.0.0.1 port {dead}")
        time.sleep(0.5)
        assert side.status("plain") == "UP", f"{side.kind}: they stay there when the server moves"


COMMANDS = """
words/plain x
words/unchecked addr
words/unchecked addr 127.0.0.2
words/unchecked addr 127.0.0.2
words/unchecked addr 127.0.0.3 port 81
words/unchecked addr 127.0.0.3 port 81
words/unchecked addr 127.0.0.3 port 82
words/unchecked addr 127.0.0.3 port
words/unchecked addr 127.0.0.3 port x
words/unchecked addr 127.0.0.3 port 83x
words/unchecked addr 127.0.0.4 port +1
words/unchecked addr 127.0.0.4 prt 81
words/unchecked addr name.test
words/unchecked addr 1.2.3
words/unchecked addr ::1 port 84
words/unchecked addr 127.0.0.1 port 70000
words/elsewhere addr 127.0.0.1 port +10
words/elsewhere addr 127.0.0.1 port +10
words/elsewhere addr 127.0.0.1 port -10
words/elsewhere addr 127.0.0.1 port 80
words/mapped addr 127.0.0.1 port +3
words/mapped addr 127.0.0.1 port 90
words/mapped check-port 0
words/unix addr 127.0.0.1
words/six addr 127.0.0.1
words/six addr ::2 port 1
words/unchecked check-port
words/unchecked check-port 80
words/unchecked check-addr
words/unchecked check-addr 127.0.0.1
words/elsewhere check-port 0
words/elsewhere check-port x
words/elsewhere check-port -1
words/elsewhere check-port 65536
words/elsewhere check-port 81
words/elsewhere check-addr 127.0.0.7
words/elsewhere check-addr nothing
words/elsewhere check-addr 127.0.0.8 port 99
words/elsewhere check-addr 127.0.0.8 port y
words/unchecked agent-addr 127.0.0.1
words/unchecked agent-addr
words/unchecked agent-port
words/unchecked agent-port 1
words/unchecked agent-send x
words/agented agent-addr 127.0.0.3
words/agented agent-addr 127.0.0.3 port 17
words/agented agent-addr nobody.invalid
words/agented agent-port 65536
words/agented agent-port x
words/agented agent-port 18
words/agented agent-send hello
words/agented agent sideways
words/unchecked agent up
words/unchecked fqdn a.test
words/named fqdn
words/named fqdn localhost
words/named fqdn other.test
words/named fqdn not/a/name
words/named addr 127.0.0.5 port 7
words/unchecked ssl on
words/unchecked ssl
words/unchecked weight
words/unchecked weight 5
words/unchecked weight 300
words/unchecked weight 50%
words/unchecked weight -1
words/unchecked weight x
words/unchecked state off
words/unchecked state
words/unchecked health dead
words/unchecked health down
words/unchecked health up
words/unchecked
words/unchecked nothing
words/nobody addr 127.0.0.1
nothing/nobody addr 127.0.0.1
unchecked addr 127.0.0.1
""".strip().splitlines()
OTHERS = """
disable health words/unchecked
enable health words/unchecked
disable health words/elsewhere
set server words/elsewhere check-port 80
enable health words/elsewhere
disable agent words/unchecked
enable agent words/unchecked
disable agent words/agented
set server words/agented agent up
set server words/agented agent-send x
enable agent words/agented
disable health words
enable agent nothing/x
set maxconn server words/unchecked
set maxconn server words/unchecked 5
set maxconn server words/unchecked x
get weight words/unchecked
set weight words/unchecked 10
disable server words/unchecked
enable server words/unchecked
""".strip().splitlines()


def test_every_answer_is_the_same(world: tuple[list[Side], list[Machine]]) -> None:
    sides, _ = world
    wrong = []
    for command in [f"set server {each}" for each in COMMANDS] + OTHERS:
        theirs, ours = (side.say(command) for side in sides)
        if theirs != ours:
            wrong.append(f"{command}\n  haproxy {theirs!r}\n  haptk   {ours!r}")
        server = re.search(r"words/(\w+)", command)
        if server and server[1] not in ("plain", "nobody", "unix"):
            theirs, ours = (side.row(server[1]) for side in sides)
            if theirs != ours:
                wrong.append(f"after {command}\n  haproxy {theirs}\n  haptk   {ours}")
    assert not wrong, "\n".join(wrong)


def test_what_was_changed_is_kept_over_a_restart_and_a_reload(world: tuple[list[Side], list[Machine]]) -> None:
    sides, machines = world
    for side in sides:
        side.say(f"set server web/plain addr 127.0.0.1 port {machines[1].port}")
        side.say(f"set server words/elsewhere check-addr 127.0.0.8 port {machines[0].port}")
        side.say("set server words/agented agent-addr 127.0.0.3 port 17")
        side.say("set server words/unchecked weight 7")
        side.say("set server words/six state drain")
        side.say("disable health words/named")
        until(lambda side=side: side.get() == "two", f"{side.kind}: it has moved")
        before = side.say("show servers state")
        (side.folder / f"{side.kind}.state").write_text(before.strip() + "\n")
        side.stop()
        side.start()
        assert side.get() == "two", f"{side.kind}: the port is in the server-state file"
        for server in ("plain", "elsewhere", "agented", "unchecked", "six", "mapped"):
            line = next(line.split() for line in before.splitlines() if f" {server} " in line)
            assert side.row(server) == line[4:7] + line[17:], f"{side.kind}: {server}"
        until(lambda side=side: side.status("plain") == "UP", f"{side.kind}: its checks go where it is")
    program = sides[1].program
    assert program is not None
    before, count = sides[1].say("show servers state web"), machines[0].checks
    program.process.send_signal(signal.SIGHUP)
    until(lambda: "reloaded" in program.output.read_text(), "the reload")
    assert sides[1].get() == "two", "a reload forgets nothing that the file does not change"
    with contextlib.suppress(IndexError):
        assert sides[1].row("plain")[:1] == before.splitlines()[2].split()[4:5]
    time.sleep(0.4)
    assert sides[1].status("plain") == "UP" and machines[0].checks >= count
