"""A message means the same in one piece and in several, in HAProxy and in haptk."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from haptk.io import clock
from tests.diff.rig import start
from tests.ports import free_ports

pytestmark = pytest.mark.real("haproxy")
CONFIG = """defaults
 mode http
 timeout connect 5s
 timeout client 5s
 timeout server 5s
listen web
 bind 127.0.0.1:{port}
 server s 127.0.0.1:{server}
"""
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n"
FOLDS = {
    "bare": (HEAD + CHUNKS + b"X: a\n b", b"\r\n\r\n0\r\n\r\n"),
    "bare first": (HEAD + b"X: a\n b\r\n" + CHUNKS, b"\r\n0\r\n\r\n"),
    "whole": (HEAD + CHUNKS + b"X: a\r\n b", b"\r\n\r\n0\r\n\r\n"),
    "bare, without coding": (HEAD + b"X: a\n b", b"\r\n\r\n"),
    "twice": (HEAD + b"X: a\r\n b\r\n\tc\r\n", b"Y: d\r\n e\r\n\r\n"),
}
# what haptk refuses on purpose: docs/explanation/proxy-data-plane.md
REFUSED = ("bare", "bare first")


@pytest.fixture
def server() -> Iterator[int]:
    """A server that answers with what it got."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            data = b""
            with channel:
                while b"\r\n\r\n" not in data and (part := channel.recv(65536)):
                    data += part
                body = data.partition(b"\r\n\r\n")[0].lower()
                channel.sendall(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def play(port: int, parts: tuple[bytes, ...]) -> bytes:
    """The status and the lines that the server saw, but for what the proxies add."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), 10) as channel:
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            channel.sendall(part)
            clock.sleep(0.1)
        while part := channel.recv(65536):
            got += part
    head, _, body = got.partition(b"\r\n\r\n")
    folded = [b" ".join(line.split()) for line in body.split(b"\r\n") if line.startswith((b"x:", b"y:"))]
    return b"\n".join([head.split(b" ")[1], *(folded if b" 200 " in head else [])])


def test_folded_lines_in_pieces(server: int, tmp_path: Path) -> None:
    told: dict[str, dict[str, set[bytes]]] = {}
    for kind in ("haproxy", "fast"):
        (port,) = free_ports(1)
        program = start(kind, CONFIG.format(port=port, server=server), tmp_path, [("127.0.0.1", port)])
        try:
            told[kind] = {
                name: {
                    play(port, (first + rest,)),
                    play(port, (first, rest)),
                    play(port, (first[:-1], first[-1:], rest)),
                }
                for name, (first, rest) in FOLDS.items()
            }
        finally:
            program.stop()
    assert all(len(seen) == 1 for each in told.values() for seen in each.values()), told
    for name in FOLDS:
        assert told["fast"][name] == ({b"400"} if name in REFUSED else told["haproxy"][name]), (name, told)
