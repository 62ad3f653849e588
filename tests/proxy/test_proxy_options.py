"""Words of haproxy.cfg about connections, each with what it does, on both paths."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haptk.proxy.compile import load_text
from tests.ports import free_port
from tests.proxy.conftest import OK, Gate, RunningProxy, proxies_of, read_all, read_answer

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
BAD = b"HTTP/1.1 500 no\r\nContent-Length: 2\r\n\r\nno"
TIMES = " timeout connect 2s\n timeout client 5s\n timeout server 5s\n"


@pytest.fixture(params=["fast", "reference"])
def serve(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RunningProxy]]:
    """`serve(lines)` runs a listen section on either path; no line may draw a warning about what is not carried out."""
    with proxies_of(request.param, monkeypatch) as made:
        yield lambda lines, bind="": made(
            f"defaults\n mode http\n{TIMES}listen web\n bind 127.0.0.1:{free_port()} {bind}\n {lines}\n"
        )


def until(what: Callable[[], bool], text: str) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, text
        time.sleep(0.02)


# -- observe -------------------------------------------------------------------------------------------------------


def state(proxy: RunningProxy) -> str:
    return str(proxy.engine.image.server(0)["state"])


CHECKED = "check inter 60s fastinter 60s"


@pytest.mark.parametrize(
    ("words", "errors", "down"),
    [
        ("observe layer7 error-limit 3 on-error mark-down", 3, True),
        ("observe layer7 error-limit 3 on-error mark-down", 2, False),
        ("observe layer7 error-limit 1 on-error fail-check fall 3", 2, False),
        ("observe layer7 error-limit 1 on-error fail-check fall 3", 3, True),
        ("observe layer7 error-limit 2 on-error sudden-death fall 5", 2, False),
        ("observe layer7 error-limit 2 on-error sudden-death fall 5", 4, True),
        ("observe layer7 error-limit 2 on-error fastinter", 6, False),
        ("observe layer4 error-limit 2 on-error mark-down", 6, False),
    ],
)
def test_observe_answers(scripted, serve, words: str, errors: int, down: bool) -> None:
    server = scripted(BAD)
    # the first check may come before or after, but it passes; the next one is a minute away
    proxy = serve(f"server s 127.0.0.1:{server.port} {CHECKED} init-state fully-up {words}")
    until(lambda: proxy.engine.health.servers[0].last is not None, "no check came")
    time.sleep(0.2)
    for _ in range(errors):
        proxy.talk(CLOSING, quiet_s=3)
        time.sleep(0.12)  # each time the limit is reached counts, if the control plane sees them one by one
    if down:
        until(lambda: state(proxy) == "DOWN", "the server stayed up")
    else:
        time.sleep(0.3)
        assert state(proxy) == "UP"


def test_observe_counts_errors_in_a_row(scripted, serve) -> None:
    """A good answer in between begins the count anew; 501 is the client's fault."""
    answers = [BAD, BAD, OK, BAD, BAD, BAD.replace(b"500", b"501")] * 3

    def script(server, sock, _number) -> None:
        head, _ = server.read_head(sock)
        if head:
            sock.sendall(answers[(len(server.seen) - 1) % len(answers)])

    server = scripted(script)
    proxy = serve(f"server s 127.0.0.1:{server.port} {CHECKED} observe layer7 error-limit 3 on-error mark-down")
    for _ in range(18):
        proxy.talk(CLOSING, quiet_s=3)
    time.sleep(0.3)
    assert state(proxy) == "UP"
    assert len(server.seen) == 18


def test_observe_connections(scripted, serve) -> None:
    server = scripted()
    proxy = serve(
        f"retries 0\n server s 127.0.0.1:{server.port} {CHECKED} observe layer4 error-limit 2 on-error mark-down"
    )
    until(lambda: proxy.engine.health.servers[0].last is not None, "no check came")
    time.sleep(0.2)
    server.listener.shutdown(socket.SHUT_RDWR)
    server.close()
    for _ in range(2):
        assert proxy.talk(CLOSING, quiet_s=3)[0].startswith(b"HTTP/1.1 503")
    until(lambda: state(proxy) == "DOWN", "the server stayed up")


# -- connections to servers ----------------------------------------------------------------------------------------


