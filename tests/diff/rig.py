"""The rig of the differential tests: scripted servers, a scripted client, and the real haproxy beside haptk on one file.

An exchange is a raw request and the raw response that the server is to give. The rig says which server got what, what
the client got, and what the log line says. `PROGRAMS` names what can be started: haproxy, haptk on the compiled path,
and haptk on the reference.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.ports import free_ports

PROGRAMS = ("haproxy", "fast", "reference")
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HAPTK = Path(sys.executable).parent / "haptk"
STRANGERS = os.environ.get("HAPTK_DIFF_STRANGERS") == "1"  # haptk starts among descriptors of others, see `Strangers`
THREADS = int(os.environ.get("HAPTK_DIFF_THREADS", "0"))  # nbthread of both programs; 0 leaves it to the file


def _read_message(channel: socket.socket, data: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """(head, body as it came, rest) of the next message; head b"" at the end of the stream."""
    while b"\r\n\r\n" not in data:
        part = channel.recv(65536)
        if not part:
            return b"", data, b""
        data += part
    head, rest = data.split(b"\r\n\r\n", 1)
    lower = head.lower()
    if length := re.search(rb"\ncontent-length:\s*(\d+)", lower):
        need = int(length[1])
        while len(rest) < need:
            part = channel.recv(65536)
            if not part:
                break
            rest += part
        return head, rest[:need], rest[need:]
    if re.search(rb"\ntransfer-encoding:\s*chunked", lower):
        while not (end := re.search(rb"(?:^|\r\n)0\r\n(?:[^\r\n]+\r\n)*\r\n", rest)):
            part = channel.recv(65536)
            if not part:
                return head, rest, b""
            rest += part
        return head, rest[: end.end()], rest[end.end() :]
    return head, b"", rest


@dataclass
class Seen:
    """What a server received."""

    server: str
    head: bytes
    body: bytes

    def lines(self) -> list[str]:
        return self.head.decode("latin-1").split("\r\n")

    def values(self, name: str) -> list[str]:
        pairs = (line.partition(":") for line in self.lines()[1:])
        return [value.strip(" ") for key, _, value in pairs if key.lower() == name]


class Upstreams:
    """Servers s1, s2, ... that answer request X-Case: N with the N-th script."""

    def __init__(self, count: int = 4) -> None:
        self.scripts: dict[str, bytes] = {}
        self.seen: dict[str, list[Seen]] = {}
        self.lock = threading.Lock()
        self.listeners = [socket.create_server(("127.0.0.1", 0), backlog=256) for _ in range(count)]
        self.ports = [listener.getsockname()[1] for listener in self.listeners]
        for index, listener in enumerate(self.listeners):
            threading.Thread(target=self._accept, args=(listener, f"s{index + 1}"), daemon=True).start()

    def _accept(self, listener: socket.socket, name: str) -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(channel, name), daemon=True).start()

    def _serve(self, channel: socket.socket, name: str) -> None:
        rest = b""
        with channel, contextlib.suppress(OSError):
            while True:
                head, body, rest = _read_message(channel, rest)
                if not head:
                    return
                found = re.search(rb"\nx-case:\s*(\S+)", head.lower())
                case = found[1].decode() if found else ""
                with self.lock:
                    self.seen.setdefault(case, []).append(Seen(name, head, body))
                script = self.scripts.get(case, PLAIN)
                channel.sendall(script.removesuffix(b"<close>"))
                if script.endswith(b"<close>") or b"\nconnection: close" in head.lower():
                    channel.shutdown(socket.SHUT_WR)
                    return

    def close(self) -> None:
        for listener in self.listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


class LogServer:
    """A syslog receiver; `line(case)` waits for the line that mentions the case's path."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.2)
        self.port: int = self.socket.getsockname()[1]
        self.lines: dict[str, list[str]] = {}
        self.changed = threading.Condition()
        self.open = True
        self.missed = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while self.open:
            try:
                text = self.socket.recv(65536).decode("latin-1").rstrip("\n")
            except TimeoutError:
                continue
            except OSError:
                return
            found = re.search(r"/case/([\w-]+)", text)
            with self.changed:
                self.lines.setdefault(found[1] if found else "", []).append(text)
                self.changed.notify_all()

    def line(self, case: str, timeout_s: float = 2.0) -> str:
        with self.changed:
            if not self.changed.wait_for(
                lambda: case in self.lines, timeout_s if self.lines or self.missed < 3 else 0.0
            ):
                self.missed += 1
            return self.lines.get(case, [""])[-1]

    def close(self) -> None:
        self.open = False
        self.thread.join(2)
        self.socket.close()


