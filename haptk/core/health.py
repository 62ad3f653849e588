"""Rise and fall: when one checked thing (a server, a resource, a peer's service) counts as up. Pure; `now` is a parameter.

The rule is HAProxy's, so that `rise`, `fall` and the three intervals of a haproxy.cfg mean here what they mean there.
One counter, `health`, runs from 0 to rise + fall - 1; the thing is up while health >= rise:

    0 ......... rise-1 | rise ......... rise+fall-1
    down, recovering   | up, failing    fully up

* A good check counts one up; reaching `rise` jumps to fully up. A bad check counts one down; leaving the upper part
  jumps to 0. So `fall` bad checks in a row take a fully-up thing down and `rise` good ones bring it back.
* `init_state` says where the counter stands before the first check. HAProxy 2.6 knows only "up": health = rise, in
  service at once, and the first bad check takes it out. HAProxy 3.1 added the other three.
* The interval is `inter` when fully up, `downinter` when fully down, and `fastinter` in between.
* A conditional pass (404 under `http-check disable-on-404`) drains: sessions keep their server, new ones go elsewhere.
  It never brings a stopped server up.
* Traffic may count as a check (`observe`): `error_limit` errors in a row trigger `on_error`.

Every change is returned with the sentence that goes to the log. Nothing here probes, sleeps or logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from haptk.core.agent import parted


class State(Enum):
    """What a checked thing may be used for."""

    UP = "UP"
    DRAIN = "DRAIN"  # keeps its sessions, gets no new ones
    DOWN = "DOWN"
    MAINT = "MAINT"  # an administrator took it out; checks are not sent

    @property
    def usable(self) -> bool:
        """True when a session that is bound to it may still be sent there."""
        return self in (State.UP, State.DRAIN)


class Verdict(Enum):
    """What one check found."""

    PASS = "pass"  # noqa: S105 (a verdict, not a password)
    DRAIN = "drain"  # HAProxy's conditional pass
    FAIL = "fail"


INIT_STATES = ("fully-up", "up", "down", "fully-down")
ON_ERROR = ("fastinter", "fail-check", "sudden-death", "mark-down")


@dataclass(frozen=True)
class CheckRules:
    """The numbers of a `server ... check` line, in seconds, with HAProxy's defaults."""

    rise: int = 2
    fall: int = 3
    inter_s: float = 2.0
    fastinter_s: float | None = None
    downinter_s: float | None = None
    init_state: str = "up"
    error_limit: int = 10
    on_error: str = "fail-check"
    slowstart_s: float = 0.0

    def __post_init__(self) -> None:
        if self.rise < 1 or self.fall < 1:
            raise ValueError("rise and fall are at least 1")
        if self.inter_s <= 0:
            raise ValueError("inter is more than 0")
        if self.init_state not in INIT_STATES:
            raise ValueError(f"init_state is one of {', '.join(INIT_STATES)}")
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error is one of {', '.join(ON_ERROR)}")
        if self.error_limit < 1:
            raise ValueError("error_limit is at least 1")

    @property
    def full(self) -> int:
        """The counter's top: fully up."""
        return self.rise + self.fall - 1

    def initial_health(self) -> int:
        """Where the counter stands before the first check."""
        return {"fully-up": self.full, "up": self.rise, "down": self.rise - 1, "fully-down": 0}[self.init_state]


@dataclass(frozen=True)
class Change:
    """A transition that somebody has to act on. `reason` is the sentence for the log."""

    old: State
    new: State
    at: float
    reason: str


