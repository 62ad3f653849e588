"""Descriptors that one side opens and another uses: a wake-up must reach its reader, never a stranger's connection."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.proxy.conftest import ScriptedServer

HAPTK = Path(sys.executable).parent / "haptk"
GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BROKEN = b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno"
DEADLINE_S = 30.0


def _until(what, why: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.01)


class Backend:
    """Answers 500 to what asks for /bad; counts the checks."""

    def __init__(self) -> None:
        self.checks = 0
        self.server = ScriptedServer(self._serve)
        self.port = self.server.port

    def _serve(self, server: ScriptedServer, sock: socket.socket, _number: int) -> None:
        rest = b""
        while True:
            head, rest = server.read_head(sock, rest)
            if not head:
                return
            if head.startswith(b"OPTIONS"):
                self.checks += 1
            sock.sendall(BROKEN if head.startswith(b"GET /bad") else FINE)


@contextlib.contextmanager
def _running(text: str, path: Path, port: int, **more):
    file = path / "haproxy.cfg"
    file.write_text(text)
    command = [str(HAPTK), "proxy", "-db", "-f", str(file)]
    process = subprocess.Popen(command, **more)
    try:

        def up() -> bool:
            assert process.poll() is None, f"ended with {process.returncode}"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            return False

        _until(up, "it listens")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answer(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith((b"ok", b"no")):
        part = sock.recv(1000)
        assert part, data
        data += part
    return data


OBSERVED = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
global
  nbthread {threads}
  {extra}
listen web
  bind 127.0.0.1:{port}
  option httpchk
  server s 127.0.0.1:{server} check inter 60s fastinter 50ms fall 1000 rise 1 observe layer7 error-limit 2 on-error fastinter
"""


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_alarm_of_observe_reaches_the_checks_and_no_client(tmp_path: Path, threads: int) -> None:
    backend, port = Backend(), free_port()
    text = OBSERVED.format(threads=threads, port=port, server=backend.port, extra="")
    with _running(text, tmp_path, port), contextlib.ExitStack() as stack:
        _until(lambda: backend.checks >= 1, "the first check")
        # enough clients for every small number of a worker's table
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S)) for _ in range(30 * threads)
        ]
        for client in clients:
            client.sendall(GET % b"")
            assert _answer(client) == FINE.lower().replace(b"http/1.1 200 ok", b"HTTP/1.1 200 OK")
        before = backend.checks
        for _ in range(2):
            clients[0].sendall(GET % b"bad")
            assert _answer(clients[0]).startswith(b"HTTP/1.1 500 ")
        _until(lambda: backend.checks > before, "errors of live traffic bring the next check sooner")
        for client in clients:
            client.sendall(GET % b"")
            assert _answer(client) == FINE.lower().replace(b"http/1.1 200 ok", b"HTTP/1.1 200 OK")
            client.settimeout(0.001)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(DEADLINE_S)
