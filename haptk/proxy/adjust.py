"""What an administrator changes while a configuration runs: limits of connections, and frontends that stop accepting.

The changes live as long as the configuration: a reload begins with what the file says, as a new HAProxy process does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haptk.io import clock
from haptk.proxy.listeners import Listeners
from haptk.proxy.tables import Frontend, ProxyTables


class Adjustments:
    """Tells the data plane (`image`, `workers`) and remembers for those who ask. From any thread."""

    def __init__(self, tables: ProxyTables, image: Any, workers: Sequence[Any], listeners: Listeners) -> None:
        self.tables = tables
        self.image = image
        self.workers = workers
        self.listeners = listeners
        self.global_maxconn = 0  # 0: as configured
        self.rates = (tables.process.maxconnrate, tables.process.maxsessrate)
        if any(self.rates):
            image.set_rates(*self.rates)
        self.frontend_maxconn: dict[int, int] = {}
        self.server_maxconn: dict[int, int] = {}
        self.paused: set[int] = set()
        self.stopped: set[int] = set()

    def limit_all(self, count: int) -> None:
        """The most connections of all frontends together; 0 goes back to the file's."""
        self.global_maxconn = count
        self.image.set_limit(count or self.tables.process.maxconn)
        self._wake()

    def limit_rates(self, connections: int, sessions: int) -> None:
        """The most connections and sessions a second of all frontends together; 0 for no limit."""
        self.rates = (connections, sessions)
        self.image.set_rates(connections, sessions)
        self._wake()

    def limit_frontend(self, index: int, count: int) -> None:
        """The most connections of one frontend; 0 means none, as in HAProxy."""
        self.frontend_maxconn[index] = count
        self.image.set_frontend_maxconn(index, count or -1)
        self._wake()

    def limit_server(self, gid: int, count: int) -> None:
        """The most requests at once to one server; 0 for no limit."""
        self.server_maxconn[gid] = count
        self.image.set_server_maxconn(gid, count)
        self._wake()

    def pause(self, index: int, *, paused: bool) -> None:
        """Refuse new connections to one frontend, or accept them again; those that are open go on."""
        frontend = self.tables.frontends[index]
        if paused:
            self.paused.add(index)
            self.image.pause_frontend(index, True)
            self._wake()
            self.listeners.pause(frontend)
            return
        self.paused.discard(index)
        self.listeners.resume(frontend)
        self.image.pause_frontend(index, False)
        self._wake()

    def shut(self, index: int) -> None:
        """Stop one frontend for the rest of this configuration's life."""
        self.pause(index, paused=True)
        self.stopped.add(index)

    def clear(self, *, everything: bool) -> None:
        """`clear counters [all]`; returns when the workers have done it, or after a moment without an answer."""
        if hasattr(self.image, "meters"):
            self.image.meters.clear(everything=everything)
            return
        for worker in self.workers:
            worker.clear(everything)
        deadline = clock.monotonic() + 1.0
        while not all(worker.cleared for worker in self.workers) and clock.monotonic() < deadline:
            clock.sleep(0.001)

    def index_of(self, frontend: Frontend) -> int:
        """Its index in the tables."""
        return next(index for index, one in enumerate(self.tables.frontends) if one is frontend)

    def _wake(self) -> None:
        for worker in self.workers:
            worker.wake()
