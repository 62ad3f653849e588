# ruff: noqa: E501 (lines of configurations and requests)
"""Captures through the real haproxy and both paths of haptk: what reaches servers and clients, and the whole log line."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.diff.rig import PLAIN, Pair, Result, Upstreams, upstreams

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(300)]

RULES = """ capture request header Host len 20
 capture request header X-A len 5
 capture response header Server len 20
 capture response header X-C len 8
 capture cookie AB len 10
 declare capture request len 10
 declare capture response len 10
 http-request capture req.hdr(x-b) len 4
 http-request capture str(longer-than-ten) id 2
 capture request header Connection len 20
 capture response header Connection len 20
 capture response header Transfer-Encoding len 20
 http-request set-header X-A changed if { path_end /edit }
 http-request set-header Cookie AB=edited if { path_end /edit }
 http-request capture str(early) id 0 if { path_end /zero }
 http-request capture url_param(n),url_dec id 2 if { path_end /nul }
 http-request capture src id 2 if { path_end /src }
 http-request capture hdr_cnt(x-a) id 2 if { path_end /cnt }
 http-request capture always_true id 2 if { path_end /bool }
 http-request deny if { path_end /deny }
 http-request return status 200 if { path_end /ret }
 http-request redirect location / if { path_end /red }
 http-request set-header X-Got "[%[capture.req.hdr(0)] %[capture.req.hdr(9)] %[capture.req.method] %[capture.req.uri] %[capture.req.ver] %[capture.res.ver]]"
 http-request set-header X-Has yes if { capture.req.hdr(1) -m found } { capture.req.hdr(0) -m beg h }
 http-response set-header X-Got "[%[capture.req.hdr(1)] %[capture.res.hdr(0)] %[capture.res.hdr(2)] %[capture.req.uri] %[capture.req.ver] %[capture.res.ver]]"
 http-response capture res.hdr(x-c) id 2
 http-response capture status id 2 if { capture.req.hdr(2) -m end /stat }
 http-response deny if { res.hdr(x-deny) -m found }
 http-response set-header X-C changed if { res.hdr(x-edit) -m found }
 http-response set-header Set-Cookie AB=late if { res.hdr(x-edit) -m found }"""
FRONTENDS = {
    "own": (
        RULES
        + '\n log-format "%ST %CC %CS %tsc %hr %hs %hrl [%hsl] %{+Q}hr %{+Q}hrl %[capture.req.method] %[capture.req.uri] %[capture.req.ver] %[capture.res.ver] %[capture.res.hdr(0)] %{+Q}[capture.res.hdr(1)] %[capture.req.hdr(0)] %{+Q}r"',
        "b",
    ),
    "http": (RULES + "\n option httplog", "b"),
    "insert": (RULES + "\n option httplog", "insert"),
    "prefix": (RULES + "\n option httplog", "prefix"),
    "quiet": (
        ' no log\n http-request set-header X-Got "[%[capture.req.hdr(0)] %[capture.req.method] %[capture.req.uri]]"',
        "b",
    ),
}
BACKENDS = """
backend b
 http-request capture src id 9
 http-request capture str(from-behind) id 3 if { path_end /be }
 http-response capture str(behind) id 1 if { capture.req.hdr(3) from }
 http-response capture str(nowhere) id 77
 server s1 127.0.0.1:@S1@
backend insert
 cookie AB insert indirect
 server s1 127.0.0.1:@S1@ cookie s1
backend prefix
 cookie AB prefix
 server s1 127.0.0.1:@S1@ cookie s1
