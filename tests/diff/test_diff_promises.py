"""What options promise, beside the real haproxy: who closes which connection, addresses in headers, backends of TCP mode.

The grids are small and complete: every form of a Connection line both ways against every way to ask for a mode.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import PLAIN, Pair, Result, Upstreams, upstreams
from tests.diff.test_diff_behaviour import differences, portrait

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(300)]

MODES = ("", " option httpclose\n", " option http-server-close\n", " option http-keep-alive\n")
CONNECTIONS = {
    "rules_edit": " http-response set-header X-A b\n",
    "rules_see": " http-response add-header X-C [%[res.hdr(connection)]]\n http-request add-header X-Q [%[hdr(connection)]]\n",
    "rules_test": " http-request deny if { hdr(connection) -m str close }\n http-request set-header X-S 1 if { hdr(connection) foo }\n"
    " http-response set-status 299 if { res.hdr(connection) -m found }\n",
    "close_answer": " http-response set-header Connection close\n",
    "keep_answer": " http-response set-header Connection keep-alive\n",
    "drop": " http-response del-header Connection\n http-request del-header Connection\n",
    "close_request": " http-request set-header Connection close\n",
    "other_word": " http-request set-header Connection foo\n http-response set-header Connection foo\n",
    "replace": r""" http-request replace-header Connection (.*) x-\1
 http-response replace-header Connection (.*) x-\1
