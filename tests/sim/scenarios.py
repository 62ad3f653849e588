"""Faults, chosen by the seed: what happens to the world and when. Nothing here knows what is right.

A scenario is short and dense: some 30 s with several faults that overlap more often than not, then an end to all of
them and quiet. The quiet ends when all has been right for as long as the longest timer that is left (SETTLED_S), at
the latest after QUIET_S; every WHOLE_QUIET-th seed waits for the whole of it, for what would come late.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from haptk.core.heartbeat.model import Failback, Health
from tests.sim.checkers import NoSpin, Sayings, TwoBelievers, Violation, check_end, check_no_flapping
from tests.sim.world import WITNESS, World

FAULTS_FROM_S = 4.0
FAULTS_UNTIL_S = 34.0
QUIET_S = 60.0
SETTLED_S = 13.0
WHOLE_QUIET = 20

NODES = (2, 2, 2, 2, 3, 3, 4, 5)

FAULTS = (
    "crash", "kill", "freeze", "cut", "oneway", "isolated", "loss", "noise", "clock", "cloud", "lag", "sick", "broken",
    "stuck", "dies", "liar", "stop", "standby", "takeover", "disk", "store", "witness", "interrupted", "interrupted",
)  # fmt: skip


@dataclass
class Result:
    """How a seed ended."""

    seed: int
    world: World
    violation: str = ""


def make(seed: int, *, whole_wire: bool = False) -> tuple[World, random.Random]:
    """The world of a seed before its first event, and the source of its faults."""
    rng = random.Random(seed * 2654435761 % 2**32)
    kind = rng.choice(["exclusive", "exclusive", "script"])
    world = World(seed, kind=kind, nodes=rng.choice(NODES), whole_wire=whole_wire)
    world.failback = rng.choice([Failback.OFF, Failback.OFF, Failback.ON])
    if rng.random() < 0.15:
        world.witnesses = (WITNESS,)
    world.leases = rng.random() < 0.25
    if len(world.pairs) == 2:
        world.broadcast = rng.random() < 0.5
        world.pairs[1].kind = rng.choice(["exclusive", "script"])
        world.pairs[1].key = rng.choice([b"secret", b"another"])
    if rng.random() < 0.4:
        for box in world.boxes.values():
            box.health = Health.UP
    for box in world.boxes.values():
        box.drift = rng.uniform(-2e-4, 2e-4)
    world.watchers = [*(TwoBelievers(world, pair) for pair in world.pairs), Sayings(), NoSpin()]
    for number, name in enumerate(world.boxes):
        late = number % 2 and rng.random() < 0.25
        world.at(rng.uniform(0, 16 if late else 3), lambda name=name: world.boot(name))  # type: ignore[misc]
    for _ in range(rng.randint(2, 6) * len(world.pairs)):
        _Fault(world, rng).plan()
    world.at(FAULTS_UNTIL_S + 0.1, lambda: calm(world))
    return world, rng


def run_seed(seed: int, *, whole_wire: bool = False) -> Result:
    """One seed from boot to the end of the quiet time. `whole_wire` signs and parses every datagram."""
    world, _ = make(seed, whole_wire=whole_wire)
    try:
        world.run(FAULTS_UNTIL_S + 0.2)
        _quiet(world, whole=seed % WHOLE_QUIET == 0)
        check_end(world)
        check_no_flapping(world, world.fault_count + 2)
    except Violation as violation:
        return Result(seed, world, str(violation))
    return Result(seed, world)


def _quiet(world: World, *, whole: bool) -> None:
    end = world.now + QUIET_S
    right_since: float | None = None
    while world.now < end:
        world.run(min(end, world.now + 2.0))
        if whole or not _right(world):
            right_since = None
        elif right_since is None:
            right_since = world.now
        elif world.now - right_since >= SETTLED_S:
            return


def _right(world: World) -> bool:
    nodes = [box.node for box in world.boxes.values()]
    if any(node is not None and not node.negotiation.stable for node in nodes):
        return False
    try:
        check_end(world)
    except Violation:
        return False
    return True


def calm(world: World) -> None:
    """The end of all faults: repair what an operator would repair, except what is to last (on one node of a pair)."""
    world.heal()
    account = world.account
    account.mode, account.lag_s, account.store = "up", 0.0, "up"
    world.witness_up = True
    for box in world.boxes.values():
        box.stuck = box.liar = False
        box.witness = box.aws = True
        box.disk = "well"
        if box.name in world.lasting:
            continue
        box.broken = False
        if box.health is Health.DOWN:
            world.set_health(box.name, Health.UP)


class _Fault:
    """One fault: of what kind, on which machine, from when and for how long."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.kind = rng.choice(FAULTS)
        self.box = world.boxes[rng.choice(list(world.boxes))]
        self.name, self.other = self.box.name, self.box.peer
        self.when = rng.uniform(FAULTS_FROM_S, FAULTS_UNTIL_S)
        self.lasts = rng.choice([rng.uniform(0.2, 3), rng.uniform(3, 12)])

    def plan(self) -> None:
        getattr(self, f"_{self.kind}")()

    def _at(self, what: Callable[[], object], after: Callable[[], object] | None = None) -> None:
        self.world.at(self.when, lambda: what() and None)
        if after is not None:
            self.world.at(self.when + self.lasts, lambda: after() and None)

    def _lasts_for_ever(self) -> bool:
        """The fault stays after the end of all others; its peer then has to serve."""
        if self.rng.random() > 0.3 or self.other in self.world.lasting:
            return False
        self.world.lasting.add(self.name)
        for later in (0.0, 9.0, 18.0):  # it may be in the middle of a stop
            self.world.at(FAULTS_UNTIL_S + later, lambda: self.world.boot(self.other))
        return True

    def _spoil(self, thing: object, name: str, value: object, well: object, text: str) -> None:
        """Set an attribute for the time of the fault."""
        world, kind = self.world, self.kind

        def spoil() -> None:
            world.fault(kind)
            world.note(self.name if thing is self.box else kind, text)
            setattr(thing, name, value)

        self._at(spoil, None if well is None else lambda: setattr(thing, name, well))

    # ---- machines

    def _crash(self) -> None:
        returns = self.rng.random() < 0.8
        survives = self.kind == "kill"
        self._at(
            lambda: self.world.crash(self.name, resource_survives=survives),
            (lambda: self.world.boot(self.name)) if returns else None,
        )

    _kill = _crash

    def _freeze(self) -> None:
        self._at(lambda: self.world.freeze(self.name, self.lasts))

    def _clock(self) -> None:
        step = self.rng.choice([-4000.0, -30.0, 30.0, 4000.0])
        self._at(lambda: self.world.step_clock(self.name, step))

    def _disk(self) -> None:
        how = self.rng.choice(["slow", "slow", "broken"])
        self._spoil(self.box, "disk", how, "well", f"its disk is {how}")
        if self.rng.random() < 0.5:  # a start is when the disk counts
            self.world.at(self.when + 0.1, lambda: self.world.crash(self.name, resource_survives=True))
            self.world.at(self.when + 0.3, lambda: self.world.boot(self.name))

    # ---- the network

    def _cut(self) -> None:
        for one, other in ((self.name, self.other), (self.other, self.name)):
            self._at(lambda one=one, other=other: self.world.cut(one, other), self.world.heal)  # type: ignore[misc]
        if self.world.witnesses:
            # In a real cut one side usually loses the rest of the world too.
            self.world.at(self.when, lambda: setattr(self.box, "witness", self.rng.random() < 0.3))
            self.world.at(self.when + self.lasts, lambda: setattr(self.box, "witness", True))

    def _oneway(self) -> None:
        self._at(lambda: self.world.cut(self.name, self.other), self.world.heal)

    def _isolated(self) -> None:
        """It reaches nothing any more: not its peer, not the witness, not AWS."""
        world, box = self.world, self.box

        def isolate() -> None:
            world.cut(self.name, self.other)
            world.cut(self.other, self.name)
            world.faults["isolated"] += 1
            box.witness = box.aws = False

        def back() -> None:
            world.heal()
            box.witness = box.aws = True

        self._at(isolate, back)

    def _loss(self) -> None:
        self._at(lambda: _disturb(self.world, loss=0.3), self.world.heal)

    def _noise(self) -> None:
        self._at(lambda: _disturb(self.world, duplicate=0.3, delay=(0.0, 0.4)), self.world.heal)

    # ---- the account, the witness

    def _cloud(self) -> None:
        how = self.rng.choice(["slow", "throttled", "down", "lost"])
        self._spoil(self.world.account, "mode", how, "up", f"the API is {how}")
        self.world.at(self.when, lambda: setattr(self.world, "fault_count", self.world.fault_count + 1))

    def _lag(self) -> None:
        lag = self.rng.uniform(0.5, 9.0)
        self._spoil(self.world.account, "lag_s", lag, 0.0, f"meta-data is {lag:.1f} s behind")

    def _store(self) -> None:
        how = self.rng.choice(["slow", "down"])
        self._spoil(self.world.account, "store", how, "up", f"the lease table is {how}")

    def _witness(self) -> None:
        self._spoil(self.world, "witness_up", False, True, "the witness is down")

    # ---- the service

    def _sick(self) -> None:
        if self.box.health is not Health.NONE:
            after = None if self._lasts_for_ever() else lambda: self.world.set_health(self.name, Health.UP)
            self._at(lambda: self.world.set_health(self.name, Health.DOWN), after)

    def _broken(self) -> None:
        well = None if self._lasts_for_ever() else False
        self._spoil(self.box, "broken", True, well, "its resource does not start any more")
        self.world.at(self.when, lambda: setattr(self.world, "fault_count", self.world.fault_count + 1))

    def _stuck(self) -> None:
        self._spoil(self.box, "stuck", True, False, "its resource does not stop any more")
        world, rng = self.world, self.rng
        if rng.random() < 0.5:
            world.at(self.when + rng.random() * self.lasts, lambda: world.order(self.name, "standby"))

    def _liar(self) -> None:
        self._spoil(self.box, "liar", True, False, "its status sometimes says that it is stopped")

    def _dies(self) -> None:
        self._at(lambda: self.world.resource_dies(self.name))
        if self.rng.random() < 0.5:  # and again soon after every start
            for step in range(1, 12):
                self.world.at(self.when + 0.7 * step, lambda: self.world.resource_dies(self.name))

    # ---- the operator

    def _stop(self) -> None:
        self._at(lambda: self.world.stop(self.name))
        self.world.at(self.when + self.lasts + 5, lambda: self.world.boot(self.name))

    def _interrupted(self) -> None:
        """A planned move or a stop in the middle of which something happens to one of the two."""
        world, rng = self.world, self.rng
        verb = rng.choice(["standby", "takeover", "stop"])
        victim = rng.choice([self.name, self.other])
        soon = self.when + rng.choice([0.0, 0.001, 0.002, 0.003]) + rng.random() * 0.6

        def begin() -> None:
            world.faults["interrupted"] += 1
            if verb == "stop":
                world.stop(self.name)
            else:
                world.order(self.name, verb)

        self._at(begin)
        how = rng.choice(["crash", "freeze", "cut"])
        if how == "crash":
            world.at(soon, lambda: world.crash(victim))
            world.at(soon + self.lasts, lambda: world.boot(victim))
        elif how == "freeze":
            world.at(soon, lambda: world.freeze(victim, self.lasts))
        else:
            world.at(soon, lambda: world.cut(self.name, self.other))
            world.at(soon, lambda: world.cut(self.other, self.name))
            world.at(soon + self.lasts, world.heal)
        if verb == "stop":
            world.at(soon + self.lasts + 6.0, lambda: world.boot(self.name))

    def _standby(self) -> None:
        self._at(lambda: self.world.order(self.name, self.kind))

    _takeover = _standby


def _disturb(
    world: World, *, loss: float = 0.0, duplicate: float = 0.0, delay: tuple[float, float] | None = None
) -> None:
    world.fault("loss" if loss else "noise")
    world.note("net", f"loss {loss:.0%}, duplicates {duplicate:.0%}, delay {delay or 'none'}")
    for link in world.links.values():
        link.loss, link.duplicate = loss, duplicate
        link.delay_s = delay or link.delay_s
