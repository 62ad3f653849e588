"""`retry-on`: what a client does not see while another attempt is possible, and what is never sent twice."""

from __future__ import annotations

import time

import pytest

from tests.proxy.conftest import OK, read_answer

REFUSAL = b"HTTP/1.1 503 no\r\nContent-Length: 2\r\n\r\nno"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


def first_refuses(size: int, *, refusal: bytes = REFUSAL):
    """A script: the first request (with a body of `size`) is refused, the next one is answered."""

    def script(server, sock, _number) -> None:
        rest = b""
        while True:
            head, rest = server.read_head(sock, rest)
            if not head:
                return
            while len(rest) < size:
                rest += sock.recv(65536)
            server.bodies = [*getattr(server, "bodies", []), rest[:size]]
            rest = rest[size:]
            sock.sendall(refusal if len(server.seen) == 1 else OK)

    return script


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("size", [0, 5, 3000])
def test_a_body_that_comes_late_is_kept_for_the_next_attempt(scripted, proxied, size, pieces):
    server = scripted(first_refuses(size))
    proxy = proxied(server, retry_on=("503",), retries=2)
    body = bytes(range(65, 70)) * (size // 5)
    with proxy.connect() as sock:
        sock.sendall(POST % size)
        step = max(1, size // pieces)
        for at in range(0, size, step):
            time.sleep(0.02)
            sock.sendall(body[at : at + step])
        assert read_answer(sock)[1] == b"ok"
    assert server.bodies == [body, body]
    assert proxy.counters()["retries"] == 1


def test_a_body_beyond_the_buffer_is_sent_once(scripted, proxied):
    server = scripted(first_refuses(40000))
    proxy = proxied(server, retry_on=("503",), retries=2)
    with proxy.connect() as sock:
        sock.sendall(POST % 40000 + b"x" * 40000)
        assert read_answer(sock)[1] == b"no"
    assert len(server.seen) == 1


def test_an_answer_before_the_request_is_complete_passes(scripted, proxied):
    def script(server, sock, _number) -> None:
        server.read_head(sock)
        sock.sendall(REFUSAL)
        sock.recv(100)

    server = scripted(script)
    with proxied(server, retry_on=("503",), retries=2).connect() as sock:
        sock.sendall(POST % 5)
        assert read_answer(sock)[1] == b"no"
    assert len(server.seen) == 1


def test_what_was_passed_on_already_cannot_be_taken_back(scripted, proxied):
    """A head that is accepted ends the attempts: a body that breaks off is the client's to see."""

    def script(server, sock, _number) -> None:
        server.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    server = scripted(script)
    answer, closed = proxied(server, retry_on=("all-retryable-errors",), retries=3).talk(
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", quiet_s=3
    )
    assert (answer.endswith(b"half"), closed) == (True, True)
    assert len(server.seen) == 1


def test_attempts_with_keep_alive_and_pipelining_stay_in_order(scripted, proxied):
    """Every second request is refused once; each client request still gets exactly its own answer."""
    refused = set()

    def script(server, sock, _number) -> None:
        rest = b""
        while True:
            head, rest = server.read_head(sock, rest)
            if not head:
                return
            path = head.split(b" ")[1]
            if int(path[1:]) % 2 and path not in refused:
                refused.add(path)
                sock.sendall(REFUSAL)
            else:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))

    proxy = proxied(scripted(script), retry_on=("503",), retries=1)
    with proxy.connect() as sock:
        sock.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(60)))
        rest = b""
        for number in range(60):
            _, body, rest = read_answer(sock, rest)
            assert body == b"/%d" % number
    assert proxy.counters()["retries"] == 30
