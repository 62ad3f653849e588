"""The slow proxy: one blocking thread per client, readable from top to bottom, over the same tables as the compiled one.

It is the oracle that the compiled path is compared with, what runs under HAPTK_NO_FAST=1 or without a compiler, and
what serves a configuration that needs rules or tables which the compiled path does not have. `Image` and `DataWorker`
have the shape of the compiled classes, so that an Engine takes either.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from haptk.io import clock
from haptk.proxy.listeners import Opened
from haptk.proxy.logsink import LogSink
from haptk.proxy.reference_route import Farm
from haptk.proxy.reference_table import Table
from haptk.proxy.reference_tally import Meters
from haptk.proxy.service import Answer, Ask
from haptk.proxy.sticktables import Stores, stores_for
from haptk.proxy.tables import Frontend, ProxyTables, StickTable
from haptk.proxy.tally import Tally

_STATES = ("UP", "DRAIN", "DOWN", "MAINT")
_COUNTERS = (
    "connections", "requests", "bad_requests", "bad_responses", "retries", "redispatches", "connect_failures",
    "timeouts", "bytes_up", "bytes_down",
)  # fmt: skip


class Image:
    """What all workers share: farms, learned keys and log sinks of one configuration."""

    def __init__(self, tables: ProxyTables, stores: Stores | None = None) -> None:
        self.tables = tables
        self.farms = [Farm(backend, seed=index + 1) for index, backend in enumerate(tables.backends)]
        self.seats = [seat for farm in self.farms for seat in farm.seats]
        self.homes = [farm for farm in self.farms for _ in farm.seats]
        self.server_names = [f"{farm.backend.name}/{seat.server.name}" for farm in self.farms for seat in farm.seats]
        self.stores = stores_for(tables, self.make_store) if stores is None else stores
        self.gids = {id(seat): gid for gid, seat in enumerate(self.seats)}
        self.paused: set[int] = set()
        self.answer: Callable[[Ask], Answer] | None = None  # the control plane; set by the engine
        self.meters = Meters(len(tables.frontends), len(self.farms), len(self.seats))
        self.sinks = [LogSink(frontend.log) for frontend in tables.frontends]

    @staticmethod
    def make_store(table: StickTable) -> Table:
        """An empty table."""
        return Table(table.name, table.type, table.length, table.size, table.expire_s, table.nopurge, table.stored)

    def set_state(self, gid: int, name: str) -> None:
        """One server's state by its index over all backends: UP, DRAIN, DOWN or MAINT."""
        if name not in _STATES:
            raise ValueError(f"{name!r} is no state of a server")
        farm = self.homes[gid]
        with farm.changed:
            self.seats[gid].state = name
            farm.changed.notify_all()

    def set_weight(self, gid: int, weight: int) -> None:
        """The weight that counts now."""
        farm = self.homes[gid]
        with farm.changed:
            self.seats[gid].weight = weight

    def tripped(self, gid: int) -> int:
        """How often live traffic reached the server's error-limit (`observe`)."""
        return self.seats[gid].tripped

    def set_address(self, gid: int, host: str, port: int) -> None:
        """Where a server is from now on."""
        self.seats[gid].place = (host, port)

    def server(self, gid: int) -> dict[str, Any]:
        """State of one server."""
        seat = self.seats[gid]
        return {"name": self.server_names[gid], "state": seat.state, "sessions": seat.sessions}

    def set_server_maxconn(self, gid: int, count: int) -> None:
        """The most requests at once to one server; 0 for no limit."""
        farm = self.homes[gid]
        with farm.changed:
            self.seats[gid].maxconn = count
            farm.changed.notify_all()

    def set_frontend_maxconn(self, index: int, count: int) -> None:
        """Newcomers beyond it are not held back on this path, whatever the number."""

    def pause_frontend(self, index: int, paused: bool) -> None:
        """A frontend accepts nothing, or again; the workers look when they are woken."""
        if paused:
            self.paused.add(index)
        else:
            self.paused.discard(index)

    def tallies(self) -> tuple[list[Tally], list[Tally], list[Tally]]:
        """What frontends, backends and servers did."""
        return self.meters.tallies()


@dataclass
class Shared:
    """What the sessions of one worker share."""

    image: Image
    stopping: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTERS, 0))
    responses: list[int] = field(default_factory=lambda: [0] * 6)
    sessions: set[Any] = field(default_factory=set)
    fronts: dict[int, int] = field(default_factory=dict)
    number: int = 0

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        with self.lock:
            self.counters[name] += by


class DataWorker:
    """Accepts on the sockets of proxy.listeners and gives each client a thread."""

    def __init__(self, image: Image, listeners: list[Opened], index: int = 0, seed: int = 1) -> None:
        del seed
        self.index = index
        self.shared = Shared(image)
        self.listeners = listeners
        self.listening = True
        self._ours, self._wake = socket.socketpair()
        for opened in listeners:
            opened.socket.setblocking(False)

    def run(self) -> None:
        """Serve until stopped, and after a graceful stop until the last client has gone."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._ours, selectors.EVENT_READ, None)
            self._heed_pauses(selector)
            while not self.shared.stopping:
                for key, _ in selector.select():
                    if key.data is None:
                        self._ours.recv(4096)
                    elif key.data.frontend not in self.shared.image.paused:
                        self._accept(key.fileobj, key.data)
                self._heed_pauses(selector)
        # The sockets belong to proxy.listeners: after a reload the next configuration accepts on them.
        self.listening = False
        while self.shared.sessions:
            clock.sleep(0.02)

    def _heed_pauses(self, selector: selectors.BaseSelector) -> None:
        """Watch the sockets of the frontends that are not paused."""
        watched = selector.get_map()
        for opened in self.listeners:
            paused = opened.frontend in self.shared.image.paused
            if paused and opened.socket in watched:
                selector.unregister(opened.socket)
            elif not paused and opened.socket not in watched:
                selector.register(opened.socket, selectors.EVENT_READ, opened)

    def wake(self) -> None:
        """Have it look at what the control plane changed."""
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def _accept(self, sock: Any, opened: Opened) -> None:
        from haptk.proxy.reference_session import Session

        frontend = opened.frontend
        while True:
            try:
                channel, _ = sock.accept()
            except OSError:
                return
            limit = self.shared.image.tables.frontends[frontend].maxconn
            if limit and self.shared.fronts.get(frontend, 0) >= limit:
                # Left in the kernel's queue by HAProxy; here the newcomer waits in its own thread.
                pass
            session = Session(self.shared, channel, opened)
            with self.shared.lock:
                self.shared.sessions.add(session)
                self.shared.fronts[frontend] = self.shared.fronts.get(frontend, 0) + 1
            threading.Thread(target=self._serve, args=(session, frontend), daemon=True).start()

    def _serve(self, session: Any, frontend: int) -> None:
        try:
            session.run()
        finally:
            with self.shared.lock:
                self.shared.sessions.discard(session)
                self.shared.fronts[frontend] -= 1

    def stop(self, now: bool = False) -> None:
        """Stop accepting; `now` also cuts the open connections."""
        self.shared.stopping = True
        with self.shared.lock:
            open_now = list(self.shared.sessions)
        for session in open_now:
            session.stop(now=now)
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def counters(self) -> dict[str, Any]:
        """This worker's counters."""
        with self.shared.lock:
            return {
                **self.shared.counters,
                "responses": list(self.shared.responses),
                "sessions": len(self.shared.sessions),
                "server_links": 0,
                "idle_links": 0,
            }


def frontend_of(image: Image, index: int) -> Frontend:
    """The frontend of a listener."""
    return image.tables.frontends[index]
