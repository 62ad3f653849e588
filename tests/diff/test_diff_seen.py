"""Words whose effect no other differential test looks at: each is asked of a section with it and of one without it, through the real
haproxy and haptk. Both programs have to agree on both, and the word has to make a difference.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.diff.rig import Pair, Upstreams, upstreams
from tests.diff.rig import ask as runtime

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(300)]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Address = tuple[str, int]


def ask(address: Address, *headers: str, path: str = "/", timeout_s: float = 3.0) -> tuple[int, str]:
    """(status, server) of one request on a connection of its own; status 0 for no answer."""
    with socket.create_connection(address, timeout_s) as channel:
        channel.settimeout(timeout_s)
        channel.sendall(
            "\r\n".join([f"GET {path} HTTP/1.1", "Host: h", *headers, "Connection: close", "", ""]).encode("latin-1")
        )
        data = b""
        with contextlib.suppress(OSError):
            while part := channel.recv(65536):
                data += part
    status = re.match(rb"HTTP/1\.\d (\d+)", data)
    server = re.search(rb"x-server: (\w+)", data)
    return int(status[1]) if status else 0, server[1].decode() if server else ""


def by_header(address: Address) -> object:
    return [ask(address, f"X-A: {value}")[1] for value in ("one", "two", "three", "four", "five", "six", "one", "two")]


def several(address: Address) -> object:
    """Whether more than one server answers."""
    return len({ask(address)[1] for _ in range(24)}) > 1


def which(address: Address) -> object:
    return sorted({ask(address)[1] for _ in range(6)})


def odd_request(address: Address) -> object:
    return ask(address, "X(Y): 1")[0]


def odd_answer(address: Address) -> object:
    return ask(address, "X-Case: odd")[0]


def long_head(address: Address) -> object:
    return [ask(address, f"X-Long: {'x' * length}")[0] for length in (3000, 6500, 9000)]


def second_client(address: Address) -> object:
    """Whether a client is served while another one is connected."""
    with socket.create_connection(address, 3) as first:
        first.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        first.settimeout(3)
        assert first.recv(4096)
        return ask(address, timeout_s=0.7)[0]


def announced(address: Address) -> object:
    """Whether the server gets a PROXY header in front of the request."""
    return ask(address, "X-Case: proxy")[0]


def stuck(address: Address) -> object:
    """Whether the same client stays at one server."""
    return len({ask(address)[1] for _ in range(6)})


def of_socket(address: Address) -> object:
    return ask(address)[0]


def ways(address: Address) -> object:
    """How many connections to its server four requests of one client take."""
    found = set()
    with socket.create_connection(address, 3) as channel:
        channel.settimeout(3)
        for _ in range(4):
            channel.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX-Case: keep\r\n\r\n")
            data = b""
            while not data.endswith(b"ok"):
                data += channel.recv(65536)
            found.add(re.search(rb"x-server: (\w+)", data)[1])  # type: ignore[index]
    return len(found)


def ways_of_clients(address: Address) -> object:
    """How many connections to the server three clients in a row take."""
    found = set()
    for _ in range(3):
        with socket.create_connection(address, 3) as channel:
            channel.settimeout(3)
            channel.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX-Case: keep\r\n\r\n")
            data = b""
            while not data.endswith(b"ok"):
                data += channel.recv(65536)
            found.add(re.search(rb"x-server: (\w+)", data)[1])  # type: ignore[index]
        time.sleep(0.1)
    return len(found)


def settled(address: Address) -> object:
    """What a server is after its checks."""
    deadline, last = time.monotonic() + 4, 0
    while time.monotonic() < deadline and last != 503:
        last = ask(address)[0]
        time.sleep(0.05)
    return last


def backlog(address: Address) -> object:
    """The length of the kernel's queue, of however many sockets."""
    said = subprocess.run(
        ["ss", "-Hltn", f"src {address[0]}:{address[1]}"], capture_output=True, text=True, check=True
    ).stdout
    return {line.split()[2] for line in said.splitlines()}


def severity(address: Address) -> object:
    """How a message of the stats socket begins."""
    kind = "number" if address[1] == SEVERE["with"] else "plain"
    return runtime(SEVERE["directory"] / f"{address[0]}-{kind}", "set server nope/x state ready").strip()[:4]


