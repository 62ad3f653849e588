"""Who may speak: the digests of authkeys (crc, md5, sha1) over whole datagrams.

The number on the wire names a line of authkeys. haptk verifies against the line that is named; the real daemon uses
that line's method with the key of its *active* line, so with a real peer both have to switch at once.
crc is a checksum that anybody can compute, so it is refused unless it was allowed by name.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

from haptk.core.heartbeat import wire

METHODS = ("sha1", "md5", "crc")


class AuthError(ValueError):
    """A digest that is not right. The text never holds the right digest nor a key."""


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = ((value << 1) ^ 0x04C11DB7) if value & 0x80000000 else value << 1
        table.append(value & 0xFFFFFFFF)
    return tuple(table)


_CRC = _crc_table()


def crc32(data: bytes) -> int:
    """CRC-32 with polynomial 0x04C11DB7, most significant bit first, start 0, inverted at the end (cluster-glue)."""
    value = 0
    for byte in data:
        value = ((value << 8) & 0xFFFFFFFF) ^ _CRC[(value >> 24) ^ byte]
    return value ^ 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Key:
    """One line of authkeys; the secret stays out of every text."""

    number: int
    method: str
    secret: bytes = field(default=b"", repr=False)

    def digest(self, data: bytes) -> str:
        """The digest of `data` as the wire shows it: lower-case hex, crc without leading zeros."""
        if self.method == "crc":
            return f"{crc32(data):x}"
        return hmac.digest(self.secret, data, self.method).hex()


class KeyRing:
    """The keys of a node: `active` signs, every one of them verifies."""

    def __init__(self, keys: Iterable[Key], active: int, *, allow_crc: bool = False) -> None:
        self._keys = {key.number: key for key in keys}
        self._active = self._keys[active]
        self.allow_crc = allow_crc

    @property
    def active(self) -> Key:
        return self._active

    def sign(self, message: wire.Message) -> bytes:
        """The datagram of `message`: netstring frame, inner `auth` field, outer signature."""
        key = self._active
        message["auth"] = f"{key.number} {key.digest(wire.classic_body(message))}"
        body = wire.netstring_body(message)
        return wire.seal_netstring(body, f"{key.number} {key.digest(body)}")

    def open(self, data: bytes) -> wire.Message:
        """The fields of a datagram whose signature is right; raises AuthError, or WireError for what is no message."""
        sealed = wire.unseal(data)
        self.verify(sealed)
        return wire.parse(sealed)

    def verify(self, sealed: wire.Sealed) -> None:
        """Return when the signature is right, else raise AuthError with the reason."""
        key = self._keys.get(sealed.number)
        if key is None:
            known = ", ".join(str(number) for number in sorted(self._keys))
            raise AuthError(f"it is signed with key {sealed.number}, and our authkeys has only {known}")
        if key.method == "crc" and not self.allow_crc:
            raise AuthError(f"key {sealed.number} is crc, which protects nothing and was not allowed")
        if not hmac.compare_digest(key.digest(sealed.signed), sealed.digest):
            raise AuthError(f"its {key.method} digest does not fit our key {sealed.number}: is the key the same there?")
