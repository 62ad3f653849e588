"""Names of servers, looked up again while the proxy runs.

A server whose line names a `resolvers` section is looked up there, by that section's times. Every other server with a name
is looked up with the system's resolver, in a thread of its own, every PERIOD_S; that needs no section.

* The present address is kept as long as the answer has it (and `hold obsolete` longer). Otherwise a server takes an
  address that no other server of its backend with the same name has. Where the answer has too few of them, one that
  asks a `resolvers` section is left without and is in maintenance, unless its line says `resolve-opts allow-dup-ip`;
  others take the first one. Open connections stay.
* "No such name" for HOLD_S (`hold nx`) puts the server into maintenance until the name resolves again.
* A resolver that cannot be reached, or refuses, changes nothing: what worked goes on working. HAProxy would take the
  server out after 30 s; here only a `hold timeout|refused|other` that stands in the file does.
* A server that had no address at start (`init-addr none`) is in maintenance from the beginning, and is looked up every
  EAGER_S (`timeout resolve`).

After `chroot` the system's resolver would find neither its configuration nor its hosts file: such a name keeps the address
that it had at the start or reload, as in HAProxy. A `resolvers` section needs no files.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from haptk.io import clock
from haptk.proxy import supervise
from haptk.proxy.tables import ProxyTables, Resolvers, Server
from haptk.proxy.whereabouts import Whereabouts

PERIOD_S = 10.0  # HAProxy's `hold valid`
HOLD_S = 30.0  # HAProxy's `hold nx`
EAGER_S = 2.0
AT_ONCE = 16  # questions that wait for an answer
NO_ADDRESS = "No IP for server "

# HAProxy's words
REASONS = {
    "nx": "DNS NX status", "timeout": "DNS timeout status", "refused": "DNS refused status", "other": "unspecified DNS error",
}  # fmt: skip

log = logging.getLogger("haptk.proxy")
Move = Callable[[int, str, None, str], None]
Lookup = Callable[[str], list[str] | None]
Question = tuple[str, str, str, tuple[str, ...]]


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
    owns: bool = False  # an answer has given it its address
    due_at: float = 0.0

    @property
    def question(self) -> Question:
        """Servers with the same one share an answer."""
        return (self.section.name if self.section else "", self.host, self.prefer, self.networks)

    @property
    def wait_s(self) -> float:
        """Until its name is looked up again."""
        failed = self.failing and self.section is not None
        return self.eager_s if failed or not self.address else self.period_s


class NameWatch:
    """Looks names up and calls `move(gid, address, None, by)` for every change; "" for a server that has lost its name.

    `at(gid)` is where a server is and what it is called, for whoever changes that beside us.
    """

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
        self.at: Callable[[int], Whereabouts] | None = None
        files = not tables.process.chroot
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
            if server.hostname and (files or server.resolvers in sections)
        ]
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._answers: queue.SimpleQueue[tuple[Question, Answer] | None] = queue.SimpleQueue()
        self._asked: set[Question] = set()

    def start(self) -> None:
        """Begin, when some server has a name."""
        if not self.named:
            return
        now = clock.monotonic()
        for one in self.named:
            self._refresh(one)
            one.due_at = now + one.wait_s
        self._thread = threading.Thread(target=self._run, name="names", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; a look-up under way is not waited for."""
        self._stopping.set()
        self._answers.put(None)

    def hurry(self, gid: int) -> None:
        """Look one server's name up now: it has another one."""
        for one in self.named:
            if one.gid == gid:
                one.due_at = 0.0
        self._answers.put(None)

    def _run(self) -> None:
        pool = ThreadPoolExecutor(min(AT_ONCE, len(self.named)), "names")
        try:
            supervise.keep("looking names up", lambda: self._turn(pool), self._stopping)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def forget(self, gid: int) -> None:
        """A server that was removed is looked up no more."""
        self.named = [one for one in self.named if one.gid != gid]
        self._answers.put(None)

    def _turn(self, pool: ThreadPoolExecutor) -> None:
        """Ask what is due, then wait for an answer or until something else is."""
        now = clock.monotonic()
        waiting = [one for one in self.named if one.question not in self._asked]
        for one in waiting:
            self._refresh(one)
        for question, one in {one.question: one for one in waiting if one.due_at <= now}.items():
            if question not in self._asked:
                self._asked.add(question)
                pool.submit(self._look_up, question, one)
        due_at = min((one.due_at for one in waiting if one.question not in self._asked), default=now + PERIOD_S)
        try:
            found = self._answers.get(timeout=max(due_at - now, 0.01))
        except queue.Empty:
            return
        if found is None or self._stopping.is_set():
            return
        question, answer = found
        self._asked.discard(question)
        now = clock.monotonic()
        for one in [each for each in self.named if each.question == question]:
            self.settle(one, answer, now)
            one.due_at = now + one.wait_s

    def _look_up(self, question: Question, one: Named) -> None:
        """In a thread of the pool: whatever goes wrong with one name is an answer about that name."""
        try:
            answer = self.ask(one)
        except Exception:
            log.exception("looking %s up went wrong", one.host)
            answer = Answer("other")
        self._answers.put((question, answer))

    def _refresh(self, one: Named) -> None:
        """The runtime API may have moved the server, or given it another name."""
        if self.at is None:
            return
        at = self.at(one.gid)
        if one.host != at.hostname:
            one.host, one.owns, one.failing = at.hostname, False, ""
        if one.address != at.host:
            one.address, one.owns = at.host, False

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
        kin = (each for each in self.named if each is not one and (each.backend, each.host) == (one.backend, one.host))
        taken = set() if one.shares else {each.address for each in kin if each.owns or each.section is None}
        if one.address in answer.addresses and (one.owns or one.section is None or one.address not in taken):
            one.failing, one.owns = "", True
            return
        if one.address and one.address not in answer.addresses and not self._over(one, "obsolete", now):
            return
        one.failing = ""
        fresh = next((address for address in answer.addresses if address not in taken), "")
        if not fresh and (one.section is None or one.shares):
            fresh = answer.addresses[0]
        one.owns = bool(fresh)
        if one.address == fresh:
            return
        if fresh:
            log.info("server %s: %s is now %s, it was %s", one.label, one.host, fresh, one.address or "unknown")
        else:
            log.warning("server %s: other servers have every address of %s: maintenance", one.label, one.host)
        one.address = fresh
        self.move(one.gid, fresh, None, (answer.by or "the system's resolver") if fresh else NO_ADDRESS)

    def _over(self, one: Named, status: str, now: float) -> bool:
        """Whether `status` has lasted as long as it may; the first time it is seen begins its time."""
        if one.failing != status:
            one.failing, one.since = status, now
        hold_s = one.holds.get(status, 0.0 if status == "obsolete" else None)
        return hold_s is not None and now - one.since >= hold_s

    def _failed(self, one: Named, status: str, now: float) -> None:
        if not one.address or (one.section is None and status != "nx"):
            return
        begins = one.failing != status
        if self._over(one, status, now):
            log.warning("server %s: %s (%s) for %.0f s: maintenance", one.label, one.host, status, now - one.since)
            one.address, one.failing, one.owns = "", "", False
            self.move(one.gid, "", None, REASONS[status])
        elif begins:
            log.warning("server %s: looking %s up fails (%s); it keeps %s", one.label, one.host, status, one.address)
