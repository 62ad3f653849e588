"""Clients that keep their cookies: many sessions through the Elastic IP, every request logged.

Each session asks over its own keep-alive connection every `interval_s`, staggered, and retries after `retry_s` with a
new connection when a request fails. The log is JSON lines: {session, start, end, outcome, server, app_session, known,
status}; times are CLOCK_MONOTONIC seconds, comparable with every other clock of the lab. `outcome` is ok, refused,
reset, timeout, closed or http_<status>.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from haptk.io import clock
from haptk.io.process import die_with_parent

_SET_COOKIE = re.compile(rb"(?im)^set-cookie:[ \t]*([^=;\s]+)=([^;\r\n]*)")
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d+)")
_CLOSE = re.compile(rb"(?im)^connection:[ \t]*close")


@dataclass(frozen=True)
class LoadPlan:
    """What the clients do; all times in seconds."""

    host: str
    port: int
    sessions: int
    interval_s: float
    timeout_s: float
    retry_s: float


@dataclass
class Client:
    """One browser: its cookies and its connection."""

    number: int
    cookies: dict[str, str] = field(default_factory=dict)
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    def drop(self) -> None:
        """Forget the connection; a black-holed one must not linger."""
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None


async def _ask(client: Client, plan: LoadPlan) -> dict[str, Any]:
    if client.writer is None or client.reader is None:
        client.reader, client.writer = await asyncio.open_connection(plan.host, plan.port)
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    header = f"Cookie: {cookie}\r\n" if cookie else ""
    client.writer.write(f"GET /shop HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\n{header}\r\n".encode("latin-1"))
    await client.writer.drain()
    head = await client.reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    body = await client.reader.readexactly(int(length.group(1))) if length else await client.reader.read()
    for name, value in _SET_COOKIE.findall(head):
        client.cookies[name.decode("latin-1")] = value.decode("latin-1")
    if _CLOSE.search(head) or not length:
        client.drop()
    status = int(head[9:12])
    if status != 200:
        return {"outcome": f"http_{status}", "status": status}
    answer = json.loads(body)
    return {
        "outcome": "ok",
        "status": status,
        "server": answer["server"],
        "app_session": answer["session"],
        "known": answer["known"],
    }


async def _request(client: Client, plan: LoadPlan) -> dict[str, Any]:
    """One request with the client's patience; never raises for what a network can do."""
    try:
        async with asyncio.timeout(plan.timeout_s):
            return await _ask(client, plan)
    except TimeoutError:
        outcome = "timeout"
    except ConnectionRefusedError:
        outcome = "refused"
    except (ConnectionError, OSError):
        outcome = "reset"
    except (asyncio.IncompleteReadError, ValueError):
        outcome = "closed"
    client.drop()
    return {"outcome": outcome}


async def _session(client: Client, plan: LoadPlan, log: IO[str], stop: asyncio.Event) -> None:
    await asyncio.sleep(plan.interval_s * client.number / plan.sessions)
    while not stop.is_set():
        reused = client.writer is not None
        start = clock.monotonic()
        answer = await _request(client, plan)
        if reused and answer["outcome"] in ("closed", "reset") and clock.monotonic() - start < plan.retry_s:
            # The proxy closed an idle keep-alive connection as our request left; browsers ask again at once
            # (RFC 9112 9.3.1), and so does this client, counting both as one request.
            answer = await _request(client, plan)
        end = clock.monotonic()
        line = {"session": client.number, "start": round(start, 6), "end": round(end, 6), **answer}
        log.write(json.dumps(line) + "\n")
        wait = plan.interval_s - (end - start) if answer["outcome"] == "ok" else plan.retry_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), max(wait, 0.001))
    client.drop()


async def run(plan: LoadPlan, path: Path) -> None:
    """Run all sessions until SIGTERM or SIGINT, logging to `path` (line buffered: a reader may follow)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with path.open("w", buffering=1) as log:
        clients = [Client(number) for number in range(plan.sessions)]
        await asyncio.gather(*(_session(client, plan, log, stop) for client in clients))


def main() -> None:
    parser = argparse.ArgumentParser(prog="haptk.lab.load", description=__doc__)
    parser.add_argument("--target", required=True, metavar="HOST:PORT")
    parser.add_argument("--log", required=True, type=Path)
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--interval-s", type=float, default=0.2)
    parser.add_argument("--timeout-s", type=float, default=0.5)
    parser.add_argument("--retry-s", type=float, default=0.05)
    parser.add_argument("--die-with-parent", action="store_true")
    options = parser.parse_args()
    if options.die_with_parent:
        die_with_parent()
    host, _, port = options.target.rpartition(":")
    plan = LoadPlan(host, int(port), options.sessions, options.interval_s, options.timeout_s, options.retry_s)
    asyncio.run(run(plan, options.log))


if __name__ == "__main__":
    main()
