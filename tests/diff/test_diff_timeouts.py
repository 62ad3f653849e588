"""Every time-out in every phase beside the real haproxy, in real time and all at once: what the client got, when the connection
ended, status and termination state.

A server plays what the request (or, in TCP mode, the first line) names in how=...; a client sends its steps and waits for
the end. What differs on purpose stands in KNOWN, with the reason.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.diff.rig import Program, start
from tests.ports import free_ports

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(300)]
PAUSE_S, DRIPS = 0.12, 17
LATE_S = 0.35  # the most that two programs on a busy machine may differ
SHORT_S = 0.25  # the least by which two limits of one set differ, so that the wrong one shows
HEAD = b"HTTP/1.1 200 OK\r\n"
BIG = 20_000_000

SETS = {
    "client": "client 600ms|server 1500ms|connect 900ms",
    "server": "client 1500ms|server 600ms|connect 900ms",
    "request": "client 1500ms|server 1000ms|connect 400ms|http-request 600ms|http-keep-alive 400ms|queue 400ms",
    "late": "client 1000ms|server 600ms|connect 400ms|http-request 1900ms|http-keep-alive 1700ms|queue 1500ms",
    "fin": "client 1100ms|server 800ms|connect 400ms|client-fin 400ms|server-fin 500ms|tunnel 1600ms",
    "alone": "server 600ms|connect 900ms",
}


class Server:
    """Plays one part per connection; what comes behind the request is read or left alone, as the part says."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._play, args=(channel,), daemon=True).start()

    def _play(self, channel: socket.socket) -> None:
        channel.settimeout(12)
        data = b""
        with channel, contextlib.suppress(OSError):
            while b"\n" not in data or (b"HTTP/" in data and b"\r\n\r\n" not in data):
                part = channel.recv(4096)
                if not part:
                    return
                data += part
            found = re.search(rb"how=([a-z]+)", data)
            self._part(channel, found[1].decode() if found else "silent")
            while channel.recv(65536):
                pass

    def _part(self, channel: socket.socket, how: str) -> None:
        said = {
            "ok": HEAD + b"content-length: 2\r\n\r\nok", "halfhead": HEAD + b"cont", "continue": b"HTTP/1.1 100 Continue\r\n\r\n",
            "halfbody": HEAD + b"content-length: 20\r\n\r\nok", "halfchunk": HEAD + b"transfer-encoding: chunked\r\n\r\n9\r\nok",
            "untilclose": HEAD + b"\r\nok", "echo": b"hi", "finhold": b"hi",
            "upgrade": b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "driphead": HEAD, "dripbody": HEAD + b"content-length: 17\r\n\r\n",
        }.get(how, b"")  # fmt: skip
        channel.sendall(said)
        if how in ("driphead", "dripbody"):
            for number in range(DRIPS + 8 * (how == "driphead")):
                time.sleep(PAUSE_S)
                channel.sendall(b"x" if how == "dripbody" else b"x-%d: 1\r\n" % number)
        elif how == "big":
            channel.sendall(HEAD + b"content-length: %d\r\n\r\n" % (3 * BIG))
            channel.sendall(bytes(3 * BIG))
        elif how in ("noread", "hold"):
            while how == "hold" and channel.recv(65536):
                pass
            time.sleep(6)
        elif how == "finhold":
            channel.shutdown(socket.SHUT_WR)


def get(how: str, more: str = "") -> bytes:
    return f"GET /case/@/?how={how} HTTP/1.1\r\nHost: h\r\n{more}\r\n".encode()


def post(how: str, framing: str, body: bytes = b"") -> bytes:
    return f"POST /case/@/?how={how} HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n".encode() + body


