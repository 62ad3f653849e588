"""A proxy in this process on an ephemeral port, and servers that do exactly what a test scripts."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from haptk.proxy import engine as engine_module
from haptk.proxy import reference
from haptk.proxy.compile import load_text
from haptk.proxy.engine import Engine
from haptk.proxy.listeners import Listeners
from haptk.proxy.tables import AddHeader, Backend, Bind, CookieRule, Frontend, Process, ProxyTables, Server, Timeouts
from tests.ports import free_port

DEADLINE_S = 30.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class ScriptedServer:
    """Accepts connections and runs `script(sock, number)` for each in a thread; keeps what `read_head` returned."""

    def __init__(
        self, script: Callable[[ScriptedServer, socket.socket, int], None], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.script = script
        self.seen: list[bytes] = []
        self.connections = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, port), family=family, backlog=256)
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(DEADLINE_S)
        with sock, contextlib.suppress(OSError):
            self.script(self, sock, number)

    def read_head(self, sock: socket.socket, data: bytes = b"") -> tuple[bytes, bytes]:
        """One request head and what came behind it; both empty at the end of the stream."""
        while b"\r\n\r\n" not in data:
            part = sock.recv(65536)
            if not part:
                return b"", data
            data += part
        head, _, rest = data.partition(b"\r\n\r\n")
        self.seen.append(head)
        return head, rest

    def close(self) -> None:
        self.listener.close()


def keep_answering(answer: bytes = OK) -> Callable[[ScriptedServer, socket.socket, int], None]:
    """A script: the same answer to every request (bodies by Content-Length are read and dropped)."""

    def script(server: ScriptedServer, sock: socket.socket, _number: int) -> None:
        rest = b""
        while True:
            head, rest = server.read_head(sock, rest)
            if not head:
                return
            length = 0
            for line in head.split(b"\r\n")[1:]:
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            while len(rest) < length:
                rest += sock.recv(65536)
            rest = rest[length:]
            sock.sendall(answer)

    return script


class Gate:
    """A script that holds every request until `open` is set; `inside` is how many it holds, `most` the most at once."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, server: ScriptedServer, sock: socket.socket, _number: int) -> None:
        rest = b""
        while True:
            head, rest = server.read_head(sock, rest)
            if not head:
                return
            with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            self.open.wait(2 * DEADLINE_S)
            with self.lock:
                self.inside -= 1
            sock.sendall(OK)


class RunningProxy:
    """An engine with its listeners; `port` is where it listens."""

    def __init__(self, tables: ProxyTables) -> None:
        self.listeners = Listeners()
        self.engine = Engine(tables, self.listeners)
        self.engine.start()
        self.port = int(self.listeners.addresses()[0].rsplit(":", 1)[1])

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), DEADLINE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def talk(self, *pieces: bytes, quiet_s: float = 0.4, half_close: bool = False) -> tuple[bytes, bool]:
        """Send the pieces, return all that comes back and whether the proxy closed."""
        with self.connect() as sock:
            for index, piece in enumerate(pieces):
                if index:
                    time.sleep(0.002)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    sock.sendall(piece)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            return read_all(sock, quiet_s)

    def counters(self) -> dict[str, int]:
        return self.engine.counters()

    def close(self) -> None:
        self.engine.stop(now=True)
        assert self.engine.wait(5.0)
        self.listeners.close()


@contextlib.contextmanager
def proxies_of(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], RunningProxy]]:
    """Makes proxies of the text of a haproxy.cfg, on the path "fast" or "reference"; they end with the block.

    No line of the text may draw a warning that it is not carried out.
    """
    running: list[RunningProxy] = []
    if path == "reference":
        monkeypatch.setattr(engine_module, "data_plane", lambda _tables: (reference.Image, reference.DataWorker))

    def start(text: str) -> RunningProxy:
        tables = load_text(text)
        assert not [line for line in tables.warnings if "not carried out" in line]
        running.append(RunningProxy(tables))
        return running[-1]

    yield start
    for proxy in running:
        proxy.close()


def read_all(sock: socket.socket, quiet_s: float = 0.4) -> tuple[bytes, bool]:
    """What comes until the end of the stream (True) or until `quiet_s` of silence (False)."""
    sock.settimeout(quiet_s)
    out = b""
    while True:
        try:
            part = sock.recv(1 << 20)
        except TimeoutError:
            return out, False
        except ConnectionResetError:
            return out, True
        if not part:
            return out, True
        out += part


def read_answer(sock: socket.socket, data: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """One response by its Content-Length: head, body, and what came behind."""
    sock.settimeout(DEADLINE_S)
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        assert part, f"the stream ended in a head: {data!r}"
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n")[1:]:
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(rest) < length:
        part = sock.recv(65536)
        assert part, "the stream ended in a body"
        rest += part
    return head, rest[:length], rest[length:]


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """Make servers; without a script they answer 200 to everything."""
    made: list[ScriptedServer] = []

    def make(
        script: Callable[[ScriptedServer, socket.socket, int], None] | bytes = OK,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> ScriptedServer:
        server = ScriptedServer(keep_answering(script) if isinstance(script, bytes) else script, host, port)
        made.append(server)
        return server

    yield make
    for server in made:
        server.close()


def tables_for(ports: list[int], **backend: object) -> ProxyTables:
    """One listen section over servers s1, s2 ... on `ports`, each with its name as the cookie."""
    frontend_words = {key[3:]: backend.pop(key) for key in list(backend) if key.startswith("fe_")}
    process = backend.pop("process", Process())
    servers = tuple(
        Server(f"s{number}", "127.0.0.1", port, cookie=f"s{number}") for number, port in enumerate(ports, 1)
    )
    settings: dict[str, object] = {
        "cookie": CookieRule("SID", "prefix"),
        "forwardfor": AddHeader("X-Forwarded-For"),
        "timeouts": Timeouts(connect=2.0, server=5.0),
        "redispatch": -1,
    }
    settings.update(backend)
    back = replace(Backend("web", servers), **settings)  # type: ignore[arg-type]
    front = replace(
        Frontend("web", (Bind("127.0.0.1", 0),), mode=back.mode, default_backend=0, connection=back.connection),
        **{"timeouts": Timeouts(client=5.0), **frontend_words},  # type: ignore[arg-type]
    )
    assert isinstance(process, Process)
    return ProxyTables((front,), (back,), process)


@pytest.fixture
def proxied() -> Iterator[Callable[..., RunningProxy]]:
    """Start proxies: `proxied(server, ..., cookie=..., timeouts=...)`; servers may also be port numbers."""
    running: list[RunningProxy] = []

    def start(*servers: ScriptedServer | int, **backend: object) -> RunningProxy:
        ports = [one if isinstance(one, int) else one.port for one in servers]
        proxy = RunningProxy(tables_for(ports, **backend))
        running.append(proxy)
        return proxy

    yield start
    for proxy in running:
        proxy.close()


@pytest.fixture
def closed_port() -> int:
    """A port on which nothing listens."""
    return free_port()
