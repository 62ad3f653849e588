"""What answers about the tier's name mean, and who may leave or join it. Pure: no socket, no clock, no dnspython.

One model for every provider: `weights` maps an address to its weight, and 0 (or absence) means that it is not given to
clients. Where there are no weights every present address has 1.

* Answers: an address that is answered and not declared is stale; one that is declared and never answered is missing,
  once enough answers were seen that chance cannot explain it; rotation and weights are compared by Pearson's
  chi-square test on who stands first. Serials are compared as RFC 1982 has it.
* Membership: an address leaves after `fall` bad checks and returns after `rise` good ones (haptk.core.health). A round
  in which nobody answers tells more about the one who asks, so it counts for nothing. The last address never leaves.
  Only what the watch itself took out comes back: an administrator's drain stays.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from haptk.core.health import CheckRules, Health, State, Verdict

CRITICAL, WARNING, UNKNOWN = "critical", "warning", "unknown"
SURE = 0.001
"""Below this probability chance is no explanation: with it one check in a thousand raises a false alarm."""
MULTIVALUE_MOST = 8
"""Route 53 puts at most eight records into a multivalue answer."""


@dataclass(frozen=True)
class Problem:
    """One thing that is not as declared; `code` is for programs, `text` for people."""

    code: str
    severity: str
    text: str


@dataclass(frozen=True)
class Declared:
    """What cluster.toml wants: weights and nodes by address; `ttl_s` in seconds."""

    name: str
    policy: str
    ttl_s: int
    weights: Mapping[str, int]
    nodes: Mapping[str, str]
    checked: bool = False

    def label(self, address: str) -> str:
        """The address with the node that it stands for."""
        return f"{address} ({self.nodes[address]})" if address in self.nodes else address


@dataclass(frozen=True)
class View:
    """What one server said: every answer in its order of addresses. `error` says why there is nothing."""

    server: str
    authoritative: bool
    answers: tuple[tuple[str, ...], ...] = ()
    ttl_s: int | None = None
    serial: int | None = None
    error: str = ""
    lame: bool = False

    def seen(self) -> set[str]:
        """Every address that was answered at least once."""
        return {address for answer in self.answers for address in answer}


@dataclass(frozen=True)
class Stored:
    """A record as the provider's own API shows it."""

    address: str
    weight: int
    ttl_s: int
    checked: bool


@dataclass(frozen=True)
class Holding:
    """What EC2 says of an Elastic IP; `known` false when the account has no such address, holder "" when it is free."""

    known: bool
    holder: str = ""
    allowed: tuple[str, ...] = ()


# -- statistics -----------------------------------------------------------------------------------------------------


def chi_square_tail(statistic: float, freedom: int) -> float:
    """P(X >= statistic) of the chi-square distribution, exact for whole degrees of freedom (Abramowitz & Stegun 26.4.4,
    26.4.5). ValueError for a negative statistic or no freedom."""
    if statistic < 0 or freedom < 1:
        raise ValueError("a statistic is not negative and has at least one degree of freedom")
    half = statistic / 2
    if freedom % 2:
        total = math.erfc(math.sqrt(half))
        term = math.sqrt(half / math.pi) * 2 * math.exp(-half)
        start = 3
    else:
        total = math.exp(-half)
        term = total * half
        start = 4
    for degrees in range(start, freedom + 1, 2):
        total += term
        term *= half / (degrees / 2)
    return min(1.0, total)


def chi_square(counts: Mapping[str, int], weights: Mapping[str, int]) -> tuple[float, float] | None:
    """(statistic, probability) that `counts` were drawn by `weights`; None where the sample is too small.

    Too small is Cochran's rule: an expected count below 5 anywhere, or fewer than two positive weights.
    """
    positive = {key: weight for key, weight in weights.items() if weight > 0}
    drawn, whole = sum(counts.get(key, 0) for key in positive), sum(positive.values())
    if len(positive) < 2 or drawn * min(positive.values()) < 5 * whole:
        return None
    statistic = 0.0
    for key, weight in positive.items():
        expected = drawn * weight / whole
        statistic += (counts.get(key, 0) - expected) ** 2 / expected
    return statistic, chi_square_tail(statistic, len(positive) - 1)


def serial_behind(one: int, other: int) -> bool:
    """Whether serial `one` is older than `other` (RFC 1982, 32 bits)."""
    return 0 < (other - one) % 2**32 < 2**31


# -- answers --------------------------------------------------------------------------------------------------------


def judge_views(declared: Declared, views: Sequence[View], dead: Mapping[str, str]) -> list[Problem]:
    """Every problem in what the servers said. `dead` maps an address to why it does not serve."""
    found: list[Problem] = []
    usable = [view for view in views if view.authoritative and not view.error]
    if not usable:
        found.append(Problem("blind", UNKNOWN, f"no authoritative server answered for {declared.name}"))
    for view in views:
        if view.error:
            severity = CRITICAL if view.authoritative and usable else UNKNOWN
            found.append(Problem("silent", severity, f"{view.server}: {view.error}"))
        else:
            found += _judge_view(declared, view, dead)
    return found + list(_behind(usable))


