"""HTTP/1 for the reference proxy: strict parsing, framing and reading of messages over blocking sockets with deadlines.

Written from RFC 9112 and independently of the compiled parser, so that the two can be compared. What is ambiguous is
refused (`Bad`): several or differing lengths, a length together with a coding, line folding, bare CR, NUL, blanks
before the colon, overlong heads. Line ends may be a bare LF, except in messages with a transfer coding.
"""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from haptk.io import clock

MAX_HEADERS = 101
CHUNK_LINE_MAX = 1024
TRAILERS_MAX = 8192
_TCHAR = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_REQUEST_LINE = re.compile(rf"({_TCHAR}{{1,64}}) ([\x21\x22\x24-\x7e]+) HTTP/1\.([0-9])".encode())
_REQUEST_BEGIN = re.compile(
    rf"{_TCHAR}{{0,64}}|{_TCHAR}{{1,64}} [\x21\x22\x24-\x7e]*|{_TCHAR}{{1,64}} [\x21\x22\x24-\x7e]+ [HTP/1.0-9]{{0,8}}\r?".encode()
)
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: ([^\x00\r\n]*))?")
_FIELD = re.compile(rf"({_TCHAR}+):[ \t]*(.*)".encode(), re.DOTALL)
_HOST = re.compile(r"[\x21\x22\x24-\x2b\x2d\x2e\x30-\x3e\x41-\x5b\x5d-\x7e]*")


class Bad(Exception):
    """A message that is refused; the text says why."""


class Gone(Exception):
    """The peer closed or reset its connection."""


class Wire:
    """A socket with what was read from it and not used yet."""

    def __init__(self, channel: socket.socket) -> None:
        self.socket = channel
        self.data = b""
        self.ended = False
        self.reused = False
        self.received = 0
        self.sent = 0
        self.before_fill: Callable[[float | None], None] | None = None  # may raise to break a read off

    def fill(self, until: float | None) -> bool:
        """Read more; False at the end of the stream. Raises TimeoutError at `until` (monotonic), Gone on a reset."""
        if self.before_fill is not None:
            self.before_fill(until)
        try:
            self.socket.settimeout(None if until is None else max(until - clock.monotonic(), 0.001))
            part = self.socket.recv(65536)
        except TimeoutError:
            raise
        except OSError as error:
            raise Gone(str(error)) from None
        self.received += len(part)
        self.data += part
        self.ended = self.ended or not part
        return bool(part)

    def send(self, data: bytes, timeout_s: float | None) -> None:
        """Send all. The limit is on each wait, as `timeout client` and `timeout server` are."""
        try:
            self.socket.settimeout(timeout_s)
            view = memoryview(data)
            while view:
                count = self.socket.send(view)
                self.sent += count
                view = view[count:]
        except TimeoutError:
            raise
        except OSError as error:
            raise Gone(str(error)) from None

    def readable(self, others: list[Wire], until: float | None) -> list[Wire]:
        """Which of this wire and the others has something to read (or has ended); [] at `until`."""
        wires = [self, *others]
        ready = [wire for wire in wires if wire.data]
        if ready:
            return ready
        left = None if until is None else max(until - clock.monotonic(), 0.0)
        found, _, _ = select.select([wire.socket for wire in wires], [], [], left)
        return [wire for wire in wires if wire.socket in found]

    def close(self) -> None:
        self.socket.close()


