"""Texts of strangers made fit for people: nothing in them moves a cursor, ends a line or is taken for markup. Pure."""

from __future__ import annotations

import re

# control characters of both sets, the separators of lines that Unicode has, and bytes that are no text
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """What cannot be shown in hex between angles, as HAProxy writes it to its logs: `<1B>`."""
    return _UNFIT.sub(lambda found: f"<{_byte(found[0]):02X}>", text)


def markup(text: str) -> str:
    """The same inside a page whose markup is escaped already: `&#27;`, as on HAProxy's."""
    return _UNFIT.sub(lambda found: f"&#{_byte(found[0])};", text)


def as_text(octets: str) -> str:
    """A text with one character per byte as what it may be: UTF-8, else each byte for itself, ready to be encoded back."""
    return octets if octets.isascii() else octets.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def _byte(char: str) -> int:
    return ord(char) - 0xDC00 if 0xDC00 <= ord(char) <= 0xDCFF else ord(char)