def _judge_view(declared: Declared, view: View, dead: Mapping[str, str]) -> Iterator[Problem]:
    given = {address for address, weight in declared.weights.items() if weight > 0}
    if view.lame:
        yield Problem("lame", CRITICAL, f"{view.server} is named for the zone and is not authoritative for it")
    for address in sorted(view.seen() - set(declared.weights)):
        until = "" if view.authoritative else f" (cached for at most {view.ttl_s} s more)"
        severity = CRITICAL if view.authoritative else WARNING
        yield Problem("stale", severity, f"{view.server} answers {address}, which no balancer declares{until}")
    for address in sorted(view.seen() & (set(declared.weights) - given)):
        yield Problem("weight", WARNING, f"{view.server} answers {declared.label(address)}, whose weight is 0")
    missing = [address for address in sorted(given - view.seen()) if _surely_missing(declared, view, address)]
    for address in missing:
        if address in dead:
            yield Problem(
                "withdrawn", WARNING, f"{view.server}: {declared.label(address)} is withdrawn: {dead[address]}"
            )
        else:
            severity = CRITICAL if view.authoritative else WARNING
            yield Problem("missing", severity, f"{view.server} does not answer {declared.label(address)}")
    yield from _ttl(declared, view)
    if view.authoritative:
        yield from _shares(declared, view, given - set(missing))


def _surely_missing(declared: Declared, view: View, address: str) -> bool:
    """Whether chance does not explain that the address was never in an answer."""
    whole = sum(weight for weight in declared.weights.values() if weight > 0)
    if declared.policy == "weighted":
        share = declared.weights[address] / whole
    elif declared.policy == "multivalue":
        share = min(1.0, MULTIVALUE_MOST / len(declared.weights))
    else:
        share = 1.0
    if not view.authoritative and share < 1.0:
        return False  # a cache repeats one draw: its answers are no sample
    return (1.0 - share) ** len(view.answers) < SURE


def _ttl(declared: Declared, view: View) -> Iterator[Problem]:
    if view.ttl_s is None:
        return
    if view.authoritative and view.ttl_s != declared.ttl_s:
        yield Problem("ttl", WARNING, f"{view.server} has TTL {view.ttl_s} s, declared is {declared.ttl_s} s")
    elif not view.authoritative and view.ttl_s > declared.ttl_s:
        why = f"{view.server} keeps the answer for {view.ttl_s} s, longer than the declared {declared.ttl_s} s"
        yield Problem("ttl", WARNING, why)


def _shares(declared: Declared, view: View, present: set[str]) -> Iterator[Problem]:
    """Rotation or weights: who stands first."""
    firsts = Counter(answer[0] for answer in view.answers if answer)
    weights = {address: declared.weights[address] for address in present}
    tested = chi_square(firsts, weights)
    if tested is None or tested[1] >= SURE:
        return
    code = "weight" if declared.policy == "weighted" else "rotation"
    counted = ", ".join(f"{declared.label(address)} {firsts.get(address, 0)}" for address in sorted(weights))
    wanted = ":".join(str(weights[address]) for address in sorted(weights))
    why = f"{view.server}: of {sum(firsts.values())} answers first was {counted}; declared is {wanted}"
    yield Problem(code, WARNING, f"{why} (chi-square {tested[0]:.1f}, p {tested[1]:.2g})")


def _behind(views: Sequence[View]) -> Iterator[Problem]:
    known = [(view.server, view.serial) for view in views if view.serial is not None]
    for server, serial in known:
        newer = [other for other in known if serial_behind(serial, other[1])]
        if newer:
            name, top = max(newer, key=lambda other: (other[1] - serial) % 2**32)
            yield Problem("behind", CRITICAL, f"{server} is behind: it has serial {serial}, {name} has {top}")


# -- records and addresses ------------------------------------------------------------------------------------------


def judge_records(declared: Declared, stored: Iterable[Stored]) -> list[Problem]:
    """What the provider's records have against the declaration."""
    found: list[Problem] = []
    there = {one.address: one for one in stored}
    for address in sorted(set(there) - set(declared.weights)):
        found.append(Problem("stale", CRITICAL, f"the zone has {address}, which no balancer declares"))
    for address, weight in declared.weights.items():
        label, one = declared.label(address), there.get(address)
        if one is None:
            found.append(Problem("missing", CRITICAL, f"the zone has no record of {label}"))
            continue
        if declared.policy == "weighted" and one.weight != weight:
            found.append(Problem("weight", WARNING, f"{label} has weight {one.weight}, declared is {weight}"))
        if declared.checked and not one.checked:
            why = f"the record of {label} has no health check: it stays in the name when the balancer dies"
            found.append(Problem("unchecked", CRITICAL, why))
        if one.ttl_s != declared.ttl_s:
            found.append(
                Problem("ttl", WARNING, f"the record of {label} has TTL {one.ttl_s} s, declared is {declared.ttl_s} s")
            )
    return found


