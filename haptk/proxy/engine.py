"""One running configuration: its C image, its workers and their threads, and the health checks that steer them.

An engine never changes its tables. A reload starts a second one on the same listening sockets and lets the first one
finish its connections.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from haptk.io import clock
from haptk.proxy.adjust import Adjustments
from haptk.proxy.compile_servers import dynamic_cookie
from haptk.proxy.glance import Glance
from haptk.proxy.health import Checked, HealthRunner
from haptk.proxy.herald import Herald
from haptk.proxy.journal import Journal
from haptk.proxy.listeners import Listeners
from haptk.proxy.names import NameWatch
from haptk.proxy.runtime.world import Began, World
from haptk.proxy.service import Answer, Ask, Desk
from haptk.proxy.sticktables import Stores, settle, stores_for
from haptk.proxy.tables import Backend, Frontend, ProxyTables, Server
from haptk.proxy.tally import Tallies, Tally
from haptk.proxy.whereabouts import Whereabouts

CENSUS_S = 2.0  # for all workers to say who is connected
IDLE_GONE_S = 0.5  # how long `del server` waits for idle connections to be closed
log = logging.getLogger("haptk.proxy")


def data_plane(tables: ProxyTables) -> tuple[type[Any], type[Any]]:
    """The classes (Image, DataWorker) to run on: the compiled ones, or the reference under HAPTK_NO_FAST=1.

    The reference also serves, with a warning, where the extensions are missing: slow is better than down. Whatever a
    file may say, both paths carry it out.
    """
    from haptk.proxy import reference

    if os.environ.get("HAPTK_NO_FAST") == "1":
        return reference.Image, reference.DataWorker
    try:
        from haptk._fast.conf import Image
        from haptk._fast.regex import available
        from haptk._fast.worker import DataWorker
    except ImportError as error:
        log.warning("the compiled data path is missing (%s); the slow reference serves instead", error)
        return reference.Image, reference.DataWorker
    both: tuple[Frontend | Backend, ...] = (*tables.frontends, *tables.backends)
    if not available() and any(one.rules for one in both):
        log.warning(
            "libpcre2-8 is missing: regular expressions are asked of Python, slowly and without a limit of steps"
        )
    return Image, DataWorker


def serves(tables: ProxyTables) -> bool:
    """Whether some request is answered by the control plane."""
    both: tuple[Frontend | Backend, ...] = (*tables.frontends, *tables.backends)
    return any(one.stats is not None or any(rule.action == "use-service" for rule in one.rules) for one in both)


def dynamic_keys(tables: ProxyTables) -> Iterator[tuple[int, str]]:
    """The servers whose cookie is computed from their address, and the key of the computation."""
    servers = ((back.cookie, one) for back in tables.backends for one in back.servers)
    for gid, (rule, server) in enumerate(servers):
        if rule is not None and rule.dynamic:
            made = dynamic_cookie(rule.dynamic_key, server.host, server.port) if server.host else None
            if server.cookie == made:
                yield gid, rule.dynamic_key


class Engine:
    """`start` once; then `stop(now)` once; `wait` until the last connection is gone."""

    def __init__(self, tables: ProxyTables, listeners: Listeners, inherit: Engine | None = None) -> None:
        image_type, worker_type = data_plane(tables)
        self.tables = tables
        # learned keys belong to the process: the next configuration goes on with them
        self.stores: Stores = stores_for(tables, image_type.make_store, inherit.stores if inherit else None)
        self.image = image_type(tables, self.stores)
        count = max(1, tables.process.nbthread)
        seed = clock.monotonic_usec() & 0xFFFFFFFF
        self.workers = [
            worker_type(self.image, listeners.for_worker(tables.frontends, index, count), index, (seed + index) or 1)
            for index in range(count)
        ]
        self._dynamic_keys = dict(dynamic_keys(tables))
        self.herald: Herald = Herald(tables, self.image.server, inherit.herald if inherit else None)
        self.health: HealthRunner = HealthRunner(
            tables,
            self.image.set_state,
            inherit.health if inherit else None,
            weigh=self.image.set_weight,
            cut=self._cut if hasattr(image_type, "cut_sessions") else None,
            end=self._end,
            limit=self._limit,
            place=self._place,
            tripped=self.image.tripped,
            cause=getattr(self.image, "trip_cause", None),
            forgive=getattr(self.image, "forgive", None),
            herald=self.herald,
            fuse=self.image.set_fuse,
            ease=self.image.set_ease,
            alarm=self.image.alarm,
        )
        self.names = NameWatch(tables, self.health.move)
        self.names.at = lambda gid: self.health.servers[gid].at
        self.health.renamed = self.names.hurry
        self.adjust = Adjustments(tables, self.image, self.workers, listeners)
        # the compiled workers only compose their lines, the reference sends its own
        self.journal = Journal(tables, self.image, self.workers) if hasattr(worker_type, "requests") else None
        self._census = threading.Lock()
        self._adding = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.began = Began.now()
        # a daemon puts its own in, which knows of its sockets and of stopping
        self.look: Callable[[], World] = lambda: World(self, self.began)
        self.desk: Desk | None = None
        if hasattr(worker_type, "requests"):
            self.desk = Desk(self.workers, self._answer)
        else:
            self.image.answer = self._answer

    def _answer(self, ask: Ask) -> Answer:
        """A request that the control plane answers."""
        from haptk.proxy.runtime import web

        return web.answer(self.look, ask)

    def start(self) -> None:
        """Check states first, so that the first request sees them; then the workers."""
        settle(self.tables, self.stores)
        self.health.start()
        self.names.start()
        if self.journal is not None:
            self.journal.start()
        if self.desk is not None and serves(self.tables):
            self.desk.start()
        for index, worker in enumerate(self.workers):
            thread = threading.Thread(target=worker.run, name=f"worker-{index}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def add_server(self, backend: int, server: Server, *, enabled: bool = False) -> Checked:
        """Another server of a backend, in maintenance unless it is `enabled`. Raises ValueError where there is no room."""
        with self._adding:
            gid = self.image.add_server(backend, server)
            one = self.health.adopt(self.tables.backends[backend], server, enabled=enabled)
            if one.gid != gid:
                raise RuntimeError(f"server {gid} was taken for {one.gid}")
            return one

    def remove_server(self, one: Checked) -> bool:
        """A server that is in maintenance is no more; False while requests are there.

        The workers close its idle connections as soon as they hear of the maintenance; that is waited for.
        """
        with self._adding:
            if one.gone:
                return False
            deadline = clock.monotonic() + IDLE_GONE_S
            while not self.image.remove_server(one.gid):
                if self.image.server(one.gid)["sessions"] or clock.monotonic() >= deadline:
                    return False
                for worker in self.workers:
                    worker.wake()
                clock.sleep(0.005)
            self.health.dismiss(one)
            self.names.forget(one.gid)
            return True

    def _cut(self, gid: int) -> None:
        self.image.cut_sessions(gid)
        for worker in self.workers:
            worker.wake()

    def _limit(self, gid: int, count: int) -> None:
        self.adjust.limit_server(gid, count)

    def _place(self, gid: int, at: Whereabouts) -> None:
        """A server has moved; a dynamic cookie says where it is."""
        self.image.set_address(gid, at.host, at.port, at.mapped)
        one = self.health.servers[gid]
        key = self._dynamic_keys.get(gid)
        if key is not None and hasattr(self.image, "set_cookie"):
            self.image.set_cookie(gid, dynamic_cookie(key, one.host, one.port))

    def _end(self, gid: int) -> None:
        self.image.end_sessions(gid)
        for worker in self.workers:
            worker.wake()

    def sessions(self, wanted: int = 0, *, names: bool = False, end: bool = False) -> list[Glance]:
        """Who is connected; or only the session with the id `wanted`, which `end` ends. Waits for the workers."""
        with self._census:
            asked = [worker for worker in self.workers if worker.look(wanted, names, end)]
            deadline = clock.monotonic() + CENSUS_S
            found: list[Glance] = []
            while asked and clock.monotonic() < deadline:
                for worker in list(asked):
                    seen = worker.seen()
                    if seen is not None:
                        asked.remove(worker)
                        found += [Glance(*one) for one in seen]
                if asked:
                    clock.sleep(0.001)
            return found

    def activity(self) -> list[dict[str, Any]]:
        """The counters of each worker."""
        return [worker.counters() for worker in self.workers]

    def stop(self, *, now: bool = False) -> None:
        """Stop listening; `now` also cuts the open connections. May be called a second time to cut."""
        for worker in self.workers:
            worker.stop(now)
        self.health.stop()
        self.names.stop()
        deadline = clock.monotonic() + 2.0
        while any(worker.listening for worker in self.workers) and clock.monotonic() < deadline:
            clock.sleep(0.001)

    def wait(self, timeout_s: float) -> bool:
        """True when all workers have ended within `timeout_s`."""
        deadline = clock.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(deadline - clock.monotonic(), 0.0))
        ended = not any(thread.is_alive() for thread in self._threads)
        if ended and self.journal is not None:
            self.journal.stop()
        if ended and self.desk is not None:
            self.desk.stop()
            self.desk = None
        return ended

    def tallies(self) -> Tallies:
        """What each frontend, backend and server did, summed over the workers."""
        found = self.image.tallies() if hasattr(self.image, "tallies") else self._compiled_tallies()
        return Tallies(*(list(map(Tally._make, part)) for part in found))

    def _compiled_tallies(self) -> tuple[list[tuple[int, ...]], ...]:
        from haptk._fast.worker import tallies

        return tallies(self.workers)

    def counters(self) -> dict[str, Any]:
        """Sums over the workers, and one dict per server."""
        total: dict[str, Any] = {}
        for worker in self.workers:
            for name, value in worker.counters().items():
                if isinstance(value, list):
                    total[name] = [a + b for a, b in zip(total.get(name, [0] * len(value)), value, strict=True)]
                else:
                    total[name] = total.get(name, 0) + value
        if self.journal is not None:
            total["log_dropped"] += self.journal.dropped
        total["servers"] = [self.image.server(gid) for gid in range(len(self.image.server_names))]
        return total