""",
    "keep_httpclose": " option httpclose\n http-response set-header Connection keep-alive\n",
    "keep_server_close": " option http-server-close\n http-request set-header Connection keep-alive\n",
    "pretend": " option http-server-close\n option http-pretend-keepalive\n",
    "close_return": " http-request return status 200 hdr X-A b\n option httpclose\n",
    "close_deny": " http-request deny\n option httpclose\n",
    "close_redirect": " redirect location /x\n option httpclose\n",
}
# frontend and backend apart: (of the frontend, of the backend)
HALVES = {
    f"half_{i}_{k}": (front, back) for (i, front), (k, back) in itertools.product(enumerate(MODES), enumerate(MODES))
}
_FORWARDS = (
    "", " option {}\n", " option {} except 127.0.0.0/8\n", " option {} except 10.0.0.0/8\n", " option {} header X-Other\n",
    " option {} header X-Other except 127.0.0.0/8\n",
)  # fmt: skip
ADDRESSES = {
    f"{option}_{i}_{k}": (front.format(option), back.format(option))
    for option in ("forwardfor", "originalto")
    for (i, front), (k, back) in itertools.product(enumerate(_FORWARDS), enumerate(_FORWARDS))
} | {
    f"ifnone_{i}_{k}": (front, back)
    for (i, front), (k, back) in itertools.product(
        enumerate(("", " option forwardfor\n", " option forwardfor if-none\n")), repeat=2
    )
}
FILES = {
    "empty.lst": "",
    "comments.lst": "# nothing\n\n",
    "503.http": "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nsorry",
    "403.http": "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n",
}
FILED = {
    "empty_patterns": " acl a path_beg -f @DIR@/empty.lst\n acl b src -f @DIR@/comments.lst\n acl c hdr_val(x) -f @DIR@/empty.lst\n"
    " acl d path_reg -i -f @DIR@/empty.lst\n acl e path\n acl f hdr(x-case) -m found ignored\n acl g always_true 1\n acl h always_true 0\n"
    " http-request set-header X-Any 1 if a or b or c or d or e\n http-request set-header X-None 1 if !a !b\n"
    " http-request set-header X-F 1 if f\n http-request set-header X-G 1 if g\n http-request set-header X-H 1 if h\n",
    "other_status": " errorfile 403 @DIR@/403.http\n errorfile 503 @DIR@/503.http\n http-request deny if { path_end /deny }\n"
    " use_backend nobody if { path_end /503 }\n",
}
CHOICES = {
    "tcp_chosen": (" acl here src 127.0.0.0/8\n use_backend b2 if here\n", "b1"),
    "tcp_not_chosen": (" use_backend b2 if { src 10.0.0.0/8 }\n", "b1"),
    "tcp_failover": (" acl dead nbsrv(gone) lt 1\n use_backend b3 if dead\n use_backend b2\n", "b1"),
    "tcp_unless": (" use_backend b2 unless { dst_port 1 }\n", "b1"),
    "tcp_first": (" use_backend b2 if { so_id 1 }\n use_backend b3\n", "b1"),
    "tcp_no_default": (" use_backend b2 if { src 127.0.0.1 }\n", ""),
}


def config(directory: Path, host: str, ports: list[int], servers: Upstreams, dead: int) -> str:
    text = (
        "global\n log @LOG@ local0\ndefaults\n mode http\n log global\n option httplog\n timeout client 3s\n timeout server 3s\n"
        " timeout connect 1s\n"
    )
    free = iter(ports)
    server = f" server s1 127.0.0.1:{servers.ports[0]}\n"
    for name, rules in (CONNECTIONS | FILED).items():
        text += f"listen {name}\n bind {host}:{next(free)}\n{rules}{server}".replace("@DIR@", str(directory))
    text += f"backend nobody\n errorfile 503 {directory}/503.http\n"
    for name, (front, back) in (HALVES | ADDRESSES).items():
        text += f"frontend {name}\n bind {host}:{next(free)}\n{front} default_backend b_{name}\nbackend b_{name}\n{back}{server}"
    text += "defaults\n mode tcp\n log global\n option tcplog\n timeout client 3s\n timeout server 3s\n timeout connect 1s\n"
    for name, (rules, default) in CHOICES.items():
        text += f"frontend {name}\n bind {host}:{next(free)}\n{rules}" + (
            f" default_backend {default}\n" if default else ""
        )
    for number in (1, 2, 3):
        text += f"backend b{number}\n server s{number} 127.0.0.1:{servers.ports[number - 1]}\n"
    return text + f"backend gone\n server s4 127.0.0.1:{dead} disabled\n"


NAMES = [*CONNECTIONS, *FILED, *HALVES, *ADDRESSES, *CHOICES]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("promises")
    for name, text in FILES.items():
        (directory / name).write_text(text)
    with upstreams() as servers:
        found = Pair("fast", directory, servers, NAMES, lambda *given: config(directory, *given))
        yield found
        found.stop()


def look(one: Result, *, log: bool = True) -> dict[str, object]:
    found = portrait(one, server=True, log=log)
    for key in ("response", "request"):
        found[key] = sorted(found[key])  # type: ignore[call-overload]
    return {**found, "closed": one.got.closed}


def compare(pair: Pair, name: str, request: bytes, response: bytes = PLAIN) -> list[str]:
    theirs, ours = pair.run(name, request, response)
    found = differences(look(theirs), look(ours))
    return [f"{name} {request!r} {response!r}: {what}" for what in found]


def ask(line: bytes = b"", version: bytes = b"1.1", path: bytes = b"") -> bytes:
    return b"GET /case/@CASE@" + path + b" HTTP/" + version + b"\r\nHost: h\r\nX-Case: @CASE@\r\n" + line + b"\r\n"


def said(line: bytes) -> bytes:
    end = b"<close>" if b"close" in line else b""
    return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + line + b"\r\nok" + end


ASKED = (b"", b"Connection: close\r\n", b"Connection: keep-alive, foo\r\n", b"Connection: close, foo\r\n")
SAID = (b"", b"Connection: close\r\n", b"Connection: foo, close\r\n", b"Connection: keep-alive\r\n")


@pytest.mark.parametrize("name", [*CONNECTIONS, *HALVES])
def test_who_closes_and_what_rules_see_of_it(pair: Pair, name: str) -> None:
    """`close` of a server ends the server's connection, that of a rule the client's; a backend's httpclose neither."""
    wrong = [
        what
        for version in (b"1.1", b"1.0")
        for line in ASKED
        for answer in SAID
        for what in compare(pair, name, ask(line, version), said(answer))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("line", [b"", b"X-Forwarded-For: 1.2.3.4\r\nX-Other: 5\r\n"])
def test_addresses_of_frontend_and_backend_together(pair: Pair, line: bytes) -> None:
    wrong = [what for name in ADDRESSES for what in compare(pair, name, ask(line))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [b"", b"/deny", b"/503"])
def test_files_that_say_nothing_or_something_else(pair: Pair, path: bytes) -> None:
    wrong = [what for name in FILED for what in compare(pair, name, ask(path=path))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", CHOICES)
def test_tcp_mode_chooses_a_backend(pair: Pair, name: str) -> None:
    theirs, ours = pair.run(name, ask())
    assert not differences(look(theirs, log=False), look(ours, log=False))
