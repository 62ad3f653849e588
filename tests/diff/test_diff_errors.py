"""`show errors` beside the real haproxy: the same garbage, the same words, the same position."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Program, Upstreams, exchange, free_ports, start, upstreams

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(300)]

FILE = """global
 stats socket {directory}/{kind}.sock level admin
defaults
 mode http
 timeout client 3s
 timeout server 3s
 timeout connect 1s
frontend f
 bind {host}:{ports[0]}
 default_backend b
listen l
 bind {host}:{ports[1]}
 server s1 127.0.0.1:{server}
backend b
 server s0 127.0.0.1:{server} disabled
 server s1 127.0.0.1:{server}
"""
REQUESTS = [
    b"GET /bad HTTP/1.1\r\nHost: h\r\nX-A : bad\r\n\r\n",
    b'GET /bad HTTP/1.1\r\nHost: h\r\nX-A: ok\r\nX\xe9: "bad\\\t\x01\x1b"\r\n\r\nbody',
    b"G@T /bad HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /b\xe9d HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /b#d HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /b HTTP/x.1\r\nHost: h\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nX-A: " + b"b" * 200 + b"\rx\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
    b"garbage\r\n\r\n",
    b"HTTP/1.1 2x0 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\xe9: y\r\n\r\n",
]


class Both:
    """haproxy and one haptk, each with its socket."""

    def __init__(self, kind: str, directory: Path, servers: Upstreams) -> None:
        self.servers = servers
        self.ports = free_ports(2)
        self.running: list[tuple[str, Path, Program]] = []
        for name, host in (("haproxy", "127.0.0.1"), (kind, "127.0.0.9")):
            text = FILE.format(directory=directory, kind=name, host=host, ports=self.ports, server=servers.ports[0])
            program = start(name, text, directory, [(host, port) for port in self.ports])
            self.running.append((host, directory / f"{name}.sock", program))

    def ask(self, index: int, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(self.running[index][1]))
            channel.sendall(command.encode() + b"\n")
            out = b""
            while part := channel.recv(65536):
                out += part
        return out.decode("latin-1")

    def send(self, index: int, data: bytes, port: int = 0) -> None:
        """Send what is none and wait until it was counted."""
        before = total(self.ask(index, "show errors"))
        exchange((self.running[index][0], self.ports[port]), data)
        deadline = time.monotonic() + 20
        while total(self.ask(index, "show errors")) <= before:
            assert time.monotonic() < deadline, f"{data!r} was not counted"
            time.sleep(0.01)


def total(text: str) -> int:
    found = re.search(r"captured on \[\d+/\w+/\d+:[\d:.]+\] : (\d+)\n", text)
    assert found, text
    return int(found[1])


def shape(text: str) -> str:
    """Without dates, addresses, flags and sizes of buffers; haptk's parser has put names of headers into lower case."""
    text = re.sub(r"\[\d+/\w+/\d+:[\d:.]+\]", "[DATE]", text)
    text = re.sub(r"127\.0\.0\.\d+:\d+", "SRC", text)
    text = re.sub(r"flags 0x\w{8}", "flags", text)
    text = re.sub(r"\d+ free,|wraps at \d+", "SIZE", text)
    return re.sub(r"(?m)^(  \d{5}. )([!-9;-~]+ ?:)", lambda m: m[1] + m[2].lower(), text)


@pytest.fixture(scope="module", params=["fast", "reference"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with upstreams(1) as servers:
        found = Both(request.param, tmp_path_factory.mktemp("errors"), servers)
        yield found
        for _, _, program in found.running:
            program.stop()


def test_requests_and_responses_are_shown_as_haproxy_shows_them(both: Both) -> None:
    assert [shape(both.ask(index, "show errors")) for index in (0, 1)] == [
        "Total events captured on [DATE] : 0\n\n"
    ] * 2
    for data in REQUESTS:
        for index in (0, 1):
            both.send(index, data)
        theirs, ours = (shape(both.ask(index, "show errors")) for index in (0, 1))
        assert theirs == ours, data
    for count, data in enumerate(RESPONSES):
        both.servers.scripts["x"] = data
        for index in (0, 1):
            both.send(index, b"GET / HTTP/1.1\r\nHost: h\r\nX-Case: x\r\n\r\n", count % 2)
        theirs, ours = (shape(both.ask(index, "show errors")) for index in (0, 1))
        assert theirs == ours, data
    for words in ("f", "l", "b", "2", "3 response", "b request", "-1 request", "-1", "nosuch", "request", "f response"):
        theirs, ours = (shape(both.ask(index, f"show errors {words}")) for index in (0, 1))
        assert theirs == ours, words


def test_a_body_that_is_none_and_one_that_only_haptk_refuses(both: Both) -> None:
    both.send(1, b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n\r\n")
    assert re.search(r"error at position \d+\n.*\n  H1 msg state MSG_CHUNK_SIZE\(26\)", both.ask(1, "show errors f"))
    both.send(1, b"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n")
    assert "error at position 31\n" in both.ask(1, "show errors f")
    both.send(1, b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 20000 + b"\r\n\r\n")
    text = both.ask(1, "show errors f")
    assert len(text) < 30000
    assert "error at position 16384\n" in text or "error at position 15" in text
