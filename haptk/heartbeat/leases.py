"""The thread that keeps the leases of our groups in DynamoDB: the outside witness of `--lease TABLE/NAME`.

One item for each group, NAME/<its first resource>. What to ask and what an answer means is core.lease_keeper; here are
the clock, the deadline of every request, and the words for the log. The heartbeat never waits for this thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from haptk.aws.deadline import Deadline
from haptk.core.heartbeat.model import Claim, Grant, GroupConfig
from haptk.core.lease import Record, Silent
from haptk.core.lease_keeper import Ask, Call, Keeper, Refused
from haptk.errors import AwsConflict, HaptkError
from haptk.heartbeat.settings import LeaseSpec
from haptk.io import clock

LIMIT_S = 1.0
"""The longest that a request, and with it a take-over, waits for the store."""

GRANTS = {True: Grant.OURS, False: Grant.OTHERS, None: Grant.UNKNOWN}


class Store(Protocol):
    """What is needed of aws.lease.LeaseStore."""

    def read(self, name: str, deadline: Deadline) -> Record | None: ...
    def take(self, name: str, me: str, seen: Record | None, ttl_s: float, deadline: Deadline) -> Record: ...
    def renew(self, name: str, mine: Record, deadline: Deadline) -> Record: ...
    def let_go(self, name: str, mine: Record, deadline: Deadline) -> Record: ...


def open_store(spec: LeaseSpec) -> Store:
    """The table in DynamoDB, with the region and credentials of the environment or the instance."""
    from haptk.aws.client import Access, Clients
    from haptk.aws.lease import LeaseStore

    return LeaseStore(Clients(Access()), spec.table)


def item_name(spec: LeaseSpec, group: GroupConfig) -> str:
    """The key of a group's lease: the same on both nodes, whatever their own interfaces are called."""
    return f"{spec.name}/{group.common.split(' ')[0]}"


class LeaseThread:
    """`report(ticket, grant, why)` and `warn(text)` are called in the thread."""

    def __init__(
        self,
        me: str,
        spec: LeaseSpec,
        groups: Sequence[GroupConfig],
        report: Callable[[int, Grant, str], None],
        warn: Callable[[str], None],
        make_store: Callable[[LeaseSpec], Store] = open_store,
    ) -> None:
        self.limit_s = min(LIMIT_S, max(0.2, spec.ttl_s / 3))
        self._me = me
        self._spec = spec
        self._names = [item_name(spec, group) for group in groups]
        self._keepers = [Keeper(me, spec.ttl_s, clock.monotonic()) for _ in groups]
        self._claims: list[Claim | None] = [None for _ in groups]
        self._told: list[tuple[int, Grant] | None] = [None for _ in groups]
        self._report = report
        self._warn = warn
        self._make_store = make_store
        self._orders: queue.SimpleQueue[Claim | None] = queue.SimpleQueue()
        self._silent = ""
        self._thread = threading.Thread(target=self._work, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def claim(self, claim: Claim) -> None:
        self._orders.put(claim)

    def close(self) -> None:
        """Let go of what is not wanted any more, then end; waits for no more than two requests."""
        self._orders.put(None)
        self._thread.join(2 * self.limit_s + 0.1)

    def _work(self) -> None:
        store: Store | None = None
        while True:
            wait_s = min(keeper.due_at() for keeper in self._keepers) - clock.monotonic()
            try:
                order = self._orders.get(timeout=max(0.0, wait_s))
            except queue.Empty:
                pass
            else:
                if order is None:
                    if store is not None:
                        self._round(store, only_let_go=True)
                    return
                self._take_order(order)
                if not self._orders.empty():
                    continue
            store = store or self._open()
            if store is not None:
                self._round(store)

    def _open(self) -> Store | None:
        """The store; without a region or credentials there is none yet, and every lease counts as not answered."""
        try:
            return self._make_store(self._spec)
        except HaptkError as error:
            silent = Silent(str(error))
            self._note_silence(silent)
            for index, keeper in enumerate(self._keepers):
                now = clock.monotonic()
                keeper.answer(keeper.call(now), silent, now)
                self._tell(index)
            return None

    def _take_order(self, claim: Claim) -> None:
        self._claims[claim.group] = claim
        self._keepers[claim.group].want(claim.wanted, claim.here, clock.monotonic())
        self._tell(claim.group)

    def _round(self, store: Store, *, only_let_go: bool = False) -> None:
        """Ask everything that is due. When one request gets no answer, the others are not sent: it is the same store."""
        silent: Silent | None = None
        for index, keeper in enumerate(self._keepers):
            now = clock.monotonic()
            call = keeper.call(now)
            if keeper.due_at() > now or (only_let_go and call.ask is not Ask.LET_GO):
                continue
            found = silent or self._ask(store, self._names[index], call)
            if isinstance(found, Silent):
                silent = found
            keeper.answer(call, found, clock.monotonic())
            self._tell(index)
            self._note_silence(found)

    def _ask(self, store: Store, name: str, call: Call) -> Record | Silent | Refused | None:
        deadline, record = Deadline(self.limit_s), call.record
        try:
            if call.ask is Ask.TAKE:
                return store.take(name, self._me, record, self._spec.ttl_s, deadline)
            if record is not None and call.ask is Ask.RENEW:
                return store.renew(name, record, deadline)
            if record is not None and call.ask is Ask.LET_GO:
                return store.let_go(name, record, deadline)
            return store.read(name, deadline)
        except AwsConflict:
            return Refused()
        except HaptkError as error:
            return Silent(str(error))
        except Exception as error:  # a fault of ours must not end the renewals
            return Silent(f"{type(error).__name__}: {error}")

    def _note_silence(self, found: Record | Silent | Refused | None) -> None:
        """Say it when the store falls silent, and when it answers again; not what is between."""
        if isinstance(found, Silent) and not self._silent:
            self._warn(
                f"the lease store does not answer: {found.why}; nothing is taken from a silent peer until it does"
            )
        elif self._silent and not isinstance(found, Silent):
            self._warn("the lease store answers again")
        self._silent = found.why if isinstance(found, Silent) else ""

    def _tell(self, index: int) -> None:
        """Report what is known, once for each claim and whenever it changes."""
        claim, standing = self._claims[index], self._keepers[index].standing
        if claim is None:
            return
        told = (claim.ticket, GRANTS[standing.ours])
        if self._told[index] != told:
            self._told[index] = told
            self._report(*told, standing.why)
