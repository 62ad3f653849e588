"""Probes against scripted servers: what counts as an answer, what is said about one that does not, and the one deadline."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from haptk.io import clock, probe
from haptk.io.probe import probe_http, probe_tcp


@dataclass(frozen=True)
class Want:
    kind: str
    pattern: str
    negate: bool = False


@dataclass(frozen=True)
class Do:
    action: str
    data: bytes = b""
    port: int = 0
    expect: Want | None = None


class Scripted:
    """Accepts connections one after the other; answers each with `answer` (in pieces) and remembers what it was sent."""

    def __init__(self, *pieces: bytes, hang: bool = False, pause_s: float = 0.0, read: bool = True) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.pieces, self.hang, self.pause_s, self.read = pieces, hang, pause_s, read
        self.got: list[bytes] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                channel, _ = self.listener.accept()
            except OSError:
                return
            with channel, contextlib.suppress(OSError):
                if self.read:
                    self.got.append(channel.recv(65536))
                for piece in self.pieces:
                    channel.sendall(piece)
                    self.stop.wait(self.pause_s)
                if self.hang:
                    self.stop.wait(10)

    def close(self) -> None:
        self.stop.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@contextlib.contextmanager
def server(*pieces: bytes, hang: bool = False, pause_s: float = 0.0, read: bool = True) -> Iterator[Scripted]:
    scripted = Scripted(*pieces, hang=hang, pause_s=pause_s, read=read)
    try:
        yield scripted
    finally:
        scripted.close()


def get(port: int, **more: object) -> probe.ProbeResult:
    return probe_http("GET", "/", "HTTP/1.0", "127.0.0.1", port, timeout_s=3, **more)  # type: ignore[arg-type]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("answer", "ok", "code", "status"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", True, "L7OK", 200),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", True, "L7OK", 200),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True, "L7OK", 204),
        (b"HTTP/1.1 399 x\r\n\r\n", True, "L7OK", 399),
        (b"HTTP/1.0 200\r\n\r\n", True, "L7OK", 200),
        (b"HTTP/1.0 200 OK\nfoo: bar\n\n", True, "L7OK", 200),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", True, "L7OK", 200),
        (b"HTTP/1.1 101 Switching\r\n\r\n", False, "L7STS", 101),
        (b"HTTP/1.1 400 Bad\r\n\r\n", False, "L7STS", 400),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False, "L7STS", 404),
        (b"HTTP/1.1 500 Oops\r\n\r\n", False, "L7STS", 500),
        (b"HTTP/1.1 200 OK\r\nfoo", False, "L7RSP", None),
        (b"HTTP/1.1 2", False, "L7RSP", None),
        (b"HTTP/1.1 2000 OK\r\n\r\n", False, "L7RSP", None),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", False, "L7RSP", 200),
        (b"hello world\r\n", False, "L7RSP", None),
        (b"<html>hello</html>", False, "L7RSP", None),
        (b"", False, "L7RSP", None),
    ],
)
def test_answers(answer: bytes, ok: bool, code: str, status: int | None) -> None:
    with server(answer) as scripted:
        result = get(scripted.port)
    assert (result.ok, result.code, result.status) == (ok, code, status), result.reason


def test_answer_in_single_bytes() -> None:
    whole = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\na: b\r\n\r\n"
    with server(*[whole[i : i + 1] for i in range(len(whole))], pause_s=0.001) as scripted:
        assert get(scripted.port).ok


def test_request_bytes_are_those_of_haproxy() -> None:
    assert probe.http_request("OPTIONS", "/", "HTTP/1.0", "h", 80) == b"OPTIONS / HTTP/1.0\r\n\r\n"
    assert (
        probe.http_request("GET", "/alive", "HTTP/1.1", "h", 80, raw_suffix=b"\r\nHost: www")
        == b"GET /alive HTTP/1.1\r\nHost: www\r\nconnection: close\r\n\r\n"
    )
    assert probe.http_request("GET", "/x", "HTTP/1.1", "10.0.0.1", 8080) == (
        b"GET /x HTTP/1.1\r\nhost: 10.0.0.1:8080\r\nconnection: close\r\n\r\n"
    )
    assert probe.http_request("POST", "/", "HTTP/1.0", "h", 80, [("x-a", "b")], b"hey") == (
        b"POST / HTTP/1.0\r\nx-a: b\r\ncontent-length: 3\r\n\r\nhey"
    )


def test_refused_and_unresolvable() -> None:
    port = closed_port()
    result = get(port)
    assert (result.ok, result.code) == (False, "L4CON")
    assert result.reason == f"no connection to 127.0.0.1:{port}: connection refused"
    result = probe_tcp("name.invalid", 80, 3)
    assert (result.ok, result.code) == (False, "L4CON")
    assert result.reason.startswith("name.invalid does not resolve")


def test_one_deadline_over_a_dripping_server() -> None:
    with server(*[b"H", b"T", b"T", b"P", b"/"] * 1, hang=True, pause_s=0.1) as scripted:
        began = clock.monotonic()
        result = probe_http("GET", "/", "HTTP/1.0", "127.0.0.1", scripted.port, timeout_s=0.3)
    assert (result.ok, result.code) == (False, "L7TOUT")
    assert result.duration_s >= 0.29
    assert clock.monotonic() - began < 5


def test_deadline_covers_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def stuck(*_: object, **__: object) -> list[object]:
        gate.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    try:
        result = probe_tcp("slow.example", 80, 0.1)
        assert (result.ok, result.code) == (False, "L4TOUT")
        assert "resolved" in result.reason
        before = threading.active_count()
        assert not probe_tcp("slow.example", 80, 0.1).ok
        assert threading.active_count() == before  # one thread per hanging name, not one per probe
    finally:
        gate.set()


@pytest.mark.parametrize(
    ("want", "ok"),
    [
        (Want("status", "503"), True),
        (Want("status", "200,500-503"), True),
        (Want("status", "200"), False),
        (Want("status", "200", True), True),
        (Want("rstatus", "^5"), True),
        (Want("rstatus", "^2"), False),
        (Want("string", "happy"), True),
        (Want("string", "happy", True), False),
        (Want("string", "sad"), False),
        (Want("rstring", "h.pp[xy]"), True),
        (Want("hdr", "x-a two"), True),
        (Want("hdr", "X-A"), True),
        (Want("hdr", "x-b"), False),
        (Want("fhdr", "x-a one, two"), True),
        (Want("fhdr", "x-a two"), False),
    ],
)
def test_expectations(want: Want, ok: bool) -> None:
    answer = (
        b"HTTP/1.1 503 x\r\nX-A: one, two\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhap\r\n2;x=y\r\npy\r\n0\r\n\r\n"
    )
    with server(*[answer[i : i + 7] for i in range(0, len(answer), 7)], pause_s=0.001) as scripted:
        assert get(scripted.port, expect=want).ok is ok


def test_body_that_never_ends_is_bounded() -> None:
    with server(b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 100_000, hang=True) as scripted:
        result = get(scripted.port, expect=Want("string", "y"))
    assert (result.ok, result.code) == (False, "L7TOUT")
    with server(b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 100_000, hang=True) as scripted:
        result = get(scripted.port, expect=Want("string", "y"), max_bytes=50_000)
    assert (result.ok, result.code) == (False, "UNK")
    assert result.duration_s < 3


def test_tcp_and_proxy_line() -> None:
    with server() as scripted:
        assert probe_tcp("127.0.0.1", scripted.port, 3).code == "L4OK"
        assert probe_tcp("127.0.0.1", scripted.port, 3, send_proxy=1).ok
    with server(b"HTTP/1.0 200 OK\r\n\r\n") as scripted:
        assert get(scripted.port, send_proxy=1).ok
        assert get(scripted.port, send_proxy=2).ok
    assert scripted.got[0].startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
    assert scripted.got[1].startswith(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")


def test_tcp_script() -> None:
    with server(b"+PO", b"NG\r\n") as scripted:
        port = scripted.port
        ping = [Do("connect"), Do("send", b"PING\r\n"), Do("expect", expect=Want("string", "+PONG"))]
        assert probe_tcp("127.0.0.1", port, 3, steps=ping).code == "L7OK"
        binary = [Do("send-binary", b"PING\r\n"), Do("expect", expect=Want("binary", "2b504f4e47"))]
        assert probe_tcp("127.0.0.1", port, 3, steps=binary).ok
        wrong = [Do("send", b"PING\r\n"), Do("expect", expect=Want("rstring", "^-ERR"))]
        result = probe_tcp("127.0.0.1", port, 3, steps=wrong)
        assert (result.ok, result.code) == (False, "L7RSP")
    # A pattern that must not come is judged by what is there: only a whole answer tells.
    with server(b"+PONG\r\n") as scripted:
        port = scripted.port
        never = [Do("send", b"PING\r\n"), Do("expect", expect=Want("string", "PONG", True))]
        assert not probe_tcp("127.0.0.1", port, 3, steps=never).ok


def test_unix_socket(tmp_path: object) -> None:
    path = f"{tmp_path}/s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert probe_tcp(path, 0, 3).ok
    assert not probe_tcp(path, 0, 3).ok


# -- what is not there, not all there, or too long


@contextlib.contextmanager
def once(answer: bytes, *, asked: bool = True) -> Iterator[int]:
    """The port of a server that answers one connection with these bytes and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            channel, _ = listener.accept()
            with channel:
                if asked:
                    channel.recv(4096)
                channel.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.close()
    thread.join(5)


