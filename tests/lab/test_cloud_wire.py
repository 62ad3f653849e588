"""HTTP messages of the lab's own services: what is read, what is refused, what is written; and who calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from haptk.lab.faults import Switch, identify
from haptk.lab.feed import Feed
from haptk.lab.httpwire import Message, WireError, read_request, read_response, wants_close


class Writer:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def request(raw: bytes, writer: Any = None) -> Message | None:
    async def read() -> Message | None:
        reader = asyncio.StreamReader()
        reader.feed_data(raw)
        reader.feed_eof()
        return await read_request(reader, writer or Writer())

    return asyncio.run(read())


def response(raw: bytes, method: str = "GET") -> Message:
    async def read() -> Message:
        reader = asyncio.StreamReader()
        reader.feed_data(raw)
        reader.feed_eof()
        return await read_response(reader, method)

    return asyncio.run(read())


def test_a_request_with_a_body() -> None:
    read = request(b"POST /x?y HTTP/1.1\r\nHost: a\r\nCONTENT-length:  3 \r\n\r\nabc")
    assert read is not None
    assert (read.start, read.header("host"), read.body) == (("POST", "/x?y", "HTTP/1.1"), "a", b"abc")


def test_chunks_are_joined_and_their_trailers_dropped() -> None:
    raw = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n"
    read = request(raw)
    assert read is not None and read.body == b"abc0123456789"
    sent = read.encode(connection="close")
    assert b"Transfer-Encoding" not in sent and b"\r\nContent-Length: 13\r\n" in sent


def test_100_continue_is_said_once() -> None:
    writer = Writer()
    read = request(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", writer)
    assert read is not None and read.body == b"x"
    assert writer.data == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"Expect" not in read.encode(connection="close")


def test_the_end_between_messages_is_no_error() -> None:
    assert request(b"") is None
    assert request(b"\r\n") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HT",
        b"GET /\r\n\r\n",
        b"GET / SPDY/1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nspace : x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"x" * 70_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        request(raw)


def test_responses() -> None:
    assert response(b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab").body == b"ab"
    assert response(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").body == b"until the end"
    assert response(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD").body == b""
    assert response(b"HTTP/1.1 204 No Content\r\n\r\n").body == b""
    head = response(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD").encode(connection="close", empty=True)
    assert head == b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n"
    for raw in (b"", b"HTTP/1.1 abc OK\r\n\r\n"):
        with pytest.raises(WireError):
            response(raw)


@pytest.mark.parametrize(
    ("version", "connection", "ends"),
    [
        ("HTTP/1.1", "", False),
        ("HTTP/1.1", "Keep-Alive", False),
        ("HTTP/1.1", "foo, Close", True),
        ("HTTP/1.0", "", True),
        ("HTTP/1.0", "keep-alive", False),
    ],
)
def test_when_the_connection_ends(version: str, connection: str, ends: bool) -> None:
    headers = [("Connection", connection)] if connection else []
    assert wants_close(Message(("GET", "/", version), headers)) is ends


SCOPE = "AWS4-HMAC-SHA256 Credential={}/20260101/eu-west-1/{}/aws4_request, SignedHeaders=host, Signature=00"
FORM = ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            Message(
                ("POST", "/", "HTTP/1.1"), [FORM, ("Authorization", SCOPE.format("AKIA1", "ec2"))], b"Action=A&V=1"
            ),
            ("A", "AKIA1", "ec2"),
        ),
        (Message(("GET", "/?Action=B", "HTTP/1.1"), []), ("B", "", "")),
        (
            Message(("POST", "/", "HTTP/1.1"), [("X-Amz-Target", "DynamoDB_20120810.GetItem")]),
            ("GetItem", "", "dynamodb"),
        ),
        (Message(("PUT", "/bucket/key", "HTTP/1.1"), [("authorization", SCOPE.format("K", "s3"))]), ("PUT", "K", "s3")),
        (Message(("POST", "/", "HTTP/1.1"), [FORM, ("Authorization", "Basic x")], b"\xff\xfe"), ("POST", "", "")),
    ],
)
def test_who_calls_what(message: Message, told: tuple[str, str, str]) -> None:
    assert identify(message) == told


def test_the_record_is_bounded_and_keeps_its_numbers() -> None:
    switch = Switch("127.0.0.1", 1)
    for _ in range(10_050):
        switch._record(Message(("GET", "/", "HTTP/1.1")), "127.0.0.1")
    kept = switch.calls_since(0)
    assert (len(kept), kept[0]["index"], kept[-1]["index"], switch.next_index) == (10_000, 50, 10_049, 10_050)
    assert [one["index"] for one in switch.calls_since(10_048)] == [10_048, 10_049]


def test_a_view_of_the_past() -> None:
    async def told() -> None:
        feed = Feed("http://127.0.0.1:1")
        assert feed.at(1e12) == {}
        row = {"public_ip": "127.0.0.9", "association_id": "a"}
        feed._take({"version": 5, "addresses": [row], "history": [{"version": 5}]})
        assert feed.at(0.0) == {}
        assert feed.at(1e12) == {"127.0.0.9": row}
        assert feed.holder("127.0.0.9") == row
        feed._take({"version": 2, "addresses": [], "history": [{"version": 2}]})
        assert feed.holder("127.0.0.9") is None
        assert list(feed.history) == [{"version": 2}], "a cloud that was started anew has a new history"

    asyncio.run(told())
