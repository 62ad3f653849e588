"""What the log tests send through haproxy and haptk: sections with every way to log, servers that misbehave on request,
and a seeded generator of exchanges. `world.run(host)` plays the same exchanges through one program.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.diff.rig import THREADS

VARIABLES_HTTP = [
    "B", "CC", "CS", "H", "HM", "HP", "HPO", "HQ", "HU", "HV", "ID", "ST", "T", "Ta", "Tc", "Td", "Th", "Ti", "Tl", "Tq",
    "TR", "Tr", "Ts", "Tt", "Tu", "Tw", "U", "ac", "b", "bc", "bi", "bp", "bq", "ci", "cp", "f", "fc", "fi", "fp", "ft",
    "ms", "pid", "r", "rc", "s", "sc", "si", "sp", "sq", "t", "tr", "trg", "trl", "ts", "tsc",
]  # fmt: skip
_OF_HTTP = {"CC", "CS", "HM", "HP", "HPO", "HQ", "HU", "HV", "Ta", "Ti", "Tq", "TR", "Tr", "r", "tr", "trg", "trl"}
VARIABLES_TCP = [name for name in VARIABLES_HTTP if name not in _OF_HTTP]
# Values that differ from run to run, by the label that stands before them; the shape stays.
_TIMES = ("Ta", "Tc", "Td", "Th", "Ti", "Tq", "TR", "Tr", "Tt", "Tu", "Tw")


def every(names: list[str], flags: str = "") -> str:
    """A log-format that prints each variable behind its name."""
    prefix = f"%{{{flags}}}o " if flags else ""
    return prefix + " ".join(f"{name}=%{name}" for name in names)


class Actors:
    """A server that does what a request's X-Do asks: a status, silence, garbage, half an answer, a cookie."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        self.nobody = socket.socket()
        self.nobody.bind(("127.0.0.1", 0))  # taken, and nobody listens there
        self.dead: int = self.nobody.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self.listener.accept()
            except OSError:
                return
            channel.settimeout(5)
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        data = b""
        with channel, contextlib.suppress(OSError):
            while True:
                while b"\r\n\r\n" not in data:
                    part = channel.recv(65536)
                    if not part:
                        return
                    data += part
                head, data = data.split(b"\r\n\r\n", 1)
                if length := re.search(rb"\ncontent-length: *(\d+)", head.lower()):
                    while len(data) < int(length[1]):
                        part = channel.recv(65536)
                        if not part:
                            return
                        data += part
                    data = data[int(length[1]) :]
                found = re.search(rb"\nx-do: *(\S+)", head.lower())
                if not self._act(channel, found[1].decode() if found else "200"):
                    return

    def _act(self, channel: socket.socket, what: str) -> bool:
        """Answer; False when the connection is over."""
        plain = b"content-length: 5\r\nSet-Cookie: app=v1; path=/\r\nX-Res: one|two\r\n\r\nhello"
        if what == "hang":
            with contextlib.suppress(OSError):
                channel.recv(1)
            return False
        if what == "close":
            return False
        if what == "slow":
            time.sleep(0.2)
            what = "200"
        if what == "garbage":
            channel.sendall(b"no http at all\r\n\r\n")
            return False
        if what == "half":
            channel.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello")
            return False
        if what == "halfhang":
            channel.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello")
            with contextlib.suppress(OSError):
                channel.recv(1)
            return False
        if what == "eof":
            channel.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end")
            return False
        if what == "chunked":
            channel.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
            return True
        if what == "upgrade":
            channel.sendall(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhi")
            return False
        if what in ("204", "304"):
            channel.sendall(f"HTTP/1.1 {what} Nothing\r\n\r\n".encode())
            return True
        channel.sendall(f"HTTP/1.1 {what} Some Reason\r\n".encode() + plain)
        return True

    def close(self) -> None:
        self.listener.close()
        self.nobody.close()


@dataclass
class Exchange:
    """What one client sends, and how it behaves: read `answers` responses, send without reading, hang, half-close."""

    raw: bytes
    answers: int = 1
    wait_s: float = 0.0  # before closing without a byte more
    half_close: bool = False
    hasty: bool = False  # leave without reading
    rest_s: float = 0.0  # until the next client comes, when more than usual


def get(target: str = "/", *headers: str, method: str = "GET", version: str = "1.1", body: str = "") -> bytes:
    """One raw request."""
    lines = [f"{method} {target} HTTP/{version}", "Host: h.example", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


TARGETS = (
    "/", "/a?b=1", "/a?b=1?c", "/x/y;z=1?q", "*", "http://other.example/p?q=2", "http://other.example", "/%41%20b",
    "/quote'(){}|", "/back\\slash]", "/hash-less", "/a?", "/?", "/very/" + "long" * 60, "/x,y:z@!$&", "//double",
)  # fmt: skip
ACTIONS = ("200", "200", "404", "500", "503", "204", "304", "302", "chunked", "eof", "close", "garbage", "half")
CAPTURED = ("plain", "a|b{c}", 'say "x" #1', "back\\slash]", "caf\xe9")
BAD = (
    b"BAD\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
    b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", b"", b"GET / HTTP/1.1\r\nHost",
)  # fmt: skip


def generated(rng: random.Random, count: int) -> list[Exchange]:
    """Random exchanges: keep-alive sequences of requests, with bodies, odd targets, cookies and servers that misbehave."""
    out: list[Exchange] = []
    for _ in range(count):
        if rng.random() < 0.12:
            bad = rng.choice(BAD)
            whole = bad.endswith(b"\r\n\r\n")
            out.append(Exchange(bad, answers=1 if whole else 0, half_close=not whole))
            continue
        raw, answers = b"", 0
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            # a reused server connection that dies is another matter: haptk tries once more
            action = rng.choice(ACTIONS if not answers else ACTIONS[:-3])
            method = rng.choice(("GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "FOO"))
            target = rng.choice(TARGETS)
            if target == "*":
                method = "OPTIONS"
            headers = [f"X-Do: {action}"]
            if rng.random() < 0.4:
                headers.append("X-Cap: " + rng.choice(CAPTURED))
            if rng.random() < 0.4:
                headers.append(f"Cookie: SRV={rng.choice(('s1', 'nobody', ''))}; app={rng.choice(('one', 'a b'))}")
            if rng.random() < 0.15:
                headers.append("X-Deny: yes")
            body = "x" * rng.choice((1, 10, 200)) if method == "POST" else ""
            raw += get(target, *headers, method=method, version=rng.choice(("1.1", "1.1", "1.0")), body=body)
            answers += 1
            last = action in ("eof", "close", "garbage", "half") or "X-Deny: yes" in headers
            if last or b"HTTP/1.0" in raw:
                break
        out.append(Exchange(raw, answers))
    return out


def play(address: tuple[str, int], one: Exchange) -> None:
    """Be that client. Every error of the connection is part of the play."""
    with contextlib.suppress(OSError), socket.create_connection(address, 3) as channel:
        channel.settimeout(4)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if one.raw:
            channel.sendall(one.raw)
        if one.half_close:
            channel.shutdown(socket.SHUT_WR)
        if one.wait_s:
            time.sleep(one.wait_s)
        if one.hasty:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            return
        data = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while len(re.findall(rb"HTTP/1\.\d [2-5]\d\d", data)) < one.answers or one.half_close:
                part = channel.recv(65536)
                if not part:
                    return
                data += part
    # both proxies are to see the end before the next client comes: lines tell how many are there
    time.sleep(one.rest_s or (0.05 if one.hasty or one.half_close or one.answers != 1 else 0.004))


@dataclass
class Part:
    """A section of the configuration: what stands in it, and the clients that come. `skip` is why haptk differs."""

    name: str
    body: str
    exchanges: list[Exchange] = field(default_factory=list)
    form: str = "local"
    facility: str = "local0"


def section(part: Part, host: str, port: int, log: str, servers: str) -> str:
    """The listen section of a part; its log-tag tells its lines from others'."""
    target = f"    log {log} len 8192 format {part.form} {part.facility}\n" if part.form else ""
    body = part.body if "server " in part.body else part.body + "\n" + servers
    lines = "".join(f"    {line.strip()}\n" for line in body.strip().splitlines())
    bind = "" if "bind " in part.body else f"    bind {host}:{port}\n"
    text = f"listen {part.name}\n{bind}    log-tag {part.name}\n{target}{lines}"
    return text.replace("@LOG@", log).replace("@BIND@", f"{host}:{port}")


_SHAPES: list[tuple[str, str]] = [
    (r"\b\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d\.\d{3}\b", "DATE.MS"),
    (r"\b\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000", "DATE ZONE"),
    (r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d ", "STAMP "),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", "ISO"),
    (r"\b127\.0\.0\.[19]\b", "HOST"),
    (r"7F00000[19]", "HEXHOST"),
    (r"HOST:\d+", "HOST:PORT"),
    (r"\[\d+\]: ", "[PID]: "),
    (r"^(<\d+>1 ISO \S+ \S+) \d+ ", r"\1 PID "),
]


def shape(line: str, ports: dict[int, str]) -> str:
    """A line without what no two programs share: dates, durations, ports, process ids."""
    for pattern, text in _SHAPES:
        line = re.sub(pattern, text, line)
    for name in _TIMES:
        line = re.sub(rf"\b{name}=(\"?)(\+?)\d+", rf"{name}=\1\2N", line)
    # HAProxy 2.6 counts its own internal form of an HTTP message, haptk what was on the wire
    line = re.sub(r"\b(B|U)=(\"?)(\+?)[1-9]\d*", r"\1=\2\3N", line) if "HM=" in line else line
    line = re.sub(r"\bac=(\"?)\d+", r"ac=\1N", line)  # other sections are at work too
    if "tcp" in line or THREADS:
        # when a relay has gone, or a client of another thread, is seen at different moments
        line = re.sub(r"\b(fc|bc|sc)=(\"?)\d+", r"\1=\2N", line)
        line = re.sub(r" \d+/\d+/\d+/\d+/(\+?\d+ \d+/\d+)$", r" 0/0/0/0/\1", line)
    line = re.sub(r" \d+/(\d+/\d+/\d+/\+?\d+ \d+/\d+)\b", r" N/\1", line)
    line = re.sub(r"\b(Ts|ms|pid|cp|bp)=(\"?)[0-9A-F]+", r"\1=\2N", line)
    line = re.sub(r"\b(fp|sp)=(\"?)([0-9A-F]+)", lambda m: f"{m[1]}={m[2]}{_port(m[3], ports)}", line)
    # the timers of httplog, tcplog and clf
    line = re.sub(r" (-?\d+)/(-?\d+)/(-?\d+)/(-?\d+)/(\+?)(\d+) (-?\d+) (\+?)(\d+) ", _five, line)
    line = re.sub(r" (-?\d+)/(-?\d+)/(\+?)(\d+) (\+?\d+) ([-A-Za-z]{2}) ", _three, line)
    return re.sub(_CLF, _clf, line)


def _port(text: str, ports: dict[int, str]) -> str:
    for base in (10, 16):
        with contextlib.suppress(ValueError):
            if (number := int(text, base)) in ports:
                return ports[number]
    return text


_CLF = r'" (\d+) (\d+) "" "" \d+ \d+ ("\S+" "\S+" "\S+") (-?\d+) (-?\d+) (-?\d+) (-?\d+) \d+ (\S+) \d+ '


def _clf(m: re.Match[str]) -> str:
    times = " ".join(_known(m[i]) for i in range(4, 8))
    return f'" {m[1]} {"0" if m[2] == "0" else "N"} "" "" PORT MS {m[3]} {times} N {m[8]} N '


def _known(text: str) -> str:
    return text if text == "-1" else "N"


def _five(m: re.Match[str]) -> str:
    sent = "0" if m[9] == "0" else "N"
    return " " + "/".join(_known(m[i]) for i in range(1, 5)) + f"/{m[5]}N {m[7]} {m[8]}{sent} "


def _three(m: re.Match[str]) -> str:
    return f" {_known(m[1])}/{_known(m[2])}/{m[3]}N {m[5]} {m[6]} "


Player = Callable[[tuple[str, int], Exchange], None]