FAR = b"x" * 60_000 + b"far behind"
LONG = b"HTTP/1.0 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(FAR), FAR)


@pytest.mark.parametrize(
    ("answer", "wish", "code"),
    [
        (LONG, Want("string", "far behind"), "L7OK"),
        (LONG, Want("rstring", "xfar.behind$"), "L7OK"),
        (LONG, Want("string", "far behind", True), "L7RSP"),
        (LONG, Want("string", "further", True), "L7OK"),
        (LONG[:-5], Want("string", "further", True), "L7RSP"),  # breaks off
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", Want("string", "further", True), "L7RSP"),
        (b"HTTP/1.0 200 OK\r\n\r\n", Want("string", "further", True), "L7RSP"),
        (b"", Want("string", "further", True), "L7RSP"),
        (b"HTTP/1.0 204 None\r\n\r\n", Want("string", "further", True), "L7RSP"),
    ],
)
def test_an_answer_is_read_to_its_end(answer: bytes, wish: Want, code: str) -> None:
    with once(answer) as port:
        found = probe_http("GET", "/", "HTTP/1.0", "127.0.0.1", port, expect=wish, timeout_s=5)
    assert (found.code, found.ok) == (code, code == "L7OK"), found


def test_half_an_answer_is_unknown() -> None:
    for wish in (Want("string", "far behind"), Want("string", "nowhere", True)):
        with once(LONG) as port:
            found = probe_http("GET", "/", "HTTP/1.0", "127.0.0.1", port, expect=wish, timeout_s=5, max_bytes=20_000)
        assert found.code == "UNK" and "20000 bytes" in found.reason


def test_what_must_not_come_from_a_banner() -> None:
    for banner, code in ((b"", "L7RSP"), (b"554 no", "L7RSP"), (b"220 yes", "L7OK")):
        with once(banner, asked=False) as port:
            found = probe_tcp("127.0.0.1", port, 5, steps=[Do("expect", expect=Want("string", "554", True))])
        assert found.code == code, (banner, found)
