"""TLS for a probe: what is wished for, the handshake on a connected socket, and what the certificate says.

Only imported when TLS is asked for: the ssl module costs more to import than a whole TCP check. A probe that does not
verify (`verify=False`) still reads the end of the certificate's life, because an expired certificate is what it is
there to foresee; Python decodes only verified certificates, so the one field is read from the DER here (RFC 5280, 4.1).
"""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from typing import NamedTuple


class TlsWish(NamedTuple):
    """`name` is sent as SNI and verified (default: the host); `ca_file` replaces the system's authorities."""

    name: str = ""
    verify: bool = True
    ca_file: str | None = None


class TlsSeen(NamedTuple):
    """What the handshake agreed on. `not_after` is the end of the certificate in Unix seconds, None if unreadable."""

    version: str
    cipher: str
    not_after: float | None


class TlsRefused(Exception):
    """The handshake failed for a reason that is about TLS; the text is for the log."""


def context_for(wish: TlsWish) -> ssl.SSLContext:
    """A client context; OSError when the file of authorities cannot be read."""
    try:
        context = ssl.create_default_context(cafile=wish.ca_file)
    except ssl.SSLError:
        raise TlsRefused(f"no certificate of an authority in {wish.ca_file}") from None
    if not wish.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def shake_hands(
    channel: socket.socket, host: str, wish: TlsWish, context: ssl.SSLContext
) -> tuple[ssl.SSLSocket, TlsSeen]:
    """TLS over a connected socket whose timeout is set; it bounds the whole handshake.

    Raises TlsRefused (the certificate or the protocol), TimeoutError, or OSError.
    """
    name = wish.name or ("localhost" if host.startswith("/") else host)
    try:
        wrapped = context.wrap_socket(channel, server_hostname=name, suppress_ragged_eofs=True)
    except ssl.SSLCertVerificationError as error:
        raise TlsRefused(f"certificate not accepted: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise TlsRefused((error.reason or str(error)).lower().replace("_", " ")) from None
    certificate = wrapped.getpeercert(binary_form=True) or b""
    cipher = wrapped.cipher()
    return wrapped, TlsSeen(wrapped.version() or "", cipher[0] if cipher else "", not_after(certificate))


def not_after(certificate: bytes) -> float | None:
    """The end of a DER certificate's validity in Unix seconds; None when the bytes are no certificate."""
    try:
        body = _content(_content(certificate))
        fields = _children(body)
        if fields and fields[0][0] == 0xA0:  # the explicit version of every certificate since v2
            fields = fields[1:]
        tag, text = _children(fields[3][1])[1]  # serial, signature, issuer, validity
        year_digits = 4 if tag == 0x18 else 2  # GeneralizedTime, else UTCTime
        year = int(text[:year_digits])
        if year_digits == 2:
            year += 1900 if year >= 50 else 2000
        rest = text[year_digits:].decode("ascii").removesuffix("Z")
        numbers = [int(rest[at : at + 2]) for at in range(0, 10, 2)]
        return datetime(year, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], tzinfo=UTC).timestamp()
    except (ValueError, IndexError):
        return None


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, begin and end of the content of the element at `at`."""
    length = data[at + 1]
    begin = at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[begin : begin + count], "big")
        begin += count
    if begin + length > len(data):
        raise ValueError("cut off")
    return data[at], begin, begin + length


def _content(data: bytes) -> bytes:
    _, begin, end = _element(data, 0)
    return data[begin:end]


def _children(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    at = 0
    while at < len(data):
        tag, begin, end = _element(data, at)
        found.append((tag, data[begin:end]))
        at = end
    return found