@dataclass
class Head:
    """A parsed head. `body` is none, length, chunked or eof; header names are lower-case, text is Latin-1."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    minor: int = 1
    body: str = "none"
    length: int = 0
    method: str = ""
    target: str = ""
    status: int = 0
    reason: str = ""
    bare_lf: bool = False
    size: int = 0

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def words(self, name: str) -> set[str]:
        """The comma-separated words of a header, lower-case."""
        return {word.strip(" \t").lower() for value in self.values(name) for word in value.split(",")} - {""}

    @property
    def persistent(self) -> bool:
        """Whether the sender means to keep its connection."""
        words = self.words("connection")
        return "close" not in words and (self.minor == 1 or "keep-alive" in words)


def split_head(data: bytes) -> tuple[list[bytes], int, bool] | None:
    """The lines of the head at the beginning of `data`, its size, and whether a line end was a bare LF; None for more."""
    at = 0
    lines: list[bytes] = []
    bare = False
    while True:
        end = data.find(b"\n", at)
        if end < 0:
            _check_line(data[at:].removesuffix(b"\r"))
            return None
        line = data[at:end]
        if line.endswith(b"\r"):
            line = line[:-1]
        else:
            bare = True
        at = end + 1
        if not line and lines:
            return lines, at, bare
        _check_line(line)
        lines.append(line)
        if len(lines) > MAX_HEADERS + 1:
            raise Bad("too many headers")


def _check_line(line: bytes) -> None:
    if b"\r" in line:
        raise Bad("a CR without LF")
    if b"\0" in line:
        raise Bad("a NUL")


def parse_request(data: bytes, *, lax: bool) -> Head | None:
    """The request head at the beginning of `data`, None when more bytes are needed. Raises Bad."""
    skipped = len(data) - len(data.lstrip(b"\r\n"))
    if skipped > 8 or re.match(rb"\n*(\r\n+)*\r[^\n]", data):
        raise Bad("a CR without LF before the request")
    rest = data[skipped:]
    if not rest:
        return None
    first = rest.partition(b"\n")[0]
    if b"\n" not in rest and not _REQUEST_BEGIN.fullmatch(first):
        raise Bad("no request line")
    if b"\n" in rest and not _REQUEST_LINE.fullmatch(first.removesuffix(b"\r")):
        raise Bad("no request line")
    found = split_head(rest)
    if found is None:
        return None
    lines, size, bare = found
    line = _REQUEST_LINE.fullmatch(lines[0])
    assert line is not None  # noqa: S101 (checked above)
    head = Head(minor=min(int(line[3]), 1), bare_lf=bare, size=size + skipped)
    head.method, head.target = line[1].decode(), line[2].decode()
    _fields(head, lines[1:], request=True)
    if not lax:
        _check_target(head)
    return head


def parse_response(data: bytes) -> Head | None:
    """The response head at the beginning of `data`, None when more bytes are needed. Raises Bad."""
    if len(data) >= 5 and not data.startswith(b"HTTP/"):
        raise Bad("no status line")
    found = split_head(data)
    if found is None:
        return None
    lines, size, bare = found
    line = _STATUS_LINE.fullmatch(lines[0])
    if not line:
        raise Bad("no status line")
    head = Head(minor=min(int(line[1]), 1), bare_lf=bare, size=size)
    head.status, head.reason = int(line[2]), (line[3] or b"").decode("latin-1")
    _fields(head, lines[1:], request=False)
    return head


def _fields(head: Head, lines: list[bytes], *, request: bool) -> None:
    for line in lines:
        found = _FIELD.fullmatch(line)
        if not found:
            raise Bad("a header line without a name and a colon")
        head.headers.append((found[1].decode().lower(), found[2].rstrip(b" \t").decode("latin-1")))
    lengths, codings = head.values("content-length"), head.values("transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Bad("more than one word about the length of the body")
    if lengths:
        if not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
            raise Bad("a length that is none")
        head.body, head.length = "length", int(lengths[0])
    if codings:
        if head.minor == 0 or head.bare_lf:
            raise Bad("a transfer coding in HTTP/1.0 or with bare line feeds")
        words = [word.strip(" \t").lower() for word in codings[0].split(",")]
        if words[-1] != "chunked" or words.count("chunked") > 1 or (request and len(words) > 1) or "" in words:
            raise Bad("a transfer coding that does not end the message")
        head.body = "chunked"
    if request:
        hosts = head.values("host")
        if len(hosts) > 1 or (hosts and not _HOST.fullmatch(hosts[0].replace("@", "/"))):
            raise Bad("not one proper Host")


def _check_target(head: Head) -> None:
    """The form has to fit the method, and an absolute one has to agree with Host (RFC 9112 3.2)."""
    hosts = head.values("host")
    if head.minor == 1 and not hosts:
        raise Bad("no Host")
    target = head.target
    if head.method == "CONNECT":
        if target.startswith("/"):
            raise Bad("CONNECT to a path")
        return
    if target.startswith("/") or (target == "*" and head.method == "OPTIONS"):
        return
    absolute = re.match(rf"{_TCHAR}+://([^/?]+)", target)
    if not absolute or target.startswith("*") or "@" in absolute[1]:
        raise Bad("a target of no known form")
    if hosts and absolute[1].lower() != hosts[0].lower():
        raise Bad("a target for another host than Host says")


# -- bodies -------------------------------------------------------------------------------------------------------


def body_pieces(wire: Wire, head: Head, timeout_s: float | None, *, strip: bool = False) -> Iterator[bytes]:
    """The body as bytes to send on; chunks are framed anew (`strip`: not framed). Raises Bad, Gone, TimeoutError."""
    if head.body == "length":
        yield from _counted(wire, head.length, timeout_s)
    elif head.body == "chunked":
        yield from _chunks(wire, timeout_s, strip=strip)
    elif head.body == "eof":
        while wire.data or _more(wire, timeout_s):
            part, wire.data = wire.data, b""
            yield part


def _until(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else clock.monotonic() + timeout_s


def _more(wire: Wire, timeout_s: float | None) -> bool:
    return wire.fill(_until(timeout_s))


def _counted(wire: Wire, left: int, timeout_s: float | None) -> Iterator[bytes]:
    while left:
        if not wire.data and not _more(wire, timeout_s):
            raise Gone("the body ends too early")
        part, wire.data = wire.data[:left], wire.data[left:]
        left -= len(part)
        yield part


def _line(wire: Wire, limit: int, timeout_s: float | None) -> bytes:
    """One line ending in CR LF, without it."""
    while b"\n" not in wire.data:
        if len(wire.data) > limit:
            raise Bad("a line in the body that is too long")
        if not _more(wire, timeout_s):
            raise Gone("the body ends too early")
    line, wire.data = wire.data.split(b"\n", 1)
    if not line.endswith(b"\r") or b"\r" in line[:-1] or b"\0" in line or len(line) > limit:
        raise Bad("a line in the body without CR LF, or too long")
    return line[:-1]


def _chunks(wire: Wire, timeout_s: float | None, *, strip: bool) -> Iterator[bytes]:
    while True:
        line = _line(wire, CHUNK_LINE_MAX, timeout_s)
        found = re.fullmatch(rb"([0-9A-Fa-f]{1,15})(;.*)?", line, re.DOTALL)
        if not found:
            raise Bad("no chunk size")
        size = int(found[1], 16)
        if size == 0:
            break
        yield b"" if strip else b"%x\r\n" % size
        yield from _counted(wire, size, timeout_s)
        if _line(wire, 2, timeout_s):
            raise Bad("a chunk longer than it said")
        yield b"" if strip else b"\r\n"
    trailers = list(_trailers(wire, timeout_s))
    yield b"" if strip else b"0\r\n" + b"".join(trailers) + b"\r\n"


def _trailers(wire: Wire, timeout_s: float | None) -> Iterator[bytes]:
    total = 0
    while line := _line(wire, TRAILERS_MAX, timeout_s):
        found = _FIELD.fullmatch(line)
        total += len(line) + 2
        if not found or total > TRAILERS_MAX:
            raise Bad("a trailer that is none, or too many of them")
        if found[1].lower() in (b"content-length", b"transfer-encoding", b"host", b"connection"):
            raise Bad("a trailer that speaks of framing")
        yield found[1].lower() + b": " + found[2].rstrip(b" \t") + b"\r\n"
