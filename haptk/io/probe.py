"""Blocking probes with one deadline over everything, name resolution included. A probe answers; it never raises for the peer.

The result carries a sentence for the log and HAProxy's short code (L4OK, L4CON, L4TOUT, L7OK, L7STS, L7RSP, L7TOUT,
SOCKERR), so that stats and logs read as their users know them. Raw sockets are used on purpose: http.client repairs
and accepts what a checker has to report.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from haptk.io.exchange import Exchange, Failed, why_of
from haptk.io.exchange import ProbeResult as ProbeResult

if TYPE_CHECKING:
    from haptk.io.tls import TlsWish

MAX_HEAD_BYTES = 16384
MAX_RESPONSE_BYTES = 1 << 20  # what an expectation may see of an answer, unless said otherwise
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d[ ]+(\d{3})(?:[ ]+([^\r\n]*))?\r?\n")


class Expectation(Protocol):
    """What a response has to look like: `kind` is status, rstatus, string, rstring, binary, rbinary, hdr or fhdr."""

    @property
    def kind(self) -> str: ...
    @property
    def pattern(self) -> str: ...
    @property
    def negate(self) -> bool: ...


class Step(Protocol):
    """One step of a scripted TCP probe: `action` is connect, send, send-binary, expect (or comment)."""

    @property
    def action(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def port(self) -> int: ...
    @property
    def expect(self) -> Expectation | None: ...


@dataclass
class _Response:
    status: int
    phrase: str
    headers: list[tuple[str, str]]
    body: bytes
    body_complete: bool


def _proxy_header(exchange: Exchange, version: int) -> bytes:
    """What HAProxy's checks begin with under `send-proxy`: their own two ends in version 1, LOCAL in version 2."""
    if version == 2:
        return b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
    channel = exchange.socket
    if channel is None or channel.family not in (socket.AF_INET, socket.AF_INET6):
        return b"PROXY UNKNOWN\r\n"
    (source, source_port), (target, target_port) = channel.getsockname()[:2], channel.getpeername()[:2]
    family = "TCP6" if channel.family == socket.AF_INET6 else "TCP4"
    return f"PROXY {family} {source} {target} {source_port} {target_port}\r\n".encode()


# -- TCP ----------------------------------------------------------------------------------------------------------


def probe_tcp(
    host: str,
    port: int,
    timeout_s: float,
    *,
    send_proxy: int = 0,
    steps: Sequence[Step] = (),
    tls: TlsWish | None = None,
    source: tuple[str, int, int] | None = None,
    max_bytes: int = MAX_RESPONSE_BYTES,
) -> ProbeResult:
    """Connect (and play `steps`, as `tcp-check` does) within `timeout_s`. `host` may be the path of a unix socket."""
    exchange = Exchange(host, port, timeout_s, tls=tls, source=source)
    try:
        if not steps or steps[0].action != "connect":
            exchange.connect()
            if send_proxy:
                exchange.send(_proxy_header(exchange, send_proxy))
        if steps:
            _play(exchange, steps, max_bytes, send_proxy=send_proxy)
            return exchange.result(True, "L7OK", f"{exchange.where} answered as expected")
        return exchange.result(True, "L4OK", f"{exchange.where} accepts connections")
    except Failed as failed:
        return exchange.result(False, failed.code, failed.reason, failed.status)
    except OSError as error:
        return exchange.result(False, "SOCKERR", f"this machine could not probe {exchange.where}: {why_of(error)}")
    finally:
        exchange.close()


def _play(exchange: Exchange, steps: Sequence[Step], max_bytes: int, *, send_proxy: int) -> None:
    unread = b""
    for step in steps:
        if step.action == "connect":
            exchange.close()
            unread = b""
            if step.port:
                exchange.port = step.port
                exchange.where = f"{exchange.host}:{step.port}"
            exchange.connect()
            if send_proxy:
                exchange.send(_proxy_header(exchange, send_proxy))
        elif step.action in ("send", "send-binary"):
            unread = b""
            exchange.send(step.data)
        elif step.action == "expect" and step.expect is not None:
            unread = _await(exchange, step.expect, unread, max_bytes)


def _await(exchange: Exchange, expect: Expectation, seen: bytes, max_bytes: int) -> bytes:
    """Read until the expectation is decided; returns what was read, for the next expectation on the same answer.

    What must not come has not come only when the answer has ended: a server that is silent, or that says nothing at all,
    proves nothing.
    """
    while True:
        found = _content_matches(expect, seen)
        if found and not expect.negate:
            return seen
        if found:
            raise Failed("L7RSP", f"{exchange.where} answered with what it must not: {expect.pattern!r}")
        if len(seen) >= max_bytes:
            raise _too_long(exchange, expect, max_bytes)
        part = exchange.receive()
        if part:
            seen += part
        elif not seen:
            raise Failed("L7RSP", f"{exchange.where} closed without an answer")
        elif expect.negate:
            return seen
        else:
            raise Failed("L7RSP", f"{exchange.where} did not answer with {expect.kind} {expect.pattern!r}")