@dataclass
class Got:
    """What the client received."""

    head: bytes
    body: bytes
    closed: bool

    @property
    def status(self) -> int:
        found = re.match(rb"HTTP/1\.\d (\d{3})", self.head)
        return int(found[1]) if found else 0

    def lines(self) -> list[str]:
        return self.head.decode("latin-1").split("\r\n")

    def values(self, name: str) -> list[str]:
        pairs = (line.partition(":") for line in self.lines()[1:])
        return [value.strip(" ") for key, _, value in pairs if key.lower() == name]


@dataclass
class Result:
    """One exchange through one program."""

    got: Got
    seen: list[Seen]
    log: str = ""

    @property
    def server(self) -> str:
        return self.seen[-1].server if self.seen else ""

    def flags(self) -> str:
        """Status and the four letters of an httplog line."""
        found = re.search(r" (-?\d+) \d+ - - (\S{4}) ", self.log)
        return f"{found[1]} {found[2]}" if found else ""


def exchange(
    address: tuple[str, int], request: bytes, *, head_only: bool = False, timeout_s: float = 4.0, pieces: int = 0
) -> Got:
    """Send raw bytes (in `pieces` of that size when not 0) and read one final response; then see whether it closes."""
    with socket.create_connection(address, timeout_s) as channel:
        channel.settimeout(timeout_s)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            if pieces:
                for at in range(0, len(request), pieces):
                    channel.sendall(request[at : at + pieces])
                    time.sleep(0.0005)
            else:
                channel.sendall(request)
        return _read_response(channel, head_only=head_only)


def _read_response(channel: socket.socket, *, head_only: bool) -> Got:
    data = b""
    head = body = rest = b""
    try:
        while True:
            if head_only or (data and re.match(rb"HTTP/1\.\d (1\d\d|204|304)", data)):
                while b"\r\n\r\n" not in data:
                    part = channel.recv(65536)
                    if not part:
                        return Got(b"", data, True)
                    data += part
                head, _, data = data.partition(b"\r\n\r\n")
                body = b""
            else:
                if not data:
                    data = channel.recv(65536)
                    if not data:
                        return Got(b"", b"", True)
                    continue
                head, body, data = _read_message(channel, data)
            if not re.match(rb"HTTP/1\.\d 1(?!01)", head):
                break
        lower = head.lower()
        framed = (
            head_only
            or b"content-length:" in lower
            or b"transfer-encoding:" in lower
            or re.match(rb"http/1\.\d (1|204|304)", lower)
        )
        if not framed:
            body = data
            while part := channel.recv(65536):
                body += part
            return Got(head, body, True)
        return Got(head, body, b"connection: close" in lower)
    except ConnectionError:
        return Got(head, body, True)
    except TimeoutError:
        return Got(head or b"TIMEOUT", body + rest, False)


class Strangers:
    """Descriptors that a program inherits and that are none of its business, in place of its standard ones too.

    Standard input is closed, and output where the caller does not want it. When the program has ended nothing may have
    been written to any of the others.
    """

    def __init__(self) -> None:
        self.pairs = [socket.socketpair() for _ in range(40)] if STRANGERS else []

    def more(self) -> dict[str, Any]:
        """What Popen is told."""
        if not STRANGERS:
            return {}
        # numbers with holes between them
        given = tuple(theirs.fileno() for _, theirs in self.pairs if theirs.fileno() % 3)
        return {"pass_fds": given, "preexec_fn": lambda: os.close(0)}

    def check(self) -> None:
        for ours, theirs in self.pairs:
            ours.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                said = ours.recv(100)
                raise AssertionError(f"{said!r} was written to a stranger's descriptor {theirs.fileno()}")
        for one in self.pairs:
            for sock in one:
                sock.close()
        self.pairs = []


