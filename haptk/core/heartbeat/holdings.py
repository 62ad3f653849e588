"""Our resource groups: what this node holds, starts and stops. Only what was started successfully counts as held.

One operation at a time is in flight per group; its answer carries the ticket of the question, and an answer to an
older question is ignored. A status that cannot be seen changes nothing. A group that somebody else has been given
(by the cloud, an administrator, the peer) is ceded: let go without touching it.

What is held is looked at, and core.health judges the looks by rise and fall. `fall` bad looks in a row mean that the
group died: what is left of it is stopped, then it is started again. A group that had to be started again is well only
after `rise` good looks; if it dies before that, or its start fails, it counts as a failed start, and after
`start_attempts` of those the peer may take it. A look that sees nothing counts for nothing, and a cloud that says
that somebody else has the address is believed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from haptk.core.health import CheckRules, State, Verdict
from haptk.core.health import Health as Counter
from haptk.core.heartbeat.model import HOLDS, GroupConfig, Hold, Level, NodeConfig, Op, Outcome, Run, Say, Seen
from haptk.core.heartbeat.tables import GROUP, GroupSignal, GroupState, Machine

QUICK_RETRY_S = 1.0
"""A start that failed is tried again after this, then after twice that, and so on up to `retry_s`."""

BLIND_LIMIT_S = 3600.0


@dataclass
class Group:
    """One group and where it stands here."""

    index: int
    config: GroupConfig
    machine: Machine[GroupState, GroupSignal] = field(repr=False)
    ticket: int = 0
    op: Op | None = None
    failures: int = 0
    retry_at: float = float("-inf")
    forget_at: float = float("inf")
    """When the failures count no longer; the peer that has the group could not hand it to us before."""

    verify_at: float = float("inf")
    orphan_since: float | None = None
    orphan_until: float = float("inf")
    conflict_since: float | None = None
    ever_settled: bool = False
    blind_until: float = float("-inf")
    """Ceded while the peer was silent: not fetched back before this, because the peer may well be alive."""

    ceded_blind: int = 0

    why: str = ""
    seen: Seen | None = None
    counter: Counter | None = field(default=None, repr=False)
    """Rise and fall of the looks at it while it is held."""

    recover: bool = False
    """It died here: once the rest of it is stopped, start it again."""

    @property
    def state(self) -> GroupState:
        return self.machine.state

    @property
    def held(self) -> bool:
        # While it is being stopped it may still be up, but we do not claim it any more.
        return self.state is GroupState.HELD

    @property
    def watched(self) -> bool:
        """Whether it is looked at: what is ours, what was taken from us, and what could not be seen at our start."""
        state = self.machine.state
        unseen = state is GroupState.RELEASED and self.seen is Seen.UNKNOWN
        return state is GroupState.HELD or state is GroupState.CEDED or unseen

    @property
    def changing(self) -> bool:
        return self.state in (GroupState.STARTING, GroupState.STOPPING)


class Holdings:
    """All groups of this node; `say` and `run` collect what the core wants done."""

    def __init__(self, config: NodeConfig, say: Callable[[Say], None], run: Callable[[Run], None]) -> None:
        self.config = config
        self._say = say
        self._run = run
        self._tickets = 0
        self.groups = [
            Group(index, group, Machine(f"group {group.key}", GROUP, GroupState.UNKNOWN))
            for index, group in enumerate(config.groups)
        ]

    # ---- questions

    @property
    def changing(self) -> bool:
        for group in self.groups:  # noqa: SIM110 (asked several times for every message, and any() costs three times it)
            if group.changing:
                return True
        return False

    @property
    def looked(self) -> bool:
        """Every group was looked at once since our start."""
        return all(group.state is not GroupState.UNKNOWN for group in self.groups)

    def held(self) -> set[int]:
        return {group.index for group in self.groups if group.machine.state is GroupState.HELD}

    def failed(self) -> set[int]:
        """Groups that will not start here, so that the peer should."""
        most = self.config.start_attempts
        return {group.index for group in self.groups if group.state is GroupState.FAILED and group.failures >= most}

    def mine(self, group: Group, peer: str | None) -> bool:
        return self.config.owner_of(group.config, peer) == self.config.name

    def hold(self, peer: str | None) -> Hold:
        """What is held, as the operator sees it."""
        found = 0
        for group in self.groups:
            if group.machine.state is GroupState.HELD:
                found |= 1 if self.mine(group, peer) else 2
        return HOLDS[found]

    def announced(self, peer: str | None, stable: bool, theirs: Hold) -> Hold:
        """What `rsc_hold` says: a real node counts an empty set of own groups as held, unless the peer does."""
        held = self.hold(peer)
        if not stable or theirs in (Hold.FOREIGN, Hold.ALL) or any(self.mine(group, peer) for group in self.groups):
            return held
        return HOLDS[int(held) | 1]

    def selected(self, bits: Hold, peer: str | None) -> list[Group]:
        """The groups that `bits` names, seen from us."""
        return [group for group in self.groups if bits & (Hold.LOCAL if self.mine(group, peer) else Hold.FOREIGN)]

    def see_again(self) -> None:
        """The peer is heard (or the operator decides): what was let go blindly may be judged anew."""
        for group in self.groups:
            group.blind_until, group.ceded_blind = float("-inf"), 0

    # ---- orders

    def look(self, groups: Iterable[Group], now: float) -> None:
        """Ask for the status of groups that are not being changed."""
        for group in groups:
            if group.op is None:
                self._order(group, Op.STATUS)
            group.verify_at = now + self._interval_s(group)

    def _interval_s(self, group: Group) -> float:
        """How long the last look at a group is good for."""
        return group.counter.interval_s() if group.held and group.counter else self.config.timing.monitor_s

    def _watch(self, group: Group, now: float) -> None:
        """Begin to count looks at a group that has just become ours."""
        config, timing = self.config, self.config.timing
        again_s = min(timing.monitor_again_s, timing.monitor_s)
        rules = CheckRules(
            rise=config.monitor_rise,
            fall=config.monitor_fall,
            inter_s=timing.monitor_s,
            fastinter_s=again_s,
            downinter_s=again_s,
            init_state="fully-down" if group.failures else "fully-up",
        )
        group.counter = Counter(group.config.key, rules, now)

    def start(self, group: Group, why: str) -> None:
        group.machine.go(GroupSignal.START)
        group.why = why
        group.orphan_since = group.conflict_since = None
        self._tell(group, Level.INFO, f"starting {group.config.key}: {why}", "resource_start", reason=why)
        self._order(group, Op.START)

    def stop(self, group: Group, op: Op, why: str) -> None:
        group.machine.go(GroupSignal.STOP)
        group.why = why
        group.conflict_since = None
        word = "releasing" if op is Op.RELEASE else "stopping"
        self._tell(group, Level.INFO, f"{word} {group.config.key}: {why}", "resource_stop", reason=why)
        self._order(group, op)

    def _order(self, group: Group, op: Op) -> None:
        self._tickets += 1
        group.ticket, group.op = self._tickets, op
        self._run(Run(group.ticket, group.index, op))

    # ---- answers

    def done(self, ticket: int, outcome: Outcome, now: float, peer_silent: bool) -> Group | None:
        """Take the answer to question `ticket`; the group when the answer was still wanted."""
        group = next((group for group in self.groups if group.ticket == ticket and group.op is not None), None)
        if group is None:
            return None
        op, group.op = group.op, None
        if op is Op.START:
            self._started(group, outcome, now)
        elif op is Op.STATUS:
            self._seen(group, outcome, now, peer_silent)
        else:
            self._stopped(group, outcome, now)
        stuck = outcome.seen is Seen.FAILED and op in (Op.STOP, Op.RELEASE)
        group.verify_at = now + (self.config.timing.retry_s if stuck else self._interval_s(group))
        return group

    def _started(self, group: Group, outcome: Outcome, now: float) -> None:
        key = group.config.key
        if outcome.seen in (Seen.DONE, Seen.OURS):
            group.machine.go(GroupSignal.STARTED)
            group.retry_at, group.seen = float("-inf"), Seen.OURS
            self._watch(group, now)
            self._tell(group, Level.INFO, f"{key} is started", "resource_started")
            return
        group.machine.go(GroupSignal.START_FAILED)
        group.failures += 1
        text = f"{key} did not start: {outcome.why}; not held, next try in {self._retry_later(group, now):.0f} s"
        self._tell(group, Level.ERROR, f"{text} unless the peer takes it", "resource_start_failed", reason=outcome.why)

    def _retry_later(self, group: Group, now: float) -> float:
        """Set when to start it again after its failures, and return how long that is (s)."""
        wait = min(self.config.timing.retry_s, QUICK_RETRY_S * (1 << min(group.failures - 1, 10)))
        group.retry_at, group.forget_at = now + wait, now + self.config.timing.forget_s
        return wait

    def forgive(self, group: Group) -> None:
        """The other node has it, and that it would not start here is long ago: we may be asked to take it again."""
        group.machine.go(GroupSignal.FORGIVEN)
        group.failures = 0
        self._tell(group, Level.INFO, f"{group.config.key} may be tried here again", "resource_forgiven")

    def _stopped(self, group: Group, outcome: Outcome, now: float) -> None:
        key = group.config.key
        recover, group.recover = group.recover, False
        if outcome.seen in (Seen.DONE, Seen.NOT_OURS):
            group.seen = Seen.NOT_OURS
            if recover and group.failures >= self.config.start_attempts:
                group.machine.go(GroupSignal.GAVE_UP)
                text = f"{key} died {group.failures} times soon after its start: next try in"
                wait = self._retry_later(group, now)
                self._tell(group, Level.ERROR, f"{text} {wait:.0f} s unless the peer takes it", "resource_gave_up")
                return
            group.machine.go(GroupSignal.STOPPED)
            self._tell(group, Level.INFO, f"{key} is released", "resource_stopped")
            if recover:
                self.start(group, "it died here")
        else:
            group.machine.go(GroupSignal.STOP_FAILED)
            self._watch(group, now)
            text = f"{key} could not be stopped: {outcome.why}; it counts as held"
            self._tell(group, Level.CRIT, text, "resource_stop_failed", reason=outcome.why)

    def _seen(self, group: Group, outcome: Outcome, now: float, peer_silent: bool) -> None:
        key, before = group.config.key, group.seen
        group.seen = outcome.seen
        if outcome.seen is Seen.UNKNOWN:
            if group.machine.can(GroupSignal.CANNOT_SEE):
                group.machine.go(GroupSignal.CANNOT_SEE)
            if before is not Seen.UNKNOWN:
                text = f"cannot see whether {key} is ours ({outcome.why}): nothing is done"
                self._tell(group, Level.WARN, text, "resource_unknown", reason=outcome.why)
        elif outcome.seen is Seen.OURS:
            held = group.held
            group.machine.go(GroupSignal.FOUND_OURS)
            if held:
                self._good_look(group, now)
                return
            self._watch(group, now)
            self._tell(group, Level.INFO, f"{key} is ours already: going on with it", "resource_found")
        else:
            self._not_ours(group, outcome, now, peer_silent)

    def _good_look(self, group: Group, now: float) -> None:
        change = group.counter.check(Verdict.PASS, "it runs", now) if group.counter else None
        if change is not None:
            group.failures = 0
            self._tell(group, Level.INFO, change.reason, "resource_proved")

    def _bad_look(self, group: Group, why: str, now: float) -> None:
        """It does not run here, and nobody else has it."""
        key, counter = group.config.key, group.counter
        if counter is not None:
            change = counter.check(Verdict.FAIL, why, now)
            if change is None and counter.state is State.UP:
                if counter.health == counter.rules.full - 1:
                    self._tell(group, Level.WARN, f"{key} does not seem to run here ({why}): looking again", "doubt")
                return
        group.failures += 1
        self._tell(group, Level.ERROR, f"{key} is not running here any more: {why}", "resource_lost", holder="")
        group.recover = True
        # What is left of the group must be down before anybody starts it; an address is left for the next start.
        self.stop(group, Op.RELEASE, "it died here")

    def _not_ours(self, group: Group, outcome: Outcome, now: float, peer_silent: bool) -> None:
        key = group.config.key
        if group.state is GroupState.UNKNOWN:
            group.machine.go(GroupSignal.FOUND_NOT_OURS)
            return
        if group.state is GroupState.FAILED or group.state is GroupState.RELEASED:
            return
        taken = group.config.exclusive and outcome.holder != ""
        if not taken:
            if group.state is GroupState.HELD:
                self._bad_look(group, outcome.why or "nobody has it", now)
            else:
                group.machine.go(GroupSignal.FREE)
        elif group.state is GroupState.HELD:
            group.machine.go(GroupSignal.TAKEN_AWAY)
            if peer_silent:
                wait = min(self.config.timing.initdead_s * 2**group.ceded_blind, BLIND_LIMIT_S)
                group.blind_until = now + wait
                group.ceded_blind += 1
            text = f"{key} now belongs to {outcome.holder or 'somebody else'}: letting go without touching it"
            self._tell(group, Level.WARN, text, "resource_lost", holder=outcome.holder or "unknown")

    def _tell(self, group: Group, level: Level, text: str, event: str, **fields: object) -> None:
        known: list[tuple[str, object]] = [("resource", group.config.key), ("group", group.index)]
        self._say(Say(level, text, event, (*known, *fields.items())))
