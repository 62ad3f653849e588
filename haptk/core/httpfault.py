"""Where a message stops being HTTP/1, and what it looks like: for `show errors`. Pure.

`locate` names the byte and the state of HAProxy's parser that meets it, as people know them from there. What only
haptk refuses (RFC 9112 asks for it) is placed at the line or the value that is wrong.
"""

from __future__ import annotations

import re

STATES = {
    "MSG_RQBEFORE": 0, "MSG_RQMETH": 2, "MSG_RQURI": 4, "MSG_RQVER": 6, "MSG_RQLINE_END": 7, "MSG_RPBEFORE": 8,
    "MSG_RPVER": 10, "MSG_RPCODE": 12, "MSG_RPLINE_END": 15, "MSG_HDR_FIRST": 16, "MSG_HDR_NAME": 17, "MSG_HDR_VAL": 22,
    "MSG_HDR_L2_LF": 23, "MSG_HDR_L2_LWS": 24, "MSG_LAST_LF": 25, "MSG_CHUNK_SIZE": 26,
}  # fmt: skip
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_SPAN = 79  # of a line of the dump


def locate(data: bytes, *, response: bool) -> tuple[int, str]:
    """The offset of the first byte that is wrong in what begins with a head, and the state that meets it."""
    at, state = (_status_line if response else _request_line)(data)
    if state:
        return at, state
    values: dict[bytes, int] = {}
    while at < len(data) and data[at : at + 1] not in (b"\r", b"\n"):
        at, state = _header(data, at, values, response=response)
        if state:
            return at, state
    if data[at : at + 1] == b"\r" and at + 1 < len(data) and data[at + 1 : at + 2] != b"\n":
        return at + 1, "MSG_LAST_LF"
    return at, "MSG_LAST_LF" if at < len(data) else "MSG_HDR_VAL"


def _match(pattern: bytes, data: bytes, at: int) -> int:
    found = re.compile(pattern).match(data, at)
    return found.end() if found else at


def _request_line(data: bytes) -> tuple[int, str]:
    start = at = _match(rb"(?:\r?\n)*", data, 0)
    if not re.match(_TOKEN, data[at : at + 1]):
        return at, "MSG_RQBEFORE"
    at = _match(_TOKEN + rb"{1,64}", data, start)
    if data[at : at + 1] != b" ":
        return at, "MSG_RQMETH"
    at = _match(rb"[\x21\x22\x24-\x7e]*", data, at + 1)
    if data[at : at + 1] != b" ":
        return at, "MSG_RQURI"
    begin = at + 1
    at = _match(rb"[HTP/.0-9]*", data, begin)
    if not re.fullmatch(rb"HTTP/1\.[0-9]", data[begin:at]) or data[at : at + 1] not in (b"\r", b"\n"):
        return at, "MSG_RQVER"
    return _line_end(data, at, "MSG_RQLINE_END")


def _status_line(data: bytes) -> tuple[int, str]:
    at = _match(rb"[HTP/.0-9]*", data, 0)
    if not re.fullmatch(rb"HTTP/1\.[0-9]", data[:at]) or data[at : at + 1] != b" ":
        return at, "MSG_RPVER"
    begin = at + 1
    at = _match(rb"[0-9]*", data, begin)
    if not re.fullmatch(rb"[1-9][0-9]{2}", data[begin:at]) or data[at : at + 1] not in (b" ", b"\r", b"\n"):
        return at, "MSG_RPCODE"
    return _line_end(data, _match(rb"[^\r\n\0]*", data, at), "MSG_RPLINE_END")


def _line_end(data: bytes, at: int, state: str) -> tuple[int, str]:
    """Behind a line end at `at`; the state when there is none."""
    if data[at : at + 1] == b"\r":
        at += 1
    return (at + 1, "") if data[at : at + 1] == b"\n" else (at, state)


def _header(data: bytes, start: int, values: dict[bytes, int], *, response: bool) -> tuple[int, str]:
    if data[start : start + 1] in (b" ", b"\t"):
        return start, "MSG_HDR_L2_LWS"
    at = _match(_TOKEN + b"*", data, start)
    if at == start or data[at : at + 1] != b":":
        return at, "MSG_HDR_NAME"
    name = data[start:at].lower()
    begin = _match(rb"[ \t]*", data, at + 1)
    at = _match(rb"[^\r\n\0]*", data, begin)
    if data[at : at + 1] not in (b"\r", b"\n"):
        return at, "MSG_HDR_VAL"
    end, state = _line_end(data, at, "MSG_HDR_L2_LF")
    if not state and _framing_fault(name, data[begin:at].strip(b" \t"), values, response=response):
        return begin, "MSG_HDR_L2_LWS"
    return end, state


def _framing_fault(name: bytes, value: bytes, values: dict[bytes, int], *, response: bool) -> bool:
    """Whether this header leaves open where the message ends, or whom it is for."""
    values[name] = values.get(name, 0) + 1
    if name == b"content-length":
        return not re.fullmatch(rb"[0-9]{1,18}", value) or values[name] > 1 or b"transfer-encoding" in values
    if name == b"transfer-encoding":
        words = [word.strip(b" \t").lower() for word in value.split(b",")]
        known = words[-1] == b"chunked" and words.count(b"chunked") == 1 and b"" not in words
        return not known or (not response and len(words) > 1) or values[name] > 1 or b"content-length" in values
    return name == b"host" and not response and values[name] > 1


def dump(data: bytes) -> str:
    """Lines of the bytes as HAProxy shows them: an offset, `+` where a line goes on, escapes for what cannot be seen."""
    out: list[str] = []
    at = line = 0
    escapes = {9: "\\t", 10: "\\n", 13: "\\r", 27: "\\e", 92: "\\\\"}
    while at < len(data):
        shown = f"  {at:05}{' ' if at == line else '+'} "
        while at < len(data):
            byte = data[at]
            piece = escapes.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02X}")
            if len(shown) + len(piece) > _SPAN:
                break
            shown += piece
            at += 1
            if byte == 10:
                line = at
                break
        out.append(shown + "\n")
    return "".join(out)
