"""The counters of `show stat` beside the real HAProxy: the same file, the same traffic, a section for each kind of end.

Each scenario has a `listen` section of its own, so that a row of `show stat` says what that scenario alone did. Bytes
are compared in TCP mode only: HAProxy 2.6 counts its own internal form of an HTTP message, haptk what was on the wire.
"""

from __future__ import annotations

import contextlib
import csv
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.diff.rig import start
from tests.ports import free_ports

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
# what a server does with a request, by the word in its path
ANSWERS = {
    "ok": OK,
    "missing": b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    "moved": b"HTTP/1.1 301 Moved\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
    "broken": b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
    "garbage": b"this is no response\r\n\r\n",
    "empty": b"",
    "cut": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this",
}
CLOSING = ("garbage", "empty", "cut")
SECTIONS = """
listen plain
listen kept
listen mixed
listen refused
    retries 2
listen moved
    retries 1
    option redispatch 1
listen nobody
listen garbage
listen empty
listen cut
listen silent
    timeout server 300ms
listen clienthang
    timeout http-request 300ms
    timeout client 300ms
listen badrequest
listen nothing
listen left
listen gone
listen stuck
    timeout server 600ms
    timeout queue 300ms
listen sticky
    cookie SRV insert indirect
listen ruled
    http-response set-status 503 if { status 404 }
    http-response deny if { status 500 }
    http-response redirect location /x if { status 301 }
    http-response return status 201 content-type text/plain string x if { res.hdr(content-length) 2 }
listen again
    retry-on 404 empty-response
    retries 1
listen raw
    mode tcp
"""
SERVERS = {
    "refused": "server s1 127.0.0.1:{dead}",
    "moved": "server s1 127.0.0.1:{dead} weight 100\n    server s2 127.0.0.1:{port}",
    "nobody": "server s1 127.0.0.1:{port} disabled",
    "stuck": "server s1 127.0.0.1:{port} maxconn 1",
    "sticky": "server s1 127.0.0.1:{port} cookie a\n    server s2 127.0.0.1:{port} cookie b",
}
NAMES = [line.split()[1] for line in SECTIONS.splitlines() if line.startswith("listen")]
HEAD = """global
    stats socket {folder}/admin level admin
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
    timeout http-request 5s
"""
# The columns that the same traffic has to fill in the same way. The most sessions at once (smax) are not among them:
# a client's next connection may come before HAProxy has taken the last one down.
COLUMNS = re.findall(
    r"\w+",
    """
    scur stot dreq dresp ereq econ eresp wretr wredis qcur lbtot hrsp_1xx hrsp_2xx hrsp_3xx hrsp_4xx hrsp_5xx
    hrsp_other req_tot cli_abrt srv_abrt conn_tot intercepted dcon dses eint wrew
""",
)


