"""Limits and choices of the compiled path: maxconn and queues, frontend maxconn, descriptors, balance, workers."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from dataclasses import replace

import pytest

from haptk.proxy.tables import Balance, Process, Timeouts
from tests.proxy.conftest import Gate

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def _limited(tables_servers, **words):
    return tuple(replace(server, **words) for server in tables_servers)


@pytest.fixture
def limited(scripted, proxied, monkeypatch):
    """A proxy whose servers have these words."""
    import haptk.proxy.engine as engine_module

    def start(*servers, words, **backend):
        image_of = engine_module.data_plane

        def shaped(tables):
            image, worker = image_of(tables)

            def make(_tables, stores):
                back = replace(_tables.backends[0], servers=_limited(_tables.backends[0].servers, **words))
                return image(replace(_tables, backends=(back,)), stores)

            make.make_store = image.make_store
            return make, worker

        monkeypatch.setattr(engine_module, "data_plane", shaped)
        return proxied(*servers, **backend)

    return start


def _clients(proxy, count):
    socks = [proxy.connect() for _ in range(count)]
    for sock in socks:
        sock.sendall(GET)
    return socks


def test_maxconn_queues_and_serves_everybody(scripted, limited):
    gate = Gate()
    proxy = limited(scripted(gate), words={"maxconn": 3})
    socks = _clients(proxy, 12)
    time.sleep(0.5)
    assert gate.inside == 3
    gate.open.set()
    for sock in socks:
        sock.settimeout(30)
        assert sock.recv(1000).endswith(b"ok")
        sock.close()
    assert gate.most == 3
    end = time.monotonic() + 30
    while proxy.counters()["servers"][0]["sessions"]:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_queue_timeout_is_503(scripted, limited):
    gate = Gate()
    proxy = limited(scripted(gate), words={"maxconn": 1}, timeouts=Timeouts(connect=2.0, server=9.0, queue=0.3))
    (first,) = _clients(proxy, 1)
    end = time.monotonic() + 5
    while not gate.inside:  # the one that is served has to be there first
        assert time.monotonic() < end
        time.sleep(0.01)
    (second,) = _clients(proxy, 1)
    second.settimeout(5)
    assert second.recv(1000).startswith(b"HTTP/1.1 503 ")
    gate.open.set()
    first.settimeout(30)
    assert first.recv(1000).endswith(b"ok")
    first.close()
    second.close()


def _until(what, why):
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.02)


def test_client_that_leaves_the_queue_frees_its_place(scripted, limited):
    gate = Gate()
    proxy = limited(scripted(gate), words={"maxconn": 1}, abortonclose=True)
    socks = _clients(proxy, 1)
    _until(lambda: gate.inside == 1, "the first one is inside")
    socks += _clients(proxy, 3)
    waiting = lambda: sum(one.queued for group in proxy.engine.tallies()[1:] for one in group)  # noqa: E731
    _until(lambda: waiting() == 3, "the others wait")
    socks[1].close()
    socks[2].close()
    _until(lambda: waiting() == 1, "two have left")  # a client that waits is looked after about once a second
    gate.open.set()
    for sock in (socks[0], socks[3]):
        sock.settimeout(30)
        assert sock.recv(1000).endswith(b"ok")
        sock.close()
    assert proxy.engine.tallies().servers[0].sessions == 2


def test_full_server_is_passed_over(scripted, limited):
    gate, free = Gate(), scripted()
    proxy = limited(scripted(gate), free, words={"maxconn": 2})
    socks = _clients(proxy, 4)
    time.sleep(0.2)
    for _ in range(6):
        assert proxy.talk(GET, quiet_s=0.1)[0].endswith(b"ok")
    gate.open.set()
    for sock in socks:
        sock.close()


def test_frontend_maxconn_leaves_the_rest_waiting(scripted, proxied):
    proxy = proxied(scripted(), fe_maxconn=2)
    first, second = proxy.connect(), proxy.connect()
    for sock in (first, second):
        sock.sendall(GET)
        assert sock.recv(1000).endswith(b"ok")
    third = proxy.connect()
    third.sendall(GET)
    third.settimeout(0.5)
    with pytest.raises(TimeoutError):
        third.recv(1000)
    first.close()
    third.settimeout(5)
    assert third.recv(1000).endswith(b"ok")
    second.close()
    third.close()


def _spread(proxy, servers, requests, request=GET):
    with proxy.connect() as sock:
        for _ in range(requests):
            sock.sendall(request)
            sock.settimeout(30)
            assert sock.recv(1000).endswith(b"ok")
    return [len(server.seen) for server in servers]


def test_roundrobin_takes_turns(scripted, proxied):
    servers = [scripted() for _ in range(3)]
    assert _spread(proxied(*servers), servers, 30) == [10, 10, 10]


def test_weighted_roundrobin_in_haproxys_order(scripted):
    order = []

    def naming(name):
        def script(server, sock, _number):
            rest = b""
            while True:
                head, rest = server.read_head(sock, rest)
                if not head:
                    return
                order.append(name)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        return script

    from tests.proxy.conftest import RunningProxy, tables_for

    servers = [scripted(naming(name)) for name in ("s1", "s2", "s4")]
    tables = tables_for([server.port for server in servers])
    weighted = tuple(
        replace(server, weight=weight) for server, weight in zip(tables.backends[0].servers, (1, 3, 2), strict=True)
    )
    proxy = RunningProxy(replace(tables, backends=(replace(tables.backends[0], servers=weighted),)))
    with contextlib.closing(proxy):
        _spread(proxy, servers, 12)
    assert order[:6] == ["s2", "s4", "s2", "s1", "s2", "s4"]
    assert Counter(order) == {"s1": 2, "s2": 6, "s4": 4}


@pytest.mark.parametrize("algorithm", ["source", "uri", "first"])
def test_algorithms_that_stay(scripted, proxied, algorithm):
    servers = [scripted() for _ in range(3)]
    counts = _spread(proxied(*servers, balance=Balance(algorithm)), servers, 9)
    assert sorted(counts) == [0, 0, 9]


@pytest.mark.parametrize("algorithm", ["leastconn", "random", "static-rr"])
def test_algorithms_that_spread(scripted, proxied, algorithm):
    servers = [scripted() for _ in range(3)]
    counts = _spread(proxied(*servers, balance=Balance(algorithm)), servers, 60)
    assert sum(counts) == 60
    assert min(counts) > 0


def test_uri_spreads_over_uris(scripted, proxied):
    servers = [scripted() for _ in range(2)]
    proxy = proxied(*servers, balance=Balance("uri"))
    for number in range(20):
        _spread(proxy, servers, 1, b"GET /page/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    assert all(len(server.seen) for server in servers)


def test_several_workers_start_and_serve(scripted, proxied):
    server = scripted()
    proxy = proxied(server, process=Process(nbthread=3))
    port = proxy.listeners.for_worker(proxy.engine.tables.frontends, 0)[0][0].getsockname()[1]
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(GET)
            assert sock.recv(1000).endswith(b"ok")
    assert len(server.seen) == 10


def test_random_bytes_never_stop_the_worker(scripted, proxied):
    import random

    generator = random.Random(1)
    proxy = proxied(scripted(), fe_timeouts=Timeouts(client=0.5, http_request=0.5))
    parts = [b"GET ", b"/ ", b"HTTP/1.1\r\n", b"Host: a\r\n", b"Cookie: SID=", b"~", b"\r\n", b"\r\n\r\n", b"\0", b"\xff",
             b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"5\r\n", b"0\r\n\r\n", b";", b",", b'"', b"="]  # fmt: skip
    for _ in range(150):
        data = b"".join(generator.choice(parts) for _ in range(generator.randrange(1, 40)))
        with proxy.connect() as sock, contextlib.suppress(OSError):
            sock.sendall(data)
            sock.settimeout(0.01)
            sock.recv(1000)
    assert proxy.talk(GET, quiet_s=1.0)[0].endswith(b"ok")
