"""%B and %U, and bin and bout of the statistics, beside HAProxy: answers of servers, of our own, none at all, tunnels.

HAProxy 2.6 counts the parts of a message as it keeps them: 20 bytes for a first line with its three words, the names and
values of headers, one for the end of the head, and the body without its chunks.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.diff.rig import Pair, Upstreams, ask, upstreams

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
# name: (what the client sends behind the first line's target, what the server answers)
CASES: dict[str, tuple[bytes, bytes]] = {
    "plain": (b"GET @T@ HTTP/1.1\r\nHost: h\r\n\r\n", OK),
    "headers": (
        b"GET @T@ HTTP/1.1\r\nHost: h\r\nX-A:1\r\nX-B:   2  \r\nCookie: a=b\r\n\r\n",
        b"HTTP/1.1 200 Fine\r\nX-C:3\r\nX-D:  4 \r\nSet-Cookie: c=d\r\ncontent-length: 0\r\n\r\n",
    ),
    "close": (b"GET @T@ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", OK),
    "closed": (
        b"GET @T@ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end<close>",
    ),
    "old": (b"GET @T@ HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", OK),
    "older": (b"GET @T@ HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok<close>"),
    "head": (b"HEAD @T@ HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"),
    "204": (b"GET @T@ HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": (b"GET @T@ HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
    "post": (b"POST @T@ HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789", OK),
    "chunks": (
        b"POST @T@ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n3;x=y\r\n567\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    "trailers": (
        b"POST @T@ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n0\r\nX-T: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 2\r\n\r\n",
    ),
    "error": (
        b"GET @T@ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 3\r\n\r\nbad",
    ),
    "interim": (b"GET @T@ HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    "garbage": (b"GET @T@ HTTP/1.1\r\nHost: h\r\n\r\n", b"nonsense\r\n\r\n<close>"),
    "deny": (b"GET @T@/deny HTTP/1.1\r\nHost: h\r\n\r\n", OK),
    "redirect": (b"GET @T@/redirect HTTP/1.1\r\nHost: h\r\n\r\n", OK),
    "redirected_body": (b"POST @T@/redirect HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12345", OK),
    "redirected_chunks": (b"POST @T@/redirect HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", OK),
    "redirected_nothing": (b"POST @T@/redirect HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", OK),
    "redirected_close": (b"GET @T@/redirect HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", OK),
    "return": (b"GET @T@/return HTTP/1.1\r\nHost: h\r\n\r\n", OK),
    "edited": (b"GET @T@/edit HTTP/1.1\r\nHost: h\r\n\r\n", OK),
    "nobody": (b"GET @T@/nobody HTTP/1.1\r\nHost: h\r\n\r\n", OK),
    "refused": (b"GET @T@ HTTP/1.1\r\nHost: h\r\n\r\n", OK.replace(b"200", b"201")),
}
RULES = """
    http-request deny if { path_end /deny }
    http-request redirect location /elsewhere if { path_end /redirect }
    http-request return status 200 content-type text/plain string hello hdr X-Own yes if { path_end /return }
    http-request set-header X-Long aaaaaaaaaaaaaaaaaaaaaaaa if { path_end /edit }
    http-response set-header X-Long aaaaaaaaaaaaaaaaaaaaaaaa if { status 200 }
    http-response deny if { status 201 }
    use_backend empty if { path_end /nobody }
"""


def config(host: str, ports: list[int], servers: Upstreams, dead: int) -> str:
    text = (
        "global\n    stats socket @SOCKET@ level admin\ndefaults\n    mode http\n    timeout connect 5s\n"
        "    timeout client 5s\n    timeout server 5s\n    log @LOG@ local0\n"
    )
    for name, port in zip(CASES, ports, strict=True):
        text += f'listen {name}\n    bind {host}:{port}\n    log-format "B=%B U=%U %ST %r"\n{RULES}    server s1 127.0.0.1:{servers.ports[0]}\n'
    return text + "backend empty\n    server s1 127.0.0.1:1 disabled\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("bytes")

    def placed(host: str, ports: list[int], servers: Upstreams, dead: int) -> str:
        return config(host, ports, servers, dead).replace("@SOCKET@", str(directory / f"{host}.sock"))

    with upstreams(1) as servers:
        both = Pair("fast", directory, servers, list(CASES), placed)
        both.directory = directory  # type: ignore[attr-defined]
        try:
            yield both
        finally:
            both.stop()


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("name", CASES)
def test_bytes_are_counted_as_haproxy_counts_them(pair: Pair, name: str) -> None:
    request, answer = CASES[name]
    raw = request.replace(b"@T@", b"/case/@CASE@").replace(b"\r\nHost: h\r\n", b"\r\nHost: h\r\nX-Case: @CASE@\r\n", 1)
    found = []
    for result in pair.run(name, raw, answer):
        counts = re.search(r"B=(\d+) U=(\d+) (\S+)", result.log)
        assert counts, result.log
        # the names of the cases differ in their length: twice in each request, not in an answer
        case = re.search(r"/case/([\w-]+)", result.log)
        assert case
        found.append((int(counts[1]), int(counts[2]) - 2 * len(case[1]), counts[3]))
    assert found[1] == found[0]


def totals(pair: Pair, index: int, name: str) -> list[tuple[int, int]]:
    """bin and bout of a section's frontend, server and backend."""
    host = pair.programs[index][0]
    lines = ask(pair.directory / f"{host}.sock", "show stat").splitlines()  # type: ignore[attr-defined]
    rows = [line.split(",") for line in lines if line.startswith(f"{name},")]
    return [(int(row[8]), int(row[9])) for row in rows]


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("name", CASES)
def test_the_statistics_count_the_same_bytes(pair: Pair, name: str) -> None:
    request, answer = CASES[name]
    raw = request.replace(b"@T@", b"/case/@CASE@").replace(b"\r\nHost: h\r\n", b"\r\nHost: h\r\nX-Case: @CASE@\r\n", 1)
    found = []
    for index in (0, 1):
        before = totals(pair, index, name)
        result = pair.one(index, name, raw, answer)
        case = re.search(r"/case/([\w-]+)", result.log)
        assert case
        deadline = time.monotonic() + 5
        while (now := totals(pair, index, name))[0] == before[0] and time.monotonic() < deadline:
            time.sleep(0.05)
        grown = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(before, now, strict=True)]
        found.append([(up - 2 * len(case[1]) if up else 0, down) for up, down in grown])
    assert found[1] == found[0]
    assert found[0][0] != (0, 0)
