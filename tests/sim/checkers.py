"""What must be true of a run. Checkers know nothing of how a fault is made; they look at the world after each event.

The bounds come from the timing: a node may take a dead time, a monitor interval and an operation to see what happened.
"""

from __future__ import annotations

from haptk.core.heartbeat.model import Health
from tests.sim.leases import TTL_S
from tests.sim.machines import Pair
from tests.sim.world import World


class Violation(AssertionError):
    """An invariant does not hold; the transcript says how it came to that."""


class TwoBelievers:
    """Never two holders that both believe it for longer than the bound, while the truth can be seen.

    For an address the truth can be seen whenever the API answers; for scripts only over the network, and with leases
    also through the lease table: then even a cut makes no second holder.
    """

    def __init__(self, world: World, pair: Pair | None = None) -> None:
        timing = world.timing
        self.pair = pair or world.pairs[0]
        self.boxes = [world.boxes[name] for name in self.pair.names]
        self.links = [world.links[self.pair.names], world.links[self.pair.names[1], self.pair.names[0]]]
        slack = timing.monitor_s + 2 * timing.keepalive_s + 6.0
        self.bound_s = slack + (0.0 if self.pair.kind == "exclusive" else timing.deadtime_s + 10.0)
        self.since: float | None = None
        self.worst_s = 0.0

    def __call__(self, world: World) -> None:
        one, other = self.boxes
        # A machine that stands still serves nobody and cannot know; it is judged from when it goes on.
        both = one.holding and other.holding and one.alive and other.alive
        if not both or not self.visible(world):
            self.since = None
            return
        if self.since is None:
            self.since = world.now
        spent = world.now - self.since
        self.worst_s = max(self.worst_s, spent)
        bound = self.bound_s + (0.0 if all(box.disk == "well" for box in self.boxes) else 6.0)
        if spent > bound:
            names = " and ".join(self.pair.names)
            raise Violation(f"{names} both believe that they hold it for {spent:.1f} s (bound {bound} s)")

    def visible(self, world: World) -> bool:
        reached = all(box.aws for box in self.boxes)
        if self.pair.kind == "exclusive":
            return reached and world.account.mode == "up" and world.account.lag_s == 0.0
        if any(box.stuck for box in self.boxes):
            return False  # it cannot be stopped: the operator's program is called, nothing else can be done
        if world.leases and reached and world.account.store == "up":
            return world.now - world.account.silent_at > 2 * TTL_S
        return not any(link.cut or link.loss for link in self.links)


class NoSpin:
    """No event storm: a timer in the past that is never served would show as thousands of events in no time."""

    def __init__(self) -> None:
        self.at = -1.0
        self.count = 0

    def __call__(self, world: World) -> None:
        if world.now - self.at > 0.01:
            self.at, self.count = world.now, 0
        self.count += 1
        if self.count > 2000:
            raise Violation("more than 2000 events in 10 ms: something spins")


class Sayings:
    """What nodes say must be true: a death of a node that is well and heard is a lie, and nothing may be taken from a
    silent peer without a witness that answered lately and, with leases, the lease of the group.
    """

    def __init__(self) -> None:
        self.read = 0

    def __call__(self, world: World) -> None:
        while self.read < len(world.events):
            at, name, say = world.events[self.read]
            self.read += 1
            if say.event == "peer_dead":
                self._death(world, at, name)
            elif say.event == "resource_start" and say.text.endswith("is dead"):
                self._taking(world, at, name)

    def _death(self, world: World, at: float, name: str) -> None:
        box = world.boxes[name]
        peer = world.boxes[box.peer]
        long_ago = at - world.timing.deadtime_s - 2.0
        quiet = world.links[peer.name, name].whole and world.disturbed_at < long_ago
        if quiet and peer.alive and peer.up_since < long_ago and box.up_since < long_ago:
            raise Violation(f"{name} declares {peer.name} dead, which is well and can be heard")

    def _taking(self, world: World, at: float, name: str) -> None:
        if world.witnesses and at - world.boxes[name].witness_heard_at > world.timing.deadping_s + 1.0:
            raise Violation(f"{name} takes from a silent peer, and no witness has answered it for long")
        if world.leases:
            record = world.account.leases.get(world.pair_of[name].resource)
            if record is None or record.owner != name:
                raise Violation(f"{name} takes from a silent peer without the lease, which is {record}'s")


def check_end(world: World) -> None:
    """After the last fault and enough quiet: one holder, a live one, a healthy one if there is any."""
    for pair in world.pairs:
        _check_pair(world, pair)


def _check_pair(world: World, pair: Pair) -> None:
    boxes = [world.boxes[name] for name in pair.names]
    living = [box for box in boxes if box.alive]
    believers = [box.name for box in living if box.believes()]
    serving = world.serving(pair)
    if not living:
        return
    if all(box.broken for box in living) and not believers:
        return  # nothing starts it anywhere
    if len(believers) != 1:
        raise Violation(f"at the end {believers or 'nobody'} believes to hold it")
    if serving != believers[0]:
        raise Violation(f"{believers[0]} believes to hold it, and {serving} has it")
    if pair.kind == "script" and sum(box.running for box in living) != 1:
        raise Violation("it runs on both machines at the end")
    holder = world.boxes[serving]
    better = [
        box.name for box in living if box is not holder and not box.broken and box.health in (Health.UP, Health.NONE)
    ]
    if holder.health is Health.DOWN and better:
        raise Violation(f"{serving} serves with its check down, although {better[0]} is well")
    if world.leases and world.account.leases[pair.resource].owner != holder.name:
        raise Violation(f"{serving} serves, and its lease is {world.account.leases[pair.resource].owner or 'nobody'}'s")


def check_no_flapping(world: World, faults: int) -> None:
    """Starts are answers to faults; without faults there is one."""
    starts = sum(box.starts for box in world.boxes.values())
    allowed = 2 * len(world.pairs) + 4 * faults
    if starts > allowed:
        raise Violation(f"{starts} starts for {faults} faults (allowed {allowed})")


def check_takeover(world: World, killed_at: float, taken_at: float | None, slow_s: float) -> None:
    """The survivor has it within deadtime + one keepalive + the resource's own time."""
    bound = world.timing.deadtime_s + world.timing.keepalive_s + slow_s
    if taken_at is None or taken_at - killed_at > bound:
        spent = "never" if taken_at is None else f"after {taken_at - killed_at:.2f} s"
        raise Violation(f"taken over {spent}, bound {bound:.2f} s")
