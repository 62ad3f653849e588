"""HTTP/1.1 messages over asyncio streams: just what the fault switch, the metadata service and the feed need.

RFC 9112. A message is read whole (its head at most 64 KiB, its body at most 64 MiB) because every fault is decided
on the whole request. Malformed input raises WireError; end of stream before the first byte of a message is None.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

HEAD_MAX = 65536
BODY_MAX = 64 * 1024 * 1024
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect")
)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")  # int() alone would take +3, 0x3 and 1_0


class WireError(Exception):
    """The other side does not speak HTTP/1.1 as we understand it."""


@dataclass
class Message:
    """One request or response: `start` is its first line in three words, header names keep their case and order."""

    start: tuple[str, str, str]
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str, default: str = "") -> str:
        """The first header of this name, whatever its case."""
        for known, value in self.headers:
            if known.lower() == name:
                return value
        return default

    def has(self, name: str) -> bool:
        return any(known.lower() == name for known, _ in self.headers)

    def encode(self, *, connection: str, empty: bool = False) -> bytes:
        """The bytes to send, with our own framing; `empty` keeps Content-Length but no body (answer to HEAD)."""
        lines = [" ".join(self.start)]
        dropped = HOP_BY_HOP if empty else HOP_BY_HOP | {"content-length"}
        lines += [f"{name}: {value}" for name, value in self.headers if name.lower() not in dropped]
        if not empty:
            lines.append(f"Content-Length: {len(self.body)}")
        lines.append(f"Connection: {connection}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return head if empty else head + self.body


def wants_close(request: Message) -> bool:
    """RFC 9112, 9.3: whether the connection ends after this exchange."""
    options = [word.strip() for word in request.header("connection").lower().split(",")]
    return "close" in options or (request.start[2] == "HTTP/1.0" and "keep-alive" not in options)


async def read_head(reader: asyncio.StreamReader) -> Message | None:
    """The start line and headers of the next message; None when the stream ends cleanly before one."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise WireError("the stream ended inside a head") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise WireError("the head is too long") from error
    lines = raw.decode("latin-1").strip("\r\n").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) != 3:
        raise WireError(f"no HTTP start line: {lines[0][:80]!r}")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise WireError(f"no HTTP header: {line[:80]!r}")
        headers.append((name, value.strip()))
    return Message((words[0], words[1], words[2]), headers)


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message | None:
    """The next whole request; says 100 Continue when the client waits for it."""
    request = await read_head(reader)
    if request is None:
        return None
    if not request.start[2].startswith("HTTP/1."):
        raise WireError(f"not HTTP/1: {request.start[2][:20]!r}")
    if request.header("expect").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if request.has("transfer-encoding") or request.has("content-length"):
        request.body = await _read_body(reader, request)
    return request


async def read_response(reader: asyncio.StreamReader, method: str) -> Message:
    """The next whole final response to a request of this method; interim ones (1xx) are skipped."""
    while True:
        response = await read_head(reader)
        if response is None:
            raise WireError("the connection was closed without an answer")
        if not response.start[1].isdigit():
            raise WireError(f"no HTTP status: {response.start[1][:20]!r}")
        status = int(response.start[1])
        if status >= 200:
            break
    if method != "HEAD" and status not in (204, 304):
        if response.has("transfer-encoding") or response.has("content-length"):
            response.body = await _read_body(reader, response)
        else:
            response.body = await reader.read(BODY_MAX)
    return response


async def _read_body(reader: asyncio.StreamReader, message: Message) -> bytes:
    try:
        if "chunked" in message.header("transfer-encoding").lower():
            return await _read_chunks(reader)
        text = message.header("content-length")
        if not text.isdigit() or int(text) > BODY_MAX:
            raise WireError(f"Content-Length {text[:20]!r} is not a number up to {BODY_MAX}")
        return await reader.readexactly(int(text))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise WireError("the body does not end as it should") from error


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    total = 0
    while True:
        try:
            words = (await reader.readuntil(b"\r\n")).split(b";", 1)[0].strip()
        except asyncio.LimitOverrunError as error:
            raise WireError("no chunk size") from error
        if not _CHUNK_SIZE.fullmatch(words):
            raise WireError(f"no chunk size: {words[:20]!r}")
        size = int(words, 16)
        total += size
        if total > BODY_MAX:
            raise WireError("the chunks are too long")
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return b"".join(parts)
        parts.append(await reader.readexactly(size))
        if await reader.readexactly(2) != b"\r\n":
            raise WireError("a chunk has no end")
