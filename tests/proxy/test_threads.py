"""What several workers share: connections to servers, limits, queues, turns. Counted by servers, not timed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from haptk.proxy.compile import load_text
from tests.ports import free_port
from tests.proxy.conftest import RunningProxy

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DEADLINE_S = 30.0
THREADS = (1, 2, 4)
HEAD = """
global
  nbthread {threads}
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
"""


class CountingServer:
    """Counts its connections and requests, and how many of both there are at once; may hold requests back."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.accepted = self.connected = self.most_connected = 0
        self.requests = self.inside = self.most_inside = 0
        self.order: list[bytes] = []
        self.hold = False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with self.changed:
                self.accepted += 1
                self.connected += 1
                self.most_connected = max(self.most_connected, self.connected)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    part = sock.recv(65536)
                    if not part:
                        raise OSError
                    data += part
                head, _, data = data.partition(b"\r\n\r\n")
                with self.changed:
                    self.requests += 1
                    self.inside += 1
                    self.most_inside = max(self.most_inside, self.inside)
                    self.order.append(head.split(b" ")[1])
                    self.changed.notify_all()
                    self.changed.wait_for(lambda: not self.hold, DEADLINE_S)
                    self.inside -= 1
                sock.sendall(OK)
        with self.changed:
            self.connected -= 1
            self.changed.notify_all()

    def until(self, what: Callable[[], bool], why: str) -> None:
        with self.changed:
            assert self.changed.wait_for(what, DEADLINE_S), why

    def release(self) -> None:
        with self.changed:
            self.hold = False
            self.changed.notify_all()

    def close(self) -> None:
        self.release()
        self.listener.close()


@pytest.fixture
def servers() -> Iterator[Callable[[int], list[CountingServer]]]:
    made: list[CountingServer] = []

    def make(count: int = 1) -> list[CountingServer]:
        made.extend(CountingServer() for _ in range(count))
        return made[-count:]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def proxy() -> Iterator[Callable[..., RunningProxy]]:
    """Start a proxy: `proxy(threads, text, **values)`; {port} in the text is where it listens."""
    running: list[RunningProxy] = []

    def start(threads: int, text: str, **values: object) -> RunningProxy:
        port = free_port()
        found = RunningProxy(load_text((HEAD + text).format(threads=threads, port=port, **values)))
        found.port = port
        running.append(found)
        return found

    yield start
    for one in running:
        one.close()


def _until(what: Callable[[], bool], why: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.01)


def _ask(sock: socket.socket, path: str = "/") -> None:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())


def _status(sock: socket.socket) -> int:
    sock.settimeout(DEADLINE_S)
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            return 0
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        part = sock.recv(65536)
        assert part
        body += part
    return int(head.split(b" ")[1])


def _requests(port: int, count: int) -> list[int]:
    """So many requests on one connection, one after the other."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as sock:
        found = []
        for _ in range(count):
            _ask(sock)
            found.append(_status(sock))
        return found


@pytest.mark.parametrize("threads", THREADS)
def test_connections_to_servers_are_used_again(servers, proxy, threads: int) -> None:
    (server,) = servers()
    found = proxy(threads, "listen web\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{server}", server=server.port)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: _requests(found.port, 50), range(8)))
    assert answers == [[200] * 50] * 8
    # each client's first request may need a connection of its own, and what a worker has the others cannot use
    assert server.accepted <= 2 * 8, f"{server.accepted} connections for 400 requests"


@pytest.mark.parametrize("threads", THREADS)
def test_pool_max_conn_holds_for_all_workers_together(servers, proxy, threads: int) -> None:
    (server,) = servers()
    found = proxy(
        threads,
        "listen web\n bind 127.0.0.1:{port}\n http-reuse always\n server s 127.0.0.1:{server} pool-max-conn 2",
        server=server.port,
    )
    server.hold = True
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", found.port), DEADLINE_S)) for _ in range(16)
        ]
        for client in clients:
            _ask(client)
        server.until(lambda: server.inside == 16, "all are inside")
        server.release()
        assert [_status(client) for client in clients] == [200] * 16
        server.until(lambda: server.connected <= 2, "all but two are closed")
        assert sum(found.engine.workers[index].idle(0) for index in range(threads)) == 2
