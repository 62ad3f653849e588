"""What a server sends beyond its answer never becomes the answer of another client.

The server answers an upload at once, keeps the connection, and takes what follows for a request of its own: its second
answer lies in the kernel when the upload is complete. Both programs must end that connection.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import start
from tests.ports import free_port

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


class Careless:
    """Answers the head of every request and never skips a body. `answered` counts the answers."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.answered = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        data = b""
        with sock:
            while True:
                while b"\r\n\r\n" not in data:
                    try:
                        part = sock.recv(65536)
                    except OSError:
                        return
                    if not part:
                        return
                    data += part
                head, _, data = data.partition(b"\r\n\r\n")
                body = b"answer to " + head.split()[1]
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                self.answered.release()


@pytest.fixture
def careless() -> Iterator[Careless]:
    server = Careless()
    yield server
    server.listener.close()


def _answer(sock: socket.socket) -> bytes:
    data = b""
    while not (found := re.search(rb"\r\n\r\n(answer to \S+)", data)):
        part = sock.recv(65536)
        assert part, f"closed after {data!r}"
        data += part
    return found[1]


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("program", ["haproxy", "fast"])
@pytest.mark.parametrize("reuse", ["safe", "always"])
def test_an_early_answer_leaves_no_second_one_for_others(
    program: str, reuse: str, careless: Careless, tmp_path: Path
) -> None:
    port = free_port()
    text = f"""defaults
 mode http
 timeout client 20s
 timeout server 20s
 timeout connect 5s
listen l
 bind 127.0.0.1:{port}
 http-reuse {reuse}
 server s 127.0.0.1:{careless.port}
"""
    running = start(program, text, tmp_path, [("127.0.0.1", port)])
    try:
        for turn in range(4):
            with (
                socket.create_connection(("127.0.0.1", port)) as victim,
                socket.create_connection(("127.0.0.1", port)) as attacker,
            ):
                victim.settimeout(20)
                attacker.settimeout(20)
                victim.sendall(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n")
                assert _answer(victim) == b"answer to /first"
                assert careless.answered.acquire(timeout=20)
                body = SMUGGLED + b"zz"
                attacker.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
                assert _answer(attacker) == b"answer to /early"
                assert careless.answered.acquire(timeout=20)
                attacker.sendall(SMUGGLED)
                careless.answered.acquire(timeout=1)  # the stray answer is sent, if the proxy still sends to it
                attacker.sendall(b"zz")
                for path in (b"/second", b"/third"):
                    victim.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                    assert _answer(victim) == b"answer to " + path, f"turn {turn}"
                    assert careless.answered.acquire(timeout=20)
    finally:
        running.stop()
