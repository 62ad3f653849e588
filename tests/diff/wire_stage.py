"""Raw messages through the real haproxy and through haptk at the same time: what each client and each server got.

A message may be anything, so nothing in it names its case: servers are told the client's port by the PROXY line that
both programs write in front of it, and the log line carries the port too. Everything runs in one event loop, many
cases at a time, so that waiting for a time-out costs no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path

from tests.diff.rig import Program, start
from tests.ports import free_ports

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
CONFIG = """global
 nbthread 1
defaults
 mode http
 log @LOG@ local0
 log-format case:%cp|%ST|%tsc|%ac-
 timeout connect 2s
 timeout client {wait}ms
 timeout server {longer}ms
 timeout http-request {wait}ms
 timeout http-keep-alive {idle}ms
frontend plain
 bind 127.0.0.1:{plain}
 monitor-uri /mon
 default_backend plain
frontend lax
 bind 127.0.0.1:{lax}
 option accept-invalid-http-request
 default_backend lax
frontend watched
 bind 127.0.0.1:{watched}
 http-request deny deny_status 403 if {{ path_beg /secret }} or {{ req.hdr(x-secret) -m found }}
 http-request set-header X-Path %[path]
 http-request set-header X-Host %[req.hdr(host)]
 http-request set-header X-Url %[url]
 http-request del-header X-Gone
 default_backend watched
frontend prefixed
 bind 127.0.0.1:{prefixed}
 default_backend prefixed
frontend rewritten
 bind 127.0.0.1:{rewritten}
 default_backend rewritten
backend prefixed
 http-reuse never
 cookie SRV prefix
 server s 127.0.0.1:{server} send-proxy cookie c1
backend rewritten
 http-reuse never
 cookie SRV rewrite
 server s 127.0.0.1:{server} send-proxy cookie c1
backend plain
 http-reuse never
 server s 127.0.0.1:{server} send-proxy
backend lax
 option accept-invalid-http-response
 http-reuse never
 server s 127.0.0.1:{server} send-proxy
backend watched
 http-reuse never
 cookie SRV insert indirect
 http-response set-header X-Status %[status]
 http-response del-header X-Gone
 server s 127.0.0.1:{server} send-proxy cookie c1
"""


@dataclass(frozen=True)
class Message:
    """What a client sends to a section, and what the server says to each request that reaches it."""

    request: bytes
    section: str = "plain"
    answer: bytes = ANSWER
    closes: bool = False
    piecewise: bool = False


@dataclass
class Outcome:
    """What one program made of a message."""

    client: bytes = b""
    closed: bool = False
    server: list[bytes] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def answers(self) -> list[str]:
        """The answers that the client got, as text without what never is equal."""
        return [tidy_answer(text) for text in split_answers(self.client)]

    def requests(self) -> list[str]:
        """What servers got, by request."""
        return [tidy_request(text) for text in self.server]

    def letters(self) -> list[str]:
        """Status and termination state of each log line."""
        return [
            line.split("case:")[1].split("|", 1)[1].partition("|")[0] + " " + line.split("|")[2] for line in self.log
        ]


def split_answers(data: bytes) -> list[bytes]:
    """The answers of a stream, by their status lines: bodies are short and hold none."""
    marks = [found.start() for found in re.finditer(rb"(?:^|(?<=[\s\w>]))HTTP/1\.[01] \d{3}", data)]
    if not marks or marks[0]:
        marks.insert(0, 0)
    return [data[a:b] for a, b in zip(marks, [*marks[1:], len(data)], strict=True) if data[a:b]]


def tidy_answer(data: bytes) -> str:
    """An answer without what may differ: version, our own pages' text and length, hop-by-hop lines."""
    text = data.decode("latin-1")
    head, _, body = text.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    first = re.sub(r"^HTTP/1\.\d", "HTTP/1.x", first).rstrip()
    own = "<html>" in body
    kept = [line for line in lines if not re.match(r"(?i)(connection|keep-alive|date):", line)]
    kept = [] if own else [":".join([name.lower(), *rest]) for name, *rest in (line.split(":") for line in kept)]
    return "\n".join([first, *kept, "", "(page)" if own else unchunked(head, body)])


def unchunked(head: str, body: str) -> str:
    """A body, with its chunks put together: where they are cut is nobody's business."""
    if not re.search(r"(?i)\r\ntransfer-encoding:.*chunked", head):
        return body
    out, at = "", 0
    while found := re.compile(r"([0-9a-fA-F]+)[ \t]*(;[^\r]*)?\r\n").match(body, at):
        at = found.end() + int(found[1], 16)
        if not int(found[1], 16):
            rest = re.sub(r"(?m)^([^:\r]+):[ \t]*", r"\1: ", body[at:])
            return f"{out}(end){rest}" if re.search(r"(?:^|\r\n)\r\n$", rest) else f"{out}(open)"
        out += body[found.end() : at]
        at += 2
    return f"{out}(open){body[at:]}"


def tidy_request(data: bytes) -> str:
    """A request as the server got it, without Connection, names in lower case."""
    text = data.decode("latin-1")
    head, _, body = text.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    kept = [":".join([name.lower(), *rest]) for name, *rest in (line.split(":") for line in lines)]
    kept = [line for line in kept if not line.startswith(("connection:", "keep-alive:"))]
    return "\n".join([first, *kept, "", unchunked(head, body)])


