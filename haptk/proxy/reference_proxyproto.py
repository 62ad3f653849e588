"""The PROXY protocol of the reference proxy: pure reading and writing of headers, independent of the compiled parser."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from haptk.proxy.reference_http import Bad

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TEXT_MAX = 107  # with the line end, as the protocol says
BINARY_MAX = 4096
_PORT = r"(0|[1-9][0-9]{0,4})"
_TCP = re.compile(rf"PROXY (TCP[46]) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) {_PORT} {_PORT}\r\n".encode())
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\n]*)?\r\n")
_CRC32C, _AUTHORITY, _UNIQUE_ID = 3, 2, 5
_LONGEST = {_AUTHORITY: 255, _UNIQUE_ID: 128}


@dataclass(frozen=True)
class Announced:
    """A header of `size` bytes. `source` and `target` are (address, port), None where it says nothing about them."""

    size: int
    source: tuple[str, int] | None = None
    target: tuple[str, int] | None = None


def parse(data: bytes) -> Announced | None:
    """The header at the beginning of `data`; None when more bytes are needed. Raises Bad."""
    if b"PROXY ".startswith(data[:6]) or SIGNATURE.startswith(data[:12]):
        if len(data) < (6 if data[:1] == b"P" else 16):
            return None
        return _text(data) if data[:1] == b"P" else _binary(data)
    raise Bad("no PROXY header")


def _text(data: bytes) -> Announced | None:
    line, end, _ = data[:TEXT_MAX].partition(b"\n")
    if not end:
        if len(data) >= TEXT_MAX:
            raise Bad("a PROXY header without an end")
        return None
    line += end
    if _UNKNOWN.fullmatch(line):
        return Announced(len(line))
    found = _TCP.fullmatch(line)
    if not found:
        raise Bad("a PROXY header that is none")
    family = ipaddress.IPv4Address if found[1] == b"TCP4" else ipaddress.IPv6Address
    ports = int(found[4]), int(found[5])
    if max(ports) > 65535:
        raise Bad("a PROXY header with a port that is none")
    try:
        source, target = (plain(family(text.decode())) for text in (found[2], found[3]))
    except ValueError:
        raise Bad("a PROXY header with addresses that are none") from None
    return Announced(len(line), (source, ports[0]), (target, ports[1]))


def plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The text of an address; a v4 address in v6 form is a v4 address."""
    return socket.inet_ntop(socket.AF_INET if address.version == 4 else socket.AF_INET6, address.packed)


def _binary(data: bytes) -> Announced | None:
    size = 16 + int.from_bytes(data[14:16], "big")
    if data[12] not in (0x20, 0x21) or size > BINARY_MAX:
        raise Bad("a PROXY header of an unknown version, or too long")
    if len(data) < size:
        return None
    header = data[:size]
    if header[12] == 0x20:
        return Announced(size)  # LOCAL: the sender speaks for itself
    width = {0x11: 4, 0x21: 16}.get(header[13], 0)
    if not width:
        raise Bad("a PROXY header of another protocol than TCP over IP")
    end = 16 + 2 * width + 4
    if size < end:
        raise Bad("a PROXY header that is too short")
    _check_extras(header, end)
    ends = [
        (plain(ipaddress.ip_address(header[at : at + width])), int.from_bytes(header[port : port + 2], "big"))
        for at, port in ((16, end - 4), (16 + width, end - 2))
    ]
    return Announced(size, ends[0], ends[1])


def _check_extras(header: bytes, at: int) -> None:
    """Type, length, value, up to the end of the header; a checksum has to be right."""
    while at < len(header):
        if at + 3 > len(header):
            raise Bad("half an extra of a PROXY header")
        kind, size = header[at], int.from_bytes(header[at + 1 : at + 3], "big")
        value = header[at + 3 : at + 3 + size]
        if len(value) < size or size > _LONGEST.get(kind, BINARY_MAX) or (kind == _CRC32C and size != 4):
            raise Bad("an extra of a PROXY header that is too long")
        if kind == _CRC32C:
            blank = header[: at + 3] + bytes(4) + header[at + 7 :]
            if crc32c(blank) != int.from_bytes(value, "big"):
                raise Bad("a PROXY header with a wrong checksum")
        at += 3 + size


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def text(source: str, source_port: int, target: str, target_port: int) -> bytes:
    """Version 1 of the header for two addresses ("" for a unix socket)."""
    if not source or not target:
        return b"PROXY UNKNOWN\r\n"
    if (":" in source) != (":" in target):
        source, target = (one if ":" in one else f"::ffff:{one}" for one in (source, target))
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {target} {source_port} {target_port}\r\n".encode()


def binary(source: str, source_port: int, target: str, target_port: int) -> bytes:
    """Version 2."""
    if not source or not target:
        return SIGNATURE + b"\x20\x00\x00\x00"
    if (":" in source) != (":" in target):
        source, target = (one if ":" in one else f"::ffff:{one}" for one in (source, target))
    packed = [ipaddress.ip_address(one).packed for one in (source, target)]
    data = b"".join(packed) + source_port.to_bytes(2, "big") + target_port.to_bytes(2, "big")
    family = b"\x11" if len(packed[0]) == 4 else b"\x21"
    return SIGNATURE + b"\x21" + family + len(data).to_bytes(2, "big") + data
