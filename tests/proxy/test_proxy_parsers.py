"""The compiled HTTP/1 parser on mutated messages: it agrees with itself, and with h11 on what both accept."""

from __future__ import annotations

import random

import h11
import pytest

from haptk._fast import http1
from tests.fuzz import fuzz_http1


@pytest.mark.parametrize("seed", range(4))
def test_what_is_accepted_reads_the_same_again(seed):
    generator = random.Random(seed)
    for _ in range(20000):
        assert fuzz_http1.one(generator) is None


def _h11_request(data: bytes) -> tuple[str, str, list[tuple[str, str]]] | None:
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    try:
        event = peer.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request):
        return None
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
    return event.method.decode(), event.target.decode("latin-1"), headers


def _tidy(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Codings in lower case, one blank where a line was folded, no default port (of CONNECT)."""
    return [
        (name, " ".join(value.lower().split() if name == "transfer-encoding" else value.removesuffix(":443").split()))
        for name, value in headers
    ]


@pytest.mark.parametrize("seed", range(4))
def test_h11_sees_the_same_request(seed):
    """Where both accept a mutated request, they see one message. h11 normalises Content-Length and codings, no more."""
    generator = random.Random(1000 + seed)
    both = 0
    for _ in range(5000):
        data = fuzz_http1.mutate(generator, generator.choice(fuzz_http1.REQUESTS))
        ours, theirs = http1.request_head(data), _h11_request(data)
        if not ours or theirs is None:
            continue
        both += 1
        assert (ours["method"], ours["target"]) == theirs[:2], data
        assert _tidy(ours["headers"]) == _tidy(theirs[2]), data
    assert both > 500


@pytest.mark.parametrize(
    ("data", "forwarded", "stripped", "rest"),
    [
        (b"5\r\nhello\r\n0\r\n\r\nGET", b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"GET"),
        (b"5;a=b\r\nhello\r\n0;c\r\nT: x\r\n\r\n", b"5\r\nhello\r\n0\r\nt: x\r\n\r\n", b"hello", b""),
        (b"0\r\n\r\n", b"0\r\n\r\n", b"", b""),
        (b"00a\r\n0123456789\r\n000\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b""),
        (b"5 \t ; a=\x01b\r\nhello\r\n0 \r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
        (b"0" * 40 + b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
    ],
)
def test_chunked_bodies(data, forwarded, stripped, rest):
    assert http1.chunked_body(data) == (forwarded, rest)
    assert http1.chunked_body(data, strip=True) == (stripped, rest)
    assert all(http1.chunked_body(data[:cut]) is None for cut in range(len(data) - len(rest)))