class Servers:
    """One port of each program's servers; a request is answered by the message of the client's port."""

    def __init__(self) -> None:
        self.messages: dict[int, Message] = {}
        self.outcomes: dict[int, Outcome] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """PROXY line, then requests until the other side ends."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError, asyncio.LimitOverrunError):
            line = await reader.readuntil(b"\r\n")
            port = int(line.split()[4])
            data = b""
            while True:
                taken = whole_request(data)
                if taken:
                    self.outcomes[port].server.append(data[:taken])
                    data = data[taken:]
                    message = self.messages[port]
                    writer.write(message.answer)
                    if message.closes:
                        await asyncio.sleep(0.01)
                        break
                    continue
                try:
                    part = await reader.read(65536)
                except ConnectionError:
                    part = b""
                if not part:
                    if data:
                        self.outcomes[port].server.append(b"(cut)" + data)
                    break
                data += part
        with contextlib.suppress(ConnectionError, OSError):
            writer.close()


def whole_request(data: bytes) -> int:
    """How many bytes the first request in `data` has: 0 when it is not there yet."""
    at = data.find(b"\r\n\r\n")
    if at < 0:
        return 0
    head = data[: at + 2].lower()
    at += 4
    if b"\r\ntransfer-encoding:" in head:
        return _chunks_end(data, at)
    if length := re.search(rb"\r\ncontent-length:\s*(\d+)", head):
        return at + int(length[1]) if len(data) >= at + int(length[1]) else 0
    return at


def _chunks_end(data: bytes, at: int) -> int:
    while True:
        line = data.find(b"\r\n", at)
        if line < 0:
            return 0
        digits = data[at:line].split(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]+", digits):
            return 0
        size = int(digits, 16)
        at = line + 2
        if size == 0:
            while (line := data.find(b"\r\n", at)) != at:
                if line < 0:
                    return 0
                at = line + 2
            return at + 2
        at += size + 2


class Stage:
    """haproxy and haptk on the same file, each with a server of its own."""

    def __init__(self, directory: Path, wait_ms: int = 700) -> None:
        self.programs: list[tuple[Program, dict[str, int], Servers]] = []
        self.wait_ms = wait_ms
        self.directory = directory
        self.loop = asyncio.new_event_loop()
        self.listeners: list[asyncio.Server] = []
        try:
            for kind in ("haproxy", "fast"):
                self._start(kind)
        except BaseException:
            self.stop()
            raise

    def _start(self, kind: str) -> None:
        names = ("plain", "lax", "watched", "prefixed", "rewritten", "server")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        servers = Servers()
        listening = asyncio.start_server(servers.serve, "127.0.0.1", ports["server"], limit=1 << 20)
        self.listeners.append(self.loop.run_until_complete(listening))
        text = CONFIG.format(wait=self.wait_ms, longer=2 * self.wait_ms, idle=self.wait_ms // 2, **ports)
        addresses = [("127.0.0.1", ports[name]) for name in names[:-1]]
        self.programs.append((start(kind, text, self.directory, addresses), ports, servers))

    def stop(self) -> None:
        """End the programs and the servers."""
        for listener in self.listeners:
            listener.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        for program, _, _ in self.programs:
            program.stop()
        self.loop.run_until_complete(asyncio.sleep(0.05))
        self.loop.close()

    def play(self, messages: list[Message], at_once: int = 48) -> list[tuple[Outcome, Outcome]]:
        """Each message through both programs."""
        return self.loop.run_until_complete(self._play(messages, at_once))

    async def _play(self, messages: list[Message], at_once: int) -> list[tuple[Outcome, Outcome]]:
        gate = asyncio.Semaphore(at_once)

        async def both(message: Message) -> tuple[Outcome, Outcome]:
            async with gate:
                one, two = await asyncio.gather(self._one(0, message), self._one(1, message))
            return one, two

        found = await asyncio.gather(*(both(message) for message in messages))
        await asyncio.sleep(0.3)
        for index in (0, 1):
            self._take_logs(index)
        return list(found)

    def _take_logs(self, index: int) -> None:
        program, _, servers = self.programs[index]
        with program.log.changed:
            for lines in program.log.lines.values():
                for line in lines:
                    if found := re.search(r"case:(\d+)\|", line):
                        outcome = servers.outcomes.get(int(found[1]))
                        if outcome is not None:
                            outcome.log.append(line)
            program.log.lines.clear()

    async def _one(self, index: int, message: Message) -> Outcome:
        _, ports, servers = self.programs[index]
        outcome = Outcome()
        channel = socket.socket()
        channel.setblocking(False)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            channel.bind(("127.0.0.1", 0))
            port = channel.getsockname()[1]
            if port not in servers.outcomes:
                break
            channel.close()
            channel = socket.socket()
            channel.setblocking(False)
        servers.messages[port], servers.outcomes[port] = message, outcome
        with channel:
            try:
                await self.loop.sock_connect(channel, ("127.0.0.1", ports[message.section]))
                await self._talk(channel, message, outcome)
            except ConnectionError:
                outcome.closed = True
        return outcome

    async def _talk(self, channel: socket.socket, message: Message, outcome: Outcome) -> None:
        pieces = [message.request]
        if message.piecewise:
            pieces = [message.request[at : at + 1] for at in range(len(message.request))]
        for piece in pieces:
            await self.loop.sock_sendall(channel, piece)
            if message.piecewise:
                await asyncio.sleep(0)
        while True:
            data = await asyncio.wait_for(self.loop.sock_recv(channel, 65536), 8)
            if not data:
                outcome.closed = True
                return
            outcome.client += data