def _too_long(exchange: Exchange, expect: Expectation, max_bytes: int, status: int | None = None) -> Failed:
    """The answer goes on behind what is looked at, so nobody knows."""
    return Failed(
        "UNK", f"the answer of {exchange.where} is over {max_bytes} bytes; {expect.kind} {expect.pattern!r} was not in these", status
    )  # fmt: skip


def _content_matches(expect: Expectation, data: bytes) -> bool:
    kind, pattern = expect.kind, expect.pattern
    if kind == "string":
        return pattern.encode("utf-8", "surrogateescape") in data
    if kind == "rstring":
        return re.search(pattern, data.decode("latin-1"), re.DOTALL) is not None
    if kind == "binary":
        return bytes.fromhex(pattern) in data
    if kind == "rbinary":
        return re.search(pattern, data.hex().upper(), re.DOTALL) is not None
    raise ValueError(f"{kind} is no expectation about content")


# -- HTTP ---------------------------------------------------------------------------------------------------------


def http_request(
    method: str,
    uri: str,
    version: str,
    host: str,
    port: int,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    raw_suffix: bytes = b"",
) -> bytes:
    """The bytes of a check's request: HAProxy's form, with a Host header on HTTP/1.1 where nobody configured one.

    `raw_suffix` is what old configurations smuggled in after the version (`\\r\\nHost:\\ www`).
    """
    names = {name.lower() for name, _ in headers} | {
        line.partition(b":")[0].strip().lower().decode("latin-1") for line in raw_suffix.split(b"\r\n") if line
    }
    lines = [f"{method} {uri} {version}".encode("latin-1", "replace")]
    lines += [line for line in raw_suffix.split(b"\r\n") if line]
    if version.upper() == "HTTP/1.1" and "host" not in names:
        named = "localhost" if host.startswith(("/", "\0")) else f"[{host}]" if ":" in host else host
        lines.append(f"host: {named}{'' if port in (0, 80) else f':{port}'}".encode("latin-1", "replace"))
    lines += [f"{name}: {value}".encode("latin-1", "replace") for name, value in headers]
    if version.upper() == "HTTP/1.1" and "connection" not in names:
        lines.append(b"connection: close")
    if body and "content-length" not in names:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def probe_http(
    method: str,
    uri: str,
    version: str,
    host: str,
    port: int,
    headers: Sequence[tuple[str, str]] = (),
    expect: Sequence[Expectation] | Expectation | None = None,
    timeout_s: float = 2.0,
    *,
    body: bytes = b"",
    raw_suffix: bytes = b"",
    send_proxy: int = 0,
    connect_timeout_s: float | None = None,
    tls: TlsWish | None = None,
    source: tuple[str, int, int] | None = None,
    max_bytes: int = MAX_RESPONSE_BYTES,
) -> ProbeResult:
    """One HTTP request on a fresh connection; ok for 200 to 399, or for what `expect` says.

    `timeout_s` bounds look-up, connection, request and answer together. The answer has to be a whole HTTP head:
    garbage, a head that is cut off, and 101 are failures. Expectations see `max_bytes` of a body; where that does not
    decide, the code is UNK. Never raises for anything the peer does.
    """
    wanted = () if expect is None else expect if isinstance(expect, Sequence) else (expect,)
    exchange = Exchange(host, port, timeout_s, connect_timeout_s, tls, source)
    try:
        exchange.connect()
        if send_proxy:
            exchange.send(_proxy_header(exchange, send_proxy))
        exchange.send(http_request(method, uri, version, host, port, headers, body, raw_suffix))
        response = _read_response(exchange, method, wanted, max_bytes)
        _judge(exchange, response, wanted)
        text = f"{exchange.where} answered {response.status} {response.phrase}".rstrip()
        return exchange.result(True, "L7OK", text, response.status)
    except Failed as failed:
        return exchange.result(False, failed.code, failed.reason, failed.status)
    except OSError as error:
        return exchange.result(False, "SOCKERR", f"this machine could not probe {exchange.where}: {why_of(error)}")
    finally:
        exchange.close()


def _read_response(exchange: Exchange, method: str, wanted: Sequence[Expectation], max_bytes: int) -> _Response:
    """Read one whole head, and as much of the body as the expectations need."""
    data = b""
    while True:
        end = re.search(rb"\r?\n\r?\n", data)
        if end:
            response = _parse_head(exchange, data[: end.end()], data[end.end() :])
            if 100 <= response.status < 200 and response.status != 101:
                data = data[end.end() :]  # an interim answer; the real one follows
                continue
            break
        if data and not (_STATUS_LINE.match(data) or _may_become_status_line(data)):
            raise Failed("L7RSP", f"{exchange.where} does not speak HTTP: {data[:40]!r}")
        if len(data) >= MAX_HEAD_BYTES:
            raise Failed("L7RSP", f"the head of the answer of {exchange.where} is over {MAX_HEAD_BYTES} bytes")
        part = exchange.receive()
        if not part:
            what = "closed without an answer" if not data else "closed in the middle of the head of its answer"
            raise Failed("L7RSP", f"{exchange.where} {what}")
        data += part
    on_body = [expect for expect in wanted if expect.kind in ("string", "rstring")]
    if on_body and _status_fits(response.status, wanted):
        if method == "HEAD" or response.status in (204, 304):
            response.body = b""
        else:
            _read_body(exchange, response, on_body, max_bytes)
        if not response.body:
            said = f"{exchange.where} answered {response.status} {response.phrase}".rstrip()
            raise Failed("L7RSP", f"{said}, without a body to look at", response.status)
    return response


