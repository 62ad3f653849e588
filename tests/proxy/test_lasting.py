"""Connections that last, in TCP mode and as WebSockets through HTTP mode, announced by PROXY headers on both sides: what a
reload, a drain, a death and time do to them; and what a silent one costs."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.proxy.test_runtime_real import ask, wait_for

pytestmark = pytest.mark.timeout(180)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UPGRADE = b"GET /play HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + KEY + b"\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
CONFIG = """global
    stats socket {folder}/admin level admin
    hard-stop-after 4s
defaults
    mode {mode}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    option clitcpka
    option srvtcpka
listen play
    bind 127.0.0.1:{port} {accept}
    balance leastconn
    stick-table type ip size 1k expire 10m
    stick on src
    server A 127.0.0.1:{a} {words}
    server B 127.0.0.1:{b} {words}
"""


def until_end(sock: socket.socket, end: bytes, data: bytes = b"") -> bytes:
    """What comes up to and with `end`; b"" when the connection ends before."""
    while not data.endswith(end):
        part = sock.recv(1 if end == b"\r\n\r\n" else 65536)
        if not part:
            return b""
        data += part
    return data


class Echo:
    """Answers each line with its name, the source that a PROXY header announced, and the line."""

    def __init__(self, name: bytes, *, announced: bool) -> None:
        self.name, self.announced = name, announced
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            source = self._source(sock) if self.announced else b"-"
            begin = sock.recv(1, socket.MSG_PEEK)
            if begin == b"G":
                until_end(sock, b"\r\n\r\n")
                sock.sendall(SWITCHED)
            while line := until_end(sock, b"\n"):
                sock.sendall(self.name + b" " + source + b" " + line)

    def _source(self, sock: socket.socket) -> bytes:
        begin = sock.recv(12, socket.MSG_WAITALL)
        if begin == SIGNATURE:
            _, _, length = struct.unpack("!BBH", sock.recv(4, socket.MSG_WAITALL))
            return socket.inet_ntoa(sock.recv(length, socket.MSG_WAITALL)[:4]).encode()
        line = begin
        while not line.endswith(b"\r\n"):
            line += sock.recv(1)
        return line.split()[2]


class Game:
    """One client that stays: TCP, or a WebSocket; `header` is what announces it."""

    def __init__(self, port: int, mode: str, header: bytes = b"") -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 20)
        self.sock.sendall(header + (UPGRADE if mode == "http" else b""))
        if mode == "http":
            assert until_end(self.sock, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")

    def say(self, text: bytes = b"x") -> bytes:
        """The answer to a line; b"" when the connection is over."""
        try:
            self.sock.sendall(text + b"\n")
            return until_end(self.sock, b"\n").rstrip(b"\n")
        except (ConnectionResetError, BrokenPipeError):
            return b""


def header(version: str, number: int) -> bytes:
    """A PROXY header for a client 192.0.2.NUMBER."""
    if version == "v1":
        return b"PROXY TCP4 192.0.2.%d 198.51.100.1 1000 443\r\n" % number
    if version == "v2":
        places = (
            socket.inet_aton(f"192.0.2.{number}") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 1000, 443)
        )
        return SIGNATURE + struct.pack("!BBH", 0x21, 0x11, len(places)) + places
    return b""


class Tier:
    """A proxy on two servers."""

    def __init__(self, folder: Path, mode: str, version: str, words: str = "") -> None:
        self.folder, self.mode, self.version = folder, mode, version
        out = {"v1": "send-proxy", "v2": "send-proxy-v2", "": ""}[version]
        self.servers = [Echo(name, announced=bool(out)) for name in (b"A", b"B")]
        self.port = free_ports(1)[0]
        self.config = folder / "x.cfg"
        self.text = CONFIG.format(
            folder=folder, mode=mode, port=self.port, accept="accept-proxy" if version else "", a=self.servers[0].port,
            b=self.servers[1].port, words=f"{words} {out}",
        )  # fmt: skip
        self.config.write_text(self.text)
        with (folder / "err").open("wb") as errors:
            argv = [sys.executable, "-m", "haptk", "proxy", "-f", str(self.config)]
            self.child = subprocess.Popen(argv, stdout=errors, stderr=errors)
        wait_for(lambda: "play" in self("show backend"), "it answers")

    def __call__(self, command: str) -> str:
        return ask(self.folder / "admin", command)

    def join(self, number: int) -> Game:
        return Game(self.port, self.mode, header(self.version, number))

    def close(self) -> None:
        self.child.kill()
        self.child.wait(10)
        for server in self.servers:
            server.listener.close()


@pytest.fixture(params=[("tcp", "v1"), ("tcp", "v2"), ("http", "v1"), ("http", "v2")], ids="-".join)
def tier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tier]:
    made = Tier(tmp_path, *request.param, words="on-marked-down shutdown-sessions")
    yield made
    made.close()


def test_what_operation_does_to_those_who_stay(tier: Tier) -> None:
    """A drain and a bad file touch nobody, a reload only after hard-stop-after, a server that dies takes its own along."""
    games = [tier.join(number) for number in range(1, 7)]
    first = [game.say() for game in games]
    assert [answer.split()[1:] for answer in first] == [[b"192.0.2.%d" % number, b"x"] for number in range(1, 7)]
    homes = [answer[:1] for answer in first]
    assert sorted(homes) == [b"A"] * 3 + [b"B"] * 3
    tier("set server play/A state drain")
    assert [game.say() for game in games] == first
    others = [tier.join(number) for number in range(11, 14)]
    assert [game.say()[:1] for game in others] == [b"B"] * 3
    tier("set server play/A state ready")
    again = [tier.join(number) for number in range(1, 7)]  # the table brings each client to where it was
    assert [game.say()[:1] for game in again] == homes
    tier.config.write_text(tier.text + "nonsense\n")
    assert "nonsense" in tier("reload")
    tier.config.write_text(tier.text)
    tier("set server play/A health down")
    gone = [game.say() == b"" for game in games]
    assert gone == [home == b"A" for home in homes]
    tier("set server play/A health up")
    stay = [game for game, home in zip(games, homes, strict=True) if home == b"B"]
    began = time.monotonic()
    assert tier("reload") == "\n"
    assert all(game.say().startswith(b"B ") for game in stay)
    fresh = [tier.join(number) for number in range(1, 7)]
    assert [game.say()[:1] for game, home in zip(fresh, homes, strict=True) if home == b"B"] == [b"B"] * 3
    while any(game.say() for game in stay):
        assert time.monotonic() < began + 60
        time.sleep(0.1)
    assert time.monotonic() > began + 3.5  # hard-stop-after
    assert all(game.say() for game in fresh)


@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_a_silent_connection_holds_no_buffer(tmp_path: Path, mode: str) -> None:
    """Each has two of 16 kB while it moves something, of which a first page or two are touched."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16000), hard))
    tier = Tier(tmp_path, mode, "")
    try:

        def resident() -> int:
            found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{tier.child.pid}/status").read_text())
            assert found
            return int(found[1])

        warm = [tier.join(number) for number in range(50)]
        assert all(game.say() for game in warm)
        before, count = resident(), 1500
        games = [tier.join(number) for number in range(count)]
        assert all(game.say() for game in games)
        each = (resident() - before) * 1024 / count
        assert each < 4000, each
        assert all(game.say(b"y" * 20000)[-20000:] == b"y" * 20000 for game in games[:20])
    finally:
        tier.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
