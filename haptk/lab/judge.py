"""The judge: from what was logged during a drill to a timeline, counts and a verdict. Pure; reads no clock and no file.

All times are CLOCK_MONOTONIC seconds of one machine; the timeline is relative to the kill. The judge knows nothing of
how the failure was made: it sees the clients' log, the balancers' events, the cloud's call and association records,
and the state at the end.

The verdict's rules (each is one sentence in `faults`, and a test breaks each):
1. at the end the address has exactly one owner, a living one, and the cloud and the nodes agree on it;
2. a session whose application server survived stays on that server and is still known there;
3. every session is served again;
4. the outage is within its budget: the longest time without a single good answer, or, when an application server
   died, the longest time that one session had to wait;
5. the address moved once when a balancer failed, and not at all when it did not;
6. at the end no health check of what survived would raise an alarm.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DETECTIONS = ("peer_dead", "local_check_down")


@dataclass(frozen=True)
class Failure:
    """What was done: `kind` is proxy, instance or app; `victim` the instance; `dead_apps` servers that died with it."""

    kind: str
    victim: str
    killed_at_s: float
    dead_apps: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Evidence:
    """What was seen. `requests` as lab.load logs them; `events` {node, event, monotonic_s}; `calls` and `history` as the
    lab's network reports them; `owners` name -> True, False or None (unknown) for each living node;
    `api_owner` the node that the EC2 API names, None for nobody; `alarms` name -> what a failed health check said."""

    requests: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    calls: Sequence[Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    owners: Mapping[str, bool | None]
    api_owner: str | None
    alarms: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """One line of the timeline: seconds after the kill, what happened, and who saw or did it."""

    at_s: float
    what: str
    who: str


@dataclass
class Sessions:
    """What became of the sessions that existed before the failure."""

    total: int = 0
    stayed: int = 0
    lost_with_their_server: int = 0
    moved: int = 0
    forgotten: int = 0
    unserved: int = 0


@dataclass
class Report:
    """The judgement of one drill; `faults` is empty when it passed."""

    failure: Failure
    budget_s: float
    outage_s: float
    worst_session_s: float
    timeline: list[Moment]
    requests: int
    failed: dict[str, int]
    sessions: Sessions
    moves: int
    owners: dict[str, bool | None]
    api_owner: str | None
    alarms: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.faults


def longest_gap(good_ends: Sequence[float], after_s: float) -> tuple[float, float]:
    """(last good answer, first good answer) around the longest time without one that ends after `after_s`."""
    pairs = [(a, b) for a, b in itertools.pairwise(good_ends) if b > after_s]
    return max(pairs, key=lambda pair: pair[1] - pair[0], default=(after_s, after_s))


def worst_session(requests: Iterable[Mapping[str, Any]], after_s: float) -> float:
    """The longest time that one session waited between two good answers, the second of them after `after_s`."""
    ends: dict[int, list[float]] = {}
    for request in requests:
        if request["outcome"] == "ok":
            ends.setdefault(request["session"], []).append(request["end"])
    gaps = (longest_gap(sorted(times), after_s) for times in ends.values())
    return max((last - first for first, last in gaps), default=0.0)


def judge_sessions(requests: Iterable[Mapping[str, Any]], failure: Failure) -> Sessions:
    """Compare each session's last good answer before the kill with all its good answers after it."""
    before: dict[int, Mapping[str, Any]] = {}
    after: dict[int, list[Mapping[str, Any]]] = {}
    for request in requests:
        if request["outcome"] != "ok":
            continue
        if request["end"] <= failure.killed_at_s:
            before[request["session"]] = request
        elif request["start"] >= failure.killed_at_s:
            after.setdefault(request["session"], []).append(request)
    count = Sessions(total=len(before))
    for number, last in before.items():
        answers = after.get(number, [])
        if not answers:
            count.unserved += 1
        elif last["server"] in failure.dead_apps:
            count.lost_with_their_server += 1
        elif any(answer["server"] != last["server"] for answer in answers):
            count.moved += 1
        elif any(not answer["known"] or answer["app_session"] != last["app_session"] for answer in answers):
            count.forgotten += 1
        else:
            count.stayed += 1
    return count


def count_moves(history: Iterable[Mapping[str, Any]], since_s: float) -> int:
    """How often the address got another holder after `since_s`; the time between two holders is not a holder."""
    holder: object = None
    moves = 0
    for change in history:
        new = change.get("instance_id") or None
        if new is None or new == holder:
            continue
        if holder is not None and change["monotonic_s"] >= since_s:
            moves += 1
        holder = new
    return moves


