"""What rules make of strangers' bytes and of nothing, beside HAProxy: request lines, headers of replies, replies to answers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.diff.rig import PLAIN, Pair, Result, Upstreams, upstreams

GIVEN = "%[url_param(v),url_dec]"
RULES = {
    "setpath": f"http-request set-path /{GIVEN}",
    "setquery": f"http-request set-query {GIVEN}",
    "seturi": f"http-request set-uri /u/{GIVEN}",
    "setpathq": f"http-request set-pathq /pq/{GIVEN}",
    "replacepath": f"http-request replace-path .* /rp/{GIVEN}",
    "replaceuri": f"http-request replace-uri .* /ru/{GIVEN}",
    "replacepathq": f"http-request replace-pathq .* /rpq/{GIVEN}",
    "setmethod": f"http-request set-method G{GIVEN}",
    "sethost": f"http-request set-header Host {GIVEN}",
    "setheader": f"http-request set-header X-F {GIVEN}",
    "addheader": f"http-request add-header X-F {GIVEN}",
    "replacevalue": f"http-request replace-value X-Old .* {GIVEN}",
    "location": f"http-request redirect location /{GIVEN}",
    "hdr": f"http-request return status 200 hdr X-F {GIVEN} hdr X-G %[str()]",
    "answerheader": "http-response set-header X-F %[res.hdr(x-from)]",
    "return": "http-response return status 404 content-type text/plain lf-string <%[status]%[res.hdr(x-from)]%[str]> hdr X-S %ST",
    "deny": "http-response deny deny_status 403 content-type text/plain string no",
    "stats": "stats uri /stats",
}
DIRTY = {
    "clean": "a", "quote": "a%22b", "empty": "", "percent": "a%2525b", "cr": "a%0d%0aX-Evil:%201", "lf": "a%0aGET%20/evil%20HTTP/1.1",
    "blank": "a%20b", "tab": "a%09b", "nul": "a%00b", "del": "a%7fb", "hash": "a%23b", "high": "a%ffb",
    "request": "a%20HTTP/1.1%0d%0aHost:%20h%0d%0a%0d%0aGET%20/evil",
}  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    def config(host: str, ports: list[int], servers: Upstreams, _dead: int) -> str:
        text = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
        for (name, rule), port in zip(RULES.items(), ports, strict=True):
            text += f"listen {name}\n    bind {host}:{port}\n    {rule}\n    server s1 127.0.0.1:{servers.ports[0]}\n"
        return text

    with upstreams(1) as servers:
        both = Pair("fast", tmp_path_factory.mktemp("made"), servers, list(RULES), config)
        try:
            yield both
        finally:
            both.stop()


def portrait(result: Result) -> tuple[object, ...]:
    """What a server got and what the client got, without the name of the case."""
    seen = [re.sub(rb"(haproxy|fast)-\d+", b"CASE", one.head + b" | " + one.body) for one in result.seen]
    return seen, result.got.status, sorted(line.lower() for line in result.got.lines()[1:]), result.got.body


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("value", DIRTY)
@pytest.mark.parametrize("name", list(RULES)[:14])
def test_a_rule_makes_of_a_strangers_bytes_what_haproxy_makes_or_nothing(pair: Pair, name: str, value: str) -> None:
    """What is no request line or Host any more is answered with 500 here; HAProxy sends it, broken as it is."""
    request = f"GET /p?v={DIRTY[value]} HTTP/1.1\r\nHost: h\r\nX-Case: @CASE@\r\nX-Old: 1\r\n\r\n".encode()
    theirs, ours = pair.run(name, request)
    for one in ours.seen:
        line, *headers = one.head.split(b"\r\n")
        assert re.fullmatch(rb"[!-~]+ [!\"$-~]+ HTTP/1\.1", line), line
        assert not any(re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", header) for header in headers)
        assert not any(header.lower().startswith(b"x-evil") for header in headers)
    if ours.got.status == 500:
        # only where HAProxy sent bytes that do not belong there
        (sent,) = theirs.seen
        line = sent.head.split(b"\r\n")[0]
        host = sent.values("host")[0]
        assert (
            not re.fullmatch(rb"[!-~]+ /[!\"$-~]* HTTP/1\.1", line)
            or not re.fullmatch(r"[!-~]+", host)
            or '"' in line.decode("latin-1").partition(" ")[0]
            or re.search(r"[^\w.:-]", host)
        ), line
        assert ours.seen == []
        return
    assert portrait(ours) == portrait(theirs)


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("value", ["", "text"])
@pytest.mark.parametrize("name", ["answerheader", "return"])
def test_a_reply_to_an_answer_does_not_see_it_any_more(pair: Pair, name: str, value: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-From: %s\r\ncontent-length: 2\r\n\r\nok" % value.encode()
    theirs, ours = pair.run(name, b"GET / HTTP/1.1\r\nHost: h\r\nX-Case: @CASE@\r\n\r\n", answer)
    assert portrait(ours) == portrait(theirs)


@pytest.mark.real("haproxy")
@pytest.mark.parametrize(
    "answer",
    [PLAIN, b"HTTP/1.1 200 OK\r\n\r\nto the end<close>", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nend<close>"],
)
def test_a_denied_answer_that_ends_with_its_connection_does_not_end_the_clients(pair: Pair, answer: bytes) -> None:
    theirs, ours = pair.run("deny", b"GET / HTTP/1.1\r\nHost: h\r\nX-Case: @CASE@\r\n\r\n", answer)
    assert portrait(ours) == portrait(theirs)
    assert ours.got.values("connection") == []


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "FOO"])
def test_the_statistics_leave_other_methods_to_the_server(pair: Pair, method: str) -> None:
    raw = f"{method} /stats HTTP/1.1\r\nHost: h\r\nX-Case: @CASE@\r\nContent-Length: 0\r\n\r\n".encode()
    theirs, ours = pair.run("stats", raw)
    assert portrait(ours) == portrait(theirs)
    assert ours.seen
