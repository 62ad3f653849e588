"""The runtime API of running processes: against the real haproxy on the same file, and its sockets under bad clients."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port

HAPTK = [sys.executable, "-m", "haptk", "proxy", "-f"]
SOCKETS = """global
    nbthread 1
    stats socket {folder}/admin mode 600 level admin
    stats socket {folder}/operator mode 660 level operator
    stats socket {folder}/user mode 666 level user
    stats timeout {timeout}
    stats maxconn 4
"""
PROXIES = """defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend fe
    bind 127.0.0.1:{port}
    maxconn 200
    default_backend web
backend web
    balance roundrobin
    cookie SRV insert indirect
    server s1 127.0.0.1:{server} cookie a check inter 200ms weight 10
    server s2 127.0.0.1:{closed} cookie b check inter 200ms fall 1
    server s3 127.0.0.1:{server} backup
    server s4 127.0.0.1:{server} disabled
listen tl
    mode tcp
    balance source
    bind 127.0.0.1:{other}
    maxconn 300
    server x 127.0.0.1:{server} maxconn 5
"""


def ask(path: Path, text: str) -> str:
    """One connection: send, read to the end."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        sock.sendall(text.encode() + b"\n")
        sock.shutdown(socket.SHUT_WR)
        out = b""
        while part := sock.recv(65536):
            out += part
        return out.decode()


