"""When a stick rule's key is stored: after answers of servers, of rules and of errors, beside the real haproxy."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import PLAIN, Upstreams, ask, exchange, free_ports, start, upstreams

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(240)]
COOKIE = b"HTTP/1.1 200 OK\r\nset-cookie: JS=fromserver\r\ncontent-length: 2\r\n\r\nok"
# name -> lines of a `listen` with the table, and what the server answers
CASES: dict[str, tuple[str, bytes]] = {
    "plain": ("", COOKIE),
    "bad_status": ("", COOKIE.replace(b"200 OK", b"500 Oops")),
    "not_modified": ("", b"HTTP/1.1 304 Not Modified\r\nset-cookie: JS=fromserver\r\n\r\n"),
    "switched": ("", b"HTTP/1.1 204 No\r\nset-cookie: JS=fromserver\r\n\r\n"),
    "informed": ("", b"HTTP/1.1 103 Early\r\nset-cookie: JS=early\r\n\r\n" + COOKIE),
    "bad_answer": ("", b"rubbish<close>"),
    "no_answer": ("", b"<close>"),
    "dead": ("server dead 127.0.0.1:{dead}\n retries 0", COOKIE),
    "response_deny": ("http-response deny if {{ status 200 }}", COOKIE),
    "response_return": ("http-response return status 200 content-type text/plain string hi", COOKIE),
    "response_redirect": ("http-response redirect location /elsewhere", COOKIE),
    "response_del": ("http-response del-header set-cookie", COOKIE),
    "response_set": ("http-response set-header set-cookie JS=byrule", COOKIE),
    "request_deny": ("http-request deny", COOKIE),
    "request_return": ("http-request return status 200 content-type text/plain string hi", COOKIE),
    "request_redirect": ("http-request redirect location /elsewhere", COOKIE),
    "legacy_redirect": ("redirect location /elsewhere", COOKIE),
    "front_response_deny": ("", COOKIE),
    "server_redirect": ("server redirecting 127.0.0.1:{one} redir http://elsewhere", COOKIE),
    "not_sticky": ("server shy 127.0.0.1:{one} non-stick", COOKIE),
    "set_by_request": ("http-request set-header cookie JS=changed", COOKIE),
    "retried": ("retry-on 500\n retries 1\n option redispatch", COOKIE.replace(b"200 OK", b"500 Oops")),
    "strict": ("http-response deny if {{ res.hdr(set-cookie) -m found }}", COOKIE),
}
HEAD = """global
 stats socket {socket} level admin
defaults
 mode http
 timeout connect 1s
 timeout client 5s
 timeout server 3s
 timeout http-keep-alive 5s
