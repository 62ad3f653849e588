"""The PROXY protocol: headers in and out, on the compiled path and the reference, beside HAProxy and nginx."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haptk.proxy import reference_proxyproto
from haptk.proxy.reference_http import Bad
from tests.ports import free_port
from tests.proxy.conftest import RunningProxy, proxies_of, read_all

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n"
FOUR = b"\x01\x02\x03\x04\x05\x06\x07\x08\x04\x57\x08\xae"
SIX = bytes(15) + b"\x01" + bytes(15) + b"\x02" + b"\x04\x57\x08\xae"


def extra(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def binary(places: bytes, extras: bytes = b"", *, head: bytes = b"\x21\x11") -> bytes:
    return V2 + head + (len(places) + len(extras)).to_bytes(2, "big") + places + extras


def with_checksum(*, right: bool) -> bytes:
    blank = binary(FOUR, extra(4, b"pad") + extra(3, bytes(4)))
    value = reference_proxyproto.crc32c(blank) ^ (0 if right else 1)
    return blank[:-4] + value.to_bytes(4, "big")


ANNOUNCED = ("1.2.3.4", 1111), ("5.6.7.8", 2222)
GOOD = {
    "v1": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n", *ANNOUNCED),
    "v1 six": (b"PROXY TCP6 2001:db8::1 ::2 1 65535\r\n", ("2001:db8::1", 1), ("::2", 65535)),
    "v1 mapped": (b"PROXY TCP6 ::ffff:1.2.3.4 ::ffff:5.6.7.8 1111 2222\r\n", ("::ffff:1.2.3.4", 1111), ("::ffff:5.6.7.8", 2222)),
    "v1 longest": (b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n", ("ffff:" * 8)[:-1], 0),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", None, None),
    "v1 unknown and more": (b"PROXY UNKNOWN ffff::1 2 whatever\r\n", None, None),
    "v2": (binary(FOUR), *ANNOUNCED),
    "v2 six": (binary(SIX, head=b"\x21\x21"), ("::1", 1111), ("::2", 2222)),
    "v2 extras": (binary(FOUR, extra(4, b"") + extra(0xE0, b"x" * 300) + extra(2, b"h" * 255)), *ANNOUNCED),
    "v2 checksum": (with_checksum(right=True), *ANNOUNCED),
    "v2 local": (binary(b"", head=b"\x20\x00"), None, None),
    "v2 local with addresses": (binary(FOUR, head=b"\x20\x11"), None, None),
}  # fmt: skip
BAD = {
    "http": GET,
    "v1 words": b"PROXY TCP4 1.2.3.4\r\n",
    "v1 two blanks": b"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
    "v1 bare line feed": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
    "v1 other family": b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
    "v1 sctp": b"PROXY SCTP 1.2.3.4 5.6.7.8 1 2\r\n",
    "v1 port": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
    "v1 signed port": b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
    "v1 padded port": b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
    "v1 padded address": b"PROXY TCP4 1.2.3.4 05.6.7.8 1 2\r\n",
    "v1 NUL": b"PROXY TCP6 ::1\0 2001:db8::2 1 2\r\n",
    "v1 trailing blank": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
    "v1 endless": b"PROXY " + b"x" * 120,
    "v1 unknown, endless": b"PROXY UNKNOWN " + b"x" * 120 + b"\r\n",
    "v1 unknown glued": b"PROXY UNKNOWNX\r\n",
    "v2 version": binary(FOUR, head=b"\x31\x11"),
    "v2 command": binary(FOUR, head=b"\x22\x11"),
    "v2 unix": binary(bytes(216), head=b"\x21\x31"),
    "v2 udp": binary(FOUR, head=b"\x21\x12"),
    "v2 unspecified": binary(b"", head=b"\x21\x00"),
    "v2 short": binary(FOUR[:11]),
    "v2 half an extra": binary(FOUR, b"\x04\x00"),
    "v2 extra beyond the end": binary(FOUR, b"\x04\x00\x05abcd"),
    "v2 checksum": with_checksum(right=False),
    "v2 too long": binary(FOUR, extra(4, bytes(5000))),
    "v2 authority": binary(FOUR, extra(2, bytes(256))),
}  # fmt: skip


def reference_says(data: bytes) -> object:
    try:
        found = reference_proxyproto.parse(data)
    except Bad:
        return False
    return None if found is None else (found.size, found.source, found.target)


# -- the parsers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_both_parsers_take_it_in_every_split(name: str) -> None:
    from haptk._fast import proxyproto

    data, source, target = GOOD[name]
    want = (len(data), source, target) if name != "v1 longest" else (len(data), (source, 65535), (source, 65535))
    for parse in (proxyproto.header, reference_says):
        assert parse(data + GET) == want
        assert parse(data) == want
        for cut in range(len(data)):
            assert parse(data[:cut]) is None, cut


@pytest.mark.parametrize("name", BAD)
def test_both_parsers_refuse_it(name: str) -> None:
    from haptk._fast import proxyproto

    assert proxyproto.header(BAD[name]) is False
    assert reference_says(BAD[name]) is False


def test_parsers_agree_on_mutations() -> None:
    from haptk._fast import proxyproto

    rng = random.Random(4)
    samples = [data for data, *_ in GOOD.values()] + list(BAD.values())
    for _ in range(20000):
        data = bytearray(rng.choice(samples))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            data[at : at + rng.randint(0, 1)] = rng.choice(
                [b"", b"0", b" ", b".", b":", b"\r", b"\n", rng.randbytes(1)]
            )
        assert proxyproto.header(bytes(data)) == reference_says(bytes(data)), bytes(data)


@pytest.mark.parametrize(
    ("source", "target"),
    [("1.2.3.4", "5.6.7.8"), ("::1", "2001:db8::2"), ("1.2.3.4", "::2"), ("::1", "5.6.7.8"), ("", "")],
)
@pytest.mark.parametrize("version", [1, 2])
def test_both_writers_agree_and_are_understood(source: str, target: str, version: int) -> None:
    import ipaddress

    from haptk._fast import proxyproto

    packed = [ipaddress.ip_address(one).packed if one else b"" for one in (source, target)]
    ours = proxyproto.header_for(version, packed[0], 1111, packed[1], 2222)
    write = reference_proxyproto.text if version == 1 else reference_proxyproto.binary
    assert ours == write(source, 1111, target, 2222)
    if len(packed[0]) != len(packed[1]):  # one of each family: both are written as IPv6
        source, target = (one if ":" in one else f"::ffff:{one}" for one in (source, target))
    assert reference_says(ours) == (len(ours), (source, 1111) if source else None, (target, 2222) if target else None)


# -- through a proxy -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["fast", "reference"])
def serve(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], RunningProxy]]:
    """Run a haproxy.cfg on either path; ports 0 are free ones."""
    times = "defaults\n mode http\n timeout connect 2s\n timeout client 1s\n timeout server 5s\n"
    with proxies_of(request.param, monkeypatch) as made:
        yield lambda text: made(times + text)


def listen(lines: str, *, bind: str = "") -> str:
    return f"listen web\n bind 127.0.0.1:{free_port()} {bind}\n option forwardfor\n option originalto\n {lines}\n"


@pytest.mark.parametrize("name", ["v1", "v2", "v2 six", "v1 unknown", "v2 local"])
@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_announced_addresses_count(scripted, serve, name: str, piece: int) -> None:
    server = scripted()
    proxy = serve(listen(f"server s 127.0.0.1:{server.port}", bind="accept-proxy"))
    header, source, target = GOOD[name]
    data = header + GET
    answer, _ = proxy.talk(*(data[at : at + piece] for at in range(0, len(data), piece)), quiet_s=3)
    assert answer.startswith(b"HTTP/1.1 200")
    lines = server.seen[0].split(b"\r\n")
    assert b"x-forwarded-for: " + (source[0] if source else "127.0.0.1").encode() in lines
    assert b"x-original-to: " + (target[0] if target else "127.0.0.1").encode() in lines


@pytest.mark.parametrize("name", BAD)
def test_bad_header_is_closed_without_a_word(scripted, serve, name: str) -> None:
    server = scripted()
    proxy = serve(listen(f"server s 127.0.0.1:{server.port}", bind="accept-proxy"))
    assert proxy.talk(BAD[name] + GET, quiet_s=5) == (b"", True)
    assert server.seen == []


def test_header_that_does_not_come_is_not_waited_for_for_ever(serve, closed_port) -> None:
    proxy = serve(listen(f"server s 127.0.0.1:{closed_port}", bind="accept-proxy"))
    assert proxy.talk(b"PROXY TC", quiet_s=8) == (b"", True)
    assert proxy.talk(quiet_s=8) == (b"", True)


def test_balance_source_follows_the_announced_source(scripted, serve) -> None:
    servers = [scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number) for number in range(3)]
    lines = "balance source\n" + "".join(f" server s{n} 127.0.0.1:{one.port}\n" for n, one in enumerate(servers))
    proxy = serve(listen(lines, bind="accept-proxy"))
    for last in range(1, 7):
        answer, _ = proxy.talk(b"PROXY TCP4 10.0.0.%d 5.6.7.8 1111 2222\r\n" % last + GET, quiet_s=3)
        assert answer[-1:] == b"%d" % ((0x0A000000 + last) % 3)


def echo_behind_header(server, sock, _number) -> None:
    """Reads all, answers with the PROXY header that came first, however the request is framed."""
    data = b""
    while b"GET / " not in data and b"<tcp>" not in data:
        part = sock.recv(65536)
        if not part:
            return
        data += part
    at = max(data.find(b"GET / "), data.find(b"<tcp>"))
    server.seen.append(data[:at])
    body = b"ok"
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    while part := sock.recv(65536):
        server.seen.append(part)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.parametrize(("word", "version"), [("send-proxy", 1), ("send-proxy-v2", 2)])
@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_header_for_the_server(scripted, serve, word: str, version: int, mode: str) -> None:
    server = scripted(echo_behind_header)
    proxy = serve(listen(f"mode {mode}\n server s 127.0.0.1:{server.port} {word}"))
    with proxy.connect() as sock:
        source = sock.getsockname()
        sock.sendall(b"<tcp>" if mode == "tcp" else GET)
        assert read_all(sock, 2)[0].startswith(b"HTTP/1.1 200")
    write = reference_proxyproto.text if version == 1 else reference_proxyproto.binary
    assert server.seen[0] == write(source[0], source[1], "127.0.0.1", proxy.port)


def test_announced_addresses_go_on_to_the_server(scripted, serve) -> None:
    server = scripted(echo_behind_header)
    proxy = serve(listen(f"mode tcp\n server s 127.0.0.1:{server.port} send-proxy-v2", bind="accept-proxy"))
    with proxy.connect() as sock:
        sock.sendall(GOOD["v1 six"][0] + b"<tcp>")
        assert read_all(sock, 2)[0].startswith(b"HTTP/1.1 200")
    assert server.seen[0] == reference_proxyproto.binary("2001:db8::1", 1, "::2", 65535)


def test_connections_with_a_header_are_never_shared(scripted, serve) -> None:
    """A kept connection serves its own client again, and no other one, even with `http-reuse always`."""
    server = scripted(echo_behind_header)
    proxy = serve(listen(f"http-reuse always\n server s 127.0.0.1:{server.port} send-proxy"))
    keep = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with proxy.connect() as one, proxy.connect() as two:
        for sock in (one, two, one, two):
            sock.sendall(keep)
            sock.settimeout(5)
            got = b""
            while not got.endswith(b"ok"):
                got += sock.recv(1000)
        places = [sock.getsockname()[1] for sock in (one, two)]
    assert server.connections == 2
    assert server.seen[0] == reference_proxyproto.text("127.0.0.1", places[0], "127.0.0.1", proxy.port)
    assert server.seen[1] == reference_proxyproto.text("127.0.0.1", places[1], "127.0.0.1", proxy.port)
    assert [head[:5] for head in server.seen[2:]] == [b"GET /", b"GET /"]


def test_server_without_a_port_is_where_the_client_went(scripted, serve) -> None:
    """`server s 127.0.0.1` goes to the port that the client connected to, `:+N` to one N above it."""
    server = scripted()
    proxy = serve(f"listen web\n bind 127.0.0.1:{free_port()} accept-proxy\n server s 127.0.0.1\n")
    answer, _ = proxy.talk(b"PROXY TCP4 9.9.9.9 127.0.0.1 1 %d\r\n" % server.port + GET, quiet_s=3)
    assert answer.endswith(b"ok")
    other = serve(f"listen web\n bind 127.0.0.1:{free_port()} accept-proxy\n server s 0.0.0.0:+3\n")
    answer, _ = other.talk(b"PROXY TCP4 9.9.9.9 127.0.0.1 1 %d\r\n" % (server.port - 3) + GET, quiet_s=3)
    assert answer.endswith(b"ok")


# -- beside the real programs --------------------------------------------------------------------------------------


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Start a real program and wait for its port."""
    running: list[subprocess.Popen[bytes]] = []

    def start(command: list[str], port: int) -> None:
        with (tmp_path / "out").open("ab") as out:
            running.append(subprocess.Popen(command, stdout=out, stderr=out))
        wait_for(port, running[-1])

    yield start
    for process in running:
        process.terminate()
        process.wait(30)


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_between_two_haproxies(scripted, serve, program, tmp_path: Path, version: str, mode: str) -> None:
    """client -> haproxy (send) -> haptk (accept, send) -> haproxy (accept) -> server: the client's address arrives."""
    server = scripted()
    ports = [free_port() for _ in range(2)]
    proxy = serve(
        # A client may be silent for longer than a second while the next program waits for its turn.
        f"listen web\n mode {mode}\n timeout client 20s\n timeout server 20s\n bind 127.0.0.1:{free_port()} accept-proxy\n"
        f" server s 127.0.0.1:{ports[1]} {version}\n"
    )
    file = tmp_path / "haproxy.cfg"
    file.write_text(
        "defaults\n mode http\n timeout connect 20s\n timeout client 20s\n timeout server 20s\n"
        f"listen in\n mode {mode}\n bind 127.0.0.1:{ports[0]}\n server s 127.0.0.1:{proxy.port} {version}\n"
        f"listen out\n bind 127.0.0.1:{ports[1]} accept-proxy\n option forwardfor\n http-request set-header X-Port %[src_port]\n"
        f" server s 127.0.0.1:{server.port}\n"
    )
    program(["haproxy", "-db", "-f", str(file)], ports[0])
    with socket.create_connection(("127.0.0.1", ports[0]), 5) as sock:
        place = sock.getsockname()[1]
        sock.sendall(GET)
        assert b"\r\n\r\nok" in read_all(sock, 20)[0]
    lines = server.seen[-1].split(b"\r\n")
    assert b"x-port: %d" % place in lines
    assert b"x-forwarded-for: 127.0.0.1" in lines