class Server:
    """Does what the path says."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        with channel, contextlib.suppress(OSError):
            channel.settimeout(10)
            while True:
                data = b""
                while b"\r\n\r\n" not in data:
                    part = channel.recv(65536)
                    if not part:
                        return
                    data += part
                word = data.split(b" ")[1].strip(b"/").decode()
                if word == "silent":
                    channel.recv(1)  # until the proxy gives up
                    return
                if word == "late":
                    time.sleep(0.5)
                channel.sendall(ANSWERS.get(word, OK))
                if word in CLOSING:
                    return

    def close(self) -> None:
        self.listener.close()


class Traffic:
    """What clients do to one proxy; ports by the name of the section."""

    def __init__(self, host: str, ports: dict[str, int]) -> None:
        self.host, self.ports = host, ports

    def connect(self, name: str) -> socket.socket:
        channel = socket.create_connection((self.host, self.ports[name]), 10)
        channel.settimeout(10)
        return channel

    def ask(self, name: str, *words: str, more: str = "", raw: bytes = b"") -> bytes:
        """Requests on one connection, one after the other; returns all that came."""
        out = b""
        with self.connect(name) as channel:
            for at, word in enumerate(words):
                last = "Connection: close\r\n" if at == len(words) - 1 else ""
                channel.sendall(f"GET /{word} HTTP/1.1\r\nHost: a\r\n{more}{last}\r\n".encode())
                if not last:
                    out += channel.recv(65536)
            if raw:
                channel.sendall(raw)
            with contextlib.suppress(OSError):
                while part := channel.recv(65536):
                    out += part
        time.sleep(0.05)  # or the next connection may come before this one is taken down
        return out

    def run(self) -> None:
        self.ask("plain", "ok")
        self.ask("plain", "ok")
        self.ask("kept", "ok", "ok", "ok", "missing")
        for word in ("missing", "moved", "broken", "ok"):
            self.ask("mixed", word)
            self.ask("ruled", word)
        for word in ("missing", "ok", "empty"):
            self.ask("again", word)
        self.ask("refused", "ok")
        self.ask("moved", "ok")
        self.ask("moved", "ok")
        self.ask("nobody", "ok")
        for word in ("garbage", "empty", "cut", "silent"):
            self.ask(word, word)
        self.ask("clienthang", raw=b"GET / HTTP/1.1\r\nHo")
        self.ask("badrequest", raw=b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        self.connect("nothing").close()
        with self.connect("left") as channel:
            channel.sendall(b"GET /la")
        for name in ("gone",):
            with self.connect(name) as channel:
                channel.sendall(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
                time.sleep(0.2)
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self.connect("stuck") as first:
            first.sendall(b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.1)
            self.ask("stuck", "ok")
            first.recv(65536)
        self.ask("sticky", "ok")
        self.ask("sticky", "ok", more="Cookie: SRV=b\r\n")
        self.ask("sticky", "ok", more="Cookie: SRV=zz\r\n")
        with self.connect("raw") as channel:
            channel.sendall(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n")
            channel.recv(65536)


def table(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """`show stat` by (section, row)."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        channel.connect(str(folder / "admin"))
        channel.sendall(b"show stat\n")
        out = b""
        while part := channel.recv(65536):
            out += part
    rows = csv.DictReader(out.decode().removeprefix("# ").strip().splitlines())
    return {(row["pxname"], row["svname"]): row for row in rows}


def settled(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The table once no session is left."""
    deadline = time.monotonic() + 60
    while True:
        found = table(folder)
        if all(row["scur"] in ("", "0") for row in found.values()) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def configuration(folder: Path, host: str, ports: dict[str, int], server: int, dead: int) -> str:
    """The file for one of the two."""
    text = HEAD.format(folder=folder)
    for block in SECTIONS.strip().split("listen ")[1:]:
        name, _, rest = block.strip().partition("\n")
        line = SERVERS.get(name, "server s1 127.0.0.1:{port}").format(port=server, dead=dead)
        text += f"listen {name}\n    bind {host}:{ports[name]}\n{rest}\n    {line}\n"
    return text


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def counted(
    kind: str, host: str, folder: Path, server: Server, act: Callable[[Traffic], None] = Traffic.run
) -> dict[tuple[str, str], dict[str, str]]:
    """Run the traffic through one program and read its table."""
    folder.mkdir()
    found = free_ports(len(NAMES) + 1, host)
    ports = dict(zip(NAMES, found, strict=False))
    text = configuration(folder, host, ports, server.port, found[-1])
    program = start(kind, text, folder, [])
    try:
        deadline = time.monotonic() + 60
        while not (folder / "admin").exists():
            assert time.monotonic() < deadline, program.output.read_text()
            time.sleep(0.02)
        act(Traffic(host, ports))
        return settled(folder)
    finally:
        program.stop()


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("kind", ["fast"])
def test_counters_are_haproxys(tmp_path: Path, server: Server, kind: str) -> None:
    real = counted("haproxy", "127.0.0.1", tmp_path / "haproxy", server)
    mine = counted(kind, "127.0.0.9", tmp_path / kind, server)
    differing = [
        f"{key[0]}/{key[1]} {name}: haproxy {row[name]!r}, haptk {mine[key][name]!r}"
        for key, row in real.items()
        for name in [*COLUMNS, *(["bin", "bout"] if key[0] == "raw" else [])]
        if row[name] != mine[key][name] and (key[0], name) != ("again", "wretr")  # HAProxy counts what it repeats twice
    ]
    assert not differing, "\n".join(differing)
    for key, row in mine.items():
        assert (row["smax"] in ("1", "2")) == (int(row["stot"]) > 0), (key, row["smax"])
