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
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
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


# -- limits and queues


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("limit", ["frontend", "process"])
def test_no_more_clients_than_maxconn(servers, proxy, threads: int, limit: str) -> None:
    (server,) = servers()
    text = "listen web\n bind 127.0.0.1:{port}\n maxconn 10\n server s 127.0.0.1:{server}"
    if limit == "process":
        text = "global\n maxconn 10\n" + text.replace(" maxconn 10\n", "")
    found = proxy(threads, text, server=server.port)
    image, workers = found.engine.image, found.engine.workers
    for _ in range(20):
        # all workers begin to accept at the same moment, with more clients in their queues than may come in
        image.pause_frontend(0, True)
        for worker in workers:
            worker.wake()
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", found.port), DEADLINE_S)) for _ in range(40)
            ]
            image.pause_frontend(0, False)
            for worker in workers:
                worker.wake()
            _until(lambda: found.engine.tallies().frontends[0].live >= 10, "ten come in")
            for client in clients:
                _ask(client)
                client.shutdown(socket.SHUT_WR)
            assert [_status(client) for client in clients] == [200] * 40
        assert found.engine.tallies().frontends[0].live_max == 10


@pytest.mark.parametrize("threads", THREADS)
def test_no_more_requests_than_a_servers_maxconn_and_nobody_is_left_behind(servers, proxy, threads: int) -> None:
    (server,) = servers()
    found = proxy(
        threads, "listen web\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{server} maxconn 3", server=server.port
    )
    server.hold = True
    with ThreadPoolExecutor(32) as pool:
        answers = [pool.submit(_requests, found.port, 30) for _ in range(32)]
        server.until(lambda: server.inside == 3, "three come in")
        server.release()
        assert [one.result() for one in answers] == [[200] * 30] * 32
    assert server.most_inside == 3
    tallies = found.engine.tallies()
    assert tallies.servers[0].live_max == 3
    assert tallies.backends[0].queued == tallies.servers[0].queued == 0


def _queue_up(found: RunningProxy, stack: contextlib.ExitStack, paths: list[str]) -> list[socket.socket]:
    """Clients that come one after the other: each is in the queue before the next one comes."""
    clients = []

    def waiting() -> int:
        tallies = found.engine.tallies()
        return sum(one.queued for one in (*tallies.backends, *tallies.servers))

    before = waiting()
    for number, path in enumerate(paths, 1):
        client = stack.enter_context(socket.create_connection(("127.0.0.1", found.port), DEADLINE_S))
        path, _, cookie = path.partition("@")
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\n" + (f"Cookie: SRV={cookie}\r\n" if cookie else "")
        client.sendall(head.encode() + b"\r\n")
        _until(lambda number=number: waiting() == before + number, "it waits")
        clients.append(client)
    return clients


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("bound", [False, True])
def test_who_came_first_is_served_first(servers, proxy, threads: int, bound: bool) -> None:
    (server,) = servers()
    found = proxy(
        threads,
        "listen web\n bind 127.0.0.1:{port}\n cookie SRV insert indirect\n"
        " timeout queue 60s\n server s 127.0.0.1:{server} maxconn 1 cookie s",
        server=server.port,
    )
    server.hold = True
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.create_connection(("127.0.0.1", found.port), DEADLINE_S))
        _ask(first, "/first")
        server.until(lambda: server.inside == 1, "the first is inside")
        # every other one is bound by its cookie: two lines, one order
        paths = [f"/{number}" + ("@s" if bound and number % 2 else "") for number in range(24)]
        clients = _queue_up(found, stack, paths)
        server.release()
        assert [_status(client) for client in (first, *clients)] == [200] * 25
    assert server.order == [b"/first"] + [f"/{number}".encode() for number in range(24)]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("redispatch", [False, True])
def test_maxqueue_is_exact(servers, proxy, threads: int, redispatch: bool) -> None:
    one, other = servers(2)
    found = proxy(
        threads,
        "listen web\n bind 127.0.0.1:{port}\n cookie SRV insert indirect\n {redispatch}\n timeout queue 60s\n"
        " server s 127.0.0.1:{one} maxconn 1 maxqueue 3 cookie s\n server other 127.0.0.1:{other} cookie other weight 0",
        one=one.port, other=other.port, redispatch="option redispatch" if redispatch else "no option redispatch",
    )  # fmt: skip
    one.hold = True

    def client(number: int) -> int:
        with socket.create_connection(("127.0.0.1", found.port), DEADLINE_S) as sock:
            sock.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\nCookie: SRV=s\r\n\r\n" % number)
            return _status(sock)

    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(client, number) for number in range(20)]
        if redispatch:
            # nobody else takes new requests: who finds its server's queue full waits for any
            _until(lambda: found.engine.tallies().backends[0].queued == 16, "16 wait for any server")
            assert found.engine.tallies().servers[0].queued == 3
        else:
            _until(lambda: sum(one.done() for one in answers) == 16, "16 are refused at once")
        one.release()
        statuses = sorted(one.result() for one in answers)
    assert statuses == ([200] * 20 if redispatch else [200] * 4 + [503] * 16)
    assert one.most_inside == 1


