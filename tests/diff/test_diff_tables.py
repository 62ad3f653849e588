"""Stick tables through the real haproxy and through both paths of haptk: who sticks where, and what the tables hold.

Each section gets the same exchanges through both programs; then `show table` has to say the same about the keys, and
about the servers up to their names, which are free as long as nothing is learned.
"""

from __future__ import annotations

import random
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import PLAIN, Pair, Upstreams, upstreams

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(600)]
STRING = "stick-table type string len 20 size 10k expire 1m\n "
SECTIONS = {
    "cook": STRING + "stick on req.cook(JS)",
    "learn": STRING + "stick store-response res.cook(JS)\n stick match req.cook(JS)",
    "header": STRING + "stick on hdr(X)",
    "line": STRING + "stick on req.fhdr(X)",
    "param": STRING + "stick on url_param(JS)",
    "matrix": STRING + "stick match url_param(JS,;)\n stick store-request url_param(JS,;)",
    "path": STRING + "stick on path",
    "url": STRING + "stick on url",
    "text_src": "stick-table type string len 5 size 10k\n stick on src",
    "ip": "stick-table type ip size 10k expire 1m\n stick on hdr(X)",
    "ip_src": "stick-table type ip size 10k expire 1m\n stick on src",
    "ipv6": "stick-table type ipv6 size 10k expire 1m\n stick on hdr(X)",
    "ipv6_src": "stick-table type ipv6 size 10k\n stick on src",
    "integer": "stick-table type integer size 10k expire 1m\n stick on hdr(X)",
    "integer_src": "stick-table type integer size 10k expire 1m\n stick on src",
    "binary": "stick-table type binary len 6 size 10k expire 1m\n stick on hdr(X)",
    "binary_src": "stick-table type binary len 6 size 10k\n stick on src",
    "ignored": STRING + "stick on hdr(X)\n cookie C insert",
    "small": "stick-table type string len 20 size 3 expire 1m\n stick on hdr(X)",
    "kept": "stick-table type string len 20 size 3 nopurge\n stick on hdr(X)",
    "two": STRING + "stick on hdr(X)\n stick on hdr(Y)\n stick store-request hdr(Z) table other",
    "other": STRING + "stick match hdr(Z)",
    "prefix": "cookie JS prefix\n " + STRING + "stick on req.cook(JS)",
    "conditions": STRING
    + "stick match hdr(X)\n stick store-request hdr(X) if { path_end /login } || { hdr(Y) -m found }\n"
    + " stick store-response res.cook(JS) unless { status 404 }",
    "response": STRING + "stick store-response res.hdr(X)\n stick store-response res.cook(JS)\n stick match hdr(X)",
    "non_stick": STRING + "stick on hdr(X)",
    "counted": "stick-table type string len 20 size 1k expire 1m store gpc0,gpc0_rate(1h),conn_cnt,bytes_in_cnt,gpt0"
    + " store http_req_rate(1h),gpc1",
    "arrays": "stick-table type string len 20 size 1k expire 1m store gpc(3),gpt(2),gpc_rate(2,1h)\n stick on hdr(X)",
    "added": "option forwardfor\n stick-table type ip size 10k expire 1m\n stick on hdr(x-forwarded-for)",
    "named": "option forwardfor header X-Real\n option originalto\n "
    + STRING
    + "stick on hdr(x-real)\n stick store-request hdr(x-original-to) table aside",
    "aside": STRING,
    "unless": "option forwardfor if-none\n " + STRING + "stick on path if { hdr(x-forwarded-for) -m found }",
    "unique": "unique-id-format fixed\n unique-id-header X-Id\n " + STRING + "stick on hdr(x-id)",
    "hashed": "unique-id-format fixed\n unique-id-header X-Id\n balance hdr(x-id)\n " + STRING + "stick on path",
    "dead": "retries 1\n " + STRING + "stick on hdr(X)",
}  # fmt: skip


