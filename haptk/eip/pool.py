"""A pool: N addresses, M nodes more than that; any spare takes any failed address, one for each node.

Every member runs this loop. A lease (core/lease.py) says which member an address belongs to; the address itself is
moved by the agent. A member with a lease renews it and sees that the address is here; a member without one looks for a
lease that nobody keeps, in an order of its own so that spares do not all reach for the same one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from haptk.aws.deadline import Deadline
from haptk.core.lease import Move, Record, Silent, Watch, decide_hold, decide_take, judge_renewal
from haptk.core.vip import NotOurs, Ours, Outcome, Status
from haptk.errors import AwsConflict, HaptkError
from haptk.io import clock


class Holds(Protocol):
    """What the pool needs of an agent."""

    def status(self, deadline_s: float) -> Status: ...
    def start(self, deadline_s: float) -> Outcome: ...
    def stop(self, deadline_s: float) -> Outcome: ...


class Store(Protocol):
    """What the pool needs of a lease store."""

    def read(self, name: str, deadline: Deadline) -> Record | None: ...
    def take(self, name: str, me: str, seen: Record | None, ttl_s: float, deadline: Deadline) -> Record: ...
    def renew(self, name: str, mine: Record, deadline: Deadline) -> Record: ...
    def let_go(self, name: str, mine: Record, deadline: Deadline) -> Record: ...


class Held(NamedTuple):
    """The one address that this member has a lease on."""

    address: str
    record: Record


class Member:
    """One node of the pool; `tick` is called every few seconds, at most a third of the time to live apart."""

    def __init__(
        self,
        me: str,
        agents: Mapping[str, Holds],
        store: Store,
        ttl_s: float,
        healthy: Callable[[], bool] = lambda: True,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.me = me
        self.held: Held | None = None
        self._agents = agents
        self._store = store
        self._ttl_s = ttl_s
        self._healthy = healthy
        self._say = say
        self._watches = {address: Watch() for address in agents}

    @property
    def interval_s(self) -> float:
        """Seconds between two ticks: three renewals fit into a time to live."""
        return self._ttl_s / 3

    def tick(self) -> None:
        """Look once and do at most one thing."""
        if self.held is not None:
            self._hold(self.held)
        elif self._healthy():
            self._seek()

    def _deadline(self) -> Deadline:
        return Deadline(max(1.0, self.interval_s))

    def _read(self, address: str) -> Record | Silent | None:
        try:
            record = self._store.read(address, self._deadline())
        except HaptkError as error:
            return Silent(str(error))
        self._watches[address].saw(record, clock.monotonic())
        return record

    # Without a lease.

    def _order(self) -> list[str]:
        names = sorted(self._agents)
        start = zlib.crc32(self.me.encode()) % len(names)
        return names[start:] + names[:start]

    def _seek(self) -> None:
        seen = {address: self._read(address) for address in self._order()}
        if all(isinstance(record, Silent) for record in seen.values()):
            return
        states: dict[str, Status] = {}
        wanted = [address for address, record in seen.items() if self._may_take(address, record, states)]
        # What is on this node already comes first: nothing has to move then.
        for address in sorted(wanted, key=lambda one: not isinstance(self._state(one, states), Ours)):
            record = seen[address]
            if not isinstance(record, Silent) and self._take(address, record):
                return

    def _state(self, address: str, states: dict[str, Status]) -> Status:
        if address not in states:
            states[address] = self._agents[address].status(self.interval_s)
        return states[address]

    def _may_take(self, address: str, record: Record | Silent | None, states: dict[str, Status]) -> bool:
        elsewhere = False
        if record is None:
            state = self._state(address, states)
            elsewhere = isinstance(state, NotOurs) and state.holder is not None
        watch = self._watches[address]
        decision = decide_take(self.me, record, watch, self._ttl_s, clock.monotonic(), elsewhere)
        if decision.move is Move.TAKE:
            self._say(f"{address}: taking the lease: {decision.because}")
        return decision.move is Move.TAKE

    def _take(self, address: str, seen: Record | None) -> bool:
        try:
            record = self._store.take(address, self.me, seen, self._ttl_s, self._deadline())
        except AwsConflict:
            self._say(f"{address}: another member was faster")
            return False
        except HaptkError as error:
            # It may have arrived. If it did, the record names us, and the next look finds "our own from before".
            self._say(f"{address}: the lease was not taken: {error}")
            return False
        self.held = Held(address, record)
        outcome = self._agents[address].start(max(self.interval_s, 5.0))
        self._say(f"{address}: {outcome.because}")
        if not outcome.ok:
            self._give_back(self.held, "the address did not come")
            return False
        return True

    # With a lease.

    def _hold(self, held: Held) -> None:
        decision = decide_hold(held.record, self._healthy())
        if decision.move is Move.LET_GO:
            self._give_back(held, decision.because)
            return
        try:
            record = self._store.renew(held.address, held.record, self._deadline())
        except HaptkError as error:
            # A refusal is an answer, and its reason is in the record; anything else is silence.
            seen = self._read(held.address) if isinstance(error, AwsConflict) else Silent(str(error))
            judged = judge_renewal(held.record, seen)
            self._say(f"{held.address}: {judged.because}")
            if judged.move is Move.LOST:
                self.held = None
                self._say(f"{held.address}: {self._agents[held.address].stop(max(self.interval_s, 5.0)).because}")
            return
        self.held = Held(held.address, record)
        agent = self._agents[held.address]
        if isinstance(agent.status(self.interval_s), NotOurs):
            self._say(
                f"{held.address}: the lease is ours but the address is not: {agent.start(self.interval_s).because}"
            )

    def _give_back(self, held: Held, because: str) -> None:
        """Let the lease go. The address stays until a spare takes it: nobody has to be without it meanwhile."""
        self._say(f"{held.address}: letting the lease go: {because}")
        try:
            self._store.let_go(held.address, held.record, self._deadline())
        except HaptkError as error:
            self._say(f"{held.address}: not let go, it will expire: {error}")
        self.held = None

    def leave(self) -> None:
        """The process ends on purpose: let a spare have it at once."""
        if self.held is not None:
            self._give_back(self.held, "this member leaves")
