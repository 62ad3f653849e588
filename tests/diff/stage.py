"""A stage for conversations: servers that break off wherever the script says so, and clients that say several requests.

Each program has a stage of its own (servers, ports, log), so that all three can play the same cases at the same time.
A case is played with no server connection open: what a program does with its connections is then its answer to the case.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.diff.rig import LogServer, _read_message, exchange  # noqa: F401

WAIT_S = 10.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

# What a server does with a request that it has read: (bytes, how it goes on). `keep`: the next request; `fin`, `rst`: the
# end of the connection; `wait`: it says no more and waits for the other side to end it.
ANSWERS: dict[str, tuple[bytes, str]] = {
    "ok": (OK, "keep"),
    "ok_fin": (OK, "fin"),
    "ok_close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "fin"),
    "ok_close_open": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "wait"),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "keep"),
    "chunked_fin": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "fin"),
    "no_length": (b"HTTP/1.1 200 OK\r\n\r\nok", "fin"),
    "http10": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "fin"),
    "http10_keep": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "keep"),
    "http10_no_length": (b"HTTP/1.0 200 OK\r\n\r\nok", "fin"),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, "keep"),
    "no_content": (b"HTTP/1.1 204 No\r\n\r\n", "keep"),
    "not_modified": (b"HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n", "keep"),
    "found": (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "keep"),
    "s401": (b"HTTP/1.1 401 x\r\nContent-Length: 2\r\n\r\nno", "keep"),
    "s404": (b"HTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\nno", "keep"),
    "s500": (b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\nno", "keep"),
    "s503": (b"HTTP/1.1 503 x\r\nContent-Length: 2\r\n\r\nno", "keep"),
    "s503_fin": (b"HTTP/1.1 503 x\r\nContent-Length: 2\r\n\r\nno", "fin"),
    "s504_close": (b"HTTP/1.1 504 x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", "fin"),
    "empty_fin": (b"", "fin"),
    "empty_rst": (b"", "rst"),
    "half_status": (b"HTTP/1.", "fin"),
    "half_head": (b"HTTP/1.1 200 OK\r\nContent-Le", "fin"),
    "half_head_rst": (b"HTTP/1.1 200 OK\r\nContent-Le", "rst"),
    "junk": (b"garbage\r\n\r\n", "fin"),
    "bad_length": (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "fin"),
    "continue_fin": (b"HTTP/1.1 100 Continue\r\n\r\n", "fin"),
    "short": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "fin"),
    "short_chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort", "fin"),
    "silent": (b"", "wait"),
}
# What it does with a connection before it reads anything. (A reset there is seen as a failed connection or as a lost one,
# by whichever comes first.)
GREETINGS = ("accept_fin",)


def end(channel: socket.socket, how: str) -> None:
    """Close one way or the other; a reset overtakes what was sent, so it waits a moment first."""
    with contextlib.suppress(OSError):
        if how == "rst":
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            channel.shutdown(socket.SHUT_WR)
            while channel.recv(65536):
                pass
    channel.close()


@dataclass
class Stage:
    """Servers s1, s2 and the port of one that is not there."""

    plan: list[str] = field(default_factory=list)
    trace: list[tuple[str, int, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.changed = threading.Condition()
        self.channels: dict[socket.socket, int] = {}
        self.number = 0
        self.ending = 0  # connections that a server has ended and the program has not yet
        self.log = LogServer()
        self.listeners = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(2)]
        self.ports = {f"s{at}": one.getsockname()[1] for at, one in enumerate(self.listeners, 1)}
        for name, listener in zip(self.ports, self.listeners, strict=True):
            threading.Thread(target=self._accept, args=(listener, name), daemon=True).start()

    def _accept(self, listener: socket.socket, name: str) -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.changed:
                self.number += 1
                self.channels[channel] = self.number
            threading.Thread(target=self._serve, args=(channel, name), daemon=True).start()

    def _next(self, *, greeting: bool) -> str:
        with self.changed:
            if greeting != (self.plan[:1] != [] and self.plan[0] in GREETINGS):
                return ""
            return self.plan.pop(0) if self.plan else "ok"

    def _serve(self, channel: socket.socket, name: str) -> None:
        try:
            self._talk(channel, name)
        finally:
            with self.changed:
                del self.channels[channel]
                self.changed.notify_all()
            channel.close()

    def _talk(self, channel: socket.socket, name: str) -> None:
        rest = b""
        if greeting := self._next(greeting=True):
            self.note(channel, name, greeting, "")
            end(channel, greeting.partition("_")[2])
            return
        with contextlib.suppress(OSError):
            while True:
                head, body, rest = _read_message(channel, rest)
                if not head:
                    return
                # a greeting that comes when a connection is used again is an end without an answer
                action = self._next(greeting=False) or self._next(greeting=True)
                self.note(channel, name, action, "" if action in GREETINGS else tidy(head) + body.decode("latin-1"))
                said, how = ANSWERS[action.replace("accept", "empty")]
                if head.startswith(b"HEAD") and b"\r\n\r\n" in said:
                    cut = said.rindex(b"\r\n\r\n") if action == "continue" else said.index(b"\r\n\r\n")
                    said = said[: cut + 4]
                with self.changed:
                    self.ending += how in ("fin", "rst")
                channel.sendall(said)
                if how in ("fin", "rst"):
                    if how == "rst" and said:
                        time.sleep(0.02)
                    end(channel, how)
                    with self.changed:
                        self.ending -= 1
                        self.changed.notify_all()
                    return
                if how == "wait":
                    while channel.recv(65536):
                        pass
                    return

    def note(self, channel: socket.socket, name: str, action: str, head: str) -> None:
        with self.changed:
            self.trace.append((name, self.channels[channel], action, head))

    def settle(self) -> None:
        """Wait until the program has noticed each end of a connection that a server has made."""
        with self.changed:
            self.changed.wait_for(lambda: self.ending == 0, WAIT_S)

    def begin(self, plan: list[str]) -> None:
        """A new case; nothing of the one before is left."""
        self.still()
        with self.changed:
            self.plan, self.trace, self.number, self.ending = list(plan), [], 0, 0

    def still(self) -> None:
        """End all server connections and wait until the program has noticed."""
        with self.changed:
            for channel in self.channels:
                with contextlib.suppress(OSError):
                    channel.shutdown(socket.SHUT_WR)
            assert self.changed.wait_for(lambda: not self.channels, WAIT_S), "server connections stay open"

    def close(self) -> None:
        for listener in self.listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.log.close()


def tidy(head: bytes) -> str:
    """A head without what means nothing: where Connection stands among the others."""
    first, *lines = head.decode("latin-1").split("\r\n")
    return "\n".join([first, *sorted(line.lower() for line in lines)])


def meaning(head: bytes, *, ends: bool) -> str:
    """A response head by what it means to a client.

    HAProxy passes the version of a server on that speaks HTTP/1.0, haptk says its own (RFC 9110 2.5), and each uses
    the Connection header that goes with it; only haptk spares a client of HTTP/1.0 the chunks.
    """
    first, *lines = tidy(head).split("\n")
    kept = [line for line in lines if not line.startswith(("connection:", "transfer-encoding:"))]
    return "\n".join([first.replace("HTTP/1.0", "HTTP/1.1"), *kept, "ends" if ends else "stays"])


def unchunked(data: bytes) -> bytes:
    """The body without its chunks, as far as it goes."""
    body = b""
    while found := re.match(rb"([0-9a-fA-F]+)\r\n", data):
        size = int(found[1], 16)
        body += data[found.end() : found.end() + size]
        data = data[found.end() + size + 2 :]
    return body


def answer(channel: socket.socket, data: bytes, *, head_only: bool, old: bool) -> tuple[str, bytes, bool]:
    """(what the client sees, unread bytes, whether the connection is over) of one final answer. `old`: to HTTP/1.0."""
    try:
        while True:
            while b"\r\n\r\n" not in data:
                part = channel.recv(65536)
                if not part:
                    return ("nothing" if not data else f"cut {data!r}"), b"", True
                data += part
            head, _, data = data.partition(b"\r\n\r\n")
            if not re.match(rb"HTTP/1\.\d 1", head):
                break
        body, over = b"", False
        lower = head.lower()
        if head_only or re.match(rb"http/1\.\d (204|304)", lower):
            pass
        elif found := re.search(rb"\ncontent-length: *(\d+)", lower):
            while len(data) < int(found[1]) and not over:
                part = channel.recv(65536)
                over, data = not part, data + part
            body, data = data[: int(found[1])], data[int(found[1]) :]
        elif b"\ntransfer-encoding: chunked" in lower:
            while not data.endswith(b"0\r\n\r\n") and b"0\r\n\r\nHTTP/" not in data and not over:
                part = channel.recv(65536)
                over, data = not part, data + part
            body, _, data = data.partition(b"0\r\n\r\n")
            body = unchunked(body)
        else:
            while part := channel.recv(65536):
                data += part
            body, data, over = data, b"", True
        announced = b"\nconnection: close" in lower or (
            lower.startswith(b"http/1.0") and b"\nconnection: keep-alive" not in lower
        )
        if announced and not over:
            over = not channel.recv(65536)
        cut = over and not announced and not old
        return f"{meaning(head, ends=over)}\n{body!r}{' cut' if cut else ''}", data, over
    except ConnectionError:
        return f"reset after {data!r}", b"", True
    except TimeoutError:
        return f"no answer, {data!r}", b"", True


def converse(
    address: tuple[str, int], requests: list[bytes], *, pipelined: bool, settle: Callable[[], None] = lambda: None
) -> list[str]:
    """Say the requests on one connection, each after the answer to the one before or all at once; what came back.

    `settle` is called before each request but the first.
    """
    found: list[str] = []
    data = b""
    with socket.create_connection(address, WAIT_S) as channel:
        channel.settimeout(WAIT_S)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if pipelined:
            channel.sendall(b"".join(requests))
        for request in requests:
            if not pipelined:
                if found:
                    settle()
                try:
                    channel.sendall(request)
                except ConnectionError:
                    return [*found, "closed"]
            old = b" HTTP/1.0\r" in request
            text, data, over = answer(channel, data, head_only=request.startswith(b"HEAD"), old=old)
            found.append(text)
            if over:
                break
    return found