SEVERE: dict[str, Any] = {}
CHECKED = " option httpchk GET /\n timeout check 5s\n{}server s1 127.0.0.1:@1 check inter 300 fall 3 rise 1{}\n"
SERVERS = "".join(f" server s{number} 127.0.0.1:@{number}\n" for number in (1, 2, 3, 4))
TWO = " server s1 127.0.0.1:@1\n server s2 127.0.0.1:@2\n"
# name: (what is asked, lines with the word, lines without it)
SEEN: dict[str, tuple[Callable[[Address], object], str, str]] = {
    "hdr": (by_header, f" balance hdr(X-A)\n{SERVERS}", f" balance first\n{SERVERS}"),
    "hdr_consistent": (by_header, f" balance hdr(X-A)\n hash-type consistent\n{SERVERS}", f" balance first\n{SERVERS}"),
    "random": (several, f" balance random\n{SERVERS}", f" balance first\n{SERVERS}"),
    "random_draws": (several, f" balance random(3)\n{SERVERS}", f" balance first\n{SERVERS}"),
    "allbackups": (which, " option allbackups\n" + TWO.replace("\n", " backup\n"), TWO.replace("\n", " backup\n")),
    "no_allbackups": (which, " no option allbackups\n" + TWO.replace("\n", " backup\n"), TWO),
    "no_backup": (which, " default-server backup\n server s1 127.0.0.1:@1 no-backup\n server s2 127.0.0.1:@2\n",
                  " default-server backup\n server s1 127.0.0.1:@1\n server s2 127.0.0.1:@2 no-backup\n"),
    "invalid_request": (odd_request, f" option accept-invalid-http-request\n{TWO}", TWO),
    "invalid_response": (odd_answer, f" option accept-invalid-http-response\n{TWO}", TWO),
    "bind_maxconn": (second_client, f"maxconn 1\n{TWO}", f"\n{TWO}"),
    "no_send_proxy": (announced, " default-server send-proxy\n server s1 127.0.0.1:@1 no-send-proxy\n",
                      " default-server send-proxy\n server s1 127.0.0.1:@1\n"),
    "no_send_proxy_v2": (announced, " default-server send-proxy-v2\n server s1 127.0.0.1:@1 no-send-proxy-v2\n",
                         " default-server send-proxy-v2\n server s1 127.0.0.1:@1\n"),
    "stick": (stuck, " stick-table type ip size 1k\n stick on src\n default-server non-stick\n" + TWO.replace("\n", " stick\n"),
              " stick-table type ip size 1k\n stick on src\n default-server non-stick\n" + TWO),
    "no_check": (which, " default-server check inter 100 fall 1 port @0\n" + TWO.replace("\n", " no-check\n"), TWO.replace("@1", "@1 disabled")),
    "bind_id": (of_socket, f"id 77\n http-request deny if {{ so_id 77 }}\n{TWO}", f"\n http-request deny if {{ so_id 77 }}\n{TWO}"),
    "bind_backlog": (backlog, f"backlog 33\n{TWO}", f"\n{TWO}"),
    "max_reuse": (ways, " server s1 127.0.0.1:@1 max-reuse 1\n", " server s1 127.0.0.1:@1\n"),
    "purge_delay": (ways_of_clients, " http-reuse always\n server s1 127.0.0.1:@1 pool-purge-delay 0\n",
                    " http-reuse always\n server s1 127.0.0.1:@1\n"),
    "check_send_proxy": (settled, CHECKED.format("", " check-send-proxy"), CHECKED.format("", "")),
    "no_check_send_proxy": (settled, CHECKED.format(" default-server check-send-proxy\n ", " no-check-send-proxy"),
                            CHECKED.format(" default-server check-send-proxy\n ", "")),
    "send_state": (settled, CHECKED.format(" http-check send-state\n ", ""), CHECKED.format("", "")),
    "severity": (severity, TWO, TWO),
    "bufsize": (long_head, TWO, f" http-request deny if {{ hdr_cnt(x-long) gt 0 }}\n{TWO}"),
}  # fmt: skip


# What differs on purpose, with the word and without it: (haproxy's, haptk's). HTTP/1 connections of HAProxy 2.6 do not heed max-reuse.
DIFFER: dict[str, tuple[list[object], list[object]]] = {
    "max_reuse": ([1, 1], [2, 1]),
}


class Named(Upstreams):
    """Servers that say their name; one answer is odd, and a PROXY header in front of a request is noticed."""

    def _serve(self, channel: socket.socket, name: str) -> None:
        with channel, contextlib.suppress(OSError):
            channel.settimeout(5)
            data = b""
            while b"\r\n\r\n" not in data.removeprefix(b"\r\n\r\n\0\r\nQUIT\n"):
                part = channel.recv(65536)
                if not part:
                    return
                data += part
            while b"x-case: keep" in data.lower():
                channel.sendall(OK.replace(b"\r\n\r\n", b"\r\nx-server: p%d\r\n\r\n" % channel.getpeername()[1]))
                data = channel.recv(65536)
            if not data:
                return
            lines = f"x-server: {name}\r\n".encode()
            if b"X-Case: odd" in data or b"x-case: odd" in data:
                lines += b"X(Y): 1\r\n"
            status = b"200 OK" if data.startswith(b"GET") and b"server-state:" not in data.lower() else b"418 PROXY"
            channel.sendall(
                b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\nconnection: close\r\n" + lines + b"\r\nok"
            )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    names = [f"{name}_{side}" for name in SEEN for side in ("with", "without")]
    directory: Path = tmp_path_factory.mktemp("seen")

    def config(host: str, ports: list[int], servers: Upstreams, dead: int) -> str:
        SEVERE.update({"with": dict(zip(names, ports, strict=True))["severity_with"], "directory": directory})
        text = f"global\n stats socket {directory}/{host}-plain level admin\n"
        text += f" stats socket {directory}/{host}-number level admin severity-output number\n"
        text += (
            " tune.bufsize 8192\n tune.maxrewrite 1024\ndefaults\n mode http\n timeout client 5s\n timeout server 5s\n"
        )
        text += " timeout connect 1s\n"
        for name, port in zip(names, ports, strict=True):
            key, _, side = name.rpartition("_")
            lines = SEEN[key][1 if side == "with" else 2]
            more, _, rest = lines.partition("\n") if key.startswith("bind_") else ("", "", lines)
            text += f"listen {name}\n bind {host}:{port} {more}\n{rest}"
        for number, port in enumerate((dead, *servers.ports)):
            text = text.replace(f"@{number}", str(port))
        return text

    with upstreams(0), contextlib.closing(Named(4)) as servers:
        found = Pair("fast", directory, servers, names, config)
        yield found
        found.stop()


@pytest.mark.parametrize("name", SEEN)
def test_the_word_makes_a_difference_and_the_same_one(pair: Pair, name: str) -> None:
    look = SEEN[name][0]
    found = [[look((host, pair.ports[f"{name}_{side}"])) for side in ("with", "without")] for host, _ in pair.programs]
    if name in DIFFER:
        assert (found[0], found[1]) == DIFFER[name]
    else:
        assert found[0] == found[1], "haproxy | haptk, with and without the word"
    assert found[1][0] != found[1][1], "the word changes nothing"