@dataclass
class Health:
    """The state of one checked thing. Feed it `check`, `observe`, `agent` and `admin`; each returns a Change or None.

    `now` is any monotonic clock in seconds. `due_at()` says when the next check is wanted.
    """

    name: str
    rules: CheckRules = field(default_factory=CheckRules)
    started_at: float = 0.0
    health: int = -1
    state: State = State.UP
    last_change_at: float = 0.0
    last_reason: str = "not checked yet"
    errors: int = 0
    agent_down: bool = False
    agent_drain: bool = False
    agent_weight_percent: int = 100
    _due_at: float = 0.0
    _draining: bool = False
    _maint: bool = False
    _forced_drain: bool = False
    _warming: bool = False

    def __post_init__(self) -> None:
        if self.health < 0:
            self.health = self.rules.initial_health()
        self.state = self._computed()
        self.last_change_at = self.started_at
        self._due_at = self.started_at

    # -- questions -----------------------------------------------------------------------------------------------

    def due_at(self) -> float | None:
        """When the next check should start; None while in maintenance, where none is sent."""
        return None if self._maint else self._due_at

    def interval_s(self) -> float:
        """The interval that holds now: inter when fully up, downinter when fully down, else fastinter."""
        rules = self.rules
        if self.health == rules.full:
            return rules.inter_s
        if self.health == 0:
            return rules.downinter_s or rules.inter_s
        return rules.fastinter_s or rules.inter_s

    def weight_percent(self, now: float) -> float:
        """Share of the configured weight to use, 0 to 100: the agent's wish, less while slowstart still runs.

        Draining things have weight 0. A server that is up from the beginning does not warm up, one that came back does.
        """
        if self.state is not State.UP:
            return 0.0
        share = float(self.agent_weight_percent)
        elapsed = now - self.last_change_at
        if self._warming and self.rules.slowstart_s > 0 and elapsed < self.rules.slowstart_s:
            # HAProxy never starts at 0: a server with no weight at all would never be tried.
            share *= max(elapsed / self.rules.slowstart_s, 1 / 16)
        return share

    @property
    def wish(self) -> str:
        """What an administrator asked for last: `ready`, `drain` or `maint`."""
        return "maint" if self._maint else "drain" if self._forced_drain or self.agent_drain else "ready"

    @property
    def stopping(self) -> bool:
        """True while a conditional pass (404) lets the sessions finish."""
        return self._draining

    def progress(self) -> str:
        """`2/3 UP` as HAProxy's logs and stats page count it: consecutive checks out of rise or fall."""
        rules = self.rules
        if self.health >= rules.rise:
            return f"{self.health - rules.rise + 1}/{rules.fall} {self.state.value}"
        return f"{self.health}/{rules.rise} {self.state.value}"

    # -- events --------------------------------------------------------------------------------------------------

    def check(self, verdict: Verdict, reason: str, now: float) -> Change | None:
        """One finished check. Schedules the next one; a result that arrives in maintenance is dropped.

        A conditional pass counts as one. (That a 404 is none on a server that is down, the check itself knows.)
        """
        if self._maint:
            return None
        if verdict is Verdict.FAIL:
            self._count_down()
        else:
            self._count_up()
            self._draining = verdict is Verdict.DRAIN
            self.errors = 0
        change = self._settle(self._explain(verdict, reason), now)
        self._due_at = now + self.interval_s()
        return change

    def observe(self, ok: bool, reason: str, now: float) -> Change | None:
        """One real exchange with the thing went well or not (`observe layer4|layer7`, `error-limit`, `on-error`)."""
        if ok:
            self.errors = 0
            return None
        if self._maint or self.health < self.rules.rise:
            return None
        self.errors += 1
        if self.errors < self.rules.error_limit:
            return None
        why = f"{self.errors} errors in a row in live traffic, the last one: {reason}"
        self.errors = 0
        action = self.rules.on_error
        if action == "sudden-death":
            self.health = min(self.health, self.rules.rise + 1)
        elif action == "mark-down":
            self.health = self.rules.rise
        if action != "fastinter":
            self._count_down()
        change = self._settle(why, now)
        self._due_at = min(self._due_at, now + (self.rules.fastinter_s or self.interval_s()))
        return change

    def trips_left(self) -> int:
        """How many more times `error_limit` errors in a row take it down; 0 when they alone never do."""
        spare = self.health - self.rules.rise
        if self._maint or spare < 0 or self.rules.on_error == "fastinter":
            return 0
        if self.rules.on_error == "mark-down":
            return 1
        return min(spare, 1) + 1 if self.rules.on_error == "sudden-death" else spare + 1

    def ease_percent(self, now: float) -> int:
        """Share of its limit of sessions that holds now, 0 to 100: it grows with each whole second of slowstart."""
        elapsed = int(now - self.last_change_at)
        if self.state is not State.UP or not self._warming or not 0 <= elapsed < self.rules.slowstart_s:
            return 100
        return int(100 * elapsed / self.rules.slowstart_s)

    def agent(self, answer: str, now: float) -> Change | None:
        """The line that an agent-check returned: any of `up down stopped fail drain ready maint NN%`, in one line.

        Words that are not known are ignored, as HAProxy does; text after a word that begins with `#` is the reason
        (`fail#x` is an unknown word). `drain`, `ready` and `maint` replace each other, whoever said the last one.
        """
        words, comment = parted(answer)
        why = f"agent said {' '.join(words)!r}" + (f": {comment}" if comment else "")
        for word in words:
            self._agent_word(word.lower(), now)
        return self._settle(why, now)

    def _agent_word(self, word: str, now: float) -> None:
        if word.endswith("%") and word[:-1].isdecimal():
            self.agent_weight_percent = min(int(word[:-1]), 25600)
        elif word == "up":
            self.agent_down = False
        elif word in ("down", "stopped", "fail"):
            self.agent_down = True
        elif word in ("drain", "ready", "maint"):
            self._set_admin(word, now)
            self.agent_drain = word == "drain"

    def admin(self, wish: str, now: float, reason: str = "an administrator asked") -> Change | None:
        """`ready`, `drain` or `maint`, as `set server ... state` has them. Leaving maint starts at the initial state."""
        if wish not in ("ready", "drain", "maint"):
            raise ValueError("an administrative state is one of ready, drain, maint")
        self._set_admin(wish, now)
        return self._settle(reason, now)

    def force(self, wish: str, now: float, reason: str = "an administrator set its health") -> Change | None:
        """`up`, `stopping` or `down`, as `set server ... health` has them; the next check counts from there."""
        if wish not in ("up", "stopping", "down"):
            raise ValueError("a health is one of up, stopping, down")
        self.health = 0 if wish == "down" else self.rules.full
        self._draining = wish == "stopping"
        return self._settle(reason, now)

    def force_agent(
        self, now: float, *, up: bool, reason: str = "an administrator said so for the agent"
    ) -> Change | None:
        """What the agent's view is until it says something else (`set server ... agent`)."""
        self.agent_down = not up
        return self._settle(reason, now)

    def _set_admin(self, wish: str, now: float) -> None:
        was_maint = self._maint
        self._maint = wish == "maint"
        self._forced_drain = wish == "drain"
        self.agent_drain = False
        if was_maint and not self._maint:
            self.health = self.rules.initial_health()
            self._draining = False
            self._due_at = now

    # -- inside --------------------------------------------------------------------------------------------------

    def _count_up(self) -> None:
        if self.health < self.rules.full:
            self.health += 1
            if self.health >= self.rules.rise:
                self.health = self.rules.full

    def _count_down(self) -> None:
        if self.health > 0:
            self.health -= 1
            if self.health < self.rules.rise:
                self.health = 0
                self._draining = False

    def _computed(self) -> State:
        if self._maint:
            return State.MAINT
        if self.health < self.rules.rise or self.agent_down:
            return State.DOWN
        if self._draining or self._forced_drain or self.agent_drain:
            return State.DRAIN
        return State.UP

    def _explain(self, verdict: Verdict, reason: str) -> str:
        count = self.rules.fall if verdict is Verdict.FAIL else self.rules.rise
        limit = "fall" if verdict is Verdict.FAIL else "rise"
        return f"{reason} ({limit} {count})"

    def _settle(self, reason: str, now: float) -> Change | None:
        """Compare what the counters say with what was announced last."""
        old, new = self.state, self._computed()
        self.last_reason = reason
        if old is new:
            return None
        self.state = new
        self._warming = new is State.UP and old in (State.DOWN, State.MAINT)
        self.last_change_at = now
        return Change(old, new, now, f"{self.name} is {new.value} (was {old.value}): {reason}")


def transplant(old: Health, rules: CheckRules) -> Health:
    """The state of `old` under new rules, for a reload: what was up stays up, what was down stays down.

    The counter is carried as a position inside its half, so that a server does not become healthier by a reload.
    """
    if old.health >= old.rules.rise:
        failures = old.rules.full - old.health
        health = max(rules.full - failures, rules.rise)
    else:
        health = min(old.health, rules.rise - 1)
    return replace(old, rules=rules, health=health)
