"""Rules in a running proxy on both paths: every split of the stream, pipelines behind answers, framing, what is refused at load."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haptk.errors import ConfigError
from haptk.proxy.compile import load_text
from haptk.proxy.engine import data_plane
from haptk.proxy.tables import Bind
from tests.proxy.conftest import RunningProxy, ScriptedServer, keep_answering, read_answer

FILE = """
frontend web
    mode http
    bind 127.0.0.1:1
    timeout client 5s
    acl api path_beg /api /v2/api
    http-request deny if { path /deny }
    http-request return status 200 content-type text/plain string hello if { path /hello }
    http-request redirect location /new%[path] if { path_beg /old }
    http-request set-header X-In %[req.hdr(X-A),upper] if api
    http-request del-header X-A
    http-request set-path /v2%[path] if api
    {front}
    use_backend api if api
    default_backend plain
backend api
    mode http
    timeout connect 2s
    timeout server 5s
    option forwardfor
    http-response set-header X-Out %[status]
    server s1 127.0.0.1:{port}
backend plain
    mode http
    timeout connect 2s
    timeout server 5s
    server s1 127.0.0.1:{port}
"""


def text_of(front: str, port: int) -> str:
    return FILE.replace("{front}", front).replace("{port}", str(port))


REQUEST = b"GET /api/x?y HTTP/1.1\r\nHost: a\r\nX-A: abc\r\nX-B: d\r\n\r\n"


@pytest.fixture(params=["fast", "reference"])
def start(request, monkeypatch, scripted):
    """Run FILE over one server; returns (proxy, server)."""
    if request.param == "reference":
        monkeypatch.setenv("HAPTK_NO_FAST", "1")
    running = []

    def make(rule: str = "", script=None) -> tuple[RunningProxy, ScriptedServer]:
        server = scripted(script or keep_answering())
        tables = load_text(text_of(rule, server.port))
        front = replace(tables.frontends[0], binds=(Bind("127.0.0.1", 0),))
        tables = replace(tables, frontends=(front,))
        assert data_plane(tables)[0].__module__.startswith("haptk._fast") is (request.param == "fast")
        proxy = RunningProxy(tables)
        running.append(proxy)
        return proxy, server

    yield make
    for proxy in running:
        proxy.close()


def test_every_split_of_a_request_with_rules(start):
    proxy, server = start()
    whole, _ = proxy.talk(REQUEST, quiet_s=0.3)
    assert b"x-out: 200\r\n" in whole
    with proxy.connect() as sock:
        for at in range(1, len(REQUEST)):
            sock.sendall(REQUEST[:at])
            sock.sendall(REQUEST[at:])
            head, body, rest = read_answer(sock)
            assert (head + b"\r\n\r\n" + body, rest) == (whole, b"")
    assert set(server.seen) == {
        b"GET /v2/api/x?y HTTP/1.1\r\nhost: a\r\nx-b: d\r\nx-in: ABC\r\nx-forwarded-for: 127.0.0.1"
    }


def test_answers_keep_the_connection_and_what_is_behind_them(start):
    proxy, server = start()
    ask = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"
    post = b"POST /deny HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
    with proxy.connect() as sock:
        sock.sendall(ask % b"/hello" + post + ask % b"/old/x" + ask % b"/last")
        rest = b""
        heads = []
        for _ in range(4):
            head, body, rest = read_answer(sock, rest)
            heads.append((head.split(b"\r\n")[0], body[:5]))
    assert [line for line, _ in heads] == [
        b"HTTP/1.1 200 OK", b"HTTP/1.1 403 Forbidden", b"HTTP/1.1 302 Found", b"HTTP/1.1 200 OK",
    ]  # fmt: skip
    assert heads[0][1] == b"hello"
    assert server.seen == [b"GET /last HTTP/1.1\r\nhost: a"]


@pytest.mark.parametrize(
    ("rule", "headers"),
    [
        ("http-request set-method %[req.hdr(X-M)]", b"X-M: a b\r\n"),
        ("http-request set-method CONNECT", b""),
        ("http-request set-uri %[req.hdr(X-M)]", b"X-M: /a b\r\n"),
        ("http-request set-uri %[req.hdr(X-M)]", b"X-M: nowhere\r\n"),
        ("http-request set-header Host %[req.hdr(X-M)]", b"X-M: a b\r\n"),
        (
            "http-request set-header X-Big %[req.hdr(X-M)]%[req.hdr(X-M)]%[req.hdr(X-M)]",
            b"X-M: " + b"x" * 9000 + b"\r\n",
        ),
    ],
)
def test_a_rule_cannot_make_what_is_no_message(start, rule, headers):
    proxy, server = start(rule)
    answer, _ = proxy.talk(b"GET /x HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n", quiet_s=0.3)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert server.seen == []


def test_patterns_leave_framing_alone(start):
    proxy, server = start("http-request del-header content -m beg\n    http-request del-header . -m reg")
    proxy.talk(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: b\r\nContent-Length: 2\r\n\r\nhi", quiet_s=0.3)
    assert server.seen == [b"POST /x HTTP/1.1\r\ncontent-length: 2"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("http-request set-header Content-Length 5", "content-length"),
        ("http-request del-header Transfer-Encoding", "transfer-encoding"),
        ("http-request add-header Host b", "second Host"),
        ("http-response set-status 204", "204"),
        ("http-request deny if { nbsrv(nobody) 1 }", "nobody"),
        ("http-request deny if { path_reg (?P<a>x)(?P=b) }", "(?P"),
        ("http-request deny deny_status 418", "418"),
        ("http-request return status 200 string x", "content-type"),
        ("http-response set-header X %[path]", "path"),
        ("http-request set-header X %[path,field(0,/)]", "field"),
        ("http-request deny if { hdr_val(X) -5 }", "-5"),
        ("log-format %[req.hdr(x)]", "req.hdr"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_at_load(line, word):
    with pytest.raises(ConfigError) as caught:
        load_text(text_of(line, 1), "f.cfg")
    assert "f.cfg:13" in str(caught.value)
    assert word in str(caught.value)


@pytest.mark.parametrize("value", [b"a" * 3000 + b"!", b"a" * 8000])
def test_a_hopeless_expression_gives_up(start, value, request):
    if "reference" in request.node.name:
        pytest.skip("Python's re has no limit of steps")
    proxy, _ = start(
        "http-request deny if { req.hdr(X) -m reg ^(a+)+$ } { path /never }\n    http-request deny if { path_reg ^/(x+x+)+y }"
    )
    answer, _ = proxy.talk(b"GET /" + b"x" * 28 + b" HTTP/1.1\r\nHost: a\r\nX: " + value + b"\r\n\r\n", quiet_s=1.0)
    assert answer.startswith(b"HTTP/1.1 200 ")
