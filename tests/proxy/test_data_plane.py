"""The compiled data path against scripted clients and servers on raw sockets."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from haptk.proxy.tables import AddHeader, CookieRule, Process, Timeouts

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_extension_is_compiled():
    from haptk._fast import conf, cookie, http1, session, worker

    for module in (conf, cookie, http1, session, worker):
        assert module.__file__.endswith(".so"), module.__file__


# -- heads ----------------------------------------------------------------------------------------------------------


def test_request_is_rewritten_as_haproxy_does(scripted, proxied):
    server = scripted()
    proxy = proxied(server)
    answer, closed = proxy.talk(b"GET /x HTTP/1.1\r\nHOST: a\r\nX-One:   1  \r\nCookie: a=1; SID=s1~abc\r\n\r\n")
    assert server.seen == [
        b"GET /x HTTP/1.1\r\nhost: a\r\nx-one: 1\r\ncookie: a=1; SID=abc\r\nx-forwarded-for: 127.0.0.1"
    ]
    assert answer == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    assert not closed


def test_every_split_of_a_request(scripted, proxied):
    server = scripted()
    proxy = proxied(server)
    request = b"POST /p HTTP/1.1\r\nHost: a\r\nCookie: SID=s1~abc; b=2\r\nContent-Length: 5\r\n\r\nhello"
    for cut in range(1, len(request)):
        with proxy.connect() as sock:
            sock.sendall(request[:cut])
            time.sleep(0.001)
            sock.sendall(request[cut:])
            assert sock.recv(1000).endswith(b"ok"), cut
    assert set(server.seen) == {
        b"POST /p HTTP/1.1\r\nhost: a\r\ncookie: SID=abc; b=2\r\ncontent-length: 5\r\nx-forwarded-for: 127.0.0.1"
    }


def test_request_byte_by_byte(scripted, proxied):
    server = scripted()
    proxy = proxied(server)
    request = b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    with proxy.connect() as sock:
        for byte in request:
            sock.sendall(bytes([byte]))
        assert sock.recv(1000).endswith(b"ok")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"content-length: 5\r\n\r\nhello"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
            b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
def test_every_split_of_a_response(scripted, proxied, response, expected):
    def script(server, sock, _number):
        rest = b""
        for cut in range(1, len(response)):
            _, rest = server.read_head(sock, rest)
            sock.sendall(response[:cut])
            time.sleep(0.001)
            sock.sendall(response[cut:])

    proxy = proxied(scripted(script))
    with proxy.connect() as sock:
        sock.settimeout(10)
        for _ in range(1, len(response)):
            sock.sendall(GET)
            got = b""
            while not got.endswith(expected):
                part = sock.recv(1000)
                assert part, got
                got += part


MALFORMED = [
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX\xff: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /# HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.x\r\nHost: a\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET relative HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\ng\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n",
    b"GET *ttp://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 16000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("request_bytes", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_request_is_400_and_never_forwarded_whole(scripted, proxied, request_bytes):
    server = scripted()
    proxy = proxied(server)
    answer, closed = proxy.talk(request_bytes + GET)
    assert answer.startswith(b"HTTP/1.1 400 Bad request\r\n"), answer
    assert closed
    assert answer.count(b"HTTP/1.") == 1
    assert not any(seen.startswith(b"GET / HTTP/1.1\r\nhost: a\r\nx-f") for seen in server.seen)


BAD_RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"garbage garbage garbage\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20000 + b"\r\n\r\n",
    b"HTTP/1.1 200",
    b"",
]


@pytest.mark.parametrize("response", BAD_RESPONSES, ids=range(len(BAD_RESPONSES)))
def test_bad_response_is_502(scripted, proxied, response):
    def script(server, sock, _number):
        server.read_head(sock)
        sock.sendall(response)

    answer, _ = proxied(scripted(script)).talk(GET)
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n"), answer
    assert answer.count(b"HTTP/1.") == 1


# -- keep-alive, pipelining, connection modes ------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(scripted, proxied):
    def script(server, sock, _number):
        rest = b""
        while True:
            head, rest = server.read_head(sock, rest)
            if not head:
                return
            body = head.split(b" ")[1]
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    proxy = proxied(scripted(script))
    with proxy.connect() as sock:
        sock.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(200)))
        got, _ = _read_until(sock, b"/199")
    assert [part.split(b"\r\n\r\n")[1] for part in got.split(b"HTTP/1.1 200 OK")[1:]] == [
        b"/%d" % number for number in range(200)
    ]


def _read_until(sock: socket.socket, end: bytes) -> tuple[bytes, bool]:
    sock.settimeout(10)
    got = b""
    while not got.endswith(end):
        part = sock.recv(65536)
        if not part:
            return got, True
        got += part
    return got, False


def test_server_connection_is_reused(scripted, proxied):
    server = scripted()
    proxy = proxied(server)
    with proxy.connect() as sock:
        for _ in range(20):
            sock.sendall(GET)
            _read_until(sock, b"ok")
    assert server.connections == 1
    assert proxy.counters()["reused"] == 19


@pytest.mark.parametrize(
    ("mode", "to_server", "to_client"),
    [("http-keep-alive", False, False), ("http-server-close", True, False), ("httpclose", True, True)],
)
def test_connection_modes(scripted, proxied, mode, to_server, to_client):
    server = scripted()
    answer, closed = proxied(server, connection=mode).talk(GET)
    assert (b"connection: close" in server.seen[0]) is to_server
    assert (b"connection: close" in answer) is to_client
    assert closed is to_client


def test_http_10(scripted, proxied):
    server = scripted()
    proxy = proxied(server)
    assert proxy.talk(b"GET / HTTP/1.0\r\n\r\n")[1] is True
    answer, closed = proxy.talk(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
    assert b"connection: keep-alive" in answer
    assert not closed
    assert server.seen[0] == b"GET / HTTP/1.0\r\nx-forwarded-for: 127.0.0.1\r\nconnection: keep-alive"


def test_http_10_client_gets_a_chunked_body_without_its_framing(scripted, proxied):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"
    answer, closed = proxied(scripted(chunked)).talk(b"GET / HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nhelloabc")
    assert b"transfer-encoding" not in answer
    assert closed


def test_chunk_extensions_are_dropped_both_ways(scripted, proxied):
    received = []

    def script(server, sock, _number):
        _, rest = server.read_head(sock)
        while not rest.endswith(b"0\r\n\r\n"):
            rest += sock.recv(1000)
        received.append(rest)
        sock.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;q="a b"\r\nok\r\n0\r\n\r\n')

    answer, _ = proxied(scripted(script)).talk(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0;last\r\n\r\n"
    )
    assert received == [b"3\r\nabc\r\n0\r\n\r\n"]
    assert answer.endswith(b"2\r\nok\r\n0\r\n\r\n")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_answers_without_a_body(scripted, proxied, status):
    proxy = proxied(scripted(b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n"))
    answer, closed = proxy.talk(GET + GET)
    assert answer.count(status) == 2
    assert not closed


def test_head_answer_has_no_body(scripted, proxied):
    proxy = proxied(scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"))
    answer, closed = proxy.talk(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
    assert answer.count(b"content-length: 1000") == 2
    assert not closed


def test_body_until_the_end_of_the_stream(scripted, proxied):
    def script(server, sock, _number):
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"z" * 100000)

    answer, closed = proxied(scripted(script)).talk(GET)
    assert answer.endswith(b"connection: close\r\n\r\n" + b"z" * 100000)
    assert closed


def test_expect_continue_reaches_the_server_and_its_answer_the_client(scripted, proxied):
    def script(server, sock, _number):
        head, rest = server.read_head(sock)
        assert b"expect: 100-continue" in head
        assert rest == b""
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert sock.recv(100) == b"hello"
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with proxied(scripted(script)).connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert _read_until(sock, b"\r\n\r\n")[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert _read_until(sock, b"ok")[0].endswith(b"ok")


def test_upgrade_becomes_a_tunnel(scripted, proxied):
    def script(server, sock, _number):
        head, rest = server.read_head(sock)
        assert b"upgrade: echo\r\n" in head + b"\r\n"
        assert b"connection: upgrade" in head
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nhi")
        sock.sendall(rest)
        while part := sock.recv(1000):
            sock.sendall(part)
        sock.sendall(b"bye")

    with proxied(scripted(script)).connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        got = _read_until(sock, b"\r\n\r\nhi")[0]
        assert b"connection: upgrade\r\n" in got
        sock.sendall(b"GET not http")
        _read_until(sock, b"GET not http")
        sock.shutdown(socket.SHUT_WR)
        assert _read_until(sock, b"\xff") == (b"bye", True)


@pytest.mark.parametrize("half_closed", [False, True])
def test_what_stands_behind_an_upgrade_is_the_tunnels(scripted, proxied, half_closed):
    """The client does not wait for the 101, and the server gives it at once: no further event moves those bytes."""

    def script(server, sock, _number):
        _, rest = server.read_head(sock)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n")
        sock.sendall(rest)
        while part := sock.recv(1000):
            sock.sendall(part)

    proxy = proxied(scripted(script))
    for _ in range(20):
        with proxy.connect() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nGET not http")
            if half_closed:
                sock.shutdown(socket.SHUT_WR)
            got, ended = _read_until(sock, b"GET not http")
            assert got.endswith(b"GET not http"), got
            assert not half_closed or ended or sock.recv(1) == b""


# -- bodies, back-pressure -------------------------------------------------------------------------------------------


def test_large_body_both_ways(scripted, proxied):
    size = 3_000_000

    def script(server, sock, _number):
        _, rest = server.read_head(sock)
        count = len(rest)
        while count < size:
            count += len(sock.recv(1 << 20))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(30):
            sock.sendall(bytes(size // 30))

    with proxied(scripted(script)).connect() as sock:
        sock.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        sock.sendall(b"u" * size)
        sock.settimeout(10)
        got = 0
        while got < size:
            part = sock.recv(1 << 20)
            assert part
            got += len(part)


def test_slow_reader_stops_the_server(scripted, proxied):
    """The proxy holds no more than its buffer: a reader that does not read blocks the writer."""
    sent = []

    def script(server, sock, _number):
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        sock.settimeout(0.7)
        try:
            while True:
                sent.append(sock.send(bytes(65536)))
        except TimeoutError:
            pass

    proxy = proxied(scripted(script))
    with proxy.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(GET)
        time.sleep(1.5)
        before = sum(sent)
        time.sleep(0.3)
        assert sum(sent) == before
        assert before < 50_000_000


def test_client_reset_in_the_middle(scripted, proxied):
    def script(server, sock, _number):
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            sock.send(bytes(65536))

    proxy = proxied(scripted(script))
    sock = proxy.connect()
    sock.sendall(GET)
    sock.recv(1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    _eventually(lambda: proxy.counters()["sessions"] == 0)
    assert proxy.counters()["server_links"] == 0


def _eventually(condition, deadline_s: float = 5.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def test_truncated_response_is_not_passed_off_as_whole(scripted, proxied):
    def script(server, sock, _number):
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    answer, closed = proxied(scripted(script)).talk(GET)
    assert closed
    assert answer == b"" or answer.endswith(b"half")


def test_half_closed_client_still_gets_its_answer(scripted, proxied):
    def script(server, sock, _number):
        server.read_head(sock)
        time.sleep(0.2)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    answer, closed = proxied(scripted(script)).talk(GET, half_close=True, quiet_s=2.0)
    assert answer.endswith(b"ok")
    assert closed


def test_early_answer_to_an_unfinished_upload(scripted, proxied):
    def script(server, sock, _number):
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")

    with proxied(scripted(script)).connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        got, _ = _read_until(sock, b"big")
        assert got.startswith(b"HTTP/1.1 413")


# -- failures of servers ----------------------------------------------------------------------------------------------


def test_dead_server_without_a_cookie_moves_at_once(scripted, proxied, closed_port):
    proxy = proxied(closed_port, scripted())
    for _ in range(4):
        began = time.monotonic()
        assert proxy.talk(GET, quiet_s=0.1)[0].endswith(b"ok")
        assert time.monotonic() - began < 1.0


def test_dead_server_of_a_cookie_is_left_on_the_last_retry(scripted, proxied, closed_port):
    proxy = proxied(closed_port, scripted(), retries=1)
    answer, _ = proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: SID=s1~x\r\n\r\n", quiet_s=2.0)
    assert answer.endswith(b"ok")


def test_dead_server_without_redispatch_is_503(proxied, closed_port):
    began = time.monotonic()
    answer, closed = proxied(closed_port, redispatch=None, retries=1).talk(GET, quiet_s=3.0)
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert time.monotonic() - began > 0.9
    assert not closed


def test_server_marked_down_is_skipped(scripted, proxied):
    first, second = scripted(), scripted()
    proxy = proxied(first, second)
    proxy.engine.image.set_state(0, "DOWN")
    for _ in range(4):
        proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: SID=s1~x\r\n\r\n", quiet_s=0.05)
    assert (first.connections, len(second.seen)) == (0, 4)
    proxy.engine.image.set_state(1, "DOWN")
    assert proxy.talk(GET)[0].startswith(b"HTTP/1.1 503")


def test_dead_reused_connection_is_retried_once(scripted, proxied):
    """The everyday race: the server closes an idle connection just when a request is sent on it."""

    def script(server, sock, number):
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if number == 1:
            server.read_head(sock)  # takes the second request and dies without an answer
            return
        server.read_head(sock)

    server = scripted(script)
    with proxied(server).connect() as sock:
        for _ in range(2):
            sock.sendall(GET)
            assert _read_until(sock, b"ok")[0].startswith(b"HTTP/1.1 200")
    assert server.connections == 2
    assert len(server.seen) == 3


def test_request_that_is_not_idempotent_is_never_sent_twice(scripted, proxied):
    def script(server, sock, number):
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if number == 1:
            server.read_head(sock)

    server = scripted(script)
    with proxied(server).connect() as sock:
        sock.sendall(GET)
        _read_until(sock, b"ok")
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
        assert sock.recv(100) == b""
    assert sum(seen.startswith(b"POST") for seen in server.seen) == 1


# -- time-outs --------------------------------------------------------------------------------------------------------


def test_408_for_an_unfinished_head(scripted, proxied):
    proxy = proxied(scripted(), fe_timeouts=Timeouts(client=5.0, http_request=0.3))
    answer, closed = proxy.talk(b"GET / HTTP/1.1\r\nHost:", quiet_s=3.0)
    assert answer.startswith(b"HTTP/1.1 408 Request Time-out\r\n")
    assert closed


def test_idle_keep_alive_is_closed_silently(scripted, proxied):
    proxy = proxied(scripted(), fe_timeouts=Timeouts(client=5.0, http_keep_alive=0.2))
    answer, closed = proxy.talk(GET, quiet_s=3.0)
    assert answer.endswith(b"ok")
    assert closed


def test_504_when_the_server_is_silent(scripted, proxied):
    def script(server, sock, _number):
        server.read_head(sock)
        time.sleep(3)

    proxy = proxied(scripted(script), timeouts=Timeouts(connect=1.0, server=0.3))
    assert proxy.talk(GET, quiet_s=3.0)[0].startswith(b"HTTP/1.1 504 Gateway Time-out\r\n")


def test_silence_in_the_middle_of_a_response_ends_it(scripted, proxied):
    def script(server, sock, _number):
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        time.sleep(3)

    proxy = proxied(scripted(script), timeouts=Timeouts(connect=1.0, server=0.3))
    answer, closed = proxy.talk(GET, quiet_s=3.0)
    assert answer == b"" or answer.endswith(b"half")
    assert closed


# -- cookies and headers, as far as the data plane's own ---------------------------------------------------------------


def test_prefix_goes_out_and_comes_back(scripted, proxied):
    first = scripted(b"HTTP/1.1 200 OK\r\nSet-Cookie: SID=one; Path=/; HttpOnly\r\nContent-Length: 2\r\n\r\nok")
    second = scripted(b"HTTP/1.1 200 OK\r\nSet-Cookie: SID=two\r\nSet-Cookie: other=1\r\nContent-Length: 2\r\n\r\nok")
    proxy = proxied(first, second)
    assert b"set-cookie: SID=s1~one; Path=/; HttpOnly\r\n" in proxy.talk(GET, quiet_s=0.1)[0]
    assert b"set-cookie: SID=s2~two\r\nset-cookie: other=1\r\n" in proxy.talk(GET, quiet_s=0.1)[0]
    for _ in range(3):
        proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: SID=s2~two\r\n\r\n", quiet_s=0.05)
    assert len(second.seen) == 4


def test_forwardfor_if_none_and_except(scripted, proxied):
    server = scripted()
    proxy = proxied(server, forwardfor=AddHeader("X-Client", if_none=True))
    proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nX-CLIENT: me\r\n\r\n", quiet_s=0.05)
    proxy.talk(GET, quiet_s=0.05)
    other = proxied(server, forwardfor=AddHeader("X-Forwarded-For", except_networks=("127.0.0.0/8",)))
    other.talk(GET, quiet_s=0.05)
    assert [seen.split(b"\r\n")[2:] for seen in server.seen] == [[b"x-client: me"], [b"x-client: 127.0.0.1"], []]


def test_insert_adds_a_cookie_once(scripted, proxied):
    server = scripted(b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 2\r\n\r\nok")
    rule = CookieRule("SRV", "insert", indirect=True, nocache=True, httponly=True, domains=(".a.b",))
    proxy = proxied(server, cookie=rule)
    answer, _ = proxy.talk(GET, quiet_s=0.1)
    assert b"set-cookie: SRV=s1; path=/; domain=.a.b; HttpOnly\r\ncache-control: private\r\n" in answer
    answer, _ = proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: SRV=s1\r\n\r\n", quiet_s=0.1)
    assert b"set-cookie" not in answer
    assert b"cookie" not in server.seen[1]


# -- more than one worker, TCP mode, stopping --------------------------------------------------------------------------


def test_several_workers_share_the_load(scripted, proxied):
    server = scripted()
    proxy = proxied(server, process=Process(nbthread=1))
    assert proxy.talk(GET)[0].endswith(b"ok")


def test_tcp_mode_relays_bytes_and_half_close(scripted, proxied):
    def script(server, sock, _number):
        got = b""
        while part := sock.recv(1000):
            got += part
        sock.sendall(got[::-1])

    proxy = proxied(scripted(script), mode="tcp", cookie=None, forwardfor=None)
    answer, closed = proxy.talk(b"\0\1\2abc", half_close=True, quiet_s=2.0)
    assert (answer, closed) == (b"cba\2\1\0", True)


def test_tcp_mode_closes_when_no_server_is_there(proxied, closed_port):
    proxy = proxied(closed_port, mode="tcp", cookie=None, forwardfor=None, retries=0)
    assert proxy.talk(b"x", quiet_s=2.0) == (b"", True)


def test_graceful_stop_finishes_what_is_open(scripted, proxied):
    def script(server, sock, _number):
        server.read_head(sock)
        time.sleep(0.5)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    proxy = proxied(scripted(script))
    idle = proxy.connect()
    with proxy.connect() as sock:
        sock.sendall(GET)
        time.sleep(0.1)
        proxy.engine.stop()
        got, _ = _read_until(sock, b"ok")
        assert b"connection: close" in got
        assert sock.recv(10) == b""
    idle.settimeout(5)
    assert idle.recv(10) == b""
    assert proxy.engine.wait(5.0)


def test_no_descriptor_and_no_session_is_left(scripted, proxied):
    proxy = proxied(scripted())
    for _ in range(50):
        proxy.talk(GET, quiet_s=0.01)
    _eventually(lambda: proxy.counters()["sessions"] == 0)
    counters = proxy.counters()
    assert counters["connections"] == 50
    assert counters["servers"][0]["sessions"] == 0
    assert counters["server_links"] == counters["idle_links"]
