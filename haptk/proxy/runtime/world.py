"""What the runtime commands see and change: one running engine, its proxies numbered as HAProxy numbers them, its servers.

Numbers (`iid`) follow the file: 1 is the stats socket's own proxy, then every frontend, listen and backend in order.
Reading is a snapshot: counters of running workers may be some requests apart. Changes go to the health runner, which
owns the state and the weight of every server.
"""

from __future__ import annotations

import functools
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from haptk.core.health import State
from haptk.io import clock
from haptk.proxy import weights
from haptk.proxy.adjust import Adjustments
from haptk.proxy.glance import Glance
from haptk.proxy.health import Checked, HealthRunner
from haptk.proxy.sticktables import Stores, appsession_name
from haptk.proxy.tables import Backend, Bind, Frontend, ProxyTables, Server
from haptk.proxy.tally import Tallies

if TYPE_CHECKING:
    from haptk.proxy.peering import Peering


class Image(Protocol):
    """The part of the data plane's image that is looked at."""

    def server(self, gid: int) -> Mapping[str, Any]:
        """Counters of one server by its index over all backends."""


class Engine(Protocol):
    """The part of an engine that is looked at."""

    tables: ProxyTables
    health: HealthRunner
    image: Any

    stores: Stores
    adjust: Adjustments
    journal: Any

    def counters(self) -> dict[str, Any]:
        """Sums over the workers."""

    def tallies(self) -> Tallies:
        """What frontends, backends and servers did."""

    def sessions(self, wanted: int = 0, *, names: bool = False, end: bool = False) -> list[Glance]:
        """Who is connected."""

    def add_server(self, backend: int, server: Server, *, enabled: bool = False) -> Checked:
        """Another server of a backend."""

    def remove_server(self, one: Checked) -> bool:
        """A server is no more."""

    def activity(self) -> list[dict[str, Any]]:
        """The counters of each worker."""


class Unknown(Exception):
    """The sentence to answer: there is no such backend, server or proxy."""


@dataclass
class Proxy:
    """A `frontend`, a `backend`, or both halves of a `listen`."""

    iid: int
    name: str
    frontend: Frontend | None = None
    backend: Backend | None = None
    servers: list[Checked] = field(default_factory=list)


@dataclass(frozen=True)
class Began:
    """When the process started, on both clocks."""

    monotonic: float
    wall: float

    @classmethod
    def now(cls) -> Began:
        return cls(clock.monotonic(), clock.wall())


@dataclass(frozen=True)
class Visitor:
    """A client of the runtime API: `since` is a time of the monotonic clock."""

    id: int
    fd: int
    since: float