"""


def config(host: str, ports: list[int], servers: Upstreams, _dead: int) -> str:
    text = "global\n log @LOG@ local0\ndefaults\n mode http\n log global\n timeout client 3s\n timeout server 3s\n timeout connect 1s\n timeout http-request 2s\n"
    for (name, (rules, backend)), port in zip(FRONTENDS.items(), ports, strict=True):
        text += f"frontend {name}\n bind {host}:{port}\n{rules}\n default_backend {backend}\n"
    return text + BACKENDS.replace("@S1@", str(servers.ports[0]))


@pytest.fixture(scope="module", params=["fast", "reference"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with upstreams(1) as servers:
        found = Pair(request.param, tmp_path_factory.mktemp("captures"), servers, list(FRONTENDS), config)
        yield found
        found.stop()


def blot(text: str) -> str:
    text = re.sub(r"(haproxy|fast|reference)-\d+", "CASE", text)
    text = re.sub(r"^.*?\]: ", "", text)
    text = re.sub(r"^\S+ \[[^]]*\] ", "CLIENT ", text)  # address, port and date
    text = re.sub(r" -?\d+/-?\d+/-?\d+/-?\d+/\+?\d+ (\d+) \d+ ", r" TIMES \1 BYTES ", text)
    text = re.sub(r" \d+/\d+/\d+/\d+/\d+ \d+/\d+ ", " COUNTS ", text)
    return re.sub(r"127\.0\.0\.[19]", "HOST", text)


def squeezed(lines: list[str]) -> list[str]:
    """Header lines; HAProxy leaves the blank that an empty value in front of another one leaves, haptk does not."""
    return sorted(
        re.sub(r"\s+", " ", line) for line in lines if line.lower().startswith(("x-", "cookie", "set-cookie"))
    )


def portrait(result: Result) -> dict[str, object]:
    return {
        "status": result.got.status,
        "request": [blot(line) for seen in result.seen for line in squeezed(seen.lines())],
        "response": [blot(line) for line in squeezed(result.got.lines())],
        "log": blot(result.log),
    }


def req(path: str, *lines: str, version: str = "1.1") -> bytes:
    head = [f"GET /case/@CASE@{path} HTTP/{version}", "Host: h.example", "X-Case: @CASE@", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")


def res(*lines: str, version: str = "1.1") -> bytes:
    return ("\r\n".join([f"HTTP/{version} 200 OK", *lines, "content-length: 2"]) + "\r\n\r\nok").encode("latin-1")


EXCHANGES: list[tuple[bytes, bytes]] = [
    (req("?q=1", "X-A: 123456789", "X-B: bbbbbb, cc", "Cookie: a=1; AB=12345678901234; AB=2"), res("Server: s,t", 'server: uu{|}#"\x01', "X-C: 1,2", "Set-Cookie: z=1", "set-cookie: AB=srv; path=/")),
    (req("", "X-A: a", "X-a: b, c", "Cookie: ABC = 1 ; AB=2; d = 3"), res("set-cookie:   ABC = srv,x ; path=/", version="1.0")),
    (req("", "X-A:", "Cookie: AB", "Cookie: $AB=1; AB; x=y"), res("set-cookie: AB", "set-cookie: $AB=1", "set-cookie: a=1, AB=2")),
    (req("", 'Cookie: x="AB=3"; AB="q;r"'), res('Set-Cookie: AB="s\\"r"; x', "x-c: ")),
    (req("", "Cookie: ab=1, AB=2;AB=3"), res("Set-Cookie2: AB=two", "set-cookie: AB=one")),
    (req("", 'Cookie: x="AB=3"; AB=4; c="', "X-A: \xe9\xff\x01|{}#"), res("x-c: \x7f\x80\t.")),
    (req("", "Cookie: AB=s1; ABD=9"), res("set-cookie: AB=orig; path=/")),
    (req("", "Cookie: AB=s1~deep; ABD=9"), res("set-cookie: AB=orig; path=/")),
    (req("", "Cookie: AB=dead; c = d"), res("set-cookie: CD = x")),
    (req("/edit", "X-A: orig", "Cookie: AB=orig"), res("x-c: orig", "x-edit: 1")),
    *((req(path, "X-A: orig", "Cookie: z=1;AB=orig"), res("Server: s")) for path in ("/deny", "/ret", "/red", "/zero", "/be", "/src", "/cnt", "/bool", "/stat", "/nul?n=ab%00cd")),
    (req("", "X-A: orig", "Cookie: AB=orig"), res("x-c: orig", "x-deny: 1", "set-cookie: AB=1")),
    (req("", "X-A: orig"), b"HTTP/1.1 100 Continue\r\nx-c: early\r\n\r\n" + PLAIN),
    (req("", "X-A: orig"), b"garbage\r\n\r\n"),
    (req("", "Connection: close", "X-B: ,"), res("Connection: keep-alive, foo")),
    (req("", "Connection: keep-alive", version="1.0"), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    (req("", "Connection: a , b,keep-alive,, c , d, close, e"), res("Connection: a ,  b")),
    (req("", "Connection: foo, keep-alive"), res("Connection: close") + b"<close>"),
    (b"GET http://h.example/case/@CASE@?x=1 HTTP/1.1\r\nHost: h.example\r\nX-Case: @CASE@\r\n\r\n", PLAIN),
    (b"OPTIONS * HTTP/1.1\r\nHost: h.example\r\nX-Case: @CASE@\r\n\r\n", PLAIN),
]  # fmt: skip


@pytest.mark.parametrize("name", list(FRONTENDS))
def test_an_exchange_leaves_what_haproxy_leaves(pair: Pair, name: str) -> None:
    wrong = []
    for request, response in EXCHANGES:
        if name == "quiet":
            request = request.replace(b"/case/", b"/quiet/")  # there is no line to wait for
        theirs, ours = (portrait(result) for result in pair.run(name, request, response))
        wrong += [f"{request!r}\n {key}: {theirs[key]!r}\n {'':{len(key)}}  {ours[key]!r}" for key in theirs if theirs[key] != ours[key]]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def lines_of(pair: Pair, index: int, name: str, sent: bytes, count: int, mark: str) -> list[str]:
    """The `count` log lines with `mark` that come of what is sent on one connection."""
    host, program = pair.programs[index]

    def found() -> list[str]:
        lines = [line for several in program.log.lines.values() for line in several]
        return [line for line in lines if f" {name} " in line and mark in line]

    before = len(found())
    with socket.create_connection((host, pair.ports[name]), 5) as channel:
        channel.sendall(sent)
        while channel.recv(65536):
            pass
    with program.log.changed:
        assert program.log.changed.wait_for(lambda: len(found()) >= before + count, 20)
        return sorted(map(blot, found()))


def test_a_kept_connection_forgets_the_exchange_before(pair: Pair) -> None:
    first = b"GET /case/kept1 HTTP/1.1\r\nHost: one\r\nX-A: one\r\nX-B: one\r\nCookie: AB=1\r\n\r\n"
    second = b"GET /case/kept2 HTTP/1.1\r\nHost: two\r\n\r\n"
    last = b"GET /case/kept3 HTTP/1.0\r\nConnection: close\r\n\r\n"
    theirs, ours = (lines_of(pair, index, "http", first + second + last, 3, "/kept") for index in (0, 1))
    assert len(theirs) == 3
    assert theirs == ours


def test_what_is_no_request_has_no_captures(pair: Pair) -> None:
    bad = b"GET /case/bad HTTP/1.1\r\nHost: one\r\nX-A: one\r\nX-B : bad\r\n\r\n"
    theirs, ours = (lines_of(pair, index, "http", bad, 1, "BADREQ") for index in (0, 1))
    assert "{" not in str((theirs, ours))
