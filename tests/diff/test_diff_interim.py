"""Interim answers and the final one in few segments: more of them than one buffer holds, beside the real haproxy."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.diff.rig import start
from tests.ports import free_port

FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok"
CASES: dict[str, bytes] = {
    "one": b"HTTP/1.1 103 E\r\nLink: a\r\n\r\n" + FINAL % b"",
    "many": b"HTTP/1.1 103 E\r\nLink: a\r\n\r\n" * 5000 + FINAL % b"",
    "bare": b"HTTP/1.1 100 \n\n" * 2000 + FINAL % b"",
    "large": b"HTTP/1.1 103 E\r\nLink: %s\r\n\r\n" % (b"a" * 8000) + FINAL % (b"X: " + b"b" * 7800 + b"\r\n"),
    "larger": (b"HTTP/1.1 103 E\r\nLink: %s\r\n\r\n" % (b"a" * 12000)) * 3 + FINAL % b"",
    "tiny and large": b"HTTP/1.1 103 E\r\nLink: a\r\n\r\n" + FINAL % (b"X: " + b"b" * 14000 + b"\r\n"),
    "closed": b"HTTP/1.1 103 E\r\nLink: a\r\n\r\n" * 3000 + b"HTTP/1.1 200 OK\r\n\r\nok",
}


class Hinter:
    """Answers a request for /N with the N-th case in one go, and closes."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    @staticmethod
    def _serve(channel: socket.socket) -> None:
        data = b""
        with channel:
            while b"\r\n\r\n" not in data:
                part = channel.recv(65536)
                if not part:
                    return
                data += part
            channel.sendall(list(CASES.values())[int(data.split()[1][1:])])


@pytest.fixture(scope="module", params=["haproxy", "fast"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    server, port = Hinter(), free_port()
    text = f"""defaults
 mode http
 timeout client 20s
 timeout server 20s
 timeout connect 5s
listen l
 bind 127.0.0.1:{port}
 http-response add-header Content-Security-Policy {"z" * 600}
 server s 127.0.0.1:{server.port}
"""
    running = start(request.param, text, tmp_path_factory.mktemp("interim"), [("127.0.0.1", port)])
    try:
        yield port, request.param
    finally:
        running.stop()
        server.listener.close()


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("slow", [False, True])
def test_every_head_arrives(world: tuple[int, str], name: str, slow: bool) -> None:
    port, kind = world
    if kind == "haproxy" and name == "bare":
        pytest.skip("HAProxy 2.6 leaves some of them in its buffer until a time-out")
    data = b""
    with socket.socket() as client:
        if slow:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.settimeout(20)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % list(CASES).index(name))
        while part := client.recv(500 if slow else 65536):
            data += part
    said = CASES[name]
    assert re.findall(rb"HTTP/1\.1 (\d+)", data) == re.findall(rb"HTTP/1\.1 (\d+)", said)
    assert data.endswith(b"ok")
    for letter in (b"a", b"b"):
        longest = re.findall(rb": (" + letter + rb"+)\r", said)
        assert re.findall(rb": (" + letter + rb"+)\r", data) == longest
    assert data.count(b"z" * 600) == 1
