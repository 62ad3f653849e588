"""`capture` and `declare capture`: slots in the order of the file, and what is refused with which words."""

from __future__ import annotations

import pytest

from haptk.errors import ConfigError
from haptk.proxy.compile import load_text

FILE = (
    "frontend f\n mode http\n bind 127.0.0.1:1\n timeout client 1s\n{}\n default_backend b\nbackend b\n mode http\n{}\n"
)


def load(front: str, back: str = ""):  # type: ignore[no-untyped-def]
    return load_text(FILE.format("\n".join(f" {line}" for line in front.split("; ")), f" {back}"))


def test_slots_stand_in_the_order_of_the_file() -> None:
    front = load(
        "capture request header Host len 20; http-request capture path len 7; declare capture response len 3;"
        " declare capture request len 5; capture response header Server len 9; capture cookie AB= len 10"
    ).frontends[0]
    assert front.request_captures == (("host", 20), ("", 7), ("", 5))
    assert front.response_captures == (("", 3), ("server", 9))
    assert front.capture_cookie == ("AB=", 10)
    assert dict(front.rules[0].values)["slot"] == 1


def test_a_cookie_is_cut_as_in_haproxy() -> None:
    tables = load("capture cookie A len 64")
    assert tables.frontends[0].capture_cookie == ("A", 63)
    assert any("cut to 63" in warning for warning in tables.warnings)


def test_a_backend_warns_and_its_rules_name_slots_of_the_frontend() -> None:
    tables = load("declare capture request len 5", "http-request capture src id 9\n capture cookie A len 10")
    assert dict(tables.backends[0].rules[0].values)["slot"] == 9
    assert any("capture: ignored" in warning for warning in tables.warnings)


@pytest.mark.parametrize(
    ("front", "words"),
    [
        ("capture request header Host len x", "'x' is not a whole number from 1"),
        ("capture request header Host len 0", "'0' is not a whole number from 1"),
        ("capture request header Host 20", "'20' is unknown; accepted are len"),
        ("capture request header Ho(st len 20", "'Ho(st' is no header name"),
        ("capture request", "'header' is missing"),
        ("capture foo", "accepted are cookie, request, response"),
        ("capture response header A len 10 zz", "takes nothing more, found 'zz'"),
        ("declare foo", "accepted are capture"),
        ("declare capture foo len 10", "accepted are request, response"),
        ("http-request capture path", "takes an expression and 'len N' or 'id N'"),
        ("http-request capture res.hdr(a) len 10", "is not there yet"),
        ("http-request capture path id 77", "frontend f has no slot 77; it has 0 of requests, counted from 0"),
        ("declare capture response len 8; http-response capture status id 1", "has no slot 1; it has 1 of responses"),
        ("http-response capture status len 10", "takes an expression and 'id N'"),
        ("http-request set-header x %[capture.req.hdr(x)]", "takes a number here, found 'x'"),
        ("http-request set-header x %[capture.res.hdr(0)]", "is not there yet"),
        ("declare capture request len 20000", "its captures take 20003 bytes together; 14336 is the most"),
    ],
)
def test_what_is_wrong_is_said(front: str, words: str) -> None:
    with pytest.raises(ConfigError) as found:
        load(front)
    assert words in str(found.value)


def test_len_makes_no_slot_outside_a_frontend() -> None:
    with pytest.raises(ConfigError, match="'len' makes a slot in a frontend, and backend b is none; use 'id N'"):
        load("", "http-request capture src len 9")
