"""An IPv4 client of a socket of IPv6 is ::ffff:a.b.c.d in everything that is said of it, beside the real haproxy."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Program, Upstreams, ask, start, upstreams
from tests.ports import free_ports

NETWORKS = [
    "127.0.0.0/8",
    "127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:0:0/96",
    "::1",
    "10.0.0.0/8",
    "2002::/16",
    "2.3.0.0/16",
    "::/0",
]
CLIENTS = {  # what a PROXY header may say; "" for the connection's own addresses
    "own": "",
    "four": "PROXY TCP4 127.0.0.1 10.0.0.2 1000 80\r\n",
    "mapped": "PROXY TCP6 ::ffff:127.0.0.1 ::ffff:10.0.0.2 1000 80\r\n",
    "old mapped": "PROXY TCP6 ::127.0.0.1 ::1 1000 80\r\n",
    "6to4": "PROXY TCP6 2002:203:405::1 ::1 1000 80\r\n",
    "six": "PROXY TCP6 2001:db8::1 ::1 1000 80\r\n",
}


def config(folder: Path, kind: str, plain: int, announced: int, servers: Upstreams) -> str:
    rules = "".join(
        f" acl n{i} src {net}\n http-request set-header X-In-{i} yes if n{i}\n" for i, net in enumerate(NETWORKS)
    )
    return f"""global
 stats socket {folder}/{kind}.sock level admin
defaults
 mode http
 timeout client 20s
 timeout server 20s
 timeout connect 5s
 log @LOG@ local0
frontend f
 bind :::{plain} v4v6
 bind :::{announced} v4v6 accept-proxy
 log-format "%HU ci=%ci fi=%fi src=%[src] %{{+X}}ci"
 option forwardfor except 127.0.0.1
 option originalto except 10.0.0.2
 http-request set-header X-Src %[src]
 http-request set-header X-Dst %[dst]
 http-request set-header X-Ci %ci
{rules} default_backend b
backend four
 stick-table type ip size 10
backend six
 stick-table type ipv6 size 10
backend words
 stick-table type string len 40 size 10
backend b
 balance source
 stick on src table four
 stick store-request src table six
 stick store-request src table words
 server s1 127.0.0.1:{servers.ports[0]} send-proxy-v2 disabled
 server s2 127.0.0.1:{servers.ports[1]}
 server s3 127.0.0.1:{servers.ports[2]}
 server s4 127.0.0.1:{servers.ports[3]}
"""


@pytest.fixture(scope="module")
def worlds(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, Upstreams, list[tuple[Program, int, int]]]]:
    folder = tmp_path_factory.mktemp("mapped")
    programs: list[tuple[Program, int, int]] = []
    with upstreams(4) as servers:
        try:
            for kind in ("haproxy", "fast"):
                plain, announced = free_ports(2)
                text = config(folder, kind, plain, announced, servers)
                programs.append((start(kind, text, folder, [("127.0.0.1", plain)]), plain, announced))
            yield folder, servers, programs
        finally:
            for program, _, _ in programs:
                program.stop()


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_of_both_families_is_named_alike(
    worlds: tuple[Path, Upstreams, list[tuple[Program, int, int]]], name: str
) -> None:
    folder, servers, programs = worlds
    found = []
    for program, plain, announced in programs:
        case = f"{program.kind}-{name.replace(' ', '-')}"
        for table in ("four", "six", "words"):
            ask(folder / f"{program.kind}.sock", f"clear table {table}")
        header = CLIENTS[name].encode()
        with socket.create_connection(("127.0.0.1", announced if header else plain), 20) as client:
            client.sendall(
                header + f"GET /case/{case} HTTP/1.1\r\nHost: x\r\nX-Case: {case}\r\nConnection: close\r\n\r\n".encode()
            )
            while client.recv(65536):
                pass
        (seen,) = servers.seen[case]
        lines = sorted(
            line for line in seen.lines()[1:] if line.lower().startswith("x-") and "case" not in line.lower()
        )
        tables = [
            re.findall(r"key=(\S+)", ask(folder / f"{program.kind}.sock", f"show table {table}"))
            for table in ("four", "six", "words")
        ]
        line = program.log.line(case, 20).split(f"/case/{case}", 1)[1]
        found.append(([line.lower() for line in lines], tables, line, seen.server))
    assert found[1] == found[0]