@dataclass
class Program:
    """A running proxy."""

    kind: str
    process: subprocess.Popen[bytes]
    log: LogServer
    output: Path
    counter: int = field(default=0)
    strangers: Strangers | None = None

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL if self.kind == "haproxy" else signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.log.close()
        if self.strangers is not None:
            self.strangers.check()


def threaded(text: str) -> str:
    """`text` with the number of threads that this run is about."""
    return f"global\n    nbthread {THREADS}\n{text}" if THREADS else text


def start(kind: str, text: str, directory: Path, wait_for: list[tuple[str, int]]) -> Program:
    """Run `text` (with @LOG@ for the address of the log receiver); returns when every address accepts."""
    log = LogServer()
    file = directory / f"{kind}.cfg"
    file.write_text(threaded(text).replace("@LOG@", f"127.0.0.1:{log.port}"))
    environment = {key: value for key, value in os.environ.items() if key not in ("HAPTK_NO_FAST", "NOTIFY_SOCKET")}
    if kind == "reference":
        environment["HAPTK_NO_FAST"] = "1"
    command = (
        ["haproxy", "-db", "-f", str(file)] if kind == "haproxy" else [str(HAPTK), "proxy", "-db", "-f", str(file)]
    )
    output = directory / f"{kind}.out"
    with output.open("wb") as stream:
        strangers = Strangers() if kind != "haproxy" else None
        more = strangers.more() if strangers else {}
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, **more)
    program = Program(kind, process, log, output, strangers=strangers)
    deadline = time.monotonic() + 60
    for address in wait_for:
        while True:
            try:
                socket.create_connection(address, 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    program.stop()
                    raise AssertionError(f"{kind} did not start:\n{output.read_text()}\n{file.read_text()}") from None
                time.sleep(0.02)
    return program


def ask(path: Path, command: str) -> str:
    """The answer of a stats socket to one command."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(20)
        deadline = time.monotonic() + 20
        while channel.connect_ex(str(path)):  # a program accepts clients before it has its stats socket
            assert time.monotonic() < deadline, f"{path} is not there"
            time.sleep(0.02)
        channel.sendall(command.encode() + b"\n")
        text = b""
        while part := channel.recv(65536):
            text += part
    return text.decode()


class Pair:
    """haproxy and one haptk on the same file, which `config(host, ports, servers, dead port)` writes."""

    def __init__(
        self,
        kind: str,
        directory: Path,
        servers: Upstreams,
        names: list[str],
        config: Callable[[str, list[int], Upstreams, int], str],
    ) -> None:
        self.servers = servers
        *ports, dead = free_ports(len(names) + 1)  # together: a dead port must not be one that a section listens on
        self.ports = dict(zip(names, ports, strict=True))
        self.programs: list[tuple[str, Program]] = []
        try:
            for program, host in (("haproxy", "127.0.0.1"), (kind, "127.0.0.9")):
                addresses = [(host, port) for port in self.ports.values()]
                text = config(host, list(self.ports.values()), servers, dead)
                self.programs.append((host, start(program, text, directory, addresses)))
        except BaseException:
            self.stop()  # nothing of a pair that did not come up stays behind
            raise
        self.number = 0

    def run(self, mode: str, request: bytes, response: bytes = PLAIN, **more: Any) -> list[Result]:
        """The same exchange through both. @CASE@ in the request becomes the case's name."""
        return [self.one(index, mode, request, response, **more) for index in (0, 1)]

    def one(self, index: int, mode: str, request: bytes, response: bytes = PLAIN, **more: Any) -> Result:
        """One exchange through haproxy (0) or haptk (1)."""
        host, program = self.programs[index]
        self.number += 1
        case = f"{program.kind}-{self.number}"
        self.servers.scripts[case] = response
        raw = request.replace(b"@CASE@", case.encode())
        got = exchange((host, self.ports[mode]), raw, head_only=raw.startswith(b"HEAD"), **more)
        # Only requests whose path names the case have a line that can be told from others.
        line = program.log.line(case) if b"/case/@CASE@" in request else ""
        return Result(got, self.servers.seen.get(case, []), line)

    def stop(self) -> None:
        for _, program in self.programs:
            program.stop()


@contextlib.contextmanager
def upstreams(count: int = 4) -> Iterator[Upstreams]:
    servers = Upstreams(count)
    try:
        yield servers
    finally:
        servers.close()
