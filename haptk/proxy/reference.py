"""The slow proxy: one blocking thread per client, readable from top to bottom, over the same tables as the compiled one.

It is the oracle that the compiled path is compared with, what runs under HAPTK_NO_FAST=1 or without a compiler, and
what serves a configuration that needs rules or tables which the compiled path does not have. `Image` and `DataWorker`
have the shape of the compiled classes, so that an Engine takes either.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from haptk.io import clock
from haptk.proxy import reference_census
from haptk.proxy.faults import Fault, Faults
from haptk.proxy.glance import Glance
from haptk.proxy.listeners import Opened
from haptk.proxy.logsink import LogSink
from haptk.proxy.reference_route import Farm, Seat
from haptk.proxy.reference_table import Table
from haptk.proxy.reference_tally import Meters
from haptk.proxy.service import Answer, Ask
from haptk.proxy.sticktables import Stores, stores_for
from haptk.proxy.tables import Frontend, ProxyTables, StickTable
from haptk.proxy.tally import Tally

HELD_S = 0.02  # between two looks whether a full frontend has room again
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
        self.door = Door(tables)
        self.workers: list[DataWorker] = []
        self.answer: Callable[[Ask], Answer] | None = None  # the control plane; set by the engine
        doors = [len(one.binds) if one.socket_stats else 0 for one in tables.frontends]
        self.meters = Meters(len(tables.frontends), len(self.farms), len(self.seats), doors)
        self.faulty = Faults(tables.process.bufsize)
        watched = any(seat.server.observe and seat.server.check for seat in self.seats)
        self.alarm = os.eventfd(0, os.EFD_CLOEXEC) if watched else -1
        self.sinks = [LogSink(frontend.log) for frontend in tables.frontends]

    def __del__(self) -> None:
        if getattr(self, "alarm", -1) >= 0:
            os.close(self.alarm)

    @staticmethod
    def make_store(table: StickTable) -> Table:
        """An empty table."""
        return Table(table.name, table.type, table.length, table.size, table.expire_s, table.nopurge, table.stored)

    def faults(self) -> tuple[int, list[Fault]]:
        """How many invalid messages were seen, and the last ones."""
        return self.faulty.all()

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

    def set_ease(self, gid: int, percent: int) -> None:
        """The share of its maxconn that a server may use under slowstart."""
        farm = self.homes[gid]
        with farm.changed:
            self.seats[gid].eased = percent
            farm.changed.notify_all()

    def set_fuse(self, gid: int, trips: int) -> None:
        """How many more times its error-limit takes a server down."""
        self.seats[gid].fuse = trips

    def trip(self, seat: Seat) -> None:
        """Live traffic reached the error-limit of a server."""
        farm = self.homes[self.gids[id(seat)]]
        with farm.changed:
            seat.observed, seat.tripped = 0, seat.tripped + 1
            if seat.fuse > 0:
                seat.fuse -= 1
                if seat.fuse == 0 and seat.usable:
                    seat.state = "DOWN"
        os.eventfd_write(self.alarm, 1)

    def tripped(self, gid: int) -> int:
        """How often live traffic reached the server's error-limit (`observe`)."""
        return self.seats[gid].tripped

    def set_address(self, gid: int, host: str, port: int, _mapped: bool = False) -> None:
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
        """The most connections of a frontend, 0 for no limit."""
        self.door.maxconn[index] = count

    def set_limit(self, count: int) -> None:
        """The most connections of all frontends together, 0 for no limit."""
        self.door.limit = count

    def set_rates(self, connections: int, sessions: int) -> None:
        """The most connections and sessions a second, 0 for no limit; here both are the same."""
        self.door.rate = min((rate for rate in (connections, sessions) if rate), default=0)

    def end_sessions(self, gid: int) -> None:
        """End all sessions of a server."""
        for worker in self.workers:
            reference_census.of_server(worker, gid)

    def pause_frontend(self, index: int, paused: bool) -> None:
        """A frontend accepts nothing, or again; the workers look when they are woken."""
        if paused:
            self.paused.add(index)
        else:
            self.paused.discard(index)

    def tallies(self) -> tuple[list[Tally], ...]:
        """What frontends, backends and servers did."""
        return self.meters.tallies()


class Door:
    """Who may come in: limits of one frontend, of all together, and of newcomers within the last second."""

    def __init__(self, tables: ProxyTables) -> None:
        self.lock = threading.Lock()
        self.maxconn = [one.maxconn or tables.process.maxconn for one in tables.frontends]
        self.limit = tables.process.maxconn
        self.rate = min((one for one in (tables.process.maxconnrate, tables.process.maxsessrate) if one), default=0)
        self.inside = [0] * len(tables.frontends)
        self.recent: deque[float] = deque()

    def closed(self, frontend: int) -> bool:
        """True when nobody may come in now."""
        with self.lock:
            now = clock.monotonic()
            while self.recent and self.recent[0] <= now - 1.0:
                self.recent.popleft()
            full = 0 < self.maxconn[frontend] <= self.inside[frontend]
            return full or 0 < self.limit <= sum(self.inside) or 0 < self.rate <= len(self.recent)

    def enter(self, frontend: int) -> None:
        with self.lock:
            self.inside[frontend] += 1
            if self.rate:
                self.recent.append(clock.monotonic())

    def leave(self, frontend: int) -> None:
        with self.lock:
            self.inside[frontend] -= 1


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
        image.workers.append(self)
        self._seen: list[Glance] = []
        self._held = False
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
                for key, _ in selector.select(HELD_S if self._held else None):
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
        """Watch the sockets of the frontends that are not paused and not full."""
        watched = selector.get_map()
        self._held = False
        for opened in self.listeners:
            held = self.shared.image.door.closed(opened.frontend)
            self._held = self._held or held
            paused = held or opened.frontend in self.shared.image.paused
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
        while not self.shared.image.door.closed(frontend):  # the rest waits in the kernel's queue, as with HAProxy
            try:
                channel, _ = sock.accept()
            except OSError:
                return
            self.shared.image.door.enter(frontend)
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
            self.shared.image.door.leave(frontend)
            if self._held:
                self.wake()

    def stop(self, now: bool = False) -> None:
        """Stop accepting; `now` also cuts the open connections."""
        self.shared.stopping = True
        with self.shared.lock:
            open_now = list(self.shared.sessions)
        for session in open_now:
            session.stop(now=now)
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def look(self, wanted: int = 0, names: bool = False, end: bool = False) -> bool:
        """Who is connected; `seen` has the list."""
        del names
        self._seen = reference_census.look(self, wanted, end=end)
        return True

    def seen(self) -> list[Glance]:
        """What `look` found."""
        return self._seen

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