def _status_fits(status: int, wanted: Sequence[Expectation]) -> bool:
    """False where an expectation about the status has failed already: then that is what is told."""
    return all(
        matches(expect, status, (), b"") is not expect.negate
        for expect in wanted
        if expect.kind in ("status", "rstatus")
    )


def _may_become_status_line(data: bytes) -> bool:
    """True while these first bytes could still be the beginning of a status line."""
    return b"\n" not in data and (data.startswith(b"HTTP/") or b"HTTP/".startswith(data))


def _parse_head(exchange: Exchange, head: bytes, rest: bytes) -> _Response:
    found = _STATUS_LINE.match(head)
    if not found:
        raise Failed("L7RSP", f"{exchange.where} does not speak HTTP: {head[:40]!r}")
    headers: list[tuple[str, str]] = []
    for line in re.split(rb"\r?\n", head[found.end() :]):
        if not line:
            continue
        name, colon, value = line.partition(b":")
        if not colon or not re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise Failed("L7RSP", f"{exchange.where} sent a header line that is none: {line[:40]!r}", int(found[1]))
        headers.append((name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")))
    return _Response(int(found[1]), (found[2] or b"").decode("latin-1").strip(), headers, rest, False)


def _read_body(exchange: Exchange, response: _Response, on_body: Sequence[Expectation], max_bytes: int) -> None:
    """Read until every expectation is met or the body ends; one that breaks off proves nothing of what must not be in it."""
    fields = dict(response.headers)
    chunked = fields.get("transfer-encoding", "").lower().endswith("chunked")
    length = int(fields["content-length"]) if fields.get("content-length", "").isdecimal() and not chunked else None
    raw = response.body
    while True:
        body, done = unchunk(raw) if chunked else (raw, False)
        if length is not None and len(body) >= length:
            body, done = body[:length], True
        response.body, response.body_complete = body, done
        open_ones = [expect for expect in on_body if expect.negate or not _content_matches(expect, body)]
        if done or not open_ones:
            return
        if len(raw) >= max_bytes:
            raise _too_long(exchange, open_ones[0], max_bytes, response.status)
        part = exchange.receive()
        if not part:
            if body and (chunked or length is not None):
                raise Failed("L7RSP", f"the body of the answer of {exchange.where} breaks off", response.status)
            return
        raw += part


def unchunk(raw: bytes) -> tuple[bytes, bool]:
    """What of a chunked body is there so far, and whether its last chunk has come."""
    body = b""
    while True:
        line, newline, rest = raw.partition(b"\n")
        size_text = line.partition(b";")[0].strip()
        if not newline or not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", size_text):
            return body, bool(newline)
        size = int(size_text, 16)
        if size == 0:
            return body, True
        body += rest[:size]
        if len(rest) < size + 2:
            return body, False
        raw = rest[size:].removeprefix(b"\r").removeprefix(b"\n")


def _judge(exchange: Exchange, response: _Response, wanted: Sequence[Expectation]) -> None:
    """Raise Failed unless the answer is what was expected; without expectations 200 to 399 is."""
    said = f"{exchange.where} answered {response.status} {response.phrase}".rstrip()
    if not wanted and not 200 <= response.status <= 399:
        raise Failed("L7STS", said, response.status)
    for expect in wanted:
        if matches(expect, response.status, response.headers, response.body) is expect.negate:
            wish = f"{'! ' if expect.negate else ''}{expect.kind} {expect.pattern}"
            code = "L7STS" if expect.kind in ("status", "rstatus") else "L7RSP"
            raise Failed(code, f"{said}; expected {wish}", response.status)


def matches(expect: Expectation, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> bool:
    """Whether one answer has the property (`negate` is not applied here).

    `status` takes codes and ranges ("200,300-399"); `hdr`/`fhdr` take "NAME" or "NAME VALUE", where VALUE is compared
    with each of the comma-separated values (hdr) or with the whole line (fhdr).
    """
    if expect.kind == "status":
        ranges = [part.partition("-") for part in expect.pattern.split(",")]
        return any(int(low) <= status <= int(high or low) for low, _, high in ranges)
    if expect.kind == "rstatus":
        return re.search(expect.pattern, str(status)) is not None
    if expect.kind in ("hdr", "fhdr"):
        name, _, value = expect.pattern.partition(" ")
        lines = [text for key, text in headers if key == name.lower()]
        values = [part.strip() for line in lines for part in line.split(",")] if expect.kind == "hdr" else lines
        return value in values if value else bool(lines)
    return _content_matches(expect, body)
