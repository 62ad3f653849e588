"""Names of servers, looked up again while the proxy runs.

A server whose line names a `resolvers` section is looked up there, by that section's times. Every other server with a name
is looked up with the system's resolver, in a thread of its own, every PERIOD_S; that needs no section.

* The present address is kept as long as the answer has it (and `hold obsolete` longer). Otherwise a server takes an
  address that no other server of its backend with the same name has, else the first one. Open connections stay.
* "No such name" for HOLD_S (`hold nx`) puts the server into maintenance until the name resolves again.
* A resolver that cannot be reached, or refuses, changes nothing: what worked goes on working. HAProxy would take the
  server out after 30 s; here only a `hold timeout|refused|other` that stands in the file does.
* A server that had no address at start (`init-addr none`) is in maintenance from the beginning, and is looked up every
  EAGER_S (`timeout resolve`).

After `chroot` the system's resolver may find neither its configuration nor its hosts file, so there no answer means no
change; a `resolvers` section needs no files.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from haptk.io import clock
from haptk.proxy.tables import ProxyTables, Resolvers, Server

PERIOD_S = 10.0  # HAProxy's `hold valid`
HOLD_S = 30.0  # HAProxy's `hold nx`
EAGER_S = 2.0

# HAProxy's words
REASONS = {
    "nx": "DNS NX status", "timeout": "DNS timeout status", "refused": "DNS refused status", "other": "unspecified DNS error",
}  # fmt: skip

log = logging.getLogger("haptk.proxy")
Move = Callable[[int, str, None, str], None]
Lookup = Callable[[str], list[str] | None]


def look_up(host: str) -> list[str] | None:
    """All addresses of a name; [] when there is no such name, None when nobody could be asked."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return [] if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA) else None
    except (OSError, UnicodeError):
        return None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class Answer:
    """What became of a question: `status` is valid, nx, refused, timeout or other; addresses only with valid."""

    status: str
    addresses: tuple[str, ...] = ()
    by: str = ""  # which name server of which section said so


@dataclass
class Named:
    """One server with a name: where it is now ("" for nowhere), and since when its name fails it, and how."""

    gid: int
    label: str
    backend: int
    host: str
    address: str
    period_s: float
    eager_s: float
    holds: dict[str, float]
    section: Resolvers | None = None
    prefer: str = "ipv6"
    networks: tuple[str, ...] = ()
    shares: bool = False
    failing: str = ""  # nx, timeout, refused, other or obsolete
    since: float = 0.0

    @property
    def question(self) -> tuple[str, str, str, tuple[str, ...]]:
        """Servers with the same one share an answer."""
        return (self.section.name if self.section else "", self.host, self.prefer, self.networks)


class NameWatch:
    """Looks names up and calls `move(gid, address, None, by)` for every change; "" for a server that has lost its name."""

    def __init__(
        self,
        tables: ProxyTables,
        move: Move,
        *,
        lookup: Lookup = look_up,
        period_s: float = PERIOD_S,
        hold_s: float = HOLD_S,
        eager_s: float = EAGER_S,
    ) -> None:
        self.move = move
        self.lookup = lookup
        self.forgives = bool(tables.process.chroot)
        sections = {one.name: one for one in tables.resolvers}
        servers = [(index, back, one) for index, back in enumerate(tables.backends) for one in back.servers]

        def named(gid: int, backend: int, label: str, server: Server) -> Named:
            section = sections.get(server.resolvers)
            if section is None:
                return Named(gid, label, backend, server.hostname, server.host, period_s, eager_s, {"nx": hold_s})
            holds = {"nx": hold_s, **dict(section.holds)}
            return Named(
                gid, label, backend, server.hostname, server.host, section.valid_s, section.resolve_s, holds, section,
                server.resolve_prefer, server.resolve_net, server.allow_dup_ip,
            )  # fmt: skip

        self.named = [
            named(gid, index, f"{back.name}/{server.name}", server)
            for gid, (index, back, server) in enumerate(servers)
            if server.hostname
        ]
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, when some server has a name."""
        if self.named:
            self._thread = threading.Thread(target=self._run, name="names", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; a look-up under way is not waited for."""
        self._stopping.set()

    def _run(self) -> None:
        due = {one.gid: clock.monotonic() + self._wait_s(one) for one in self.named}
        while not self._stopping.wait(max(min(due.values()) - clock.monotonic(), 0.01)):
            now = clock.monotonic()
            ready = [one for one in self.named if due[one.gid] <= now]
            answers = {one.question: self.ask(one) for one in {one.question: one for one in ready}.values()}
            if self._stopping.is_set():
                return
            now = clock.monotonic()
            for one in ready:
                self.settle(one, answers[one.question], now)
                due[one.gid] = now + self._wait_s(one)

    @staticmethod
    def _wait_s(one: Named) -> float:
        failed = one.failing and one.section is not None
        return one.eager_s if failed or not one.address else one.period_s

    def ask(self, one: Named) -> Answer:
        """Look one name up; every outcome is an answer."""
        if one.section is not None:
            from haptk.proxy import resolver  # dnspython, for those who have such a section

            return resolver.ask(one.section, one.host, one.prefer, one.networks)
        found = self.lookup(one.host)
        return Answer("timeout") if found is None else Answer("valid", tuple(found)) if found else Answer("nx")

    def settle(self, one: Named, answer: Answer, now: float) -> None:
        """Apply one answer for one server."""
        if not answer.addresses:
            self._failed(one, answer.status, now)
            return
        if one.address in answer.addresses:
            one.failing = ""
            return
        if one.address and not self._over(one, "obsolete", now):
            return
        one.failing = ""
        kin = (other for other in self.named if other.backend == one.backend and other.host == one.host)
        taken = set() if one.shares else {other.address for other in kin}
        fresh = next((address for address in answer.addresses if address not in taken), answer.addresses[0])
        log.info("server %s: %s is now %s, it was %s", one.label, one.host, fresh, one.address or "unknown")
        one.address = fresh
        self.move(one.gid, fresh, None, answer.by or "the system's resolver")

    def _over(self, one: Named, status: str, now: float) -> bool:
        """Whether `status` has lasted as long as it may; the first time it is seen begins its time."""
        if one.failing != status:
            one.failing, one.since = status, now
        hold_s = one.holds.get(status, 0.0 if status == "obsolete" else None)
        return hold_s is not None and now - one.since >= hold_s

    def _failed(self, one: Named, status: str, now: float) -> None:
        if not one.address or (one.section is None and (self.forgives or status != "nx")):
            return
        begins = one.failing != status
        if self._over(one, status, now):
            log.warning("server %s: %s (%s) for %.0f s: maintenance", one.label, one.host, status, now - one.since)
            one.address, one.failing = "", ""
            self.move(one.gid, "", None, REASONS[status])
        elif begins:
            log.warning("server %s: looking %s up fails (%s); it keeps %s", one.label, one.host, status, one.address)
