"""`show sess`, `show fd`, `shutdown session`, limits and payloads: running processes beside the real haproxy on one file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HAPTK = [sys.executable, "-m", "haptk", "proxy", "-f"]
CONFIG = """global
    nbthread {threads}
    stats socket {folder}/sock mode 600 level admin
    log 127.0.0.1:{log} local0
defaults
    mode http
    log global
    option httplog
    timeout connect 5s
    timeout client 50s
    timeout server 50s
frontend fe
    bind 127.0.0.1:{fe} name door
    bind unix@{folder}/path
    option socket-stats
    use_backend one if {{ path_beg /one }}
    default_backend web
backend web
    server s1 127.0.0.1:{server}
backend one
    server s1 127.0.0.1:{server} maxconn 1
listen tl
    mode tcp
    option tcplog
    bind 127.0.0.1:{tl}
    server x 127.0.0.1:{server}
"""


class Server:
    """Answers at once, never (`/slow`), with half a body (`/big`), or without reading the body (`/post`)."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self.listener.getsockname()[1]
        self.held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                channel, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = b""
                while b"\r\n\r\n" not in data:
                    part = channel.recv(65536)
                    if not part:
                        channel.close()
                        return
                    data += part
                if b"/big" in data:
                    channel.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\nok")
                if re.search(rb"/(slow|big|post)", data):
                    while channel.recv(65536):
                        pass
                    channel.close()
                    return
                channel.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


