"""Messages that begin far behind the start of a large receive buffer: rules must see and change these bytes and no others.

After a large upload the buffer of a connection is the 128 kB one for bulk transfers, and what the client sent behind the
upload stays in it. The sizes below are chosen so that a mistake of one buffer's offset in another buffer would cut the
request where an attacker wants it cut.
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import pytest

from haptk.proxy.compile import load_text
from haptk.proxy.engine import data_plane
from haptk.proxy.tables import Bind
from tests.proxy.conftest import DEADLINE_S, RunningProxy, ScriptedServer, read_answer

FILE = """
frontend web
    mode http
    bind 127.0.0.1:1
    timeout client 30s
    http-request deny if { path /admin }
    http-request del-header X-Secret
    http-request set-header X-Forwarded-Proto https
    default_backend app
backend app
    mode http
    http-reuse always
    timeout connect 5s
    timeout server 30s
    server s1 127.0.0.1:{port}
"""
BUFSIZE = 16384
UPLOAD = 1 << 20
TRIES = 6


class App:
    """A server that keeps the exact bytes of every request after the upload, and answers each with its own target."""

    def __init__(self, *, slow: bool = False) -> None:
        self.heads: list[bytes] = []
        self.taken = 0
        self.slow = slow
        self.moved = threading.Condition()

    def wait_for(self, count: int) -> None:
        with self.moved:
            assert self.moved.wait_for(lambda: self.taken >= count, DEADLINE_S)

    def note(self, count: int) -> None:
        with self.moved:
            self.taken += count
            self.moved.notify_all()

    def __call__(self, _server: ScriptedServer, sock: socket.socket, _number: int) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                part = sock.recv(65536)
                if not part:
                    return
                data += part
            head, _, data = data.partition(b"\r\n\r\n")
            self.heads.append(head)
            length = 0
            for line in head.lower().split(b"\r\n")[1:]:
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.note(min(len(data), length))
            while len(data) < length:
                part = sock.recv(1 << 20)
                if not part:
                    return
                self.note(min(len(part), length - len(data)))
                data += part
            data = data[length:]
            if self.slow and b"GET /second" in head:
                time.sleep(0.3)
            text = head.split(b" ")[1]
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


def start(scripted, app: App) -> RunningProxy:
    tables = load_text(FILE.replace("{port}", str(scripted(app).port)))
    tables = replace(tables, frontends=(replace(tables.frontends[0], binds=(Bind("127.0.0.1", 0),)),))
    assert data_plane(tables)[0].__module__.startswith("haptk._fast")
    return RunningProxy(tables)


def upload_then(proxy: RunningProxy, app: App, behind: bytes, offset: int) -> tuple[socket.socket, bytes]:
    """Upload a megabyte whose last `offset` bytes arrive in one piece with the pipelined bytes `behind`."""
    sock = proxy.connect()
    sock.sendall(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % UPLOAD)
    before = app.taken
    sock.sendall(b"u" * (UPLOAD - offset))
    app.wait_for(before + UPLOAD - offset)
    sock.sendall(b"u" * offset + behind)
    _head, body, rest = read_answer(sock)
    assert body.endswith(b"/up")
    return sock, rest


@pytest.mark.parametrize("offset", [10, BUFSIZE - 60, BUFSIZE, 40000, 5 * BUFSIZE - 10, 5 * BUFSIZE + 1000, 120000])
def test_a_head_far_in_the_buffer_is_edited_like_any_other(scripted, offset):
    app = App()
    proxy = start(scripted, app)
    try:
        behind = b"GET /next HTTP/1.1\r\nHost: a\r\nX-Secret: 1\r\nX-Kept: 2\r\n\r\n"
        for _ in range(2):
            sock, rest = upload_then(proxy, app, behind, offset)
            with sock:
                assert read_answer(sock, rest)[1] == b"/next"
            assert app.heads[-1] == b"GET /next HTTP/1.1\r\nhost: a\r\nx-kept: 2\r\nx-forwarded-proto: https"
    finally:
        proxy.close()


def test_no_header_passes_a_rule_that_deletes_it(scripted):
    app = App()
    proxy = start(scripted, app)
    # the line that the rule adds would end inside the value of X-Pad, and what follows there would be a line of its own
    head = b"GET /next HTTP/1.1\r\nHost: a\r\nX-Pad: "
    pad = b"y" * 26 + b"x-secret: admin"
    try:
        for _ in range(TRIES):
            sock, rest = upload_then(proxy, app, head + pad + b"\r\n\r\n", BUFSIZE - len(head))
            with sock:
                read_answer(sock, rest)
            assert b"\r\nx-secret:" not in app.heads[-1]
            assert app.heads[-1].endswith(b"x-pad: " + pad + b"\r\nx-forwarded-proto: https")
    finally:
        proxy.close()


def smuggler() -> tuple[bytes, int]:
    """A request whose Content-Length line would be overwritten by the added one, and the offset that does it."""
    inner = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST /next HTTP/1.1\r\nHost: a\r\n"
    added = len(b"x-forwarded-proto: https\r\n")
    length = b"Content-Length: %0*d\r\n" % (added - len(b"content-length: \r\n"), len(inner))
    assert len(length) == added
    return head + length + b"\r\n" + inner, BUFSIZE - len(head)


def test_no_request_passes_a_rule_that_denies_it(scripted):
    app = App()
    proxy = start(scripted, app)
    behind, offset = smuggler()
    try:
        for _ in range(TRIES):
            sock, rest = upload_then(proxy, app, behind, offset)
            with sock:
                assert read_answer(sock, rest)[1] == b"/next"
                sock.sendall(b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n")
                assert read_answer(sock)[1] == b"/last"
        assert not [head for head in app.heads if b"/admin" in head.split(b"\r\n")[0]]
    finally:
        proxy.close()


def test_everybody_gets_the_answer_to_their_own_request(scripted):
    app = App()
    proxy = start(scripted, app)
    behind, offset = smuggler()
    try:
        for _ in range(TRIES):
            sock, rest = upload_then(proxy, app, behind, offset)
            with sock, proxy.connect() as other:
                for number in range(3):
                    other.sendall(b"GET /mine%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                    assert read_answer(other)[1] == b"/mine%d" % number
                assert read_answer(sock, rest)[1] == b"/next"
    finally:
        proxy.close()


EVERYTHING = """
frontend web
    mode http
    bind 127.0.0.1:1
    timeout client 30s
    unique-id-format %[capture.req.hdr(0)]-%HP
    unique-id-header X-Id
    capture request header X-Kept len 20
    capture request header X-Late len 20
    http-request set-header X-Forwarded-Proto https
    http-request replace-header X-Kept (.*) <\\1>
    http-request set-path /new%[path]
    http-request capture req.hdr(x-kept),upper len 20
    http-request set-header X-Seen %[capture.req.hdr(0)],%[capture.req.hdr(2)],%[capture.req.uri]
    http-request del-header X-Secret
    default_backend app