def peer_script(peers: list[tuple[str, int]]) -> Callable[..., None]:
    def script(server, sock, _number) -> None:
        peers.append(sock.getpeername())
        rest = b""
        while True:
            head, rest = server.read_head(sock, rest)
            if not head:
                return
            sock.sendall(OK)

    return script


@pytest.mark.parametrize("place", ["127.0.0.7", "127.0.0.7:{port}", "127.0.0.7:{port}-{last}"])
@pytest.mark.parametrize("where", ["server", "backend"])
def test_source(scripted, serve, place: str, where: str) -> None:
    peers: list[tuple[str, int]] = []
    server = scripted(peer_script(peers))
    port = free_port()
    source = "source " + place.format(port=port, last=port + 9)
    lines = (
        f"{source}\n server s 127.0.0.1:{server.port}"
        if where == "backend"
        else f"server s 127.0.0.1:{server.port} {source}"
    )
    proxy = serve(lines)
    assert proxy.talk(CLOSING, quiet_s=3)[0].endswith(b"ok")
    assert peers[0][0] == "127.0.0.7"
    if "port" in place:
        assert peers[0][1] in range(port, port + 10 if "last" in place else port + 1)


def test_prefer_last_server(scripted, serve) -> None:
    """With connections that belong to one client, requests stay where the last one went."""
    servers = [scripted(OK) for _ in range(3)]
    lines = "".join(f" server s{n} 127.0.0.1:{one.port}\n" for n, one in enumerate(servers))
    for option, used in (("", 3), ("option prefer-last-server\n", 1)):
        for one in servers:
            one.seen.clear()
        proxy = serve(f"http-reuse never\n {option}{lines}")
        with proxy.connect() as sock:
            for _ in range(6):
                sock.sendall(GET)
                read_answer(sock)
        assert sum(bool(one.seen) for one in servers) == used


def test_reuse_never_keeps_the_connection_for_its_own_client(scripted, serve) -> None:
    server = scripted(OK)
    proxy = serve(f"http-reuse never\n server s 127.0.0.1:{server.port}")
    for _ in range(2):
        with proxy.connect() as sock:
            for _ in range(3):
                sock.sendall(GET)
                read_answer(sock)
    assert server.connections == 2


@pytest.mark.parametrize("option", ["option srvtcpka", "option tcpka", "option nolinger", "option clitcpka"])
def test_options_of_sockets_leave_the_answers_alone(scripted, serve, option: str) -> None:
    server = scripted(OK)
    proxy = serve(f"{option}\n server s 127.0.0.1:{server.port}")
    for _ in range(3):
        answer, closed = proxy.talk(CLOSING, quiet_s=3)
        assert (answer[-2:], closed) == (b"ok", True)


