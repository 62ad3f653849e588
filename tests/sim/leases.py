"""The thread of one machine that keeps the lease of its group, and the table it talks to; both in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptk.core.heartbeat.model import Claim, Grant
from haptk.core.lease import Record, Silent
from haptk.core.lease_keeper import Ask, Call, Keeper, Refused

if TYPE_CHECKING:
    from tests.sim.machines import Box
    from tests.sim.world import World

TTL_S = 3.0
LIMIT_S = 1.0
GRANTS = {True: Grant.OURS, False: Grant.OTHERS, None: Grant.UNKNOWN}


class LeaseClient:
    """The same core as the daemon's thread; one request at a time, none longer than LIMIT_S."""

    def __init__(self, world: World, box: Box) -> None:
        self._world = world
        self._box = box
        self._epoch = box.epoch
        self._key = world.pair_of[box.name].resource
        self._claim: Claim | None = None
        self._asking = False
        self.keeper = Keeper(box.name, TTL_S, world.now)

    @property
    def _gone(self) -> bool:
        return self._box.epoch != self._epoch or self._box.node is None

    def claim(self, claim: Claim) -> None:
        self._claim = claim
        self.keeper.want(claim.wanted, claim.here, self._world.now)
        self._report()
        self._world.after(0.0, self.go_on)

    def go_on(self) -> None:
        """Ask the store what is due."""
        world, keeper = self._world, self.keeper
        if self._gone or self._asking:
            return
        if self._box.frozen:
            world.after(0.1, self.go_on)
        elif keeper.due_at() > world.now:
            world.at(keeper.due_at(), self.go_on)
        else:
            self._asking = True
            call, seconds = keeper.call(world.now), self._seconds()
            half = min(seconds, LIMIT_S) / 2
            world.after(half, lambda: self._acts(call, half, late=seconds > LIMIT_S))

    def leave(self) -> None:
        """The daemon ends; it lets go on its way out, if the store answers."""
        if self.keeper.mine is not None and self._seconds() <= LIMIT_S:
            self._store(Call(Ask.LET_GO, self.keeper.mine))

    def _report(self) -> None:
        """The thread tells the loop, and the loop the core."""
        claim, standing = self._claim, self.keeper.standing
        if claim is not None:
            self._world.after(0.0, lambda: self._tell(claim.ticket, GRANTS[standing.ours], standing.why))

    def _tell(self, ticket: int, grant: Grant, why: str) -> None:
        box, world = self._box, self._world
        if self._gone or box.node is None:
            return
        if box.frozen:
            world.after(0.1, lambda: self._tell(ticket, grant, why))
            return
        box.node.granted(ticket, grant, why, world.local(box))
        world.flush(box)

    def _seconds(self) -> float:
        account, rng = self._world.account, self._world.rng
        if account.store == "down" or not self._box.aws:
            return 10.0
        return rng.uniform(0.2, 1.6) if account.store == "slow" else rng.uniform(0.004, 0.02)

    def _acts(self, call: Call, rest_s: float, *, late: bool) -> None:
        found: Record | Silent | Refused | None = Silent("no answer in time")
        if self._world.account.store != "down" and self._box.aws:
            found = self._store(call)  # it may arrive although its answer comes too late
        if late:
            self._world.account.silent_at = self._world.now
            found = Silent("no answer in time")
        self._world.after(rest_s, lambda: self._answered(call, found))

    def _answered(self, call: Call, found: Record | Silent | Refused | None) -> None:
        if self._gone:
            return
        if self._box.frozen:
            self._world.after(0.1, lambda: self._answered(call, found))
            return
        self._asking = False
        before = self.keeper.standing.ours
        self.keeper.answer(call, found, self._world.now)
        if self.keeper.standing.ours is not before:
            self._report()
        self.go_on()

    def _store(self, call: Call) -> Record | Refused | None:
        """One conditional request, as aws/lease.py makes it."""
        leases, record = self._world.account.leases, call.record
        now = leases.get(self._key)
        if call.ask is Ask.READ:
            return now
        if call.ask is Ask.TAKE:
            if now != record:
                return Refused()
            after = Record(self._box.name, (now.rvn if now else 0) + 1, (now.epoch if now else 0) + 1, TTL_S)
        elif record is None or now is None or (now.owner, now.epoch) != (record.owner, record.epoch):
            return Refused()
        else:
            after = record._replace(rvn=record.rvn + 1, owner="" if call.ask is Ask.LET_GO else record.owner)
        leases[self._key] = after
        return after
