"""The other node: whether it lives, what it last said about itself, and which of its messages are new.

A node is alive while its *status* messages come within the dead time that it advertises itself (`dt`); other
packets only keep its links up. The order of the checks in `admit` is heartbeat.c's: name, generation, the dead
node that returns, sequence. A generation below the known one is a replay; only a status raises it, and the known
one survives our restarts on disk, unlike the original's.

What the sequence cannot prove, the clock must: the first message of a generation from a haptk node has to be recent.
A node whose clock is wrong is not shut out by that (it would be taken for dead): it is asked to sign a number that
nobody could have recorded, and its answer proves that it is alive.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import Enum

from haptk.core.heartbeat import wire
from haptk.core.heartbeat.model import HOLD_WORDS, Health, Hold, Level, Timing
from haptk.core.heartbeat.sequence import Incoming, Verdict
from haptk.core.heartbeat.tables import LINK, NODE, LinkSignal, LinkState, Machine, NodeSignal, NodeState

DEAD_TIME_LIMITS_S = (0.05, 3600.0)
"""An advertised dead time outside these is taken for the nearest of them."""

PAUSES_IN_A_ROW = 8
EXTRAS = ("hkheld", "hkfail", "hklease", "hkhold", "hkstable", "hkhealth", "hkpings", "hkconf")
"""The fields that only a haptk node sends about itself."""

_SIGNALS = {"init": NodeSignal.SAYS_INIT, "up": NodeSignal.SAYS_UP, "active": NodeSignal.SAYS_ACTIVE}


class Admission(Enum):
    """What to do with an authentic message of this node."""

    DELIVER = "deliver"
    RESTARTED = "deliver: the node has restarted"
    RETURNED = "deliver: a dead node is heard again"
    DUPLICATE = "drop: a duplicate"
    REPLAY = "drop: older than what we know"
    CLOCK = "drop: its clock is outside the window"

    @property
    def deliver(self) -> bool:
        return self.value.startswith("deliver")


@dataclass
class Link:
    """One way to the node, named after the device or address that its packets arrive on."""

    name: str
    machine: Machine[LinkState, LinkSignal] = field(
        default_factory=lambda: Machine("link", LINK, LinkState.UNKNOWN), repr=False
    )
    heard_at: float = float("-inf")

    @property
    def state(self) -> LinkState:
        return self.machine.state


class Peer:
    """The other cluster node. `name` is "" until it was learned."""

    def __init__(self, name: str, timing: Timing, generation: int, rng: random.Random, now: float) -> None:
        self.name = name
        self.timing = timing
        self.uuid = b""
        self.machine: Machine[NodeState, NodeSignal] = Machine(f"node {name or '?'}", NODE, NodeState.INIT)
        self.incoming = Incoming(rng)
        self.links: dict[str, Link] = {}
        self.generation = generation
        self.generation_heard = False
        self.last_status_seq = 0
        self.heard_at = now
        self.ever_heard = False
        self.dead_time_s = timing.initdead_s
        self.ack_digit = rng.randrange(10)
        self.flow_control = True
        self.pauses = 0
        self.fingerprint = ""
        self.differs = False
        self.clock_offset_s = 0.0
        self.proved = 0
        """The generation that has answered our question, and so is alive whatever its clock says."""

        self._forget_claims()

    def _forget_claims(self) -> None:
        """Nothing is known of what it holds (it died, left or restarted)."""
        self.hold = Hold.NONE
        self.claims: set[int] | None = None
        self.failed: set[int] = set()
        self.leases: set[int] = set()
        self.stable = False
        self.told = False
        self.left = False
        self.haptk = False
        self.health = Health.NONE
        self.pings: int | None = None
        self.late_warned = False
        self._extras: list[wire.Value | None] | None = None
        self.news = False
        """Whether its last status told something about itself that was not known."""

    @property
    def state(self) -> NodeState:
        return self.machine.state

    @property
    def able(self) -> bool:
        """It takes part: active, and has not said good-bye."""
        return self.state is NodeState.ACTIVE and not self.left

    @property
    def gone(self) -> bool:
        """It holds nothing any more as far as anybody can tell: silent for its dead time, or left."""
        return self.state is NodeState.DEAD or self.left

    def claims_group(self, index: int, ours: bool) -> bool:
        """Whether it says that it holds the group; `ours` when haresources gives the group to us."""
        if self.claims is not None:
            return index in self.claims
        return bool(self.hold & (Hold.FOREIGN if ours else Hold.LOCAL))

    # ---- liveness

    def dead_at(self) -> float | None:
        return None if self.state is NodeState.DEAD else self.heard_at + self.dead_time_s

    def forgive(self, seconds: float, now: float) -> None:
        """We ourselves were not running for `seconds`: our silence is not theirs.

        A node that is always late must still notice a death in the end, so only so many pauses in a row count.
        """
        self.pauses += 1
        if self.pauses > PAUSES_IN_A_ROW:
            return
        self.heard_at = min(now, self.heard_at + seconds)
        for link in self.links.values():
            link.heard_at = min(now, link.heard_at + seconds)

    def die(self) -> None:
        self.machine.go(NodeSignal.SILENT)
        self.incoming.forget()
        self._forget_claims()

    def leave(self) -> None:
        """It said good-bye (`shutdone`)."""
        self._forget_claims()
        self.left = True

    def touch_link(self, name: str, now: float) -> Link | None:
        """A packet came over link `name`; the link when it has just come up."""
        link = self.links.get(name)
        if link is None:
            link = self.links[name] = Link(name)
        link.heard_at = now
        if link.machine.state is LinkState.UP:
            return None
        link.machine.go(LinkSignal.HEARD)
        return link

    def dead_links(self, now: float) -> list[Link]:
        """Links that have just gone silent for the dead time."""
        found = []
        for link in self.links.values():
            if link.state is LinkState.UP and now - link.heard_at >= self.dead_time_s:
                link.machine.go(LinkSignal.SILENT)
                found.append(link)
        return found

    def next_link_check(self) -> float | None:
        oldest: float | None = None
        for link in self.links.values():
            if link.machine.state is LinkState.UP and (oldest is None or link.heard_at < oldest):
                oldest = link.heard_at
        return None if oldest is None else oldest + self.dead_time_s

    # ---- which messages are new

    def admit(self, message: wire.Message, now: float, wall_now: float, window_s: float) -> Admission:
        """Judge an authentic message with a sequence number; see the module's text for the order of the checks."""
        seq = wire.number(message, "seq") or 0
        generation = wire.number(message, "hg") or 0
        is_status = wire.text(message, "t") == "status"
        if generation < self.generation:
            return Admission.REPLAY
        fresh = generation > self.generation or not self.generation_heard
        if fresh and not is_status:
            return Admission.DUPLICATE  # only a status opens a generation; its own resend will follow
        if fresh and self.proved != generation and not self._clock_ok(message, wall_now, window_s):
            return Admission.CLOCK
        if generation > self.generation and is_status:
            was_known = self.generation_heard
            self.generation = generation
            self._restart(seq, now)
            return Admission.RESTARTED if was_known else Admission.DELIVER
        if is_status and not self.generation_heard:
            # The generation on disk, still alive after our own restart: the sequence starts where it is now.
            self._restart(seq, now)
            return Admission.DELIVER
        if self.state is NodeState.DEAD:
            if not is_status or seq <= self.last_status_seq:
                return Admission.REPLAY
            self.incoming.judge(seq, now)
            return Admission.RETURNED
        self.verdict = self.incoming.judge(seq, now)
        return Admission.DELIVER if self.verdict.deliver else Admission.DUPLICATE

    verdict: Verdict = Verdict.ACCEPT

    def _restart(self, seq: int, now: float) -> None:
        self.generation_heard = True
        self.incoming.forget()
        self._forget_claims()
        self.verdict = self.incoming.judge(seq, now)

    def _clock_ok(self, message: wire.Message, wall_now: float, window_s: float, offset_s: float = 0.0) -> bool:
        """The window holds between haptk nodes only, and only where the sequence proves nothing."""
        if not wire.text(message, "haptk"):
            return True
        stamp = wire.number(message, "ts") or 0
        return abs(stamp - wall_now - offset_s) <= window_s

    def clock_ok(self, message: wire.Message, wall_now: float, window_s: float) -> bool:
        """Whether a message without a sequence number (NS_) is recent, measured with the clock of its last status."""
        return self._clock_ok(message, wall_now, window_s, self.clock_offset_s)

    # ---- what it says about itself

    def note_clock(self, message: wire.Message, wall_now: float) -> None:
        """Remember how far its clock is off ours."""
        self.clock_offset_s = (wire.number(message, "ts") or 0) - wall_now

    def note_status(self, message: wire.Message, now: float) -> tuple[NodeState, NodeState, float]:
        """Take over a status message: the state before and after, and the interval since the last one in s."""
        before = self.state
        interval = now - self.heard_at if self.ever_heard else 0.0
        self.heard_at = now
        self.ever_heard = True
        self.pauses = 0
        self.last_status_seq = wire.number(message, "seq") or 0
        dead_ms = wire.number(message, "dt")
        dead_s = dead_ms / 1000 if dead_ms else self.timing.deadtime_s
        low, high = DEAD_TIME_LIMITS_S
        self.dead_time_s = min(max(dead_s, low), high)
        if "protocol" not in message:
            self.flow_control = False
        signal = _SIGNALS.get(wire.text(message, "st"))
        if signal is not None:
            self.machine.go(signal)
        self.news = False
        if "haptk" in message:
            extras = [message.get(name) for name in EXTRAS]
            if extras != self._extras:  # hardly any status tells something new
                self.news = True
                self.note_extras(message)
                self._extras = extras
        return before, self.state, interval

    def note_extras(self, message: wire.Message) -> None:
        """The fields that only a haptk node sends: what it really holds, its health, its view of the witnesses."""
        self._extras = None
        if not wire.text(message, "haptk"):
            return
        self.haptk = True
        if self.left:
            return
        if "hkheld" in message:
            self.differs = wire.text(message, "hkconf") != self.fingerprint
            # Group numbers mean something only where both nodes have the same groups; else the four words must do.
            self.claims = None if self.differs else _numbers(wire.text(message, "hkheld"))
            self.failed = set() if self.differs else _numbers(wire.text(message, "hkfail"))
            self.leases = set() if self.differs else _numbers(wire.text(message, "hklease"))
            self.stable = wire.text(message, "hkstable") == "1"
            self.hold = HOLD_WORDS.get(wire.text(message, "hkhold"), self.hold)
        word = wire.text(message, "hkhealth")
        self.health = Health(word) if word in {health.value for health in Health} else Health.NONE
        self.pings = wire.number(message, "hkpings", 10)


def _numbers(text: str) -> set[int]:
    return {int(part) for part in text.split(".") if part.isdigit() and len(part) <= 4}


def lateness_text(name: str, interval_s: float) -> tuple[Level, str]:
    """The original's sentence for a status that came late."""
    return Level.WARN, f"Late heartbeat: Node {name}: interval {interval_s * 1000:.0f} ms"
