"""The bytes of the peers protocol: variable-length integers, the greeting, and messages without their meaning.

Written from HAProxy's peers-v2.0 document and from what HAProxy 2.6 says on the wire. A message is a class and a type;
types from 128 on carry data behind an encoded length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

GREETING = "HAProxyS"
VERSIONS = ("2.0", "2.1")
VERSION = "2.1"
MESSAGE_MAX = 65536  # HAProxy's own are at most a buffer of 16 kB
NAME_MAX = 4096  # of a table
KINDS_MAX = 64  # numbers of stored data

CONTROL, ERROR, UPDATES = 0, 1, 10
RESYNC_REQUEST, RESYNC_FINISHED, RESYNC_PARTIAL, RESYNC_CONFIRM, HEARTBEAT = 0, 1, 2, 3, 4
KIN = "haptk"  # a fourth word in the greeting, which HAProxy does not look at: the sender tells and takes versions
PROTOCOL_ERROR, SIZE_LIMIT = 0, 1
UPDATE, NEXT_UPDATE, DEFINE, SWITCH, ACK, TIMED_UPDATE, NEXT_TIMED_UPDATE = 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86
ENTRIES = (UPDATE, NEXT_UPDATE, TIMED_UPDATE, NEXT_TIMED_UPDATE)

OK, AGAIN, BAD_PROTOCOL, BAD_VERSION, NOT_ME, UNKNOWN_PEER = 200, 300, 501, 502, 503, 504

KEY_TYPES = {"integer": 2, "ip": 4, "ipv6": 5, "string": 6, "binary": 7}
SERVER_ID, SERVER_KEY = 0, 19  # numbers of stored data
CONTENT_VERSION = 62  # our own, between haptk nodes only; HAProxy's go up to 24 in 2.6
VERSION_MAX = (1 << 62) - 1
RATES = frozenset({3, 5, 8, 10, 12, 14, 16, 18, 21, 24})  # three integers each
ARRAYS = frozenset({22, 23, 24})  # gpt, gpc, gpc_rate: their number of elements stands in the definition


class Bad(Exception):
    """Bytes that are no message; the text says why."""


def put_int(value: int) -> bytes:
    """A number of up to 64 bits: four bits in the first byte when it is 240 or more, then seven in each."""
    if value < 240:
        return bytes((value,))
    out = bytearray(((value & 0xFF) | 240,))
    value = (value - 240) >> 4
    while value >= 128:
        out.append((value & 0xFF) | 128)
        value = (value - 128) >> 7
    out.append(value)
    return bytes(out)


def get_int(data: bytes, at: int) -> tuple[int, int] | None:
    """(value, place behind it), or None when it is not all there; raises Bad for more than 64 bits."""
    if at >= len(data):
        return None
    value = data[at]
    at += 1
    if value < 240:
        return value, at
    shift = 4
    while at < len(data):
        byte = data[at]
        at += 1
        value += byte << shift
        if byte < 128:
            if value >= 1 << 64:
                break
            return value, at
        shift += 7
        if shift > 63:
            break
    else:
        return None
    raise Bad("a number of more than 64 bits")


def need_int(data: bytes, at: int) -> tuple[int, int]:
    """The same inside a message, where everything has to be there; raises Bad."""
    found = get_int(data, at)
    if found is None:
        raise Bad("a message ends inside a number")
    return found


def put_message(kind: int, what: int, data: bytes = b"") -> bytes:
    """One message."""
    head = bytes((kind, what))
    return head + put_int(len(data)) + data if what >= 128 else head


def get_message(data: bytes, at: int) -> tuple[int, int, bytes, int] | None:
    """(class, type, data, place behind it), or None when it is not all there; raises Bad for one that is too long."""
    if at + 2 > len(data):
        return None
    kind, what = data[at], data[at + 1]
    if what < 128:
        return kind, what, b"", at + 2
    found = get_int(data, at + 2)
    if found is None:
        return None
    length, begin = found
    if length > MESSAGE_MAX:
        raise Bad(f"a message of {length} bytes")
    if begin + length > len(data):
        return None
    return kind, what, data[begin : begin + length], begin + length


# -- the greeting -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """What a connection begins with."""

    to: str
    sender: str
    pid: int = 0
    version: str = VERSION
    kin: bool = False


def put_hello(hello: Hello) -> bytes:
    """The three lines."""
    mark = f" {KIN}" if hello.kin else ""
    return f"{GREETING} {hello.version}\n{hello.to}\n{hello.sender} {hello.pid} 1{mark}\n".encode()


def get_hello(data: bytes) -> tuple[Hello, int] | None:
    """(hello, its length), None for more. Raises Bad, with the status to answer as its argument."""
    if len(data) > 512 and data.count(b"\n", 0, 512) < 3:
        raise Bad(BAD_PROTOCOL)
    lines = data.split(b"\n", 3)
    first = lines[0].decode("utf-8", "replace").split(" ")
    if len(lines) > 1 or not f"{GREETING} ".startswith(lines[0].decode("utf-8", "replace")[: len(GREETING) + 1]):
        if first[0] != GREETING or len(first) != 2:
            raise Bad(BAD_PROTOCOL)
        if first[1] not in VERSIONS:
            raise Bad(BAD_VERSION)
    if len(lines) < 4:
        return None
    words = lines[2].decode("utf-8", "replace").split(" ")
    if len(words) < 2 or not words[1].isdecimal():
        raise Bad(BAD_PROTOCOL)
    size = sum(len(line) + 1 for line in lines[:3])
    return Hello(lines[1].decode("utf-8", "replace"), words[0], int(words[1][:9]), first[1], KIN in words[3:]), size


# -- tables -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Definition:
    """How the sender describes a table; `stored` are the numbers of its data in ascending order."""

    number: int
    name: str
    key_type: int
    key_size: int
    stored: tuple[int, ...] = (SERVER_ID, SERVER_KEY)
    expire_ms: int = 0
    elements: dict[int, int] = field(default_factory=dict)  # of arrays
    periods: dict[int, int] = field(default_factory=dict)  # of rates, ms

    def encode(self) -> bytes:
        """The data of a DEFINE message."""
        name = self.name.encode()
        bits = sum(1 << number for number in self.stored)
        head = put_int(self.number) + put_int(len(name)) + name
        words = [self.key_type, self.key_size, bits, self.expire_ms]
        for kind in self.stored:
            if kind in ARRAYS:
                words += [kind, self.elements[kind]] + ([self.periods[kind]] if kind in RATES else [])
            elif kind in RATES:
                words += [kind, self.periods[kind]]
        return head + b"".join(map(put_int, words))


def get_definition(data: bytes) -> Definition:
    """Raises Bad."""
    number, at = need_int(data, 0)
    length, at = need_int(data, at)
    name = data[at : at + length]
    if len(name) != length or not name:
        raise Bad("a table without a name")
    if length > NAME_MAX:
        raise Bad(f"a table with a name of {length} bytes")
    key_type, at = need_int(data, at + length)
    key_size, at = need_int(data, at)
    bits, at = need_int(data, at)
    expire_ms, at = need_int(data, at) if at < len(data) else (0, at)
    elements: dict[int, int] = {}
    periods: dict[int, int] = {}
    while at < len(data):
        kind, at = need_int(data, at)
        first, at = need_int(data, at)
        if kind >= KINDS_MAX:
            raise Bad(f"stored data of the number {kind}")
        if kind in ARRAYS:
            elements[kind] = first
            if kind not in RATES:
                continue
            first, at = need_int(data, at)
        periods[kind] = first
    if key_size > MESSAGE_MAX or sum(elements.values()) > 1000:
        raise Bad("a table of an impossible size")
    stored = tuple(number for number in range(64) if bits >> number & 1)
    return Definition(number, name.decode("utf-8", "replace"), key_type, key_size, stored, expire_ms, elements, periods)


def skip_data(definition: Definition, kind: int) -> int:
    """How many integers a kind of stored data has in an update (but for the name of a server)."""
    many = definition.elements.get(kind, 0) if kind in ARRAYS else 1
    return many * (3 if kind in RATES else 1)


def common_kinds(definition: Definition, stored: Iterable[tuple[int, int, int]]) -> frozenset[int]:
    """Which of our (kind, elements, period) mean the same there; other numbers are read and forgotten, as HAProxy does."""
    return frozenset(
        kind
        for kind, elements, period_ms in stored
        if kind in definition.stored
        and (kind not in ARRAYS or definition.elements.get(kind) == elements)
        and (kind not in RATES or definition.periods.get(kind) == period_ms)
    )


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Every complete message of a text; for tests and people."""
    at = 0
    while (found := get_message(data, at)) is not None:
        kind, what, body, at = found
        yield kind, what, body