@pytest.fixture(scope="module", params=["fast", "reference"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("tables")

    def config(host: str, ports: list[int], servers: Upstreams, dead: int) -> str:
        text = f"""global
    stats socket {folder}/{host} level admin
defaults
    mode http
    timeout connect 1s
    timeout client 6s
    timeout server 6s
    option redispatch
"""
        for (name, lines), port in zip(SECTIONS.items(), ports, strict=True):
            text += f"listen {name}\n    bind {host}:{port}\n    {lines}\n"
            for index in (0, 1):
                word = "non-stick" if name == "non_stick" and index else ""
                place = dead if name == "dead" and index == 0 else servers.ports[index]
                text += f"    server s{index + 1} 127.0.0.1:{place} cookie s{index + 1} {word}\n"
        return text

    with upstreams() as servers:
        both = Pair(request.param, folder, servers, list(SECTIONS), config)
        both.folder = folder  # type: ignore[attr-defined]
        assert "slow reference" not in both.programs[1][1].output.read_text()
        yield both
        both.stop()


def ask(pair: Pair, index: int, command: str) -> str:
    """One command to the stats socket of haproxy (0) or haptk (1)."""
    path: Path = pair.folder / pair.programs[index][0]  # type: ignore[attr-defined]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        sock.sendall(command.encode() + b"\n")
        out = b""
        while part := sock.recv(65536):
            out += part
    return out.decode()


def table(pair: Pair, index: int, name: str) -> list[tuple[str, str]]:
    """(key, server) of each row, in the order that is shown, and the line before them."""
    head, *lines = ask(pair, index, f"show table {name}").strip().splitlines()
    found = [re.fullmatch(r"0x[0-9a-f]+: key=(.*) use=0 exp=(\d+) server_id=(\d+) server_key=(\S+)", x) for x in lines]
    assert all(found), lines
    return [("#", head)] + [(x[1], x[4]) for x in found if x is not None]


def walk(pair: Pair, index: int, name: str, steps: list[tuple[bytes, bytes]]) -> dict[str, object]:
    """What the exchanges did, with servers numbered in the order of their first appearance."""
    results = []
    for request, response in steps:
        results.append(pair.one(index, name, request, response))
        # Which of two entries of one moment is the older one, no table knows; a full one has to know, on a busy machine too,
        # where a program looks at its clock once for all that waits.
        time.sleep(0.05 if name in ("small", "kept") else 0.003)
    servers = [result.server for result in results]
    order: list[str] = []
    for server in servers:
        order.extend([server] if server not in order else [])
    rows = [(key, str(order.index(value)) if value in order else value) for key, value in table(pair, index, name)]
    statuses = [result.got.status for result in results]
    return {"servers": [order.index(server) for server in servers], "rows": rows, "statuses": statuses}


def same(pair: Pair, name: str, steps: list[tuple[bytes, bytes]]) -> dict[str, object]:
    for index in (0, 1):
        ask(pair, index, f"clear table {name}")
    theirs, ours = walk(pair, 0, name, steps), walk(pair, 1, name, steps)
    assert ours == theirs, f"\nhaproxy {theirs}\nhaptk   {ours}"
    return ours


def get(*headers: str, target: str = "/case/@CASE@", response: bytes = PLAIN) -> tuple[bytes, bytes]:
    lines = [f"GET {target} HTTP/1.1", "Host: h", "X-Case: @CASE@", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), response


def answer(*headers: str, status: int = 200) -> bytes:
    lines = [f"HTTP/1.1 {status} Reason", "Content-Length: 2", *headers]
    return ("\r\n".join(lines) + "\r\n\r\nok").encode("latin-1")


COOKIES = [
    "JS=a", "a=1; JS=q; JS=", "JS=", "JS", "JS = x ", 'JS="a;b"', "x=1, JS=c; Path=/", "JS=d; JS=e", "x=1; JS=f",
    'JS="h;i"; Path', "a=b;,JS=k", "$V=1; JS=l", "$JS=m", 'q="x; JS=n"; JS=o', 'q="open; JS=p', "JS=q;", "JS=r; ",
    "js=s", "XJS=t", "JSX=u", " JS=v", "JS=\tw", "JS=x=y", "JS==z", "=JS", ";JS=1", "JS=2,JS=3", 'JS=4"5,6"', "JS= ",
    "JS=0123456789012345678901234567890", "JS=a b", "JS=\xe9",
]  # fmt: skip
VALUES = ["a", "a, b", "a,", ",", "", '"b,c"', 'x,"b\\",c"', "  x y ", "\xe9=\\", "0123456789012345678901234"]
TARGETS = [
    "/case/@CASE@" + rest
    for rest in (
        "?JS=1", "?js=2;JS=3&JS=4", "?JS", "?JS=&x", "?XJS=9&JS=8", ";JS=1", ";JS=2?x", ";JS=3;y=1", "?JS=4", ";JS=",
        ";xx=1;JS=5", ";JS=6&b", "?a=1;JS=7", "?JS=a%20b", "?JS==", "?JS=1?JS=2", ";a;JS=1&JS=2", "?", ";", "/b/c?x",
    )
] + ["http://h/x/y?JS=1", "/?JS=5", "/"]  # fmt: skip
NUMBERS = ["12", "-5", "12ab", "ab", "99999999999", " 7 ", "", "+3", "0x10", "4294967295", "-", "00012"]
ADDRESSES = [
    "1.2.3.4",
    "::1",
    "::ffff:9.8.7.6",
    "2002:102:304::1",
    "junk",
    " 5.6.7.8 ",
    "1.2.3",
    "01.2.3.4",
    "1.2.3.4:80",
    "1.2.3.4.5",
    "1.2.3.256",
    "1.2.3.4, 9.9.9.9",
    "1..2.3",
    "1.2.3.4.",
    "",
]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("cook", [get(f"Cookie: {value}") for value in COOKIES + COOKIES[::-1]]),
        ("cook", [get("Cookie: JS=1", "Cookie: a=b", "Cookie: JS=2; c"), get("Cookie: JS=2"), get("Cookie: JS=1")]),
        ("learn", [get(response=answer(f"Set-Cookie: {value}")) for value in COOKIES]),
        ("learn", [get(response=answer("Set-Cookie: JS=1", "Set-Cookie: JS=2", "Set-Cookie: JS="))] + [get("Cookie: JS=2")] * 3),
        ("learn", [get(response=answer("Set-Cookie: JS=1", status=status)) for status in (302, 404, 500)] + [get("Cookie: JS=1")]),
        ("header", [get(f"X: {value}") for value in VALUES * 2]),
        ("header", [get("X: 1", "X: 2"), get("X: 2"), get("X: 1"), get(), get("x: 2")]),
        ("header", [get("X: 1", response=b"garbage\r\n\r\n"), get("X: 2", response=answer(status=500)), get("X: 2")]),
        ("line", [get(f"X: {value}") for value in VALUES * 2]),
        ("param", [get(target=target) for target in TARGETS * 2]),
        ("matrix", [get(target=target) for target in TARGETS * 2]),
        ("path", [get(target=target) for target in TARGETS if "CASE" not in target]),
        ("url", [get(target=target) for target in TARGETS if "CASE" not in target]),
        ("ip", [get(f"X: {value}") for value in ADDRESSES * 2]),
        ("ipv6", [get(f"X: {value}") for value in ADDRESSES * 2]),
        ("integer", [get(f"X: {value}") for value in NUMBERS * 2]),
        ("binary", [get(f"X: {value}") for value in ("abc", "abcdefgh", "a", "", "abcdef")]),
        ("ignored", [get("X: a"), get(), get("X: a"), get("X: a", "Cookie: C=s2"), get("X: b", "Cookie: C=s1"), get("X: b")]),
        ("small", [get(f"X: {value}") for value in "abcad"]),
        ("kept", [get(f"X: {value}") for value in "abcadabe"]),
        ("two", [get("X: x1", "Y: y1", "Z: z1"), get("Y: y2", "Z: z1"), get("X: x1", "Y: y2"), get("Z: z3")]),
        ("prefix", [get("Cookie: JS=s1~abc"), get("Cookie: JS=s2~a~b"), get("Cookie: JS=abc"), get("Cookie: JS=b")]),
        ("response", [get(response=answer("X: a", "Set-Cookie: JS=b")), get(response=answer("Set-Cookie: JS=c")), get("X: c"), get("X: a")]),
        ("conditions", [get("X: a"), get("X: b", target="/case/@CASE@/login"), get("X: c", "Y: 1"), get("X: b"), get("X: a"), get("X: c")]),
        ("conditions", [get(response=answer("Set-Cookie: JS=a", status=status)) for status in (200, 404, 500)] + [get("X: a")]),
        ("dead", [get("X: a"), get("X: a"), get("X: b")]),
    ],
)  # fmt: skip
def test_who_sticks_where(pair: Pair, name: str, steps: list[tuple[bytes, bytes]]) -> None:
    same(pair, name, steps)


