"""Stick tables by the book: what a key is, how text becomes one and shows, and what the `stick` fetches find. Pure.

Keys are bytes. A string is cut to its table's length; an address is its 4 or 16 bytes; an integer is 4 bytes, least
significant first; a binary key is cut to its length, and zeros at its end mean nothing, because HAProxy pads with them.
The fetches look at one exchange as HAProxy 2.6 does, oddities included: recorded with the real one in
tests/diff/test_diff_tables.py. A fetch returns None when it finds nothing, which is not the same as an empty text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# What a table may store, by the numbers that peers use.
KINDS = (
    "server_id", "gpt0", "gpc0", "gpc0_rate", "conn_cnt", "conn_rate", "conn_cur", "sess_cnt", "sess_rate",
    "http_req_cnt", "http_req_rate", "http_err_cnt", "http_err_rate", "bytes_in_cnt", "bytes_in_rate", "bytes_out_cnt",
    "bytes_out_rate", "gpc1", "gpc1_rate", "server_key", "http_fail_cnt", "http_fail_rate", "gpt", "gpc", "gpc_rate",
)  # fmt: skip
SERVER_ID, CONN_CUR, SERVER_KEY = 0, 6, 19
ARRAYS = ("gpt", "gpc", "gpc_rate")
TYPES = ("string", "ip", "ipv6", "integer", "binary")
Headers = Sequence[tuple[str, str]]

_COOKIES = {"req.cook": "cookie", "cook": "cookie", "cookie": "cookie"}
_SET_COOKIES = {"res.cook": "set-cookie", "scook": "set-cookie", "set-cookie": "set-cookie"}
_WHOLE_LINES = ("req.fhdr", "fhdr", "res.fhdr")


@dataclass(frozen=True)
class Exchange:
    """What the fetches look at; header names are lower-case, text is Latin-1."""

    src: str = ""
    target: str = ""
    headers: Headers = ()
    res_headers: Headers = ()


# -- keys ---------------------------------------------------------------------------------------------------------


def key_of_text(kind: str, length: int, text: str) -> bytes | None:
    """The key that a text stands for in a table of this type; None when it is none."""
    raw = text.encode("latin-1", "replace")
    if kind == "string":
        return raw[:length]
    if kind == "binary":
        return raw[:length].rstrip(b"\0")
    if kind == "integer":
        return integer_key(leading_integer(text)) if text else None
    if kind == "ip":
        # zeros before a number and text behind the last one (a port) do not matter
        found = re.match(r"(\d+)\.(\d+)\.(\d+)\.(\d+)(?!\d*\.|\d)", text)
        octets = [int(octet) for octet in found.groups()] if found else [256]
        return bytes(octets) if max(octets) < 256 else None
    try:
        return ipaddress.IPv6Address(text).packed if "%" not in text else None
    except ValueError:
        return None


def key_of_address(kind: str, length: int, text: str) -> bytes | None:
    """The key of a client's address: HAProxy converts it to the table's type where that means something."""
    address = ipaddress.ip_address(text)
    if kind == "ip":
        if address.version == 4:
            return address.packed
        four = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return four.packed if four is not None else None
    if kind == "ipv6":
        return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
    if kind == "integer":
        return integer_key(int(address)) if address.version == 4 else None
    if kind == "binary":
        return address.packed[:length].rstrip(b"\0")
    return text.encode("ascii")[:length]


def integer_key(value: int) -> bytes:
    """The low 32 bits, least significant byte first."""
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


def leading_integer(text: str) -> int:
    """The number at the beginning of a text as HAProxy casts it; 0 where there is none."""
    found = re.match(r"[+-]?[0-9]+", text)
    return int(found[0]) if found else 0


def show_key(kind: str, length: int, key: bytes) -> str:
    """A key as `show table` prints it."""
    if kind == "integer":
        return str(int.from_bytes(key, "little"))
    if kind in ("ip", "ipv6"):
        return _address_text(key)
    if kind == "binary":
        return key.ljust(length, b"\0").hex().upper()
    return "".join(_printable(byte) for byte in key)


def _address_text(key: bytes) -> str:
    """As inet_ntop writes it: an IPv4 address behind zeros or ::ffff: keeps its dots."""
    if key[:12] == b"\0" * 10 + b"\xff\xff":
        return f"::ffff:{ipaddress.IPv4Address(key[12:])}"
    if len(key) == 16 and key[:12] == bytes(12) and key[12:14] != bytes(2):
        return f"::{ipaddress.IPv4Address(key[12:])}"
    return str(ipaddress.ip_address(key))


_ESCAPES = {0x20: "\\ ", 0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x1B: "\\e", 0x5C: "\\\\", 0x3D: "\\="}


def _printable(byte: int) -> str:
    return _ESCAPES.get(byte) or (chr(byte) if 32 < byte < 127 else f"\\x{byte:02X}")


# -- fetches ------------------------------------------------------------------------------------------------------


def fetch_key(kind: str, length: int, fetch: str, argument: str, delimiter: str, exchange: Exchange) -> bytes | None:
    """The key that a `stick` rule takes from an exchange; None where there is none.

    `exchange` is what the server sees: the persistence cookie is removed or cut already.
    """
    if fetch == "src":
        return key_of_address(kind, length, exchange.src) if exchange.src else None
    text: str | None
    if fetch in _COOKIES:
        text = _last(cookies(exchange.headers, argument, response=False))
    elif fetch in _SET_COOKIES:
        text = _last(cookies(exchange.res_headers, argument, response=True))
    elif fetch.rpartition(".")[2] in ("hdr", "shdr", "fhdr"):
        headers = exchange.res_headers if fetch.startswith("res.") or fetch == "shdr" else exchange.headers
        text = _last(header_values(headers, argument, whole=fetch in _WHOLE_LINES))
    elif fetch in ("url_param", "urlp"):
        text = url_parameter(exchange.target, argument, delimiter or "?")
    elif fetch == "path":
        text = path(exchange.target)
    else:
        text = exchange.target
    return None if text is None else key_of_text(kind, length, text)


def _last(values: Iterator[str]) -> str | None:
    return next(reversed(list(values)), None)


def header_values(headers: Headers, name: str, *, whole: bool) -> Iterator[str]:
    """Each value of a header: whole lines, or their comma-separated parts outside quotes."""
    for key, value in headers:
        if key == name.lower():
            yield from [value] if whole else split_commas(value)


def split_commas(text: str) -> list[str]:
    """The parts between commas outside quotes (a backslash inside quotes escapes), without the blanks around them."""
    parts, begin, at, quoted = [], 0, 0, False
    while at < len(text):
        char = text[at]
        if quoted and char == "\\":
            at += 1
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            parts.append(text[begin:at])
            begin = at + 1
        at += 1
    return [part.strip(" \t") for part in [*parts, text[begin:]]]


def cookies(headers: Headers, name: str, *, response: bool) -> Iterator[str]:
    """The values of a cookie over all its headers. Of a Set-Cookie only what begins with the name counts."""
    for key, value in headers:
        if key == ("set-cookie" if response else "cookie"):
            for part in split_commas(value):
                yield from _pairs(part, name, response=response)


def _pairs(text: str, name: str, *, response: bool) -> Iterator[str]:
    # A name needs more than two characters behind its beginning to be looked at: an empty value that ends the header
    # is not seen unless a blank stands before its name.
    at = 0
    while at + len(name) + 1 < len(text):
        while at < len(text) and text[at] in " \t":
            at += 1
        equal = at
        while equal < len(text) and text[equal] not in "=;" and (response or text[equal] != ","):
            equal += 1
        if equal == len(text) or text[equal] != "=":
            at = equal + 1
            continue
        begin = equal + 1
        while begin < len(text) and text[begin] in " \t":
            begin += 1
        end = _value_end(text, begin)
        if text[at] != "$" and text[at:equal].rstrip(" \t") == name:
            yield text[begin:end].rstrip(" \t")
        elif response and text[at] != "$":
            return
        at = end + 1


def _value_end(text: str, at: int) -> int:
    quoted = False
    while at < len(text):
        char = text[at]
        if quoted and char == "\\":
            at += 1
        elif char == '"':
            quoted = not quoted
        elif char in ";," and not quoted:
            return at
        at += 1
    return len(text)


def url_parameter(target: str, name: str, delimiter: str) -> str | None:
    """The first value of a parameter behind the first delimiter; parameters are separated by `&`, `;` or the delimiter."""
    _, found, text = target.partition(delimiter)
    if not found:
        return None
    for part in re.split(f"[&;{re.escape(delimiter)}]", text):
        key, equals, value = part.partition("=")
        if equals and key == name:
            return value
    return None


def path(target: str) -> str | None:
    """The path of a request target without its query; None for `*` and authority form."""
    found = re.match(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)?(/[^?#]*)", target)
    return found[1] if found else None