LENGTH = "Content-Length: 18"
UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
DRIP: list[tuple[float, bytes]] = [(PAUSE_S, b"x")] * DRIPS
# name: (kind of section, [(pause, bytes to send)])
CASES: dict[str, tuple[str, list[tuple[float, bytes]]]] = {
    "idle": ("http", []),
    "half-head": ("http", [(0, b"GET /case/@/ HTTP/1.1\r\nHo")]),
    "drip-head": ("http", [(0, b"GET /case/@/ HTTP/1.1\r\n"), *[(PAUSE_S, b"X: 1\r\n")] * DRIPS]),
    "between": ("http", [(0, get("ok"))]),
    "second-half": ("http", [(0, get("ok")), (0.1, b"GET /case/@b")]),
    "no-answer": ("http", [(0, get("silent"))]),
    "continue": ("http", [(0, get("continue"))]),
    "half-answer": ("http", [(0, get("halfhead"))]),
    "drip-answer": ("http", [(0, get("driphead"))]),
    "half-body": ("http", [(0, get("halfbody"))]),
    "half-chunk": ("http", [(0, get("halfchunk"))]),
    "until-close": ("http", [(0, get("untilclose"))]),
    "drip-body": ("http", [(0, get("dripbody"))]),
    "post-none": ("http", [(0, post("silent", LENGTH))]),
    "post-half": ("http", [(0, post("silent", LENGTH, b"ab"))]),
    "post-half-chunk": ("http", [(0, post("silent", "Transfer-Encoding: chunked", b"9\r\nab"))]),
    "post-drip": ("http", [(0, post("silent", LENGTH)), *DRIP]),
    "post-full": ("http", [(0, post("silent", LENGTH, b"x" * 18))]),
    "post-blocked": ("http", [(0, post("noread", f"Content-Length: {3 * BIG}")), (0, bytes(BIG))]),
    "post-early": ("http", [(0, post("ok", LENGTH, b"ab"))]),
    "post-early-half": ("http", [(0, post("halfbody", LENGTH, b"ab"))]),
    "post-early-drip": ("http", [(0, post("halfbody", LENGTH)), *DRIP]),
    "upgrade": ("http", [(0, get("upgrade", UPGRADE))]),
    "tcp-nothing": ("tcp", []),
    "tcp-silent": ("tcp", [(0, b"how=silent\n")]),
    "tcp-idle": ("tcp", [(0, b"how=echo\n")]),
    "tcp-client-ended": ("tcp", [(0, b"how=hold\n"), (0.05, b"fin")]),
    "tcp-blocked": ("tcp", [(0, b"how=noread\n"), (0, bytes(BIG))]),
    "connect": ("hole", [(0, get("silent"))]),
    "connect-post": ("hole", [(0, post("silent", LENGTH, b"ab"))]),
    "connect-tcp": ("tcphole", [(0, b"x")]),
    "tcp-queue": ("tcp", [(0, b"how=silent\n")]),
    "queue": ("queue", [(0, get("silent"))]),
    "queue-post": ("queue", [(0, post("silent", LENGTH, b"ab"))]),
}
# (of which set, of which case; "" for each) -> why
KNOWN = {
    ("client", "tcp-idle"): "HAProxy forgets the client's timer until the server's wakes it up",
    ("alone", "idle"): "without timeout client HAProxy heeds no http-request either; a client here has its default",
    ("alone", "half-head"): "the same", ("alone", "drip-head"): "the same", ("alone", "second-half"): "the same",
}  # fmt: skip


@dataclass
class Outcome:
    statuses: list[str] = field(default_factory=list)
    ended_s: float = 0.0
    answered_s: float = 0.0  # when the last byte came
    log: list[str] = field(default_factory=list)

    def same(self, other: Outcome) -> bool:
        # of an answer's first part HAProxy keeps some for 200 ms
        times = abs(self.ended_s - other.ended_s) < LATE_S and abs(self.answered_s - other.answered_s) < LATE_S
        return self.statuses == other.statuses and self.log == other.log and times


