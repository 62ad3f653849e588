"""What checks and live traffic do to servers, through the real haproxy and through haptk: `observe`, the source and the
PROXY header of checks, slowstart with maxconn."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.diff.rig import PLAIN, Pair, Program, Upstreams, exchange, free_ports, start, upstreams

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(300)]
KINDS = ("fast", "reference")
BAD = b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\nno"
WAIT_S = 30.0


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


# -- observe

# name -> words of the server that is watched, and what it answers: G(ood) or B(ad)
OBSERVED = {
    "mark_down": "observe layer7 error-limit 3 on-error mark-down rise 1 fall 3",
    "fail_check": "observe layer7 error-limit 2 on-error fail-check rise 1 fall 3",
    "sudden_death": "observe layer7 error-limit 2 on-error sudden-death rise 2 fall 4",
    "fastinter": "observe layer7 error-limit 2 on-error fastinter rise 1 fall 2",
    "limit_1": "observe layer7 error-limit 1 on-error fail-check rise 1 fall 2",
    "layer4": "observe layer4 error-limit 2 on-error mark-down",
}
ANSWERS = {"bad": "B" * 14, "mixed": "BBGB" * 3 + "B" * 8, "once": "GBBGB" + "G" * 5}
SEQUENCES = {f"{name}-{kind}": answers for name in OBSERVED for kind, answers in ANSWERS.items()}


def observing(host: str, ports: list[int], servers: Upstreams, dead: int) -> str:
    text = "global\n max-spread-checks 300\ndefaults\n mode http\n timeout connect 1s\n timeout client 9s\n timeout server 9s\n "
    # haptk spreads its first checks over the shortest interval, HAProxy each server's over its own or the limit
    text += f"backend quick\n server s1 127.0.0.1:{servers.ports[0]} check inter 1s\n"
    for name, port in zip(SEQUENCES, ports, strict=True):
        words = OBSERVED[name.rpartition("-")[0]]
        text += f"listen {name}\n bind {host}:{port}\n option httpchk GET /check/{name}\n cookie SRV insert indirect\n option redispatch\n"
        text += f" server s1 127.0.0.1:{servers.ports[0]} cookie s1 check inter 600s {words}\n"
        text += f" server s2 127.0.0.1:{servers.ports[1]} cookie s2\n"
    return text


def checked(servers: Upstreams) -> int:
    """How many checks of watched servers were seen."""
    return sum(b"/check/" in seen.head for seen in servers.seen.get("", []))


@pytest.fixture(params=KINDS)
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    with upstreams(2) as servers:
        pair = Pair(request.param, tmp_path, servers, list(SEQUENCES), observing)
        try:
            # each has checked each of its servers once, so all are fully up
            until(lambda: checked(servers) >= 2 * len(SEQUENCES), "the first checks")
            yield pair
        finally:
            pair.stop()


def test_errors_in_live_traffic_take_a_server_out_at_the_same_request(watched: Pair) -> None:
    """Requests that stick to s1 follow each other without a pause: which one is the first to go elsewhere?"""
    for name, answers in SEQUENCES.items():
        served = []
        for index in (0, 1):
            raw = b"GET / HTTP/1.1\r\nHost: h\r\nX-Case: @CASE@\r\nCookie: SRV=s1\r\n\r\n"
            took = [watched.one(index, name, raw, BAD if answer == "B" else PLAIN).server for answer in answers]
            served.append("".join(took).replace("s", ""))
        assert served[1] == served[0], f"{name}, answers {answers}"
        if name.endswith("-bad") and name not in ("fastinter-bad", "layer4-bad"):
            assert served[0].startswith("1") and "2" in served[0]  # it does go down


# -- checks

PLANS = {
    "plain": "check",
    "source": "check source 127.0.0.5",
    "ports": "check source 127.0.0.5:@LOW@-@HIGH@",
    "header": "check send-proxy",
    "header_v2": "check send-proxy-v2",
    "port": "check port @OTHER@ send-proxy source 127.0.0.6",
    "port_header": "check port @OTHER@ send-proxy check-send-proxy",
    "addr": "check addr 127.0.0.3 send-proxy source 127.0.0.6",
    "addr_header": "check addr 127.0.0.3 check-send-proxy",
    "header_only": "check check-send-proxy",
    "v2_header": "check port @OTHER@ send-proxy-v2 check-send-proxy",
}


class CheckedServer:
    """Listens on one port of several addresses and on another one; notes who said what first, and answers 200."""

    def __init__(self) -> None:
        self.port, self.other = free_ports(2, "0.0.0.0")
        self.seen: set[tuple[str, str, bytes]] = set()
        self.listeners = [socket.create_server(("0.0.0.0", port), backlog=64) for port in (self.port, self.other)]
        for listener, name in zip(self.listeners, ("service", "other"), strict=True):
            threading.Thread(target=self._accept, args=(listener, name), daemon=True).start()

    def _accept(self, listener: socket.socket, name: str) -> None:
        while True:
            try:
                channel, peer = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(channel, name, peer), daemon=True).start()

    def _serve(self, channel: socket.socket, name: str, peer: tuple[str, int]) -> None:
        with channel, contextlib.suppress(OSError):
            channel.settimeout(10)
            said = b""
            while b"GET /check" not in said or not said.endswith(b"\r\n\r\n"):
                part = channel.recv(4096)
                if not part:
                    return
                said += part
            before, _, after = said.partition(b"GET /check")
            here = channel.getsockname()[0]
            before = re.sub(rb" \d+ \d+\r", b" PORT PORT\r", before)
            case = re.search(rb"/(\w+) ", after)
            low = b"in range" if case is not None and case[1] == b"ports" and self.low <= peer[1] <= self.high else b""
            self.seen.add((f"{case[1].decode() if case else ''} {name} {here}", peer[0], before + low))
            channel.sendall(PLAIN)

    low = high = 0

    def close(self) -> None:
        for listener in self.listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


@pytest.mark.parametrize("kind", ("haproxy", *KINDS))
def test_where_checks_go_come_from_and_begin_with(kind: str, tmp_path: Path) -> None:
    """The list was taken from HAProxy 2.6 by this very test."""
    server = CheckedServer()
    server.low, *_, server.high = sorted(free_ports(4, "127.0.0.5"))
    ports = free_ports(1)
    text = "defaults\n mode http\n timeout connect 1s\n timeout client 9s\n timeout server 9s\n"
    text += f"listen first\n bind 127.0.0.1:{ports[0]}\n server s 127.0.0.1:{server.port}\n"
    for name, words in PLANS.items():
        words = words.replace("@OTHER@", str(server.other)).replace("@LOW@", str(server.low))
        words = words.replace("@HIGH@", str(server.high))
        text += f"backend {name}\n option httpchk GET /check/{name}\n server s 127.0.0.1:{server.port} inter 200ms {words}\n"
    program = start(kind, text, tmp_path, [("127.0.0.1", ports[0])])
    try:
        until(lambda: {key.split()[0] for key, _, _ in server.seen} == set(PLANS), f"only {server.seen} were checked")
    finally:
        program.stop()
        server.close()
    header = b"PROXY TCP4 %s 127.0.0.1 PORT PORT\r\n"
    here, local = b"127.0.0.1", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
    assert server.seen == {
        ("plain service 127.0.0.1", "127.0.0.1", b""),
        ("source service 127.0.0.1", "127.0.0.5", b""),
        ("ports service 127.0.0.1", "127.0.0.5", b"in range"),
        ("header service 127.0.0.1", "127.0.0.1", header % here),
        ("header_v2 service 127.0.0.1", "127.0.0.1", local),
        ("port other 127.0.0.1", "127.0.0.6", b""),
        ("port_header other 127.0.0.1", "127.0.0.1", header % here),
        ("addr service 127.0.0.3", "127.0.0.6", b""),
        ("addr_header service 127.0.0.3", "127.0.0.1", header.replace(b"127.0.0.1", b"127.0.0.3") % here),
        ("header_only service 127.0.0.1", "127.0.0.1", header % here),
        ("v2_header other 127.0.0.1", "127.0.0.1", local),
    }


@pytest.mark.parametrize("word", ["usesrc clientip", "check-via-socks4", "interface eth0"])
def test_what_is_not_carried_out_is_refused(word: str, tmp_path: Path) -> None:
    text = "defaults\n mode http\n timeout connect 1s\n timeout client 9s\n timeout server 9s\n"
    source = "" if word.startswith("check") else "source 127.0.0.5 "
    text += f"listen l\n bind 127.0.0.1:{free_ports(1)[0]}\n server s 127.0.0.1:1 check {source}{word}\n"
    with pytest.raises(AssertionError, match=word.split()[0]):
        start("fast", text, tmp_path, [("127.0.0.1", 1)])


# -- slowstart and maxconn


def admin(path: Path, line: str) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(path))
        channel.sendall(line.encode() + b"\n")
        while channel.recv(4096):
            pass


class Holding(Upstreams):
    """Answers nobody until it is released; `inside` counts who waits."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.inside = 0
        super().__init__(1)

    def _serve(self, channel: socket.socket, name: str) -> None:
        with channel, contextlib.suppress(OSError):
            if channel.recv(4096):
                with self.lock:
                    self.inside += 1
                self.release.wait(WAIT_S)
                channel.sendall(PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))


