"""What must be true of a run. Checkers know nothing of how a fault is made; they look at the world after each event.

The bounds come from the timing: a node may take a dead time, a monitor interval and an operation to see what happened.
"""

from __future__ import annotations

from haptk.core.heartbeat.model import Health
from tests.sim.world import World


class Violation(AssertionError):
    """An invariant does not hold; the transcript says how it came to that."""


class TwoBelievers:
    """Never two holders that both believe it for longer than the bound, while the truth can be seen.

    For an address the truth can be seen whenever the API answers; for scripts only over the network.
    """

    def __init__(self, world: World) -> None:
        timing = world.timing
        slack = timing.monitor_s + 2 * timing.keepalive_s + 6.0
        self.bound_s = slack + (0.0 if world.kind == "exclusive" else timing.deadtime_s + 10.0)
        self.since: float | None = None
        self.worst_s = 0.0

    def __call__(self, world: World) -> None:
        # A machine that stands still serves nobody and cannot know; it is judged from when it goes on.
        both = all(box.alive and box.believes() for box in world.boxes.values())
        if world.kind == "exclusive":
            visible = world.cloud.mode == "up" and world.cloud.lag_s == 0.0
        else:
            visible = not any(link.cut or link.loss for link in world.links.values())
        if not both or not visible:
            self.since = None
            return
        if self.since is None:
            self.since = world.now
        self.worst_s = max(self.worst_s, world.now - self.since)
        if self.worst_s > self.bound_s:
            raise Violation(f"both nodes believe that they hold it for {self.worst_s:.1f} s (bound {self.bound_s} s)")


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


def check_end(world: World) -> None:
    """After the last fault and enough quiet: one holder, a live one, a healthy one if there is any."""
    living = [box for box in world.boxes.values() if box.alive]
    believers = [box.name for box in living if box.believes()]
    serving = world.serving()
    if not living:
        return
    if len(believers) != 1:
        raise Violation(f"at the end {believers or 'nobody'} believes to hold it")
    if serving != believers[0]:
        raise Violation(f"{believers[0]} believes to hold it, and {serving} has it")
    if world.kind == "script" and sum(box.running for box in living) != 1:
        raise Violation("it runs on both machines at the end")
    holder = world.boxes[serving]
    better = [
        box.name for box in living if box is not holder and not box.broken and box.health in (Health.UP, Health.NONE)
    ]
    if holder.health is Health.DOWN and better:
        raise Violation(f"{serving} serves with its check down, although {better[0]} is well")


def check_no_flapping(world: World, faults: int) -> None:
    """Starts are answers to faults; without faults there is one."""
    starts = sum(box.starts for box in world.boxes.values())
    allowed = 2 + 4 * faults
    if starts > allowed:
        raise Violation(f"{starts} starts for {faults} faults (allowed {allowed})")


def check_takeover(world: World, killed_at: float, taken_at: float | None, slow_s: float) -> None:
    """The survivor has it within deadtime + one keepalive + the resource's own time."""
    bound = world.timing.deadtime_s + world.timing.keepalive_s + slow_s
    if taken_at is None or taken_at - killed_at > bound:
        spent = "never" if taken_at is None else f"after {taken_at - killed_at:.2f} s"
        raise Violation(f"taken over {spent}, bound {bound:.2f} s")