def keeps_alive(pid_port: int) -> list[str]:
    """The timers of established connections to or from a port, as the kernel lists them: 02 is a keep-alive timer."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return [row[5][:2] for row in rows if row[3] == "01" and f"{pid_port:04X}" in (row[1][-4:], row[2][-4:])]


@pytest.mark.parametrize(("option", "client", "server"), [("srvtcpka", False, True), ("clitcpka", True, False), ("tcpka", True, True)])  # fmt: skip
def test_keep_alive_timers(scripted, serve, option: str, client: bool, server: bool) -> None:
    over = threading.Event()
    held = scripted(lambda server, sock, _number: server.read_head(sock) and over.wait(20))
    proxy = serve(f"option {option}\n server s 127.0.0.1:{held.port}")
    with proxy.connect() as sock:
        sock.sendall(GET)
        until(lambda: bool(held.seen), "no request arrived")
        until(lambda: ("02" in keeps_alive(held.port)) is server, "server side")
        until(lambda: ("02" in keeps_alive(proxy.port)) is client, "client side")
        over.set()


@pytest.mark.parametrize("mode", ["http-server-close", "httpclose"])
def test_pretend_keepalive(scripted, serve, mode: str) -> None:
    server = scripted(OK)
    proxy = serve(f"option {mode}\n option http-pretend-keepalive\n server s 127.0.0.1:{server.port}")
    for _ in range(2):
        assert proxy.talk(CLOSING, quiet_s=3)[0].endswith(b"ok")
    assert not any(b"connection" in head for head in server.seen)
    assert server.connections == 2  # it is only pretended


def test_max_reuse(scripted, proxied) -> None:
    from dataclasses import replace

    from tests.proxy.conftest import tables_for

    server = scripted(OK)
    tables = tables_for([server.port], reuse="always")
    back = tables.backends[0]
    back = replace(back, servers=tuple(replace(one, max_reuse=2) for one in back.servers))
    proxy = RunningProxy(replace(tables, backends=(back,)))
    try:
        with proxy.connect() as sock:
            for _ in range(9):
                sock.sendall(GET)
                read_answer(sock)
    finally:
        proxy.close()
    assert server.connections == 3


@pytest.mark.parametrize(("clients", "most"), [(2, 2), (10, 5), (20, 10), (30, 10)])
def test_limits_follow_how_full_the_backend_is(scripted, serve, clients: int, most: int) -> None:
    """minconn 2, maxconn 10, fullconn 20: with 10 sessions in the backend a server takes 5 of them."""
    gate = Gate()
    server = scripted(gate)
    proxy = serve(f"fullconn 20\n timeout queue 20s\n server s 127.0.0.1:{server.port} minconn 2 maxconn 10")
    socks = [proxy.connect() for _ in range(clients)]
    try:
        for sock in socks:
            sock.sendall(GET)
        until(lambda: gate.most >= most, f"{gate.most} of {most}")
        time.sleep(0.3)
        assert gate.most == most
        gate.open.set()
        for sock in socks:
            assert read_answer(sock)[1] == b"ok"
    finally:
        for sock in socks:
            sock.close()


def test_fullconn_is_a_tenth_of_what_leads_here() -> None:
    tables = load_text(
        f"defaults\n mode http\n{TIMES}frontend a\n bind :1\n maxconn 95\n default_backend b\n"
        f"frontend c\n bind :2\n maxconn 10\n use_backend b if {{ path /x }}\nbackend b\n server s 127.0.0.1:1\n"
    )
    assert tables.backends[0].fullconn == 11


# -- connections of clients ----------------------------------------------------------------------------------------


def test_ignore_probes(scripted, serve) -> None:
    """A connection that says nothing is closed in silence; one that says half a request still gets its 408."""
    server = scripted(OK)
    for option, silent in (("", b"HTTP/1.1 408"), ("option http-ignore-probes\n", b"")):
        proxy = serve(f"{option} timeout http-request 200ms\n server s 127.0.0.1:{server.port}")
        answer, closed = proxy.talk(quiet_s=5)
        assert (answer[:12], closed) == (silent, True)
        assert proxy.talk(b"GET / HT", quiet_s=5)[0].startswith(b"HTTP/1.1 408")


def test_fin_timeouts_of_a_tunnel(scripted, serve) -> None:
    """A server whose client has ended its side is waited for no longer than `timeout server-fin`, as in HAProxy."""

    def script(server, sock, _number) -> None:
        while sock.recv(100):
            pass
        time.sleep(15)  # says nothing and does not close

    server = scripted(script)
    proxy = serve(f"mode tcp\n timeout tunnel 60s\n timeout server-fin 300ms\n server s 127.0.0.1:{server.port}")
    with proxy.connect() as sock:
        sock.sendall(b"x")
        sock.shutdown(socket.SHUT_WR)
        began = time.monotonic()
        assert read_all(sock, 12)[1] is True
        assert time.monotonic() - began < 12


def test_backlog_reaches_the_socket(serve, closed_port) -> None:
    """The kernel shows the backlog of a listening socket as its send queue."""
    proxy = serve(f"backlog 37\n server s 127.0.0.1:{closed_port}")
    request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 1 << 10)
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 4)  # NETLINK_SOCK_DIAG
    with netlink:
        netlink.send(struct.pack("=IHHII", 16 + 8 + 48, 20, 0x301, 1, 0) + request + bytes(48))
        data = b""
        netlink.settimeout(5)
        while b"\x03\x00" not in data[-16:]:
            part = netlink.recv(1 << 20)
            data += part
            if len(part) >= 6 and struct.unpack_from("=H", part, 4)[0] == 3:
                break
    found = []
    at = 0
    while at + 16 <= len(data):
        size, kind = struct.unpack_from("=IH", data, at)
        if kind == 20:
            port = struct.unpack_from(">H", data, at + 20)[0]
            if port == proxy.port:
                found.append(struct.unpack_from("=I", data, at + 16 + 4 + 48 + 8)[0])
        at += max((size + 3) & ~3, 16)
    assert 37 in found