def judge_holdings(declared: Declared, published: Iterable[str], holdings: Mapping[str, Holding]) -> list[Problem]:
    """Who holds each declared or published address. An unowned published one may soon be somebody else's machine."""
    found: list[Problem] = []
    public = set(published)
    for address in sorted(public | set(declared.weights)):
        one, label = holdings.get(address), declared.label(address)
        if one is None:
            continue
        if not one.known:
            severity = CRITICAL if address in public else WARNING
            found.append(
                Problem("dangling", severity, f"{label} is no Elastic IP of this account: clients go to strangers")
            )
        elif not one.holder:
            found.append(Problem("free", CRITICAL, f"{label} is held by nobody"))
        elif one.allowed and one.holder not in one.allowed:
            why = f"{label} is held by {one.holder}; declared is {', '.join(one.allowed)}"
            found.append(Problem("holder", CRITICAL, why))
    return found


def judge_service(declared: Declared, dead: Mapping[str, str], unseen: Mapping[str, str]) -> list[Problem]:
    """Members that do not serve, and those that could not be looked at."""
    found = [
        Problem("dead", CRITICAL, f"{declared.label(address)} does not serve: {why}") for address, why in dead.items()
    ]
    return found + [Problem("unseen", UNKNOWN, f"{declared.label(one)}: {why}") for one, why in unseen.items()]


# -- membership -----------------------------------------------------------------------------------------------------


def emptied(live: Mapping[str, int], edits: Mapping[str, int]) -> bool:
    """Whether nobody would be left in the name after the edits."""
    return not any(weight > 0 for weight in {**live, **edits}.values())


@dataclass(frozen=True)
class Decision:
    """What a round asks for: `edits` are new weights by address (0 leaves), `reasons` the sentences for the log."""

    edits: Mapping[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


class Membership:
    """Rise and fall of every declared address. `withdrawn` maps what we took out to the weight it had.

    `round` takes what one round of checks saw and decides; the caller acts, then calls `done` with what was accepted.
    """

    def __init__(self, declared: Declared, rules: CheckRules, withdrawn: Mapping[str, int], now: float) -> None:
        self.declared = declared
        self.withdrawn = {address: weight for address, weight in withdrawn.items() if address in declared.weights}
        self.health = {}
        for address in declared.weights:
            full = 0 if address in self.withdrawn else rules.full
            self.health[address] = self._fresh(address, rules, full, now)

    def _fresh(self, address: str, rules: CheckRules, health: int, now: float) -> Health:
        return Health(self.declared.label(address), rules, started_at=now, health=health)

    def round(
        self, live: Mapping[str, int] | None, results: Mapping[str, tuple[bool | None, str]], now: float
    ) -> Decision:
        """`results` maps an address to (answered well, why); None in place of a bool: it could not be looked at.

        `live` is what the name has now, None when the provider did not tell: then the checks count and nothing moves.
        """
        for address in [one for one in self.withdrawn if live is not None and live.get(one, 0) > 0]:
            # Somebody else returned it, or it never left: `fall` bad checks are needed again.
            del self.withdrawn[address]
            rules = self.health[address].rules
            self.health[address] = self._fresh(address, rules, rules.full, now)
        if not any(well for well, _ in results.values()):
            return Decision(reasons=("nobody answers: the fault may be here, so this round counts for nothing",))
        reasons = []
        for address, (well, why) in results.items():
            if well is None or address not in self.health:
                continue
            change = self.health[address].check(Verdict.PASS if well else Verdict.FAIL, why, now)
            if change is not None:
                reasons.append(change.reason)
        if live is None:
            return Decision(reasons=(*reasons, "the provider does not tell who is in the name: nothing is changed"))
        return self._decide(live, results, reasons)

    def _decide(
        self, live: Mapping[str, int], results: Mapping[str, tuple[bool | None, str]], reasons: list[str]
    ) -> Decision:
        edits: dict[str, int] = {}
        for address, weight in self.withdrawn.items():
            if live.get(address, 0) == 0 and self.health[address].state is State.UP:
                edits[address] = weight
        leaving = [one for one, health in self.health.items() if health.state is State.DOWN and live.get(one, 0) > 0]
        after = {**live, **edits, **dict.fromkeys(leaving, 0)}
        # Somebody who answered in this very round has to stay: a member that merely has not failed yet is no proof.
        proven = any(weight > 0 and results.get(one, (None, ""))[0] for one, weight in after.items())
        if leaving and not proven:
            names = ", ".join(self.declared.label(one) for one in leaving)
            reasons.append(f"{names} stays in the name: nobody who answers would be left")
        else:
            edits.update(dict.fromkeys(leaving, 0))
        return Decision(edits, tuple(reasons))

    def done(self, edits: Mapping[str, int], live: Mapping[str, int]) -> None:
        """The provider accepted `edits`, which were decided on `live`."""
        for address, weight in edits.items():
            if weight == 0:
                self.withdrawn[address] = live[address]
            else:
                self.withdrawn.pop(address, None)
