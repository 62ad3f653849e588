"""Where `core.httpfault` sees the fault, and that what it is asked about never breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptk.core.httpfault import STATES, dump, locate


@pytest.mark.parametrize(
    ("data", "at", "state"),
    [
        (b"\r\n\r\n{}", 4, "MSG_RQBEFORE"),
        (b"GET / HTTP/1.1\r\nA\r\n\r\n", 17, "MSG_HDR_NAME"),
        (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 20, "MSG_HDR_VAL"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 35, "MSG_HDR_L2_LWS"),
        (b"GET / HTTP/1.1\r\n\r\n", 16, "MSG_LAST_LF"),
        (b"GET / HTTP/1.1\r\n\rx", 17, "MSG_LAST_LF"),
        (b"GET / HTTP/1.1\rx", 15, "MSG_RQLINE_END"),
    ],
)
def test_a_fault_has_a_place(data: bytes, at: int, state: str) -> None:
    assert locate(data, response=False) == (at, state)


@given(st.binary(max_size=200), st.booleans())
def test_anything_has_a_place_inside(data: bytes, response: bool) -> None:
    for head in (data, b"GET / HTTP/1.1\r\n" + data, b"HTTP/1.1 200 OK\r\n" + data):
        at, state = locate(head, response=response)
        assert 0 <= at <= len(head)
        assert state in STATES
    assert dump(data).count("\n") >= (len(data) > 0)
    assert all(len(line) <= 79 for line in dump(data).splitlines())