class World:
    """One engine as the commands see it."""

    def __init__(
        self,
        engine: Engine,
        began: Began,
        *,
        stopping: bool = False,
        sockets: Sequence[Bind] = (),
        listeners: int = 0,
        reload: Callable[[], str] | None = None,
        visitors: Sequence[Visitor] = (),
        peerings: Sequence[Peering] = (),
    ) -> None:
        self.engine = engine
        self.tables = engine.tables
        self.health = engine.health
        self.stores = engine.stores
        self.adjust = engine.adjust
        self.began = began
        self.stopping = stopping
        self.sockets = sockets
        self.listeners = listeners
        self.reload = reload
        self.visitors = visitors
        self.peerings = peerings
        self.proxies = number(engine.tables, engine.health.servers)

    # -- finding

    def backend(self, name: str) -> Proxy:
        """A backend by its name, or `#` and its number; raises Unknown."""
        for proxy in self.proxies:
            if proxy.backend is not None and name in (proxy.name, f"#{proxy.iid}"):
                return proxy
        raise Unknown("Can't find backend.\n")

    def server(self, text: str) -> tuple[Proxy, Checked]:
        """`backend/server`; raises Unknown."""
        backend, slash, name = text.partition("/")
        if not slash or not name or not backend:
            raise Unknown("Require 'backend/server'.\n")
        try:
            proxy = self.backend(backend)
        except Unknown:
            raise Unknown("No such backend.\n") from None
        for one in proxy.servers:
            if name in (one.server.name, f"#{one.server.id}"):
                return proxy, one
        raise Unknown("No such server.\n")

    # -- reading

    @property
    def sticky(self) -> frozenset[str]:
        """The names of the tables whose entries have servers: those that a rule uses."""
        named = {rule.table for backend in self.tables.backends for rule in backend.sticks}
        return frozenset(named | {appsession_name(one) for one in self.tables.backends if one.appsession is not None})

    def counters(self) -> dict[str, Any]:
        """Sums over the workers."""
        return self.engine.counters()

    def sessions(self, wanted: int = 0, *, names: bool = False, end: bool = False) -> list[Glance]:
        """Who is connected now; or only the session with the id `wanted`, which may be ended. Waits for the workers."""
        return self.engine.sessions(wanted, names=names, end=end)

    def wall(self) -> float:
        """Unix time."""
        return clock.wall()

    @functools.cached_property
    def now(self) -> float:
        """One moment of the monotonic clock for all ages."""
        return clock.monotonic()

    @functools.cached_property
    def tallies(self) -> Tallies:
        """What frontends, backends and servers did, read once."""
        return self.engine.tallies()

    def frontend_status(self, frontend: Frontend) -> str:
        """`OPEN`; `STOP` for one that does not accept any more, `PAUSED` for one that may again."""
        index = self.adjust.index_of(frontend)
        if frontend.disabled or self.stopping or index in self.adjust.stopped:
            return "STOP"
        return "PAUSED" if index in self.adjust.paused else "OPEN"

    def downtime(self, proxy: Proxy) -> tuple[int, int, int]:
        """(seconds since the last change, number of times that it went down, seconds down in all) of a backend."""
        found = self.health.standing(proxy.name)
        age_s = self.age_s(found.since)
        return age_s, found.downs, int(found.down_s) + (0 if found.up else age_s)

    def state(self, one: Checked) -> State:
        """The state that the workers act on."""
        return self.health.state(one)

    def maxconn(self) -> int:
        """The most client connections: as set or configured, or what the descriptors allow, two for each session."""
        return self.adjust.global_maxconn or self.hard_maxconn()

    def hard_maxconn(self) -> int:
        """The limit that cannot be raised while it runs."""
        return self.tables.process.maxconn or max(1, descriptors() // 2)

    def frontend_maxconn(self, frontend: Frontend) -> int:
        changed = self.adjust.frontend_maxconn.get(self.adjust.index_of(frontend))
        return (frontend.maxconn or self.hard_maxconn()) if changed is None else changed

    def idle_per_worker(self, gid: int) -> list[int]:
        """Idle connections to one server, worker by worker."""
        return [worker.idle(gid) if hasattr(worker, "idle") else 0 for worker in self.adjust.workers]

    def fullconn(self, backend: Backend) -> int:
        """As configured, else a tenth of what may come from the frontends that lead there, rounded up."""
        if backend.fullconn:
            return backend.fullconn
        index = self.tables.backends.index(backend)
        leading = [one for one in self.tables.frontends if leads_to(one, index)]
        return (sum(self.frontend_maxconn(one) for one in leading) + 9) // 10

    def pid(self) -> int:
        return os.getpid()

    def uptime_s(self, *, exact: bool = False) -> float:
        """Seconds since the start, whole ones unless `exact`."""
        seconds = clock.monotonic() - self.began.monotonic
        return seconds if exact else int(seconds)

    def age_s(self, since: float) -> int:
        """Whole seconds since a time of the monotonic clock."""
        return max(0, int(self.now - since))

    # -- changing

    def set_weight(self, proxy: Proxy, one: Checked, text: str) -> str:
        """`set weight`: an absolute weight or a share of the configured one; the answer is empty or HAProxy's sentence."""
        value = weights.asked(proxy.backend, one.server, text)
        if isinstance(value, str):
            return value
        self.health.set_weight(one.gid, value)
        return ""


def leads_to(frontend: Frontend, index: int) -> bool:
    """Whether requests of `frontend` may go to the backend with that index."""
    return frontend.default_backend == index or any(rule.target == index for rule in frontend.rules)


def descriptors() -> int:
    """How many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def number(tables: ProxyTables, servers: Sequence[Checked]) -> list[Proxy]:
    """All proxies in the order of the file, with their numbers and servers."""
    found: list[tuple[tuple[int, int], Proxy]] = []
    files: list[str] = []

    def place(where: str) -> tuple[int, int]:
        file, _, line = where.rpartition(":")
        if file not in files:
            files.append(file)
        return files.index(file), int(line) if line.isdecimal() else 0

    halves: dict[tuple[str, str], Proxy] = {}
    added = [one for one in servers if one.dynamic and not one.gone]
    for frontend in tables.frontends:
        proxy = Proxy(0, frontend.name, frontend)
        found.append((place(frontend.where), proxy))
        if frontend.is_listen:
            halves[frontend.name, frontend.where] = proxy
    first = 0
    for backend in tables.backends:
        half = halves.get((backend.name, backend.where))
        if half is None:
            half = Proxy(0, backend.name)
            found.append((place(backend.where), half))
        half.backend = backend
        half.servers = [one for one in servers[first : first + len(backend.servers)] if not one.gone]
        half.servers += [one for one in added if one.name.rpartition("/")[0] == backend.name]
        first += len(backend.servers)
    found.sort(key=lambda entry: entry[0])
    for iid, (_, proxy) in enumerate(found, 2):
        proxy.iid = iid
    return [proxy for _, proxy in found]