@pytest.mark.parametrize("name", ["added", "named", "unless", "unique", "hashed"])
def test_headers_that_the_proxy_adds_are_looked_at(pair: Pair, name: str) -> None:
    if pair.programs[1][1].kind == "reference":
        pytest.skip("the compiled path only")
    lines = ([], [], ["X-Forwarded-For: 1.2.3.4"], ["Connection: close", "X-Real: 5"], [])
    same(pair, name, [get(*more, target="/x") for more in lines])


@pytest.mark.parametrize("name", ["ip_src", "ipv6_src", "integer_src", "binary_src", "text_src"])
def test_the_clients_address(pair: Pair, name: str) -> None:
    for index in (0, 1):
        ask(pair, index, f"clear table {name}")
        servers = {pair.one(index, name, *get()).server for _ in range(3)}
        assert len(servers) == 1
        (_, head), (key, server) = table(pair, index, name)
        assert server in servers
        # both programs were asked from 127.0.0.1
        expected = {"ip_src": "127.0.0.1", "ipv6_src": "::ffff:127.0.0.1", "integer_src": "2130706433",
                    "binary_src": "7F0000010000", "text_src": "127.0"}  # fmt: skip
        assert key == expected[name]
        assert head.endswith("used:1")


def test_a_server_that_is_not_to_be_learned(pair: Pair) -> None:
    for index in (0, 1):
        ask(pair, index, "clear table non_stick")
        went = {key: pair.one(index, "non_stick", *get(f"X: {key}")).server for key in "abcd"}
        assert {"s1", "s2"} == set(went.values())
        assert [row[0] for row in table(pair, index, "non_stick")[1:]] == [k for k in went if went[k] == "s1"]


