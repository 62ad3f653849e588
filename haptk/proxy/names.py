"""Names of servers, looked up again while the proxy runs: HAProxy's `resolvers` reduced to what needs no configuration.

The rules, simplified from HAProxy's hold times:

* Every server whose line has a name is looked up every PERIOD_S with the system's resolver, in a thread of its own.
* The present address is kept as long as the answer has it. Otherwise a server takes an address that no other server
  of its backend with the same name has, else the first one. Open connections stay where they are.
* "No such name" for HOLD_S puts the server into maintenance until the name resolves again. A resolver that cannot be
  reached changes nothing: what worked goes on working.
* A server that had no address at start (`init-addr none`) is in maintenance from the beginning, and is looked up every
  EAGER_S.

After `chroot` the resolver may find neither its configuration nor its hosts file, so there no answer means no change.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from haptk.io import clock
from haptk.proxy.tables import ProxyTables

PERIOD_S = 10.0  # HAProxy's `hold valid`
HOLD_S = 30.0  # HAProxy's `hold nx`
EAGER_S = 2.0

log = logging.getLogger("haptk.proxy")
Move = Callable[[int, str], None]
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


@dataclass
class Named:
    """One server with a name: where it is now ("" for nowhere), and since when its name does not exist."""

    gid: int
    label: str
    backend: int
    host: str
    address: str
    missing_since: float | None = None


class NameWatch:
    """Looks names up and calls `move(gid, address)` for every change; "" for a server that has lost its name."""

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
        self.period_s, self.hold_s, self.eager_s = period_s, hold_s, eager_s
        self.forgives = bool(tables.process.chroot)
        servers = [(index, back, one) for index, back in enumerate(tables.backends) for one in back.servers]
        self.named = [
            Named(gid, f"{back.name}/{server.name}", index, server.hostname, server.host)
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
        due = {one.gid: clock.monotonic() + (self.period_s if one.address else self.eager_s) for one in self.named}
        while not self._stopping.wait(max(min(due.values()) - clock.monotonic(), 0.01)):
            now = clock.monotonic()
            ready = [one for one in self.named if due[one.gid] <= now]
            answers = {host: self.lookup(host) for host in {one.host for one in ready}}
            if self._stopping.is_set():
                return
            now = clock.monotonic()
            for one in ready:
                self.settle(one, answers[one.host], now)
                due[one.gid] = now + (self.period_s if one.address else self.eager_s)

    def settle(self, one: Named, answer: list[str] | None, now: float) -> None:
        """Apply one answer for one server."""
        if not answer:
            self._missing(one, answer, now)
            return
        one.missing_since = None
        if one.address in answer:
            return
        taken = {other.address for other in self.named if other.backend == one.backend and other.host == one.host}
        fresh = next((address for address in answer if address not in taken), answer[0])
        log.info("server %s: %s is now %s, it was %s", one.label, one.host, fresh, one.address or "unknown")
        one.address = fresh
        self.move(one.gid, fresh)

    def _missing(self, one: Named, answer: list[str] | None, now: float) -> None:
        if answer is None or self.forgives or not one.address:
            return
        if one.missing_since is None:
            one.missing_since = now
            log.warning("server %s: there is no name %s now; it keeps %s for a while", one.label, one.host, one.address)
        elif now - one.missing_since >= self.hold_s:
            log.warning("server %s: %s does not exist for %.0f s: maintenance", one.label, one.host, self.hold_s)
            one.address = ""
            one.missing_since = None
            self.move(one.gid, "")
