"""Real clients and servers through the compiled path: each counts its answers, and the answers are checked."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haptk.proxy.compile import load_text
from tests.ports import free_port
from tests.proxy.conftest import RunningProxy

BODY = "0123456789" * 20
TIMES = " timeout connect 5s\n timeout client 20s\n timeout server 20s\n"


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """The ports of two nginx servers that answer /s, /big (1 MB) and /echo by name."""
    place = tmp_path_factory.mktemp("nginx")
    (place / "big").write_bytes(bytes(range(256)) * 4096)
    ports = [free_port(), free_port()]
    servers = "".join(
        f'server {{ listen 127.0.0.1:{port}; location = /s {{ add_header X-Name s{number}; return 200 "{BODY}"; }}'
        f" location = /big {{ root {place}; }} }}\n"
        for number, port in enumerate(ports, 1)
    )
    temps = " ".join(f"{kind}_temp_path {place}/t;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (place / "nginx.conf").write_text(
        f"daemon off; master_process off; user root; pid {place}/pid; error_log {place}/error.log;\n"
        f"events {{ worker_connections 2048; }}\nhttp {{ access_log off; keepalive_requests 100000; {temps}\n{servers} }}\n"
    )
    process = subprocess.Popen(["nginx", "-c", str(place / "nginx.conf")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    for port in ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    yield ports
    process.terminate()
    process.wait(10)


@pytest.fixture
def serve() -> Iterator[Callable[[str], RunningProxy]]:
    """Run a listen section with these lines on the compiled path."""
    running: list[RunningProxy] = []

    def start(lines: str, mode: str = "http") -> RunningProxy:
        text = f"defaults\n mode {mode}\n{TIMES}listen web\n bind 127.0.0.1:{free_port()}\n {lines}\n"
        proxy = RunningProxy(load_text(text))
        assert proxy.engine.image.__class__.__module__ == "haptk._fast.conf"
        running.append(proxy)
        return proxy

    yield start
    for proxy in running:
        proxy.close()


def servers(ports: list[int], words: str = "") -> str:
    return "".join(
        f" server s{number} 127.0.0.1:{port} cookie s{number} {words}\n" for number, port in enumerate(ports, 1)
    )


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- curl, ab, wrk, h2load -----------------------------------------------------------------------------------------


@pytest.mark.real("nginx", "curl")
def test_curl_stays_at_its_server_and_gets_every_byte(nginx, serve, tmp_path: Path) -> None:
    proxy = serve("cookie SRV insert indirect nocache\n" + servers(nginx))
    jar = str(tmp_path / "jar")
    url = f"http://127.0.0.1:{proxy.port}/s"
    names = {run("curl", "-s", "-b", jar, "-c", jar, "-o", "/dev/null", "-w", "%header{x-name}", url) for _ in range(4)}
    assert len(names) == 1 or names == {"%header{x-name}"}  # an old curl does not know the variable
    heads = [run("curl", "-s", "-i", "-b", jar, "-c", jar, url) for _ in range(4)]
    assert len({re.search(r"x-name: (\S+)", head)[1] for head in heads}) == 1  # type: ignore[index]
    assert all(head.endswith(BODY) for head in heads)
    got = subprocess.run(["curl", "-s", url.replace("/s", "/big")], capture_output=True, timeout=60, check=True).stdout
    assert got == bytes(range(256)) * 4096


@pytest.mark.real("nginx", "curl")
def test_curl_uploads_in_every_framing(serve, scripted, tmp_path: Path) -> None:
    """--data with a length, -T chunked, and with Expect: 100-continue, which curl waits for."""
    bodies: list[bytes] = []

    def script(server, sock, _number) -> None:
        head, rest = server.read_head(sock)
        if b"expect: 100-continue" in head.lower():
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        while (len(rest) < int(length[1])) if length else not rest.endswith(b"0\r\n\r\n"):
            rest += sock.recv(65536)
        bodies.append(rest)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    server = scripted(script)
    proxy = serve(f"server s 127.0.0.1:{server.port}")
    file = tmp_path / "body"
    file.write_bytes(b"x" * 300_000)
    url = f"http://127.0.0.1:{proxy.port}/"
    assert run("curl", "-s", "--data-binary", f"@{file}", url) == "ok"
    assert run("curl", "-s", "-T", str(file), "-H", "Expect: 100-continue", url) == "ok"
    assert run("curl", "-s", "-T", str(file), "-H", "Transfer-Encoding: chunked", "-H", "Expect:", url) == "ok"
    assert bodies[:2] == [file.read_bytes()] * 2
    assert re.sub(rb"(^|\r\n)[0-9a-f]+\r\n", b"", bodies[2]).replace(b"\r\n", b"") == file.read_bytes()


@pytest.mark.real("nginx", "ab")
@pytest.mark.parametrize("keep", [[], ["-k"]])
def test_ab(nginx, serve, keep: list[str]) -> None:
    proxy = serve("cookie SRV insert\n option forwardfor\n" + servers(nginx))
    told = run("ab", "-q", *keep, "-n", "1000", "-c", "20", f"http://127.0.0.1:{proxy.port}/s")
    assert re.search(r"Complete requests: +1000\b", told)
    assert re.search(r"Failed requests: +0\b", told)
    assert "Non-2xx" not in told
    assert int(re.search(r"HTML transferred: +(\d+)", told)[1]) == 1000 * len(BODY)  # type: ignore[index]
    assert proxy.counters()["requests"] == 1000


@pytest.mark.real("nginx", "wrk")
def test_wrk(nginx, serve) -> None:
    proxy = serve("cookie JSESSIONID prefix\n" + servers(nginx))
    told = run("wrk", "-t1", "-c32", "-d1s", f"http://127.0.0.1:{proxy.port}/s")
    count = int(re.search(r"(\d+) requests in", told)[1])  # type: ignore[index]
    assert count > 100
    assert "Non-2xx" not in told
    assert "Socket errors" not in told
    counters = proxy.counters()
    assert counters["responses"][2] >= count
    assert counters["bad_responses"] == 0
    assert counters["bad_requests"] <= 1  # wrk makes one connection first on which it says nothing


@pytest.mark.real("nginx", "h2load")
def test_h2load_in_http1_mode_pipelines(nginx, serve) -> None:
    proxy = serve(servers(nginx))
    told = run("h2load", "--h1", "-n", "2000", "-c", "10", "-m", "8", f"http://127.0.0.1:{proxy.port}/s")
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in told
    assert re.search(r"status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx", told)


# -- WebSocket -----------------------------------------------------------------------------------------------------


class WebSockets:
    """The real library's server in a thread of its own: echoes, and counts who is there."""

    def __init__(self) -> None:
        import websockets.sync.server

        self.open = 0
        self.server = websockets.sync.server.serve(self._echo, "127.0.0.1", 0, compression=None)
        self.port = int(self.server.socket.getsockname()[1])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _echo(self, connection) -> None:  # type: ignore[no-untyped-def]
        self.open += 1
        with contextlib.suppress(Exception):
            for message in connection:
                connection.send(message)
        self.open -= 1