def wait_for(what: object, why: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            if what():  # type: ignore[operator]
                return
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


class Process:
    """A proxy on its own folder of stats sockets."""

    def __init__(self, folder: Path, argv: list[str], server: int, timeout: str = "10s", **env: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.argv, self.env = folder, argv, env
        self.port = free_port()
        self.config = folder / "x.cfg"
        values = {"port": self.port, "other": free_port(), "server": server, "closed": free_port()}
        self.config.write_text(SOCKETS.format(folder=folder, timeout=timeout) + PROXIES.format(**values))
        self.child: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self.folder / "err").open("ab") as errors:
            argv = [*self.argv, str(self.config)]
            self.child = subprocess.Popen(argv, stderr=errors, stdout=errors, env={**os.environ, **self.env})
        wait_for(lambda: self.status("s2") == "DOWN" and self.status("s1") == "UP", "served and checked")

    def __call__(self, text: str, level: str = "admin") -> str:
        return ask(self.folder / level, text)

    def status(self, server: str) -> str:
        return next(row for row in self.rows() if row["svname"] == server)["status"]

    def rows(self, level: str = "admin") -> list[dict[str, str]]:
        text = self("show stat", level)
        return list(csv.DictReader(text.removeprefix("# ").strip().splitlines()))

    def get(self) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            return sock.recv(65536)

    def connect(self, level: str = "admin") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(30)
        sock.connect(str(self.folder / level))
        return sock

    def kill(self) -> None:
        assert self.child is not None
        self.child.kill()
        self.child.wait(10)


@pytest.fixture
def start(tmp_path, scripted) -> Iterator[object]:
    made: list[Process] = []
    server = scripted().port

    def make(name: str = "haptk", timeout: str = "10s", **env: str) -> Process:
        argv = ["haproxy", "-db", "-f"] if name == "haproxy" else HAPTK
        made.append(Process(tmp_path / name, argv, server, timeout, **env))
        return made[-1]

    yield make
    for one in made:
        one.kill()


# -- the same answers as haproxy ---------------------------------------------------------------------------------------

EXACT = """
show backend
  show   backend  x
show backend;show cli level;quit;show backend
prompt\nshow cli level\nprompt\nshow backend
prompt;operator;show cli level;set server web/s1 weight 1;quit
prompt;user;operator;show cli level;quit
operator\nshow cli level
set timeout cli
set timeout foo
set timeout cli 0
set timeout cli 1x
set timeout cli 20s
disable server
disable server web
disable server web/
enable server /s1
disable server web/zz
disable server zz/s1
enable server zz/s1
get weight
get weight web/zz
get weight web/s1
set weight web/s1
set weight web/s1 abc
set weight web/s1 300
set weight web/s1 1.5
set weight web/s1 -1
set weight web/s1 -5%
set weight web/s1 50%x
set weight web/s1 50%;get weight web/s1
set server web/s1 weight 9000%;get weight web/s1
set server web/s1 weight 10;get weight web/s1
set weight tl/x 5
set weight tl/x 0;get weight tl/x;set weight tl/x 100%
set server
set server web/s1 weight
set server web/s1 state
set server web/s1 state bogus
set server web/s1 health
set server web/s1 health bogus
set server web/s1 agent up
shutdown sessions server
shutdown sessions server web/zz
shutdown sessions server web/s1
show servers state zz
show servers conn zz
clear counters
clear counters all
clear counters foo
set maxconn
set maxconn global
set maxconn global x
set maxconn global 100
set maxconn global 0
set maxconn global 999999999
set maxconn frontend
set maxconn frontend fe
set maxconn frontend fe -1
set maxconn frontend zz 5
set maxconn frontend web 5
set maxconn frontend fe 150
set maxconn server
set maxconn server web/s1
set maxconn server web/s1 x
set maxconn server web/zz 7
set maxconn server tl/x 7
disable frontend
disable frontend zz
disable frontend web
enable frontend fe
disable frontend tl
disable frontend tl
enable frontend tl
enable frontend tl
shutdown frontend
shutdown frontend zz
disable health
disable health web/s1
enable health web/s1
disable health web/s3
enable health web/s3
enable agent web/s1
disable agent web/s1
enable agent
set server web/s4 addr
set server web/s4 addr foo
set server web/s4 addr 127.0.0.9
set server web/s4 addr 127.0.0.9
set server web/s4 addr 127.0.0.9 port
set server web/s4 addr 127.0.0.9 port 8888
set server web/s4 addr 127.0.0.9 port 8888
set server web/s4 addr ::1 port 99
set server web/s4 fqdn foo
set server web/s4 agent-addr 127.0.0.1
set server web/s4 agent-port 3
set server web/s4 ssl on
set severity-output
set severity-output foo
set severity-output number
set severity-output string;set server web/s1 state bogus
set severity-output number;set server web/s1 state bogus;disable server web/zz;show backend
set severity-output number;set server web/s4 addr foo;get weight web/zz;get weight web/s1
show stat zz 1 1
show stat 99 1 1
""".strip("\n").replace("\\n", "\n")
LINES = [line.encode().decode("unicode_escape") for line in re.split(r"\n", EXACT)]


def states_of(process: Process, backend: str = "") -> list[list[str]]:
    """`show servers state` without ports and ages, and without the last result where a check may come in between."""
    lines = process(f"show servers state {backend}").splitlines()
    found = [line.split() for line in lines if line and not line.startswith(("#", "1"))]
    for row in found:
        checked = row[13] in ("6", "14")
        # the counter of a server without checks means nothing: haproxy leaves it at 0 after maintenance
        for index in (9, 12, 18, *((10, 11) if checked else ())):
            row[index] = "*"
    return found


def cells(process: Process) -> list[list[str]]:
    """What administrators change, without the progress of checks."""
    columns = ("svname", "status", "weight", "act", "bck", "cookie", "mode", "algo", "uweight", "iid", "sid")
    return [[re.sub(r" \d/\d$", "", row[name]) for name in columns] for row in process.rows()]


@pytest.mark.real("haproxy")
def test_answers_are_haproxys(start) -> None:
    ours, real = start("haptk"), start("haproxy")
    for line in LINES:
        for level in ("admin", "operator", "user"):
            assert ours(line, level) == real(line, level), (level, line)
    for command in (
        "disable server web/s1", "set server web/s1 state drain", "set server web/s4 state drain",
        "enable server web/s4", "set server web/s2 state maint", "set server web/s3 health down",
        "set server web/s3 health up", "set server tl/x state maint", "enable server tl/x",
        "set server web/s2 health stopping", "set weight web/s1 7",
    ):  # fmt: skip
        assert ours(command) == real(command) == "\n"
        if "health" not in command or "s2" not in command:
            assert states_of(ours) == states_of(real), command
        if "s2" not in command:  # a check of the closed port may come between the two questions
            assert cells(ours) == cells(real), command
    assert states_of(ours, "tl") == states_of(real, "tl")


@pytest.mark.real("haproxy")
def test_forms_are_haproxys(start) -> None:
    ours, real = start("haptk"), start("haproxy")
    assert b"200" in ours.get()
    assert ours("show stat").splitlines()[0] == real("show stat").splitlines()[0]
    assert ours("show servers state").splitlines()[:2] == real("show servers state").splitlines()[:2]
    for level in ("admin", "user"):
        for mine, theirs in zip(ours.rows(level), real.rows(level), strict=True):
            # whatever we fill, haproxy fills
            assert {name for name, cell in mine.items() if cell} <= {name for name, cell in theirs.items() if cell}
            same = "pxname svname slim status weight act bck pid iid sid type check_status check_code check_desc "
            same += "check_rise check_fall check_health cookie mode algo qlimit uweight rate_lim"
            if mine["type"] == "2":
                same += " chkfail chkdown"
            assert {name: mine[name] for name in same.split()} == {name: theirs[name] for name in same.split()}
    kinds = {}
    for line in real("show stat typed").splitlines() + real("show info typed").splitlines():
        head, _, rest = line.partition(":")
        kinds[re.sub(r"\.\d+\.\d+\.", ".", head, count=1)] = rest.split(":")[:2]
    typed = ours("show stat typed").splitlines() + ours("show info typed").splitlines()
    for line in (line for line in typed if line):
        head, _, rest = line.partition(":")
        key = re.sub(r"\.\d+\.\d+\.", ".", head, count=1)
        assert rest.split(":")[:2] == kinds[key], line
    for command in ("show info json", "show stat json"):
        mine, theirs = json.loads(ours(command)), json.loads(real(command))
        first, second = (mine[0], theirs[0]) if "info" in command else (mine[1][0], theirs[1][0])
        assert list(first) == list(second)
        assert first["tags"] == second["tags"]
    names = [line.partition(":")[0] for line in real("show info").splitlines()]
    wanted = [line.partition(":")[0] for line in ours("show info").splitlines()]
    assert [name for name in names if name in wanted] == wanted
    assert len(wanted) >= 50
    helps = real("help").splitlines()
    beyond = [line for line in ours("help").splitlines() if line not in helps]
    assert [line.split()[0] for line in beyond] == ["reload"]  # haproxy has it on its master's socket
    for text in ("bogus", "", "show", "set"):
        assert ours(text).splitlines()[0] == real(text).splitlines()[0]


# -- the process -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [{}, {"HAPTK_NO_FAST": "1"}])
def test_an_administrators_word_moves_traffic(start, env) -> None:
    one = start(**env)
    assert b"200" in one.get()
    wait_for(lambda: next(row for row in one.rows() if row["svname"] == "s1")["stot"] == "1", "the request is counted")
    one("disable server web/s1;disable server web/s2;disable server web/s3")
    assert b"503" in one.get()
    assert [row["status"] for row in one.rows() if (row["pxname"], row["svname"]) == ("web", "BACKEND")] == ["DOWN"]
    one("set server web/s4 state ready")
    assert b"200" in one.get()
    one("set server web/s4 weight 0")
    assert b"503" in one.get()


def test_a_reload_keeps_the_sockets_and_what_was_said(start) -> None:
    one = start()
    one("disable server web/s1;set weight web/s3 9")
    with one.connect() as open_before:
        open_before.sendall(b"prompt\n")
        assert open_before.recv(100) == b"\n> "
        text = one.config.read_text()
        one.config.write_text(text.replace("mode 660 level operator", "mode 660 level admin").replace("tl", "zz"))
        one.child.send_signal(signal.SIGUSR2)
        wait_for(lambda: "zz" in one("show backend"), "reloaded")
        open_before.sendall(b"show cli level;show backend\n")
        assert b"admin" in open_before.recv(100)
    assert one.status("s1") == "MAINT"
    assert one("get weight web/s3").startswith("9 ")
    assert one("show cli level", "operator") == "admin\n\n"
    one.config.write_text(text.replace(f"    stats socket {one.folder}/user mode 666 level user\n", ""))
    one.child.send_signal(signal.SIGUSR2)
    wait_for(lambda: not (one.folder / "user").exists(), "the socket is gone")
    assert "tl" in one("show backend")


def test_rights_of_the_sockets_and_who_owns_the_path(start) -> None:
    one = start()
    modes = {name: stat.S_IMODE((one.folder / name).stat().st_mode) for name in ("admin", "operator", "user")}
    assert modes == {"admin": 0o600, "operator": 0o660, "user": 0o666}
    assert [path.name for path in one.folder.glob("*.tmp")] == []
    one.kill()
    assert (one.folder / "admin").exists()
    with pytest.raises(ConnectionRefusedError):
        one("show stat")
    one.start()
    assert one("show cli level") == "admin\n\n"
    with (one.folder / "err").open("ab") as errors:  # a second one takes the path over, the first leaves it alone
        before = (one.folder / "admin").stat().st_ino
        second = subprocess.Popen(
            [*HAPTK, str(one.config), "-sf", str(one.child.pid)], stderr=errors, stdout=errors, env=os.environ
        )
        try:
            assert one.child.wait(60) == 0
            wait_for(lambda: f"Pid: {second.pid}\n" in one("show info"), "the second one answers")
            assert (one.folder / "admin").stat().st_ino != before
        finally:
            second.terminate()
            assert second.wait(60) == 0
    assert not (one.folder / "admin").exists()


def test_a_file_that_is_no_socket_is_not_replaced(start) -> None:
    one = start()
    one.kill()
    (one.folder / "user").unlink()
    (one.folder / "user").write_text("precious")
    done = subprocess.run([*HAPTK, str(one.config)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert f"{one.config}:5" in done.stderr
    assert "not a socket" in done.stderr
    assert (one.folder / "user").read_text() == "precious"


def test_bad_clients_hold_up_nobody(start) -> None:
    one = start(timeout="2s")
    silent, greedy = one.connect(), one.connect()
    greedy.sendall(b"prompt\n" + b"show stat;show info json\n" * 500)  # and never reads
    gone = one.connect()
    gone.sendall(b"show stat\n" * 50)
    gone.close()
    with one.connect() as byte_by_byte:
        for char in b"show cli level\n":
            byte_by_byte.sendall(bytes([char]))
        assert byte_by_byte.recv(100) == b"admin\n\n"
    began = time.monotonic()
    for _ in range(20):
        assert b"200" in one.get()
        assert one("show cli level") == "admin\n\n"
    assert time.monotonic() - began < 15
    assert silent.recv(10) == b""  # closed after stats timeout
    silent.close()
    greedy.close()


def test_more_clients_than_allowed_wait_and_are_served_later(start) -> None:
    one = start(timeout="30s")
    held = [one.connect() for _ in range(4)]
    with one.connect() as fifth:
        fifth.sendall(b"show cli level\n")
        fifth.settimeout(0.5)
        with pytest.raises(TimeoutError):
            fifth.recv(10)
        assert b"200" in one.get()
        held.pop().close()
        fifth.settimeout(10)
        assert fifth.recv(10) == b"admin\n\n"
    for sock in held:
        sock.close()


@pytest.mark.real("haproxy")
def test_limits_and_pauses_are_haproxys(start) -> None:
    ours, real = start("haptk"), start("haproxy")
    for one in (ours, real):
        assert b"200" in one.get()
        one("set maxconn frontend fe 77;set maxconn server web/s1 9;set server web/s4 addr 127.0.0.8 port 77")
        assert next(row for row in one.rows() if row["svname"] == "FRONTEND")["slim"] == "77"
        assert next(row for row in one.rows() if row["svname"] == "s1")["slim"] == "9"
    assert states_of(ours) == states_of(real)
    mine, theirs = (one("show servers conn web").splitlines() for one in (ours, real))
    assert mine[0] == theirs[0]
    for left, right in zip(filter(None, mine[1:]), filter(None, theirs[1:]), strict=True):
        assert [left.split()[at] for at in (0, 1, 2, 4, 5)] == [right.split()[at] for at in (0, 1, 2, 4, 5)]
        assert len(left.split()) == len(right.split())
    for one in (ours, real):
        stop_and_go(one)
    for command in ("enable frontend fe", "disable frontend fe", "shutdown frontend fe"):
        assert ours(command) == real(command), command
    status = [next(row for row in one.rows() if row["svname"] == "FRONTEND")["status"] for one in (ours, real)]
    assert status[0] == status[1]


def stop_and_go(one: Process) -> None:
    """Limit, pause, resume and shut the frontend."""
    one("set maxconn global 55")
    assert "\nMaxconn: 55\n" in one("show info")
    with socket.create_connection(("127.0.0.1", one.port), 5) as before:
        before.settimeout(10)
        before.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" in before.recv(65536)  # accepted: what still waits in the kernel's queue goes with the listener
        one("disable frontend fe")
        wait_for(lambda: refused(one.port), "no new connections")
        before.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" in before.recv(65536)  # an open one goes on
    one("enable frontend fe")
    wait_for(lambda: b"200" in one.get(), "new connections again")
    one("shutdown frontend fe")
    wait_for(lambda: refused(one.port), "no new connections")


def refused(port: int) -> bool:
    """Whether nobody answers there."""
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it came while the listener closed
        return False
    return False


@pytest.mark.parametrize("env", [{}, {"HAPTK_NO_FAST": "1"}])
def test_counters_are_cleared_and_pauses_end_with_a_reload(start, env) -> None:
    one = start(**env)
    assert b"200" in one.get()

    def front() -> dict[str, str]:
        return next(row for row in one.rows() if row["svname"] == "FRONTEND")

    wait_for(lambda: (front()["hrsp_2xx"], front()["scur"]) == ("1", "0"), "counted")
    assert one("clear counters", "user") == one("clear counters all", "operator") == "Permission denied\n\n"
    assert (one("clear counters"), front()["hrsp_2xx"], front()["smax"]) == ("\n", "1", "0")
    assert (one("clear counters all"), front()["hrsp_2xx"], front()["stot"]) == ("\n", "0", "0")
    one("disable frontend fe")
    wait_for(lambda: refused(one.port), "no new connections")
    one.child.send_signal(signal.SIGHUP)
    wait_for(lambda: b"200" in one.get(), "a reload begins with what the file says")
