"""The trouble makers of the chaos test: servers and clients that misbehave by a seed, and a nemesis that operates.

Nothing here judges: what happened is written into a `Story`, which `checker.py` reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

RESET = struct.pack("ii", 1, 0)


@dataclass
class Exchange:
    """One complete 200 answer as a client saw it."""

    asked: str
    cookie: str
    began: float
    ended: float
    server: str
    body: bytes
    wanted: bytes


@dataclass
class Story:
    """What happened. `out` are the spans in which a server was out of service: name, from, to (0 for not over)."""

    exchanges: list[Exchange] = field(default_factory=list)
    out: list[list[object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seen: int = 0  # exchanges, also those that were judged and forgotten
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1


def text_for(name: str) -> bytes:
    """The body that belongs to a request, so that a mixed-up answer is seen: up to 64 kB of its name."""
    digest = hashlib.sha256(name.encode()).digest()
    return (name.encode() + b"\n") * (1 + int.from_bytes(digest[:2], "big") % (1500 if digest[2] < 40 else 20))


def answer_to(line: bytes) -> bytes:
    """What a server answers to a line of the protocol behind 101."""
    return line + b" " + hashlib.sha256(line).hexdigest().encode() + b"\n"


def vanish(channel: socket.socket) -> None:
    """Be gone without a word, as after a power cut: no FIN, no RST (TCP_REPAIR; an ordinary end without the right)."""
    with contextlib.suppress(PermissionError):
        channel.setsockopt(socket.IPPROTO_TCP, 19, 1)
    channel.close()


# -- servers ----------------------------------------------------------------------------------------------------------


class Server:
    """Answers with its name and the body that belongs to the request, except when its dice say otherwise."""

    MISCHIEF = ("good",) * 40 + (
        "slow", "trickle", "reset", "garbage", "huge", "empty", "cut", "silent", "close", "chunked", "chunked", "early",
        "continue", "bare", "vanish",
    )  # fmt: skip

    def __init__(self, name: str, seed: int, story: Story) -> None:
        self.name, self.story = name, story
        self.dice = random.Random(seed)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self.listener.getsockname()[1])
        self.mild = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        channel.settimeout(20)
        data = b""
        with channel, contextlib.suppress(OSError, ValueError):
            while True:
                while b"\r\n\r\n" not in data:
                    part = channel.recv(65536)
                    if not part:
                        return
                    data += part
                head, data = data.split(b"\r\n\r\n", 1)
                name = head.split(b" ")[1].decode("latin-1").strip("/")
                mischief = "good" if self.mild else self.dice.choice(self.MISCHIEF)
                self.story.count(f"server {mischief}")
                if b"upgrade: websocket" in head.lower():
                    self._talk(channel, data, mischief)
                    return
                data = self._body(channel, head, data)
                if not self._answer(channel, name, mischief):
                    return

    def _talk(self, channel: socket.socket, data: bytes, mischief: str) -> None:
        """A protocol of its own behind 101: every line comes back with the digest of what it says."""
        if mischief == "silent":
            return
        channel.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        while True:
            *lines, data = data.split(b"\n")
            if lines:
                channel.sendall(b"".join(answer_to(line) for line in lines))
            if mischief == "vanish":
                vanish(channel)
                return
            if mischief == "reset" and lines:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return
            part = channel.recv(65536)
            if not part:
                return
            data += part

    def _body(self, channel: socket.socket, head: bytes, data: bytes) -> bytes:
        length = re.search(rb"content-length: (\d+)", head.lower())
        if length:
            while len(data) < int(length[1]):
                part = channel.recv(65536)
                if not part:
                    raise OSError
                data += part
            return data[int(length[1]) :]
        if b"transfer-encoding: chunked" in head.lower():
            while b"0\r\n\r\n" not in data:
                part = channel.recv(65536)
                if not part:
                    raise OSError
                data += part
            return data.split(b"0\r\n\r\n", 1)[1]
        return data

    def _answer(self, channel: socket.socket, name: str, mischief: str) -> bool:
        """True when the connection can go on."""
        body = text_for(name)
        head = b"HTTP/1.1 200 OK\r\nX-Server: %s\r\n" % self.name.encode()
        whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        if mischief == "slow":
            time.sleep(0.3)
        elif mischief == "trickle":
            for at in range(0, min(len(whole), 400), 40):
                channel.sendall(whole[at : at + 40])
                time.sleep(0.01)
            whole = whole[400:]
        elif mischief in ("reset", "empty", "cut"):
            if mischief != "empty":
                channel.sendall(whole[: len(whole) // 2])
            if mischief == "reset":
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return False
        elif mischief == "garbage":
            whole = bytes(self.dice.randrange(256) for _ in range(300))
        elif mischief == "huge":
            whole = head + b"X-Long: " + b"x" * 40000 + b"\r\n" + whole[len(head) :]
        elif mischief == "vanish":
            channel.sendall(whole[: len(whole) // 2])
            vanish(channel)
            return False
        elif mischief == "silent":
            time.sleep(2.5)  # beyond the proxy's patience
            return False
        elif mischief == "close":
            whole = head + b"Connection: close\r\n\r\n" + body
        elif mischief == "chunked":
            half = len(body) // 2 or 1
            pieces = [piece for piece in (body[:half], body[half:]) if piece]
            framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
            whole = head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
        elif mischief == "continue":
            whole = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + whole
        elif mischief == "bare":
            whole = b"HTTP/1.1 204 No Content\r\nX-Server: x\r\n\r\n"
        channel.sendall(whole)
        return mischief not in ("close", "garbage")

    def close(self) -> None:
        self.listener.close()


# -- clients ----------------------------------------------------------------------------------------------------------


class Client:
    """One client thread: asks in many ways until `ending` is set."""

    WAYS = ("ask",) * 12 + (
        "post",
        "post",
        "pipeline",
        "slow",
        "leave",
        "reset",
        "garbage",
        "huge",
        "deaf",
        "half",
        "page",
        "raw",
        "chat",
        "chat",
        "game",
        "vanish",
    )

    def __init__(self, number: int, seed: int, ports: dict[str, int], story: Story, ending: threading.Event) -> None:
        self.number, self.ports, self.story, self.ending = number, ports, story, ending
        self.dice = random.Random(seed)
        self.cookie = ""
        self.asked = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.ending.is_set():
            way = self.dice.choice(self.WAYS)
            self.story.count(f"client {way}")
            with contextlib.suppress(OSError):
                getattr(self, way)()

    def connect(self, where: str = "web") -> socket.socket:
        channel = socket.create_connection(("127.0.0.1", self.ports[where]), 8)
        channel.settimeout(8)
        return channel

    def name(self) -> str:
        self.asked += 1
        return f"c{self.number}-{self.asked}"

    def request(self, name: str, more: str = "", method: str = "GET") -> bytes:
        cookie = f"Cookie: SRV={self.cookie}\r\n" if self.cookie else ""
        return f"{method} /{name} HTTP/1.1\r\nHost: h\r\n{cookie}{more}\r\n".encode()

    def read(self, channel: socket.socket, name: str, began: float, cookie: str, data: bytes = b"") -> bytes | None:
        """One answer; what came behind it, or None when the connection is over."""
        while b"\r\n\r\n" not in data:
            part = channel.recv(65536)
            if not part:
                return None
            data += part
        head, rest = data.split(b"\r\n\r\n", 1)
        if head.startswith(b"HTTP/1.1 103"):
            return self.read(channel, name, began, cookie, rest)
        lower = head.lower()
        if found := re.search(rb"content-length: (\d+)", lower):
            while len(rest) < int(found[1]):
                part = channel.recv(65536)
                if not part:
                    return None
                rest += part
            body, rest = rest[: int(found[1])], rest[int(found[1]) :]
        elif b"transfer-encoding: chunked" in lower:
            while not rest.endswith(b"0\r\n\r\n"):
                part = channel.recv(65536)
                if not part:
                    return None
                rest += part
            body, rest = _unchunked(rest), b""
        elif b" 204 " in head:
            body = b""
        else:
            while part := channel.recv(65536):
                rest += part
            body, rest = rest, b""
        self._keep(head, name, began, cookie, body)
        return None if b"connection: close" in lower else rest

    def _keep(self, head: bytes, name: str, began: float, cookie: str, body: bytes) -> None:
        status = int(head.split(b" ")[1])
        self.story.count(f"status {status}")
        server = re.search(rb"x-server: (\S+)", head.lower())
        if found := re.search(rb"set-cookie: SRV=(\w+)", head, re.IGNORECASE):
            self.cookie = found[1].decode()
        if status == 200 and server:
            got = Exchange(name, cookie, began, time.monotonic(), server[1].decode(), body, text_for(name))
            with self.story.lock:
                self.story.exchanges.append(got)
                self.story.seen += 1

    # -- ways

    def ask(self) -> None:
        with self.connect() as channel:
            for _ in range(self.dice.randrange(1, 6)):
                name, cookie = self.name(), self.cookie
                channel.sendall(self.request(name))
                if self.read(channel, name, time.monotonic(), cookie) is None:
                    return

    def post(self) -> None:
        name, cookie = self.name(), self.cookie
        size = self.dice.choice((0, 1, 500, 20000, 60000))
        with self.connect() as channel:
            began = time.monotonic()
            if self.dice.random() < 0.5:
                channel.sendall(self.request(name, f"Content-Length: {size}\r\n", "POST") + b"b" * size)
            else:
                chunk = b"%x\r\n%s\r\n" % (size, b"b" * size) if size else b""
                channel.sendall(self.request(name, "Transfer-Encoding: chunked\r\n", "POST") + chunk + b"0\r\n\r\n")
            self.read(channel, name, began, cookie)

    def pipeline(self) -> None:
        names, cookie = [self.name() for _ in range(4)], self.cookie
        with self.connect() as channel:
            began = time.monotonic()
            channel.sendall(b"".join(map(self.request, names)))
            rest: bytes | None = b""
            for name in names:
                rest = self.read(channel, name, began, cookie, rest)
                if rest is None:
                    return

    def slow(self) -> None:
        name, cookie = self.name(), self.cookie
        raw = self.request(name)
        with self.connect() as channel:
            began = time.monotonic()
            for at in range(0, len(raw), 7):
                channel.sendall(raw[at : at + 7])
                time.sleep(0.005)
            self.read(channel, name, began, cookie)

    def leave(self) -> None:
        with self.connect() as channel:
            channel.sendall(self.request(self.name())[: self.dice.randrange(1, 60)])

    def reset(self) -> None:
        with self.connect() as channel:
            channel.sendall(self.request(self.name()))
            time.sleep(self.dice.random() * 0.02)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def garbage(self) -> None:
        with self.connect() as channel:
            channel.sendall(bytes(self.dice.randrange(256) for _ in range(self.dice.randrange(1, 600))))
            channel.settimeout(0.5)
            channel.recv(65536)

    def huge(self) -> None:
        with self.connect() as channel:
            channel.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 60000)
            channel.settimeout(0.5)
            channel.recv(65536)

    def deaf(self) -> None:
        with self.connect() as channel:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            channel.sendall(b"".join(self.request(self.name()) for _ in range(10)))
            time.sleep(0.3)

    def half(self) -> None:
        name, cookie = self.name(), self.cookie
        with self.connect() as channel:
            began = time.monotonic()
            channel.sendall(self.request(name))
            channel.shutdown(socket.SHUT_WR)
            self.read(channel, name, began, cookie)

    def page(self) -> None:
        with self.connect("st") as channel:
            path = self.dice.choice(("/stats", "/stats;csv", "/metrics"))
            channel.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            if self.dice.random() < 0.7:
                while channel.recv(65536):
                    pass

    def raw(self) -> None:
        name = self.name()
        with self.connect("raw") as channel:
            began = time.monotonic()
            channel.sendall(f"GET /{name} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            self.read(channel, name, began, "")

    def chat(self) -> None:
        """A WebSocket, as far as a proxy sees one: lines both ways, with pauses; each answer has to be to our line."""
        with self.connect() as channel:
            upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            channel.sendall(self.request(self.name(), upgrade))
            data = b""
            while b"\r\n\r\n" not in data:
                part = channel.recv(65536)
                if not part:
                    return
                data += part
            head, data = data.split(b"\r\n\r\n", 1)
            self.story.count(f"status {int(head.split(b' ')[1])}")
            if b" 101 " not in head:
                return
            for turn in range(self.dice.randrange(1, 12)):
                lines = [b"%s %d.%d" % (self.name().encode(), turn, at) for at in range(self.dice.randrange(1, 200))]
                channel.sendall(b"".join(line + b"\n" for line in lines))
                wanted = b"".join(map(answer_to, lines))
                while len(data) < len(wanted):
                    part = channel.recv(65536)
                    if not part:
                        self._echo(data, wanted[: len(data)])
                        return
                    data += part
                self._echo(data, wanted)
                data = b""
                time.sleep(self.dice.random() * 0.3)

    def _echo(self, got: bytes, wanted: bytes) -> None:
        self.story.count("lines echoed" if got else "lines lost with their connection")
        if got != wanted:
            self.story.notes.append(f"c{self.number}: other lines came back: {got[:80]!r} instead of {wanted[:80]!r}")

    def game(self) -> None:
        """A TCP connection that lives for a while and says little."""
        with self.connect("raw") as channel:
            for _ in range(self.dice.randrange(2, 10)):
                name = self.name()
                channel.sendall(f"GET /{name} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                if self.read(channel, name, time.monotonic(), "") is None:
                    return
                time.sleep(self.dice.random() * 0.4)

    def vanish(self) -> None:
        channel = self.connect(self.dice.choice(("web", "raw")))
        channel.sendall(self.request(self.name())[: self.dice.choice((0, 30, 1000))])
        time.sleep(self.dice.random() * 0.02)
        vanish(channel)


def _unchunked(data: bytes) -> bytes:
    out = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        count = int(size or b"0", 16)
        if not count:
            return out
        out, data = out + data[:count], data[count + 2 :]


# -- the nemesis ------------------------------------------------------------------------------------------------------


class Nemesis:
    """An operator with bad manners: drains, reloads, limits of descriptors, steps of the clock."""

    def __init__(
        self, seed: int, pid: int, ask: Callable[[str], str], config: Path, clock: Path | None, story: Story
    ) -> None:
        self.dice = random.Random(seed)
        self.pid, self.ask, self.config, self.clock, self.story = pid, ask, config, clock, story
        self.text = config.read_text()
        self.acts = ("maint", "drain", "weight", "limit", "squeeze", "step", "look", "pause")
        self.reloads = 0
        self.first = self.dice.sample([*self.acts, "reload", "bad_reload"], len(self.acts) + 2)  # each at least once

    def act(self, *, reloads: bool) -> None:
        name = self.dice.choice((*self.acts, "reload", "reload", "bad_reload") if reloads else self.acts)
        name = self.first.pop() if self.first else name
        self.story.count(f"nemesis {name}")
        getattr(self, name)()

    def _server(self) -> str:
        return f"s{self.dice.randrange(1, 4)}"

    def maint(self) -> None:
        name = self._server()
        span: list[object] = [name, time.monotonic(), 0.0]
        with self.story.lock:
            self.story.out.append(span)
        self.ask(f"set server web/{name} state maint")
        time.sleep(0.1)
        self.ask(f"set server web/{name} state ready")
        span[2] = time.monotonic()

    def drain(self) -> None:
        name = self._server()
        self.ask(f"set server web/{name} state drain")
        time.sleep(0.2)
        self.ask(f"set server web/{name} state ready")

    def weight(self) -> None:
        self.ask(f"set server web/{self._server()} weight {self.dice.randrange(1, 50)}")

    def limit(self) -> None:
        name = self._server()
        self.ask(f"set maxconn server web/{name} {self.dice.choice((1, 3, 0))}")
        time.sleep(0.2)
        self.ask(f"set maxconn server web/{name} 0")

    def squeeze(self) -> None:
        """Hardly any descriptors for a moment."""
        soft, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (40, hard))
        time.sleep(0.3)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (soft, hard))

    def step(self) -> None:
        """The wall clock jumps."""
        if self.clock is not None:
            with self.clock.open("r+b") as file:
                file.write(struct.pack("q", self.dice.choice((0, -3600, 86400, -864000))))

    def look(self) -> None:
        self.ask("show stat;show info;show servers state;show servers conn")

    def pause(self) -> None:
        self.ask("disable frontend raw")
        time.sleep(0.05)
        self.ask("enable frontend raw")

    def reload(self) -> None:
        self.config.write_text(self.text + f"# {self.dice.random()}\n")
        if self.ask("reload").strip():
            self.story.notes.append("a good file was refused")
        self.reloads += 1

    def bad_reload(self) -> None:
        self.config.write_text(self.text + "listen broken\n    nonsense\n")
        if "refused" not in self.ask("reload"):
            self.story.notes.append("a bad file was not refused")
        self.config.write_text(self.text)
