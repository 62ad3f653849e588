"""The network's view of who holds which address: a long poll on the cloud's ledger, and what it told us until now.

The cloud may be slow, killed or restarted: the last view stays valid, as routes in a network do when the control plane
is away, and the poll is tried again every RETRY_S.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from haptk.io import clock
from haptk.lab import token
from haptk.lab.httpwire import Message, WireError, read_response

POLL_MS = 20_000
RETRY_S = 0.1
VIEWS_MAX = 512
HISTORY_MAX = 10_000
Row = dict[str, Any]


class Feed:
    """Rows by public address; `subscribe` is called after each change, in the loop's thread.

    `at(when_s)` is the view as it was at that CLOCK_MONOTONIC second, which a lagging metadata service shows.
    """

    def __init__(self, cloud_url: str) -> None:
        parts = urlsplit(cloud_url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._token = token.current()
        self.version = 0
        self.rows: dict[str, Row] = {}
        self.history: deque[Row] = deque(maxlen=HISTORY_MAX)
        self.error: str | None = None
        self.known = asyncio.Event()
        self._views: deque[tuple[float, dict[str, Row]]] = deque(maxlen=VIEWS_MAX)
        self._subscribers: list[Callable[[], None]] = []

    def subscribe(self, changed: Callable[[], None]) -> None:
        self._subscribers.append(changed)

    def holder(self, public_ip: str) -> Row | None:
        """The row of an address that somebody holds; None when nobody does or it does not exist."""
        row = self.rows.get(public_ip)
        return row if row is not None and row["association_id"] else None

    def at(self, when_s: float) -> dict[str, Row]:
        """The rows as of then; before the first answer there were none."""
        for since_s, rows in reversed(self._views):
            if since_s <= when_s:
                return rows
        return {}

    async def run(self) -> None:
        """Poll for ever; `known` is set after the first answer."""
        while True:
            try:
                await self._poll_connection()
            except (OSError, WireError, ValueError, KeyError, TimeoutError) as error:
                self.error = f"{self._host}:{self._port}: {error or type(error).__name__}"
                await asyncio.sleep(RETRY_S)

    async def _poll_connection(self) -> None:
        """One connection, used as long as the cloud keeps it (it answers one request on each today)."""
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=64 * 1024 * 1024)
        try:
            while True:
                target = f"/_lab/associations?after={self.version}&timeout_ms={POLL_MS}"
                head = [("Host", f"{self._host}:{self._port}"), (token.HEADER, self._token)]
                writer.write(Message(("GET", target, "HTTP/1.1"), head).encode(connection="keep-alive"))
                async with asyncio.timeout(POLL_MS / 1000 + 10):
                    answer = await read_response(reader, "GET")
                if answer.start[1] != "200":
                    raise WireError(f"the ledger answered {answer.start[1]}")
                self._take(json.loads(answer.body))
                if "close" in answer.header("connection").lower():
                    return
        finally:
            writer.close()

    def _take(self, state: dict[str, Any]) -> None:
        self.error = None
        if state["version"] < self.version:  # the cloud was started anew: its history begins again
            self.history.clear()
        changed = state["version"] != self.version
        self.version = state["version"]
        if changed:
            self.rows = {row["public_ip"]: row for row in state["addresses"]}
            self.history.extend(state["history"])
            self._views.append((clock.monotonic(), self.rows))
            for subscriber in self._subscribers:
                subscriber()
        self.known.set()