@pytest.mark.real("nginx")
@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_nginx_believes_our_header(serve, program, tmp_path: Path, version: str) -> None:
    port = free_port()
    file = tmp_path / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;\n"
        "events {}\nhttp { access_log off; client_body_temp_path %s/t; proxy_temp_path %s/t; fastcgi_temp_path %s/t;"
        " uwsgi_temp_path %s/t; scgi_temp_path %s/t;\n"
        " server { listen 127.0.0.1:%d proxy_protocol; location / { return 200 \"$proxy_protocol_addr:$proxy_protocol_port\"; } } }\n"
        % (*[tmp_path] * 5, port)
    )  # fmt: skip
    program(["nginx", "-c", str(file)], port)
    proxy = serve(listen(f"server s 127.0.0.1:{port} {version} check inter 100ms"))
    with proxy.connect() as sock:
        place = sock.getsockname()[1]
        sock.sendall(GET)
        answer = read_all(sock, 5)[0]
    assert answer.endswith(f"127.0.0.1:{place}".encode())


@pytest.mark.parametrize(
    ("words", "start"),
    [("send-proxy", b"PROXY TCP4 127.0.0.1 127.0.0.1 "), ("send-proxy-v2", V2 + b"\x20\0\0\0"), ("check-send-proxy", b"PROXY TCP4 127")],
)  # fmt: skip
def test_checks_begin_with_a_header(scripted, serve, words: str, start: bytes) -> None:
    seen: list[bytes] = []

    def script(server, sock, _number) -> None:
        seen.append(sock.recv(4096))
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

    server = scripted(script)
    serve(listen(f"option httpchk GET /h\n server s 127.0.0.1:{server.port} check inter 50ms {words}"))
    deadline = time.monotonic() + 60
    while not seen and time.monotonic() < deadline:
        time.sleep(0.02)
    assert seen[0].startswith(start)