backend app
    mode http
    timeout connect 5s
    timeout server 30s
    retry-on all-retryable-errors
    option forwardfor
    stick-table type string len 40 size 100
    stick on req.hdr(x-kept)
    http-response set-header X-Out %[res.hdr(x-answer)]
    server s1 127.0.0.1:{port} send-proxy
"""


class Announced(App):
    """Behind a PROXY header, which is cut off; answers with a header."""

    def __call__(self, server: ScriptedServer, sock: socket.socket, number: int) -> None:
        line = b""
        while not line.endswith(b"\r\n"):
            line += sock.recv(1)
        assert line.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
        super().__call__(server, sock, number)


@pytest.mark.parametrize("offset", [BUFSIZE - 60, 40000, 5 * BUFSIZE + 1000])
def test_what_is_kept_of_a_head_far_in_the_buffer_is_its_own(scripted, offset):
    app = Announced()
    tables = load_text(EVERYTHING.replace("{port}", str(scripted(app).port)))
    tables = replace(tables, frontends=(replace(tables.frontends[0], binds=(Bind("127.0.0.1", 0),)),))
    proxy = RunningProxy(tables)
    try:
        behind = b"GET /next?q HTTP/1.1\r\nHost: a\r\nX-Secret: 1\r\nX-Kept: kept\r\nX-Late: late\r\n\r\n"
        for _ in range(2):
            sock, rest = upload_then(proxy, app, behind, offset)
            with sock:
                assert read_answer(sock, rest)[1] == b"/new/next?q"
            lines = app.heads[-1].split(b"\r\n")
            assert lines[0] == b"GET /new/next?q HTTP/1.1"
            assert sorted(lines[1:]) == [
                b"host: a", b"x-forwarded-for: 127.0.0.1", b"x-forwarded-proto: https", b"x-id: kept-/next",
                b"x-kept: <kept>", b"x-late: late", b"x-seen: kept,<KEPT>,/next?q",
            ]  # fmt: skip
    finally:
        proxy.close()


@pytest.mark.parametrize("size", [20000, 100000])
def test_a_head_that_is_too_long_is_so_in_a_large_buffer_too(scripted, size):
    """Behind a large download the buffer of answers is the large one as well."""
    big = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % UPLOAD + b"d" * UPLOAD
    long = b"HTTP/1.1 200 OK\r\nX-Long: %s\r\nContent-Length: 2\r\n\r\nok" % (b"x" * size)

    def script(server: ScriptedServer, sock: socket.socket, _number: int) -> None:
        head, rest = server.read_head(sock)
        while head:
            sock.sendall(long if b"/long" in head else big)
            head, rest = server.read_head(sock, rest)

    text = FILE.replace("{port}", str(scripted(script).port)).replace(
        "    timeout connect", "    http-response set-header X-Out 1\n    timeout connect"
    )
    tables = load_text(text)
    tables = replace(tables, frontends=(replace(tables.frontends[0], binds=(Bind("127.0.0.1", 0),)),))
    proxy = RunningProxy(tables)
    try:
        for _ in range(TRIES):
            with proxy.connect() as sock:
                sock.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
                assert len(read_answer(sock)[1]) == UPLOAD
                sock.sendall(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
                assert read_answer(sock)[0].startswith(b"HTTP/1.1 502 ")
    finally:
        proxy.close()
