"""What a crowd of slow readers held goes back to the system when they have left."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.ports import free_port

HAPTK = Path(sys.executable).parent / "haptk"
READERS = 400
BODY = b"x" * (4 << 20)
DEADLINE_S = 60.0
TEXT = """
global
  nbthread {threads}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen web
  bind 127.0.0.1:{port}
  server s 127.0.0.1:{server}
"""


def _rss_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def _generous(listener: socket.socket) -> None:
    """Answers every connection with a body that nobody reads."""

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)

    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


@pytest.mark.parametrize("threads", [1, 4])
def test_memory_of_slow_readers_is_given_back(tmp_path: Path, threads: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    threading.Thread(target=_generous, args=(listener,), daemon=True).start()
    port = free_port()
    file = tmp_path / "haproxy.cfg"
    file.write_text(TEXT.format(threads=threads, port=port, server=listener.getsockname()[1]))
    process = subprocess.Popen([str(HAPTK), "proxy", "-q", "-db", "-f", str(file)])
    clients: list[socket.socket] = []
    try:
        end = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert time.monotonic() < end, "it listens"
            time.sleep(0.02)
        before = _rss_kb(process.pid)
        for _ in range(READERS):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            clients.append(client)
        most = _rss_kb(process.pid)
        while most < before + 8192:
            assert time.monotonic() < end, f"the readers cost something ({before} kB, {most} kB)"
            time.sleep(0.05)
            most = _rss_kb(process.pid)
        while clients:
            clients.pop().close()
        end = time.monotonic() + DEADLINE_S
        while (now := _rss_kb(process.pid)) > before + 4096:
            assert time.monotonic() < end, f"{before} kB before, {most} kB with {READERS} readers, {now} kB afterwards"
            time.sleep(0.1)
    finally:
        for client in clients:
            client.close()
        listener.close()
        process.terminate()
        process.wait(20)