def _timeline(failure: Failure, evidence: Evidence, gap: tuple[float, float], recovered: bool) -> list[Moment]:
    zero = failure.killed_at_s
    found = [Moment(0.0, f"killed: {failure.kind}", failure.victim)]

    def first(records: Iterable[Mapping[str, Any]], what: str, who: str) -> None:
        for record in records:
            if record["monotonic_s"] >= zero:
                found.append(Moment(record["monotonic_s"] - zero, what, str(record.get(who) or "nobody")))
                return

    first((e for e in evidence.events if e["event"] in DETECTIONS), "death detected", "node")
    first((e for e in evidence.events if e["event"] == "resource_start"), "take-over decided", "node")
    first((c for c in evidence.calls if c["action"] == "AssociateAddress"), "address call sent", "node")
    first((h for h in evidence.history if h.get("instance_id")), "address moved", "node")
    if gap[1] > gap[0]:
        found.append(Moment(gap[0] - zero, "last good answer", "clients"))
        last = "first good answer" if recovered else "still no good answer when the drill ended"
        found.append(Moment(gap[1] - zero, last, "clients"))
    return sorted(found, key=lambda moment: moment.at_s)


def _owner_faults(report: Report, dead: frozenset[str]) -> Iterable[str]:
    holders = sorted(name for name, holds in report.owners.items() if holds)
    unknown = sorted(name for name, holds in report.owners.items() if holds is None)
    if len(holders) > 1:
        yield f"the address has {len(holders)} owners at the end: {', '.join(holders)} each believe they hold it"
    if report.api_owner is None:
        yield "the address has no owner at the end: the EC2 API names nobody"
    elif report.api_owner in dead:
        yield f"the address is still with {report.api_owner}, which is dead"
    elif not holders:
        detail = f" ({', '.join(unknown)} cannot tell)" if unknown else ""
        yield f"the EC2 API names {report.api_owner}, but no node believes it holds the address{detail}"
    elif holders != [report.api_owner]:
        yield f"the EC2 API names {report.api_owner}, the nodes say {', '.join(holders)}"


def _faults(report: Report) -> Iterable[str]:
    dead = frozenset({report.failure.victim}) if report.failure.kind == "instance" else frozenset()
    yield from _owner_faults(report, dead)
    sessions = report.sessions
    if sessions.total == 0:
        yield "no session was established before the failure, so nothing was shown"
    if sessions.moved:
        yield f"{sessions.moved} sessions of a surviving application server moved to another one"
    if sessions.forgotten:
        yield f"{sessions.forgotten} sessions were not known any more to the server that had them"
    if sessions.unserved:
        yield f"{sessions.unserved} sessions got no good answer after the failure"
    if report.outage_s > report.budget_s:
        yield f"the outage of {report.outage_s:.2f} s is over its budget of {report.budget_s:.2f} s"
    expected = 0 if report.failure.kind == "app" else 1
    if report.moves != expected:
        yield f"the address moved {report.moves} times, expected {expected}"
    for name, said in report.alarms.items():
        yield f"the check of the {name} raises an alarm at the end: {said}"


def judge(failure: Failure, evidence: Evidence, budget_s: float) -> Report:
    """The report of one drill."""
    ends = sorted(request["end"] for request in evidence.requests if request["outcome"] == "ok")
    # Where nobody was served again the outage lasts for as long as anybody looked.
    seen_until_s = max((request["end"] for request in evidence.requests), default=failure.killed_at_s)
    gap = longest_gap([*ends, seen_until_s], failure.killed_at_s)
    recovered = bool(ends) and gap[1] <= ends[-1]
    worst_s = worst_session(evidence.requests, failure.killed_at_s)
    failed = Counter(request["outcome"] for request in evidence.requests if request["outcome"] != "ok")
    report = Report(
        failure=failure,
        budget_s=budget_s,
        # An application server's death is felt by its own sessions alone: theirs is the outage then.
        outage_s=worst_s if failure.kind == "app" else gap[1] - gap[0],
        worst_session_s=worst_s,
        timeline=_timeline(failure, evidence, gap, recovered),
        requests=len(evidence.requests),
        failed=dict(failed.most_common()),
        sessions=judge_sessions(evidence.requests, failure),
        moves=count_moves(evidence.history, failure.killed_at_s),
        owners=dict(evidence.owners),
        api_owner=evidence.api_owner,
        alarms=dict(evidence.alarms),
    )
    report.faults = list(_faults(report))
    return report