def hole() -> tuple[socket.socket, list[socket.socket]]:
    """A port that answers no SYN: its queue is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    kept = []
    for _ in range(6):
        channel = socket.socket()
        channel.setblocking(False)
        channel.connect_ex(listener.getsockname())
        kept.append(channel)
    return listener, kept


class World:
    """One program with a section for each set of time-outs and each case of TCP mode."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.server, (self.hole, self.kept) = Server(), hole()
        places = ["http", "hole", "queue", *(name for name, (place, _) in CASES.items() if place.startswith("tcp"))]
        names = [(one, place) for one in SETS for place in places]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        text = "global\n log @LOG@ local0\n maxconn 2000\n"
        for (one, place), port in self.ports.items():
            mode = "tcp" if "tcp" in place else "http"
            limits = "".join(f" timeout {each}\n" for each in SETS[one].split("|"))
            target = self.hole.getsockname()[1] if place in ("hole", "connect-tcp") else self.server.port
            text += (
                f"defaults\n mode {mode}\n log global\n option {mode}log\n retries 0\n{limits}listen {one}_{place}\n"
            )
            if "queue" in place:
                text += " timeout server 5s\n"  # who holds the slot may be slow on a busy machine
            text += f" bind 127.0.0.1:{port}\n server s 127.0.0.1:{target}{' maxconn 1' if 'queue' in place else ''}\n"
        self.program: Program = start(kind, text, directory, [("127.0.0.1", self.ports[one, "http"]) for one in SETS])
        time.sleep(0.3)  # what looked whether it listens is gone
        self.program.log.lines.clear()
        self.found: dict[tuple[str, str], Outcome] = {}

    def port(self, one: str, name: str) -> int:
        place = CASES[name][0]
        return self.ports[one, name if place.startswith("tcp") else place]

    def play(self, one: str, name: str) -> None:
        outcome = self.found[one, name] = Outcome()
        data = b""
        with socket.create_connection(("127.0.0.1", self.port(one, name))) as channel:
            channel.settimeout(6)
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            begin = time.monotonic()

            def read() -> None:
                nonlocal data
                with contextlib.suppress(OSError):
                    while part := channel.recv(65536):
                        data += part
                        outcome.answered_s = time.monotonic() - begin
                outcome.ended_s = time.monotonic() - begin

            reader = threading.Thread(target=read)
            reader.start()
            with contextlib.suppress(OSError):
                for pause_s, what in CASES[name][1]:
                    time.sleep(pause_s)
                    if outcome.ended_s:
                        break
                    if what == b"fin":
                        channel.shutdown(socket.SHUT_WR)
                    else:
                        channel.sendall(what.replace(b"@", f"{one}-{name}".encode(), 1))
            reader.join()
        outcome.statuses = [found.decode() for found in re.findall(rb"HTTP/1\.\d (\d{3})", data)]
        if name in ("half-body", "half-chunk", "post-early-half", "post-early-drip"):
            outcome.answered_s = 0.0

    def hold(self, one: str, place: str) -> None:
        """Take the only slot of a server for two seconds."""
        with socket.create_connection(("127.0.0.1", self.ports[one, place])) as channel, contextlib.suppress(OSError):
            channel.settimeout(6)
            channel.sendall(get("dripbody").replace(b"/case/@/", b"/held"))
            while channel.recv(4096):
                pass

    def run(self) -> dict[tuple[str, str], Outcome]:
        holders = [
            threading.Thread(target=self.hold, args=(one, place)) for one in SETS for place in ("queue", "tcp-queue")
        ]
        order = sorted(CASES, key=lambda name: "queue" not in name)  # while the slots are held
        jobs = [threading.Thread(target=self.play, args=(one, name)) for name in order for one in SETS]
        for thread in holders:
            thread.start()
        time.sleep(0.2)
        for thread in jobs:
            thread.start()
            time.sleep(0.002)
        for thread in (*jobs, *holders):
            thread.join()
        time.sleep(0.5)
        self.read_log()
        self.program.stop()
        for one in (self.server.listener, self.hole, *self.kept):
            one.close()
        return self.found

    def read_log(self) -> None:
        lines = [line for each in self.program.log.lines.values() for line in each]
        for (one, name), outcome in self.found.items():
            if CASES[name][0].startswith("tcp"):
                mine = [re.search(rf" {one}_{name} \S+ \S+ \d+ (\S\S) ", line) for line in lines]
            else:
                mine = [
                    re.search(r" (-?\d+ )\d+ - - (\S{4}) ", line) for line in lines if f"/case/{one}-{name}/" in line
                ]
            outcome.log = ["".join(match.groups()) for match in mine if match]


def test_each_time_out_in_each_phase(tmp_path: Path) -> None:
    worlds = []
    for kind in ("haproxy", "fast"):
        directory = tmp_path / kind
        directory.mkdir()
        worlds.append(World(kind, directory))
    found: list[dict[tuple[str, str], Outcome]] = [{}, {}]

    def run(index: int) -> None:
        found[index] = worlds[index].run()

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    theirs, ours = found
    wrong = [
        f"{key}: {theirs[key]} | {ours[key]}" for key in theirs if key not in KNOWN and not theirs[key].same(ours[key])
    ]
    assert len(theirs) == len(SETS) * len(CASES)
    assert not wrong, "\n".join(wrong)