class Proxy:
    """One running program and its stats socket."""

    def __init__(self, kind: str, folder: Path, server: int, threads: int = 1) -> None:
        folder.mkdir()
        self.kind, self.folder = kind, folder
        self.log = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.log.bind(("127.0.0.1", 0))
        self.log.settimeout(10)
        spare = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.fe, self.tl = (one.getsockname()[1] for one in spare)
        for one in spare:
            one.close()
        text = CONFIG.format(
            threads=threads, folder=folder, log=self.log.getsockname()[1], fe=self.fe, tl=self.tl, server=server
        )
        file = folder / "x.cfg"
        file.write_text(text)
        argv = ["haproxy", "-db", "-f", str(file)] if kind == "haproxy" else [*HAPTK, str(file)]
        environ = {**os.environ, **({"HAPTK_NO_FAST": "1"} if kind == "reference" else {})}
        with (folder / "err").open("wb") as errors:
            self.child = subprocess.Popen(argv, stderr=errors, stdout=errors, env=environ)
        self.clients: list[socket.socket] = []
        wait_for(lambda: self("show version") != "", "it answers")

    def __call__(self, text: str) -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(15)
            sock.connect(str(self.folder / "sock"))
            sock.sendall(text.encode() + b"\n")
            out = b""
            while part := sock.recv(65536):
                out += part
            return out.decode()

    def open(self, port: int, data: bytes = b"") -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.sendall(data)
        self.clients.append(sock)
        return sock

    def get(self, path: str) -> socket.socket:
        return self.open(self.fe, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    def lines(self) -> list[str]:
        """The lines of clients of the proxies."""
        return [line for line in self("show sess").splitlines() if " proto=tcp" in line]

    def line_of(self, sock: socket.socket) -> str:
        mark = f" src=127.0.0.1:{sock.getsockname()[1]} "
        wait_for(lambda: any(mark in line for line in self.lines()), "the session is listed")
        return next(line for line in self.lines() if mark in line)

    def row(self, name: str) -> dict[str, str]:
        head, *rows = self("show stat").removeprefix("# ").splitlines()
        found = (dict(zip(head.split(","), row.split(","), strict=True)) for row in rows if row)
        return next(row for row in found if f"{row['pxname']}/{row['svname']}" == name)

    def stop(self) -> None:
        for sock in self.clients:
            sock.close()
        self.child.kill()
        self.child.wait(10)
        self.log.close()


def wait_for(what: Callable[[], object], why: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError):
            if what():
                return
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []
    server = Server()

    def make(kind: str, threads: int = 1) -> Proxy:
        made.append(Proxy(kind, tmp_path / f"{kind}{len(made)}", server.port, threads))
        return made[-1]

    yield make
    for one in made:
        one.stop()
    server.listener.close()


BOTH = pytest.mark.parametrize("kind", ["fast", "reference"])

# -- one session in each state ----------------------------------------------------------------------------------------


def waiting(one: Proxy) -> socket.socket:
    return one.get("/slow")


def in_the_body(one: Proxy) -> socket.socket:
    sock = one.get("/big")
    assert sock.recv(10) == b"HTTP/1.1 2"
    return sock


def posting(one: Proxy) -> socket.socket:
    return one.open(one.fe, b"POST /post HTTP/1.1\r\nHost: a\r\ncontent-length: 10\r\n\r\nabc")


def relayed(one: Proxy) -> socket.socket:
    sock = one.open(one.tl)
    wait_for(lambda: "scb=[8," in one.line_of(sock), "the relay is connected")
    return sock


def queued(one: Proxy) -> socket.socket:
    first = one.get("/one/slow")
    one.line_of(first)
    return one.get("/one/q")


def fields(line: str) -> dict[str, str]:
    """The fields of a line, those in brackets as `rq.an`."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"(\S+?)(?:=|(?=\[))(\[[^]]*\]|\S*)", line.partition(": ")[2]):
        if value.startswith("["):
            for at, part in enumerate(value.strip("[]").split(",")):
                key, equals, rest = part.partition("=")
                found[f"{name}.{key if equals else at}"] = rest if equals else part
        else:
            found[name] = value
    return found


STATES = [waiting, in_the_body, posting, relayed, queued]
# not ts: whether the session is being worked at while somebody asks is chance
SAME = "proto fe be srv rc scf.0 scb.0 rq.an rp.an rq.rx rp.rx rq.wx rp.wx rq.ax rp.ax c_exp"


@pytest.mark.real("haproxy")
def test_a_session_is_shown_as_haproxy_shows_it(start: Any) -> None:
    ours, real = start("fast"), start("haproxy")
    for state in STATES:
        mine, theirs = (fields(one.line_of(state(one))) for one in (ours, real))
        assert list(mine) == list(theirs), state.__name__
        for key in SAME.split():
            # times may differ by the second that lies between the two questions
            pair = [re.sub(r"^\d+s$", "TIME", side[key]) for side in (mine, theirs)]
            assert pair[0] == pair[1], (state.__name__, key, mine, theirs)
        for side in (mine, theirs):
            assert re.fullmatch(r"\d+s", side["age"])
            assert re.fullmatch(r"-?\d+", side["scf.fd"])


@pytest.mark.real("haproxy")
def test_the_long_form_is_haproxys_without_its_inside(start: Any) -> None:
    ours, real = start("fast"), start("haproxy")
    for state in STATES:
        shown = []
        for one in (ours, real):
            line = one.line_of(state(one))
            shown.append(one(f"show sess {line.partition(':')[0]}"))
        mine, theirs = shown
        for pattern in (
            r"proto=(\S+) source=127\.0\.0\.1:\d+", r"frontend=(\S+ \(id=\d+ mode=\w+\)), listener=(\S+ \(id=\d+\))",
            r"backend=(\S+ \(id=-?\d+ mode=\S+\))", r"server=(\S+ \(id=-?\d+\))", r"meth=(\d+)\D", r"status=(-?\d+)",
            r"req\.st=(\w+)", r"rsp\.st=(\w+)", r"scf\S* (?:flags=\S+ )?state=(\w+)", r"scb\S* (?:flags=\S+ )?state=(\w+)",
            r"(?s)listener=[^\n]* addr=(127\.0\.0\.1):\d+", r"(?s)backend=[^\n]* (addr=127\.0\.0\.1):\d+",
        ):  # fmt: skip
            left, right = re.findall(pattern, mine), re.findall(pattern, theirs)
            assert left == right, (state.__name__, pattern, mine, theirs)
    everything = ours("show sess all")
    assert everything.count(" proto=tcpv4") == len(ours.lines())
    assert "frontend=GLOBAL" in everything


@pytest.mark.real("haproxy")
def test_shutdown_session_ends_it_as_haproxy_does(start: Any) -> None:
    ours, real = start("fast"), start("haproxy")
    for state in STATES[:4]:
        for how in ("shutdown session {id}", "shutdown sessions server {be}/{srv}"):
            seen = []
            for one in (ours, real):
                sock = state(one)
                line = one.line_of(sock)
                words = fields(line)
                command = how.format(id=line.partition(":")[0], **words)
                assert one(command) == "\n"
                sock.settimeout(10)
                got = b""
                with contextlib.suppress(ConnectionResetError):
                    while part := sock.recv(65536):
                        got += part
                        if b"</html>" in got:
                            break
                sock.close()
                text = one.log.recv(4096).decode()
                seen.append((re.search(r" (K[A-Z-])(?:--)? \d", text), got[:12]))
            (mine, mine_got), (theirs, theirs_got) = seen
            assert mine and theirs and mine[1] == theirs[1], (state.__name__, how, seen)
            assert mine_got == theirs_got, (state.__name__, how)
    for name in ("web/s1", "web/BACKEND", "tl/x"):
        mine, theirs = ours.row(name), real.row(name)
        for key in ("stot", "econ", "eresp", "hrsp_2xx", "hrsp_5xx", "hrsp_other", "wretr"):
            assert mine[key] == theirs[key], (name, key)


@BOTH
def test_a_session_that_queues_is_ended_at_once(start: Any, kind: str) -> None:
    one = start(kind)
    if kind == "fast":
        sock = queued(one)
        assert one(f"shutdown session {one.line_of(sock).partition(':')[0]}") == "\n"
        assert sock.recv(65536).startswith(b"HTTP/1.1 503 ")
        assert " KQ-- " in one.log.recv(4096).decode()
        assert one.row("one/BACKEND")["qcur"] == "0"
    for state in (waiting, relayed if kind == "fast" else posting):
        sock = state(one)
        line = one.line_of(sock)
        assert fields(line)["srv"] in ("s1", "x")
        assert one(f"shutdown session {line.partition(':')[0]}") == "\n"
        sock.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(65536):
                pass
        mark = f":{sock.getsockname()[1]} "
        wait_for(lambda mark=mark: all(mark not in row for row in one.lines()), "it is gone")  # type: ignore[misc]


@BOTH
def test_what_is_no_session_is_not_found(start: Any, kind: str) -> None:
    one = start(kind)
    idle = one.get("/")
    assert idle.recv(100).startswith(b"HTTP/1.1 200")
    wait_for(lambda: one.lines() == [], "between two requests there is no stream")
    for command, answer in (
        ("show sess 0x1", "Session not found.\n\n"), ("shutdown session", "Session pointer expected (use 'show sess').\n\n"),
        ("shutdown session zz", "Session pointer expected (use 'show sess').\n\n"),
        ("shutdown session 0x1", "No such session (use 'show sess').\n\n"), ("show fd zz", "\n"),
    ):  # fmt: skip
        assert one(command) == answer
    listed = one("show fd")
    assert re.search(rf"l\.st=RDY fe=fe fam=ipv4 lport={one.fe}\n", listed)
    assert re.search(rf"back=0 fam=ipv4 lport={one.fe} rport={idle.getsockname()[1]} fe=fe mux=H1 idle\n", listed)
    if kind == "fast":
        assert re.search(r"back=1 fam=ipv4 rport=\d+ sv=web/s1 idle\n", listed)


def test_thousands_of_sessions_are_listed_while_traffic_goes_on(start: Any) -> None:
    one = start("fast", threads=2)
    held = [one.open(one.tl) for _ in range(1500)]
    wait_for(lambda: len(one.lines()) == 1500, "all are listed")
    ids = [line.partition(":")[0] for line in one.lines()]
    assert len(set(ids)) == 1500
    assert all(sock.getsockname()[1] for sock in held)
    done = threading.Event()
    answers = []

    def traffic() -> None:
        while not done.is_set():
            with one.get("/") as sock:
                answers.append(sock.recv(100)[:12])

    other = threading.Thread(target=traffic)
    other.start()
    for number in range(10):
        assert len([line for line in one.lines() if " fe=tl " in line]) == 1500 - number
        assert one(f"shutdown session {ids[number]}") == "\n"
    done.set()
    other.join(20)
    assert set(answers) == {b"HTTP/1.1 200"}
    assert one("show activity").count("[") >= 20  # a share for each thread


# -- limits -----------------------------------------------------------------------------------------------------------


@BOTH
def test_maxconn_holds_newcomers_back_until_somebody_leaves(start: Any, kind: str) -> None:
    one = start(kind, threads=2)
    for command, undo in (
        ("set maxconn global 2", "set maxconn global 0"), ("set maxconn frontend fe 2", "set maxconn frontend fe 1000"),
    ):  # fmt: skip
        assert one(command) == "\n"
        first, second = one.get("/"), one.get("/")
        wait_for(lambda: one.row("fe/FRONTEND")["scur"] == "2", "two are in")
        third = one.get("/")
        third.settimeout(0.5)
        with pytest.raises(TimeoutError):
            third.recv(10)
        assert one.row("fe/FRONTEND")["scur"] == "2"
        first.close()
        third.settimeout(10)
        assert third.recv(10) == b"HTTP/1.1 2"
        third.close()
        second.close()
        one(undo)
        wait_for(lambda: one.row("fe/FRONTEND")["scur"] == "0", "all have gone")


@pytest.mark.real("haproxy")
def test_the_global_limit_counts_all_frontends_and_leaves_theirs_alone(start: Any) -> None:
    for one in (start("fast"), start("haproxy")):
        before = one.row("tl/FRONTEND")["slim"]
        one("set maxconn global 2")
        relayed(one)
        second = one.get("/")
        assert second.recv(10) == b"HTTP/1.1 2"
        third = one.get("/")
        third.settimeout(0.4)
        with pytest.raises(TimeoutError):
            third.recv(10)
        assert one.row("tl/FRONTEND")["slim"] == before
        second.close()
        third.settimeout(10)
        assert third.recv(10) == b"HTTP/1.1 2"


@pytest.mark.parametrize("kind", ["fast", "reference", pytest.param("haproxy", marks=pytest.mark.real("haproxy"))])
def test_newcomers_beyond_the_rate_wait_for_the_next_second(start: Any, kind: str) -> None:
    one = start(kind, threads=2 if kind == "fast" else 1)
    assert one("set rate-limit connections global 5") == "\n"
    assert "\nConnRateLimit: 5\n" in one("show info")
    began = time.monotonic()
    socks = [one.get("/") for _ in range(15)]
    for sock in socks:
        assert sock.recv(10) == b"HTTP/1.1 2"
    assert time.monotonic() - began > 1.0  # fifteen at five a second; without the limit they take milliseconds
    assert one("set rate-limit connections global 0") == "\n"


@pytest.mark.real("haproxy")
def test_sockets_have_rows_of_their_own(start: Any) -> None:
    rows = []
    for one in (start("fast", threads=2), start("reference"), start("haproxy")):
        for _ in range(3):
            with one.get("/") as sock:
                assert sock.recv(100)[:12] == b"HTTP/1.1 200"
        with one.open(one.fe, b"nonsense\r\n\r\n") as sock:
            assert b" 400 " in sock.recv(100)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(one.folder / "path"))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(100)[:12] == b"HTTP/1.1 200"
        with one.get("/") as held:
            assert held.recv(100)[:12] == b"HTTP/1.1 200"
            wait_for(lambda one=one: one.row("fe/FRONTEND")["scur"] == "1", "one is there")  # type: ignore[misc]
            found = []
            for name in ("fe/door", "fe/sock-2"):
                row = one.row(name)
                assert (int(row["bin"]) > 0, int(row["bout"]) > 0) == (True, True)
                row |= {"bin": "", "bout": "", "addr": row["addr"].replace(str(one.fe), "PORT")}
                row["smax"] = str(int(row["smax"]) > 0)
                found.append(row)
            rows.append(found)
        one("disable frontend fe")
        assert one("clear counters all") == "\n"
        wait_for(lambda one=one: one.row("fe/door")["stot"] == "0", "cleared")  # type: ignore[misc]
        assert "\nL.2.1.1.svname.1:KNS:str:door\n" in one("show stat fe 8 -1 typed")
    for found in rows[:2]:
        for mine, theirs in zip(found, rows[2], strict=True):
            assert {key: mine[key] for key in mine if mine[key] != theirs[key] and "ssl" not in key} == {}


# -- words ------------------------------------------------------------------------------------------------------------

EXACT = """set rate-limit
set rate-limit connections
set rate-limit connections foo
set rate-limit connections global
set rate-limit connections global -1
set rate-limit connections global x
set rate-limit sessions global 500
show sess 0x1
show sess 0x1 2
shutdown session
show peers zz
show peers
show cli sockets
show version <<\\nfoo\\nbar\\n\\nshow backend
show backend; show backend <<\\nfoo\\n
prompt\\nshow backend <<\\nfoo\\nbar\\n\\nquit"""


@pytest.mark.real("haproxy")
def test_words_are_haproxys(start: Any) -> None:
    ours, real = start("fast"), start("haproxy")
    for line in EXACT.splitlines():
        command = line.replace("\\n", "\n")
        mine = ours(command).replace(str(ours.folder), "F").replace(ours("show version").strip(), "V")
        theirs = real(command).replace(str(real.folder), "F").replace(real("show version").strip(), "V")
        assert mine == theirs, line
    assert json.loads(ours("show schema json")) == json.loads(real("show schema json"))
    names = [[line.partition(":")[0] for line in one("show activity").splitlines()] for one in (ours, real)]
    assert names[0] == names[1]


@pytest.mark.real("haproxy")
def test_forms_with_meanings_and_fractions(start: Any) -> None:
    ours, real = start("fast"), start("haproxy")
    for command in ("show info desc", "show info typed desc", "show stat fe 1 -1 typed desc"):
        mine, theirs = (dict(shape(line) for line in one(command).splitlines() if line) for one in (ours, real))
        assert set(mine) <= set(theirs), command
        for name, form in mine.items():
            assert form == theirs[name], (command, name)
    for command in ("show info float", "show info float typed", "show info float json"):
        for one in (ours, real):
            text = one(command)
            assert re.search(r'Uptime_sec"?.*?[ :]\d+\.\d{3,6}', text), (command, text[:300])
    assert '"type":"flt"' in ours("show info float json")
    assert ours("show stat typed").count("\n\n") == real("show stat typed").count("\n\n")


def shape(line: str) -> tuple[str, str]:
    """(name, what it looks like without the value): whether a meaning follows, and the tags."""
    name = line.partition(":")[0]
    tags = re.search(r":([A-Z][A-Za-z]{2}:\w+):", line)
    explained = re.search(r':"[^"]+"$', line) is not None
    return name, f"{tags[1] if tags else ''} {explained}"


@BOTH
def test_a_relay_in_which_nobody_speaks_is_connected_all_the_same(start: Any, kind: str) -> None:
    """What nobody has written to is no failed attempt after `timeout connect`."""
    one = start(kind)
    one.stop()
    file = one.folder / "x.cfg"
    file.write_text(file.read_text().replace("timeout connect 5s", "timeout connect 200ms"))
    environ = {**os.environ, **({"HAPTK_NO_FAST": "1"} if kind == "reference" else {})}
    one.child = subprocess.Popen([*HAPTK, str(file)], env=environ)
    wait_for(lambda: one("show version") != "", "it answers")
    sock = one.open(one.tl)
    time.sleep(1.0)  # longer than the time-out, and than the pause before another attempt
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    sock.settimeout(10)
    assert sock.recv(12) == b"HTTP/1.1 200"
    row = one.row("tl/x")
    assert (row["stot"], row["econ"], row["wretr"]) == ("1", "0", "0")
