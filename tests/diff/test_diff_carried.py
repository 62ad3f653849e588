"""The bytes of streams that are carried: TCP relays, CONNECT, PROXY headers in and out, transfers that somebody breaks off.

%B, %U and the statistics of each section beside HAProxy's.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Pair, Upstreams, ask, upstreams

PROXY = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n"
POST = b"POST /case/ HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
GET = b"GET /case/ HTTP/1.1\r\nHost: h\r\n\r\n"
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"h" * 300
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
# name: (mode, more of the section, more of the server, what the client sends, what the server then sends, who ends it and how)
CASES: dict[str, tuple[str, str, str, bytes, bytes, str]] = {
    "tcp": ("tcp", "", "", b"c" * 5000, b"s" * 7000, "client closes"),
    "tcpserver": ("tcp", "", "", b"c" * 5000, b"s" * 7000, "server closes"),
    "tcpreset": ("tcp", "", "", b"c" * 500, b"s" * 700, "client resets"),
    "tcpbroken": ("tcp", "", "", b"c" * 500, b"s" * 700, "server resets"),
    "tcpbig": ("tcp", "", "", b"c" * 300000, b"s" * 900000, "client closes"),
    "proxyin": ("tcp", "accept-proxy", "", PROXY + b"c" * 100, b"s" * 200, "client closes"),
    "proxyout": ("tcp", "", "send-proxy", b"c" * 100, b"s" * 200, "client closes"),
    "proxyout2": ("tcp", "", "send-proxy-v2", b"c" * 100, b"s" * 200, "server closes"),
    "httpin": ("http", "accept-proxy", "", PROXY + GET, WHOLE, "client closes"),
    "httpout": ("http", "", "send-proxy", GET, WHOLE, "client closes"),
    "connect": ("http", "", "", b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n" + b"s" * 800, "server closes"),
    "upgrade": (
        "http", "", "", b"GET /case/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n" + b"s" * 800, "server closes",
    ),
    "halfserver": ("http", "", "", GET, HALF, "server closes"),
    "halfbroken": ("http", "", "", GET, HALF, "server resets"),
    "halfclient": ("http", "", "", GET, HALF, "client closes"),
    "halfreset": ("http", "", "", GET, HALF, "client resets"),
    "upload": ("http", "", "", POST % 1000 + b"u" * 300, b"", "client closes"),
    "uploadreset": ("http", "", "", POST % 1000 + b"u" * 300, b"", "client resets"),
    "uploadbroken": ("http", "", "", POST % 1000 + b"u" * 300, b"", "server resets"),
    "uploadpart": ("http", "", "", POST % 1000 + b"u" * 300, b"HTTP/1.1 200 OK\r\nX: ", "server resets"),
    "uploadwhole": ("http", "", "", POST % 300 + b"u" * 300, b"", "server resets"),
    "uploadserver": ("http", "", "", POST % 1000 + b"u" * 300, b"", "server closes"),
}  # fmt: skip


class Carrier:
    """A server for one case at a time: it waits for what is to come, says its own and waits for the end, or makes it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self.listener.getsockname()[1]
        self.case = ""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                channel, _ = self.listener.accept()
            except OSError:
                return
            if not self.case:
                channel.close()  # somebody looks whether the section is there
                continue
            threading.Thread(target=self._serve, args=(channel, *CASES[self.case][3:]), daemon=True).start()

    @staticmethod
    def _serve(channel: socket.socket, sent: bytes, said: bytes, end: str) -> None:
        mark = sent[-1:]
        wanted = sent.count(b"c") if mark == b"c" else sent.count(b"u" * 300) * 300 or 1
        got = b""
        with channel, contextlib.suppress(OSError):
            channel.settimeout(10)
            while got.count(mark) < wanted if mark in b"cu" else b"\r\n\r\n" not in got:
                part = channel.recv(65536)
                if not part:
                    return
                got += part
            channel.sendall(said)
            if end.startswith("server"):
                time.sleep(0.3)  # both have what was sent
                if end.endswith("resets"):
                    channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            while channel.recv(65536):
                pass

    def close(self) -> None:
        self.listener.close()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, Carrier, Path]]:
    directory, carrier = tmp_path_factory.mktemp("carried"), Carrier()

    def config(host: str, ports: list[int], _servers: Upstreams, _dead: int) -> str:
        text = (
            f"global\n    stats socket {directory}/{host}.sock level admin\ndefaults\n    timeout connect 10s\n"
            "    timeout client 20s\n    timeout server 20s\n    log @LOG@ local0\n"
        )
        for (name, (mode, bind, server, *_)), port in zip(CASES.items(), ports, strict=True):
            text += f'listen {name}\n    mode {mode}\n    bind {host}:{port} {bind}\n    log-format "/case/{name} %ST B=%B U=%U %ts"\n'
            text += f"    server s1 127.0.0.1:{carrier.port} {server}\n"
        return text

    with upstreams(1) as servers:
        both = Pair("fast", directory, servers, list(CASES), config)
        try:
            yield both, carrier, directory
        finally:
            both.stop()
            carrier.close()


def visit(address: tuple[str, int], name: str) -> None:
    """Be the client of a case."""
    _, _, _, sent, said, end = CASES[name]
    with socket.create_connection(address, 10) as channel, contextlib.suppress(OSError):
        channel.settimeout(15)
        channel.sendall(sent)
        last = said[-1:]
        wanted, got = said.count(last) if said else 0, b""
        while (got.count(last) < wanted) if said and last in b"sh" else (said and last not in got):
            part = channel.recv(65536)
            if not part:
                break
            got += part
        if end.startswith("server"):
            while channel.recv(65536):
                pass
            return
        time.sleep(0.3)
        if end.endswith("resets"):
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def statistics(path: Path, name: str) -> list[tuple[str, ...]]:
    """Bytes of each row of the section; of a broken upload also errors, answers by class and who broke off."""
    lines = [line.split(",") for line in ask(path, "show stat").splitlines() if line.startswith(f"{name},")]
    wanted = (
        (*range(8, 10), *range(12, 17), *range(39, 44), *range(49, 51))
        if name in ("uploadbroken", "uploadpart")
        else (8, 9)
    )
    return [tuple(row[i] for i in wanted) for row in lines]


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("name", CASES)
def test_streams_count_as_haproxy_counts_them(worlds: tuple[Pair, Carrier, Path], name: str) -> None:
    pair, carrier, directory = worlds
    carrier.case = name
    found = []
    for host, program in pair.programs:
        with program.log.changed:
            program.log.lines.clear()
        visit((host, pair.ports[name]), name)
        line = program.log.line(name, 20)
        if not line:
            line = program.log.line(name, 20)
        found.append((re.sub(r".*/case/", "", line), statistics(directory / f"{host}.sock", name)))
    assert found[1] == found[0]
    assert found[0][0]