@pytest.fixture(scope="module")
def web_sockets() -> Iterator[WebSockets]:
    server = WebSockets()
    yield server
    server.server.shutdown()


@pytest.mark.parametrize("size", [0, 5, 200, 70_000, 1_000_000])
@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_websocket_messages(web_sockets, serve, size: int, mode: str) -> None:
    from websockets.sync.client import connect

    proxy = serve(f"timeout tunnel 30s\n server s 127.0.0.1:{web_sockets.port}", mode)
    with connect(f"ws://127.0.0.1:{proxy.port}/chat", max_size=None, compression=None, proxy=None) as client:
        for message in ("x" * size, bytes(size)):
            client.send(message)
            assert client.recv(timeout=30) == message
        assert client.ping().wait(30)


@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_many_websockets_at_once(web_sockets, serve, mode: str) -> None:
    """Two hundred clients, each with its own conversation, all at once."""
    from websockets.asyncio.client import connect

    proxy = serve(f"timeout tunnel 30s\n maxconn 2000\n server s 127.0.0.1:{web_sockets.port}", mode)

    async def one(number: int) -> bool:
        async with connect(
            f"ws://127.0.0.1:{proxy.port}/{number}", open_timeout=60, compression=None, proxy=None
        ) as client:
            for turn in range(3):
                await client.send(f"{number}/{turn}")
                if await asyncio.wait_for(client.recv(), 60) != f"{number}/{turn}":
                    return False
        return True

    async def everybody() -> list[bool]:
        return await asyncio.gather(*(one(number) for number in range(200)))

    assert asyncio.run(everybody()) == [True] * 200