"""


class Side:
    def __init__(self, kind: str, folder: Path, servers: Upstreams, ports: list[int], dead: int) -> None:
        self.kind, self.socket = kind, folder / f"{kind}.sock"
        self.host = "127.0.0.1" if kind == "haproxy" else "127.0.0.9"
        text = HEAD.format(socket=self.socket)
        for (name, (lines, _)), port in zip(CASES.items(), ports, strict=True):
            lines = lines.format(one=servers.ports[0], dead=dead)
            body = f" stick-table type string len 32 size 100 expire 1h\n stick on req.cook(JS)\n stick store-response res.cook(JS)\n {lines}\n"
            if "server " not in lines:
                body += f" server s1 127.0.0.1:{servers.ports[0]}\n"
            if name.startswith("front_"):
                text += f"frontend f{name}\n bind {self.host}:{port}\n http-response deny\n default_backend {name}\nbackend {name}\n{body}"
            else:
                text += f"listen {name}\n bind {self.host}:{port}\n{body}"
        self.ports = dict(zip(CASES, ports, strict=True))
        self.program = start(kind, text, folder, [(self.host, port) for port in ports])

    def table(self, name: str) -> list[str]:
        rows = re.findall(
            r"key=(\S*) use=\d exp=\d+ (server_id=\d+ server_key=\S+)", ask(self.socket, f"show table {name}")
        )
        return sorted(f"{key} {server}" for key, server in rows)


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[list[Side], Upstreams]]:
    with upstreams(1) as servers:
        *ports, dead = free_ports(len(CASES) + 1)
        made: list[Side] = []
        try:
            for kind in ("haproxy", "fast"):
                made.append(Side(kind, tmp_path, servers, ports, dead))
            yield made, servers
        finally:
            for side in made:
                side.program.stop()


def test_what_is_stored(sides: tuple[list[Side], Upstreams]) -> None:
    both, servers = sides
    wrong = []
    for name, (_, answer) in CASES.items():
        found = []
        for side in both:
            case = f"{side.kind}-{name}".lower()
            servers.scripts[case] = answer
            got = exchange(
                (side.host, side.ports[name]),
                f"GET / HTTP/1.1\r\nHost: h\r\nX-Case: {case}\r\nCookie: JS=fromclient\r\nConnection: close\r\n\r\n".encode(),
            )
            found.append((got.status, side.table(name)))
        if found[0] != found[1]:
            wrong.append(f"{name}: haproxy {found[0]}, haptk {found[1]}")
    assert not wrong, "\n".join(wrong)


def test_what_a_second_request_of_a_connection_stores(tmp_path: Path) -> None:
    """The first one has a server, the second one is answered by a rule: it stores nothing under the first one's server."""
    rules = {
        "request_deny": "http-request deny if { path /second }",
        "request_return": "http-request return status 200 content-type text/plain string hi if { path /second }",
        "request_redirect": "http-request redirect location /x if { path /second }",
        "legacy_redirect": "redirect location /x if { path /second }",
        "response_return": "http-response return status 200 content-type text/plain string hi if { res.hdr(x-second) -m found }",
        "response_deny": "http-response deny if { res.hdr(x-second) -m found }",
        "none": "",
    }
    wrong = []
    with upstreams(1) as servers:
        for kind, host in (("haproxy", "127.0.0.1"), ("fast", "127.0.0.9")):
            ports = free_ports(len(rules))
            text = HEAD.format(socket=tmp_path / f"{kind}.sock")
            for (name, rule), port in zip(rules.items(), ports, strict=True):
                text += (
                    f"listen {name}\n bind {host}:{port}\n stick-table type string len 32 size 100 expire 1h\n"
                    f" stick on hdr(x-key)\n stick store-response res.hdr(x-told)\n {rule}\n server s1 127.0.0.1:{servers.ports[0]}\n"
                )
            program = start(kind, text, tmp_path, [(host, port) for port in ports])
            try:
                for name, port in zip(rules, ports, strict=True):
                    with socket.create_connection((host, port), 5) as sock:
                        sock.settimeout(5)
                        for number, told in ((b"first", b""), (b"second", b"x-second: 1\r\nx-told: told\r\n")):
                            case = f"{kind}-{name}-{number.decode()}".lower()
                            servers.scripts[case] = PLAIN.replace(b"\r\n\r\n", b"\r\n" + told + b"\r\n", 1)
                            sock.sendall(
                                b"GET /%s HTTP/1.1\r\nHost: h\r\nX-Case: %s\r\nX-Key: %s\r\n\r\n"
                                % (number, case.encode(), number)
                            )
                            data = b""
                            while not re.search(rb"\r\n\r\n(ok|hi)?", data) and (part := sock.recv(65536)):
                                data += part
                    rows = re.findall(r"key=(\S*) ", ask(tmp_path / f"{kind}.sock", f"show table {name}"))
                    wrong.append((kind, name, sorted(rows)))
            finally:
                program.stop()
    theirs = {name: rows for kind, name, rows in wrong if kind == "haproxy"}
    ours = {name: rows for kind, name, rows in wrong if kind == "fast"}
    assert ours == theirs


def test_appsession_learns_what_the_client_gets(tmp_path: Path) -> None:
    """HAProxy 1.5 read the session's cookie behind the rules: an answer that a rule replaced teaches nothing."""
    (port,) = free_ports(1)
    with upstreams(1) as servers:
        text = HEAD.format(socket=tmp_path / "s.sock") + (
            f"listen web\n bind 127.0.0.1:{port}\n appsession JS len 32 timeout 1h\n"
            " http-response deny if { res.hdr(x-what) deny }\n"
            " http-response set-header set-cookie JS=byrule if { res.hdr(x-what) set }\n"
            f" server s1 127.0.0.1:{servers.ports[0]}\n"
        )
        program = start("fast", text, tmp_path, [("127.0.0.1", port)])
        try:
            for what in ("deny", "set", "plain"):
                servers.scripts[what] = COOKIE.replace(b"fromserver", what.encode()).replace(
                    b"\r\nset", b"\r\nx-what: %s\r\nset" % what.encode(), 1
                )
                exchange(
                    ("127.0.0.1", port),
                    f"GET / HTTP/1.1\r\nHost: h\r\nX-Case: {what}\r\nConnection: close\r\n\r\n".encode(),
                )
            rows = re.findall(r"key=(\S*) ", ask(tmp_path / "s.sock", "show table web/appsession"))
            assert sorted(rows) == ["byrule", "plain"]
        finally:
            program.stop()