def test_what_an_administrator_sets_binds(pair: Pair) -> None:
    for index in (0, 1):
        ask(pair, index, "clear table header; set table header key q data.server_id 2; set table header key r")
        assert [pair.one(index, "header", *get("X: q")).server for _ in range(3)] == ["s2"] * 3
        assert len({pair.one(index, "header", *get("X: r")).server for _ in range(3)}) == 1
        assert table(pair, index, "header")[1] == ("q", "s2")
        ask(pair, index, "clear table header key q")
        assert [key for key, _ in table(pair, index, "header")[1:]] == ["r"]


COMMANDS = r"""
show table nope
show table header key
show table header key nope
show table header foo
show table header data.server_id
show table header data.server_id xx 1
show table header data.server_id gt x
show table header data.foo gt 1
show table header data.gpc0 gt 1
show table header data.server_key eq s1
show table binary key 6162
set table
set table nope key a
set table header
set table header foo
set table header key
set table header data.server_id eq 1
set table header key z9
show table header key z9
set table header key z9 data.server_id 2
show table header key z9
set table header key z9 data.server_key s1
set table header key z9 data.server_id x
set table header key z9 data.server_id 5 data.server_id
set table header key z9 data.foo 1
set table header key z9 data.gpc0 1
set table header key z9 foo
set table header key a\ b\\c\;=~
set table header key 0123456789012345678901234
set table header key q data.server_id 1
show table header
show table header data.server_id gt 0
show table header data.server_id ge 1 data.server_id lt 2
show table header data.server_id ne 2
show table header data.server_id gt 0 data.server_id gt 0 data.server_id gt 0 data.server_id gt 0 data.server_id gt 0
set table integer key 77 data.server_id 1
set table integer key 4294967295
set table integer key 7
set table integer key abc
set table integer key -1
set table integer key 5000000000
show table integer
show table integer key 77
set table ip key 1.2.3.4 data.server_id 1
set table ip key 0.0.0.9
show table ip
show table ip key 1.2.3.4
set table ipv6 key ::1
set table ipv6 key ::ffff:1.2.3.4
set table ipv6 key 2001:db8::1
set table ipv6 key 1.2.3.4
show table ipv6
show table ipv6 key ::1
set table counted key a data.gpc0 7 data.gpc0_rate 9 data.bytes_in_cnt 5000000000 data.gpt0 3
set table counted key b data.gpc0 2 data.gpc1 99999999999
set table counted key b data.gpc 2
set table counted key b data.conn_cur 2
set table counted key b data.server_id 2
set table counted key c data.gpc0 x
set table counted key c data.gpc0 1 data.foo 2
show table counted
show table counted data.gpc0 gt 2
show table counted data.gpc0_rate ge 9
show table counted data.bytes_in_cnt gt 4999999999
show table counted data.gpc0 gt 0 data.gpt0 eq 0
show table counted data.gpc gt 0
clear table counted data.gpc0 eq 2
show table counted
clear table counted key a
show table counted key c
set table arrays key a data.gpc0 7 data.gpc1 8 data.gpt1 2
set table arrays key a data.gpc_rate 5
set table arrays key a data.gpc 5 data.gpt 3
show table arrays
show table arrays data.gpc gt 4
show table arrays data.gpc1 gt 4
set table binary key 61
clear table binary key 61
clear table
clear table nope
clear table header foo
clear table header key
clear table header data.server_id xx 1
clear table header key q
clear table header key q
clear table header data.server_id eq 2
show table header
clear table header
show table header
clear table integer;clear table ip;clear table ipv6
show table
help show table
""".strip().splitlines()


def test_commands_are_answered_word_for_word(pair: Pair) -> None:
    for index in (0, 1):
        for name in SECTIONS:
            ask(pair, index, f"clear table {name}")
    for command in COMMANDS:
        theirs, ours = (re.sub(r"(?m)^0x[0-9a-f]+:|exp=(?!0\b)\d+", "*", ask(pair, index, command)) for index in (0, 1))
        assert ours == theirs, command


def test_many_random_exchanges(pair: Pair) -> None:
    rng = random.Random(7)
    steps = []
    for _ in range(150):
        headers = [
            f"Cookie: {'; '.join(rng.sample(COOKIES, rng.choice([1, 2, 3])))}" for _ in range(rng.choice([0, 1, 2]))
        ]
        sets = [f"Set-Cookie: {rng.choice(COOKIES)}" for _ in range(rng.choice([0, 0, 1, 2]))]
        steps.append(get(*headers, response=answer(*sets)))
    same(pair, "learn", steps)