def test_websocket_ends_when_nothing_moves(web_sockets, serve) -> None:
    """`timeout tunnel` replaces `timeout client` and `timeout server` once the tunnel stands."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    proxy = serve(f"timeout tunnel 400ms\n server s 127.0.0.1:{web_sockets.port}")
    with (
        connect(f"ws://127.0.0.1:{proxy.port}/", proxy=None, ping_interval=None) as client,
        pytest.raises(ConnectionClosed),
    ):
        client.recv(timeout=30)


# -- long-lived connections ----------------------------------------------------------------------------------------


class Lines:
    """A line server: answers each line with its own name and the line."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while part := sock.recv(1000):
                sock.sendall(self.name + part)


@pytest.fixture
def lines() -> Iterator[list[Lines]]:
    made = [Lines(b"A"), Lines(b"B")]
    yield made
    for one in made:
        one.listener.close()


def ask(sock: socket.socket, text: bytes = b"x\n") -> bytes:
    sock.sendall(text)
    sock.settimeout(20)
    got = b""
    while not got.endswith(b"\n"):
        part = sock.recv(1000)
        if not part:
            return b""
        got += part
    return got


@pytest.mark.parametrize("algorithm", ["source", "leastconn"])
def test_tcp_sessions_stay_and_spread(lines, serve, algorithm: str) -> None:
    places = "".join(f" server s{n} 127.0.0.1:{one.port}\n" for n, one in enumerate(lines))
    proxy = serve(f"balance {algorithm}\n{places}", "tcp")
    socks = [proxy.connect() for _ in range(20)]
    first = [ask(sock) for sock in socks]
    assert [ask(sock) for sock in socks] == first
    assert len(set(first)) == (1 if algorithm == "source" else 2)
    if algorithm == "leastconn":
        assert first.count(b"Ax\n") == 10
    for sock in socks:
        sock.close()


def test_a_server_that_goes_down_takes_its_sessions_along_when_told(lines, serve) -> None:
    places = "".join(
        f" server s{n} 127.0.0.1:{one.port} on-marked-down shutdown-sessions\n" for n, one in enumerate(lines)
    )
    proxy = serve(f"balance leastconn\n{places}", "tcp")
    socks = [proxy.connect() for _ in range(10)]
    first = [ask(sock) for sock in socks]
    proxy.engine.health.force(0, "down")
    for sock, name in zip(socks, first, strict=True):
        if name == b"Ax\n":
            sock.settimeout(20)
            assert sock.recv(10) == b""
        else:
            assert ask(sock) == b"Bx\n"
        sock.close()


def test_drain_waits_for_who_is_there(lines, serve) -> None:
    places = "".join(f" server s{n} 127.0.0.1:{one.port}\n" for n, one in enumerate(lines))
    proxy = serve(f"balance leastconn\n timeout tunnel 60s\n{places}", "tcp")
    socks = [proxy.connect() for _ in range(6)]
    first = [ask(sock) for sock in socks]
    proxy.engine.health.admin(0, "drain")
    late = [proxy.connect() for _ in range(4)]
    assert [ask(sock) for sock in late] == [b"Bx\n"] * 4
    assert [ask(sock) for sock in socks] == first
    assert int(proxy.engine.image.server(0)["sessions"]) == 3  # type: ignore[arg-type]
    for sock in (*socks, *late):
        sock.close()
    deadline = time.monotonic() + 60
    while proxy.engine.image.server(0)["sessions"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert proxy.engine.image.server(0)["sessions"] == 0


def test_a_stop_lets_a_tunnel_finish(lines, serve) -> None:
    proxy = serve(f"timeout tunnel 60s\n server s 127.0.0.1:{lines[0].port}", "tcp")
    with proxy.connect() as sock:
        assert ask(sock) == b"Ax\n"
        proxy.engine.stop()
        assert not proxy.engine.wait(0.3)
        assert ask(sock) == b"Ax\n"
    assert proxy.engine.wait(20)