def let_in(servers: Holding, port: int, clients: int) -> int:
    """How many of so many clients the server sees before it answers anybody."""
    servers.release.clear()
    servers.inside = 0
    raw = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    answers: list[int] = []
    ask = [
        threading.Thread(target=lambda: answers.append(exchange(("127.0.0.1", port), raw, timeout_s=WAIT_S).status))
        for _ in range(clients)
    ]
    for one in ask:
        one.start()
    until(lambda: servers.inside > 0, "nobody came")
    deadline = time.monotonic() + 1.0  # for those who are not to come
    while servers.inside < clients and time.monotonic() < deadline:
        time.sleep(0.02)
    inside = servers.inside
    servers.release.set()
    for one in ask:
        one.join(WAIT_S)
    assert answers == [200] * clients
    return inside


@pytest.mark.parametrize("kind", ("haproxy", *KINDS))
def test_slowstart_scales_maxconn(kind: str, tmp_path: Path) -> None:
    """One percent a second of 10 is one request at a time, for the first twenty seconds."""
    servers = Holding()
    port = free_ports(1)[0]
    control = tmp_path / "control"
    text = f"""global
 stats socket {control} level admin
defaults
 mode http
 timeout connect 9s
 timeout client 60s
 timeout server 60s
listen l
 bind 127.0.0.1:{port}
 server s 127.0.0.1:{servers.ports[0]} maxconn 10 slowstart 100s
"""
    program: Program = start(kind, text, tmp_path, [("127.0.0.1", port)])
    try:
        assert let_in(servers, port, 4) == 4  # a server that is up from the beginning does not start slowly
        admin(control, "set server l/s state maint")
        admin(control, "set server l/s state ready")
        assert let_in(servers, port, 4) == 1
    finally:
        program.stop()
        servers.close()