@pytest.mark.parametrize("threads", THREADS)
def test_who_waits_for_a_server_that_leaves_goes_elsewhere(servers, proxy, threads: int) -> None:
    one, other = servers(2)
    found = proxy(
        threads,
        "listen web\n bind 127.0.0.1:{port}\n cookie SRV insert indirect\n option redispatch\n timeout queue 60s\n"
        " server s 127.0.0.1:{one} maxconn 1 cookie s\n server other 127.0.0.1:{other} cookie other",
        one=one.port, other=other.port,
    )  # fmt: skip
    one.hold = True
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", found.port), DEADLINE_S))]
        clients[0].sendall(b"GET /first HTTP/1.1\r\nHost: a\r\nCookie: SRV=s\r\n\r\n")
        one.until(lambda: one.inside == 1, "the first is inside")
        clients += _queue_up(found, stack, [f"/{number}@s" for number in range(8)])
        found.engine.health.admin(0, "maint")
        assert [_status(client) for client in clients[1:]] == [200] * 8
        one.release()
        assert _status(clients[0]) == 200
    assert sorted(other.order) == [f"/{number}".encode() for number in range(8)]
    assert found.engine.tallies().servers[0].redispatches == 8


# -- turns


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("algorithm", ["roundrobin", "static-rr", "leastconn"])
def test_workers_take_turns_together(servers, proxy, threads: int, algorithm: str) -> None:
    three = servers(3)
    lines = "".join(f" server s{at} 127.0.0.1:{one.port} weight {at + 1}\n" for at, one in enumerate(three))
    lines = (
        lines if algorithm == "roundrobin" else lines.replace("weight 2", "weight 1").replace("weight 3", "weight 1")
    )
    found = proxy(
        threads, "listen web\n bind 127.0.0.1:{port}\n balance {algorithm}\n{lines}", algorithm=algorithm, lines=lines
    )
    for _ in range(36):
        assert _requests(found.port, 1) == [200]
    assert [one.requests for one in three] == ([6, 12, 18] if algorithm == "roundrobin" else [12, 12, 12])


@pytest.mark.parametrize("threads", THREADS)
def test_leastconn_counts_the_sessions_of_all_workers(servers, proxy, threads: int) -> None:
    three = servers(3)
    for one in three:
        one.hold = True
    lines = "".join(f" server s{at} 127.0.0.1:{one.port}\n" for at, one in enumerate(three))
    found = proxy(threads, "listen web\n bind 127.0.0.1:{port}\n balance leastconn\n{lines}", lines=lines)
    with ThreadPoolExecutor(30) as pool:
        answers = [pool.submit(_requests, found.port, 1) for _ in range(30)]
        _until(lambda: sum(one.inside for one in three) == 30, "all are inside")
        assert [one.inside for one in three] == [10, 10, 10]
        for one in three:
            one.release()
        assert [one.result() for one in answers] == [[200]] * 30


@pytest.mark.parametrize("threads", [2, 4])
def test_the_highest_rate_is_that_of_all_workers_together(servers, proxy, threads: int) -> None:
    (server,) = servers()
    found = proxy(threads, "listen web\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{server}", server=server.port)
    for _ in range(6):
        # each worker's best second is another one
        assert _requests(found.port, 12) == [200] * 12
        time.sleep(1.1)
    tallies = found.engine.tallies()
    # bursts are more than a second apart: none of the seconds has two of them
    assert 0 < tallies.frontends[0].request_rate_max <= 12
    assert 0 < tallies.backends[0].rate_max <= 12
    assert 0 < tallies.servers[0].rate_max <= 12
    assert tallies.frontends[0].rate_max == 1


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("limit", ["frontend", "bind"])
def test_a_full_frontend_lets_everybody_in_by_turns(servers, proxy, threads: int, limit: str) -> None:
    # each worker has an accept queue of its own; the one that serves the last client must not go on with its own alone
    (server,) = servers()
    where = {"frontend": "\n maxconn 1", "bind": " maxconn 1"}[limit]
    found = proxy(
        threads,
        "listen web\n bind 127.0.0.1:{port}{where}\n server s 127.0.0.1:{server}",
        server=server.port,
        where=where,
    )
    count = 128
    server.hold = True
    with contextlib.ExitStack() as stack:

        def client(number: int) -> socket.socket:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", found.port), DEADLINE_S))
            sock.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % number)
            return sock

        clients = [client(number) for number in range(count)]
        server.until(lambda: server.inside == 1, "the first is inside")
        server.release()
        assert [_status(sock) for sock in clients] == [200] * count
    # how many places each came too early or too late; one queue after the other would be a quarter of them
    order = [int(path[1:]) for path in server.order]
    late = sum(abs(place - number) for place, number in enumerate(order)) / count
    assert late <= count / 6, order


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("word", ["maxconnrate", "maxsessrate"])
def test_a_rate_of_all_workers_is_exact_and_nobody_is_lost(servers, proxy, threads: int, word: str) -> None:
    (server,) = servers()
    rate, count = 40, 120
    found = proxy(
        threads,
        "global\n {word} {rate}\nlisten web\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{server}",
        server=server.port, word=word, rate=rate,
    )  # fmt: skip
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", found.port), DEADLINE_S)) for _ in range(count)
        ]
        for client in clients:
            _ask(client)
        assert [_status(client) for client in clients] == [200] * count
    took = time.monotonic() - began
    # the second after a full one has its share by and by: two seconds for what does not come in at once, less a rounding
    assert took >= (count - rate) / rate - 0.2, f"{count} clients in {took:.2f} s at {rate} a second"
    assert found.engine.tallies().frontends[0].rate_max <= rate
