"""An application server as the lab needs one: it keeps sessions in its memory and says who it is.

Every answer is a JSON object {server, session, hits, known}. A request without a session this process knows gets a new
one by `Set-Cookie: JSESSIONID=...; Path=/; HttpOnly`; `known` is false then, which is how a client sees that its
session was lost. `GET|HEAD /index.html` answers 200 without a session, for health checks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import secrets
import signal

from haptk.io.process import die_with_parent

HEAD_LIMIT_BYTES = 65536
_COOKIE = re.compile(rb"(?im)^cookie:[^\r\n]*?\bJSESSIONID=([^;,\s]*)")
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d+)")


class AppServer:
    """The sessions of one process and the HTTP/1.1 that carries them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sessions: dict[str, int] = {}

    def visit(self, cookie: str | None) -> tuple[dict[str, object], bool]:
        """Count a visit; returns the answer and whether the session is new."""
        known = cookie is not None and cookie in self.sessions
        session = cookie if known and cookie is not None else secrets.token_hex(16)
        self.sessions[session] = self.sessions.get(session, 0) + 1
        answer = {"server": self.name, "session": session, "hits": self.sessions[session], "known": known}
        return answer, not known

    def respond(self, head: bytes) -> tuple[bytes, bool]:
        """The response to one request head, and whether the connection stays open."""
        method, _, rest = head.partition(b" ")
        path, _, rest = rest.partition(b" ")
        keep = b"HTTP/1.1" in rest[:9] and not re.search(rb"(?im)^connection:.*\bclose\b", head)
        extra = b""
        if path == b"/index.html":
            body = b"ok\n"
        else:
            found = _COOKIE.search(head)
            answer, new = self.visit(found.group(1).decode("latin-1") if found else None)
            body = json.dumps(answer).encode() + b"\n"
            if new:
                extra = f"Set-Cookie: JSESSIONID={answer['session']}; Path=/; HttpOnly\r\n".encode()
        lines = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%sConnection: %s\r\n\r\n"
            % (len(body), extra, b"keep-alive" if keep else b"close")
        )
        return (lines if method == b"HEAD" else lines + body), keep

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection, requests in order."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            keep = True
            while keep:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                if length:
                    await reader.readexactly(int(length.group(1)))
                answer, keep = self.respond(head)
                writer.write(answer)
                await writer.drain()
        writer.close()


async def run(name: str, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    app = AppServer(name)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await asyncio.start_server(app.serve, host, port, limit=HEAD_LIMIT_BYTES)
    async with server:
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="haptk.lab.appserver", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--die-with-parent", action="store_true")
    options = parser.parse_args()
    if options.die_with_parent:
        die_with_parent()
    host, _, port = options.listen.rpartition(":")
    asyncio.run(run(options.name, host, int(port)))


if __name__ == "__main__":
    main()
