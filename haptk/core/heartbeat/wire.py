"""Frames and fields as Linux-HA heartbeat 3.0.6 puts them into one UDP datagram.

Two framings exist, told apart by the first four bytes. Netstring (`###\\n`): fields as netstrings
`len:(type)name=value,`, then `%%%\\n`, then one netstring with the signature of everything before it. Classic
(`>>>\\n`): `name=value` lines, binary values in base64, and an `auth=` line that signs the other lines.
Reading is in two steps so that nothing of a packet is interpreted before its signature was checked:
`unseal` only finds the signature, `parse` reads the fields.

A message is a dict in wire order: `str` values travel as type 0, `bytes` as type 1.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from dataclasses import dataclass

Value = str | bytes
Message = dict[str, Value]

NETSTRING_START = b"###\n"
NETSTRING_END = b"%%%\n"
CLASSIC_START = b">>>\n"
CLASSIC_END = b"<<<\n"
MAX_PACKET_BYTES = 65507
"""What one UDP datagram can carry over IPv4; longer input is never looked at."""

MAX_FIELDS = 128
LINE_FEED, STAND_IN = "\n", "\x13"
"""What stands for a line feed inside a string value of a classic frame (cluster-glue's cl_msg.c)."""

_NAME = re.compile(rb"[A-Za-z0-9_.:-]{1,64}")
_FIELD = re.compile(rb"\(([0-9])\)([A-Za-z0-9_.:-]{1,64})=")
"""The start of a netstring field: its type and its name."""

CACHED_FIELD_BYTES = 64

_SIGNATURE = re.compile(r"([0-9]{1,3}) ([0-9a-f]{1,128})")


class WireError(ValueError):
    """A datagram that is no heartbeat message; the text says what was wrong with it, never what was in it."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A datagram whose signature was found but not checked: `signed` are the bytes under the digest."""

    classic: bool
    signed: bytes
    number: int
    digest: str


def unseal(data: bytes) -> Sealed:
    """Find the signature of a datagram; raises WireError when there is none."""
    if len(data) > MAX_PACKET_BYTES:
        raise WireError(f"{len(data)} bytes are more than one datagram")
    if data.startswith(NETSTRING_START):
        return _unseal_netstring(data)
    if data.startswith(CLASSIC_START):
        return _unseal_classic(data)
    raise WireError("the first four bytes are neither '###' nor '>>>' and a line feed")


def _unseal_netstring(data: bytes) -> Sealed:
    # The last mark counts: a binary value may contain the same bytes.
    end = data.rfind(NETSTRING_END)
    if end < 0:
        raise WireError("no '%%%' line: the frame is cut off")
    signed = data[: end + len(NETSTRING_END)]
    body, after = _netstring(data, len(signed))
    if data[after:].strip(b"\0"):
        raise WireError("bytes follow the signature")
    number, digest = _signature(body)
    return Sealed(False, signed, number, digest)


def _unseal_classic(data: bytes) -> Sealed:
    end = data.rfind(CLASSIC_END)
    if end < 0 or data[end + len(CLASSIC_END) :].strip(b"\0"):
        raise WireError("no '<<<' line at the end: the frame is cut off")
    lines = data[len(CLASSIC_START) : end].split(b"\n")
    signatures = [line for line in lines if line.startswith(b"auth=")]
    if len(signatures) != 1:
        raise WireError(f"{len(signatures)} auth lines where one is expected")
    number, digest = _signature(signatures[0][len(b"auth=") :])
    body = b"".join(line + b"\n" for line in lines[:-1] if line is not signatures[0])
    return Sealed(True, body, number, digest)


def _signature(text: bytes) -> tuple[int, str]:
    found = _SIGNATURE.fullmatch(text.decode("ascii", "replace"))
    if not found:
        raise WireError("the signature is not '<number> <hex digest>'")
    return int(found[1]), found[2]


def _netstring(data: bytes, start: int) -> tuple[bytes, int]:
    """One `len:body,` at `start`: the body and the offset behind it."""
    colon = data.find(b":", start, start + 8)
    if colon < 0 or not data[start:colon].isdigit():
        raise WireError(f"no netstring length at byte {start}")
    end = colon + 1 + int(data[start:colon])
    if data[end : end + 1] != b",":
        raise WireError(f"the netstring at byte {start} does not end where it says")
    return data[colon + 1 : end], end + 1


def parse(sealed: Sealed) -> Message:
    """The fields of a frame; call it only after the signature was found right. Raises WireError."""
    return _parse_classic(sealed.signed) if sealed.classic else _parse_netstring(sealed.signed)


def _parse_netstring(signed: bytes) -> Message:
    message: Message = {}
    at, end = len(NETSTRING_START), len(signed) - len(NETSTRING_END)
    while at < end:
        body, at = _netstring(signed, at)
        name, value = _field(body) if len(body) <= CACHED_FIELD_BYTES else _read_field(body)
        _add(message, name, value)
    return message


def _read_field(body: bytes) -> tuple[str, Value]:
    """A netstring's `(type)name=value`."""
    head = _FIELD.match(body)
    if head is None:
        raise WireError("a field has no '='" if b"=" not in body else "a field name has bytes that no name has")
    name, value = head[2].decode("ascii"), body[head.end() :]
    if head[1] == b"0":
        return name, _text(value)
    if head[1] == b"1":
        return name, value
    raise WireError(f"field type {head[1]!r} does not occur between v1 nodes")


# From one message to the next hardly any field changes.
_field = functools.lru_cache(maxsize=256)(_read_field)


def _parse_classic(signed: bytes) -> Message:
    message: Message = {}
    for line in signed.split(b"\n")[:-1]:
        kind = line[:3] if line.startswith(b"(") else b"(0)"
        rest = line[3:] if line.startswith(b"(") else line
        name, equals, value = rest.partition(b"=")
        if not equals:
            raise WireError("a line has no '='")
        if kind == b"(0)":
            _add(message, _key(name), _text(value.replace(b"\x13", b"\n")))
        elif kind == b"(1)":
            try:
                _add(message, _key(name), base64.b64decode(value, validate=True))
            except binascii.Error as error:
                raise WireError("a binary field is not base64") from error
        else:
            raise WireError(f"field type {kind!r} does not occur between v1 nodes")
    return message


def _add(message: Message, key: str, value: Value) -> None:
    if key in message:
        raise WireError(f"field {key} occurs twice")
    if len(message) >= MAX_FIELDS:
        raise WireError(f"more than {MAX_FIELDS} fields")
    message[key] = value


@functools.lru_cache(maxsize=512)
def _key(name: bytes) -> str:
    """A field name as text; the same few come with every message."""
    if not _NAME.fullmatch(name):
        raise WireError("a field name has bytes that no name has")
    return name.decode("ascii")


def _text(value: bytes) -> str:
    # Names and texts are ASCII in practice; foreign bytes survive a decode and encode unchanged.
    return value.decode("utf-8", "surrogateescape")


def _wide(value: Value) -> str:
    """The bytes of a value as a string with one character for each of them: strings are joined faster than bytes."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("latin-1")


def netstring_body(message: Message) -> bytes:
    """The part of a netstring frame that its signature covers: from `###` to the line feed behind `%%%`."""
    parts = ["###\n"]
    for name, value in message.items():
        kind, raw = int(isinstance(value, bytes)), _wide(value)
        # "(0)" and "=" are four bytes beside the name and the value.
        parts.append(f"{len(name) + len(raw) + 4}:({kind}){name}={raw},")
    parts.append("%%%\n")
    return "".join(parts).encode("latin-1")


def classic_body(message: Message) -> bytes:
    """The lines that an `auth` field or line signs: every other field in order."""
    parts = []
    for name, value in message.items():
        if name == "auth":
            continue
        if isinstance(value, bytes):
            parts.append(f"(1){name}={binascii.b2a_base64(value, newline=False).decode()}\n")
        else:
            line = _wide(value)
            parts.append(f"{name}={line.replace(LINE_FEED, STAND_IN) if LINE_FEED in line else line}\n")
    return "".join(parts).encode("latin-1")


def seal_netstring(body: bytes, signature: str) -> bytes:
    """The datagram: `netstring_body` and its signature `<number> <digest>`."""
    return b"%b%d:%b," % (body, len(signature), signature.encode("ascii"))


def seal_classic(message: Message, signature: str) -> bytes:
    """The classic datagram; haptk sends it only in tests, cluster-glue before 1.0.10 always."""
    return b"%b%bauth=%b\n%b\0" % (CLASSIC_START, classic_body(message), signature.encode("ascii"), CLASSIC_END)


def text(message: Message, name: str) -> str:
    """A string field, "" when it is absent or binary."""
    value = message.get(name, "")
    return value if isinstance(value, str) else ""


_NUMBERS = {16: re.compile(r"[0-9a-fA-F]{1,16}"), 10: re.compile(r"[0-9]{1,18}")}


def number(message: Message, name: str, base: int = 16) -> int | None:
    """A numeric field (hex unless `base` says 10); None when absent or not a number of at most 64 bit."""
    found = text(message, name)
    return int(found, base) if _NUMBERS[base].fullmatch(found) else None
