"""The judge, rule by rule: a passing drill, then the same drill with one thing wrong."""

from __future__ import annotations

import dataclasses

import pytest

from haptk.lab.judge import Evidence, Failure, count_moves, judge

KILL_S = 100.0


def answer(
    session: int, at: float, server: str = "A", known: bool = True, app_session: str | None = None, outcome: str = "ok"
):
    line = {"session": session, "start": at - 0.01, "end": at, "outcome": outcome}
    if outcome == "ok":
        line |= {"server": server, "known": known, "app_session": app_session or f"s{session}"}
    return line


def change(at: float, node: str | None):
    return {"monotonic_s": at, "instance_id": node and f"i-{node}", "node": node}


def passing() -> Evidence:
    requests = [answer(s, 99 + s / 10, "AB"[s % 2]) for s in range(4)]
    requests += [answer(s, 100.5 + s / 10, outcome="timeout") for s in range(4)]
    requests += [answer(s, 101.5 + s / 10, "AB"[s % 2]) for s in range(4)]
    return Evidence(
        requests=requests,
        events=[{"node": "lb2", "event": "peer_dead", "monotonic_s": 101.0}],
        calls=[{"action": "AssociateAddress", "monotonic_s": 101.02, "node": "lb2"}],
        history=[change(50.0, "lb1"), change(101.1, "lb2")],
        owners={"lb2": True},
        api_owner="lb2",
    )


FAILURE = Failure("instance", "lb1", KILL_S)


def faults(evidence: Evidence, failure: Failure = FAILURE, budget_s: float = 3.0) -> str:
    return " / ".join(judge(failure, evidence, budget_s).faults)


def test_a_clean_failover_passes_with_its_timeline() -> None:
    report = judge(FAILURE, passing(), 3.0)
    assert report.passed, report.faults
    assert [moment.what for moment in report.timeline] == [
        "last good answer",
        "killed: instance",
        "death detected",
        "address call sent",
        "address moved",
        "first good answer",
    ]
    assert report.outage_s == pytest.approx(101.5 - 99.3)
    assert (report.sessions.total, report.sessions.stayed) == (4, 4)
    assert report.failed == {"timeout": 4}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"owners": {"lb1": True, "lb2": True}}, "2 owners"),
        ({"api_owner": None}, "no owner"),
        ({"api_owner": "lb1"}, "still with lb1, which is dead"),
        ({"owners": {"lb2": None}}, "lb2 cannot tell"),
        ({"history": [change(50.0, "lb1")]}, "moved 0 times"),
        (
            {"history": [change(50.0, "lb1"), change(101, "lb2"), change(102, "lb1"), change(103, "lb2")]},
            "moved 3 times",
        ),
    ],
)
def test_a_wrong_owner_is_a_fault(changes: dict, words: str) -> None:
    assert words in faults(dataclasses.replace(passing(), **changes))


def test_a_session_of_a_surviving_server_that_moves_is_a_fault() -> None:
    good = passing()
    moved = [*good.requests[:-1], answer(3, 101.8, "A")]
    assert "1 sessions of a surviving" in faults(dataclasses.replace(good, requests=moved))


def test_a_session_that_its_server_forgot_is_a_fault() -> None:
    good = passing()
    forgotten = [*good.requests[:-1], answer(3, 101.8, "B", known=False, app_session="new")]
    assert "not known any more" in faults(dataclasses.replace(good, requests=forgotten))


def test_a_session_that_is_never_served_again_is_a_fault() -> None:
    good = passing()
    assert "1 sessions got no good answer" in faults(dataclasses.replace(good, requests=good.requests[:-1]))


def test_sessions_of_a_dead_application_server_may_be_lost() -> None:
    good = passing()
    requests = [answer(s, 99 + s / 10, "AB"[s % 2]) for s in range(4)]
    requests += [answer(s, 101 + s / 10, "A", app_session=f"s{s}" if s % 2 == 0 else "new") for s in range(4)]
    evidence = dataclasses.replace(good, requests=requests, history=[change(50.0, "lb2")], events=[], calls=[])
    report = judge(Failure("app", "app2", KILL_S, frozenset({"B"})), evidence, 3.0)
    assert report.passed, report.faults
    assert (report.sessions.stayed, report.sessions.lost_with_their_server) == (2, 2)


def test_an_outage_over_its_budget_is_a_fault() -> None:
    assert "over its budget" in faults(passing(), budget_s=1.0)


def test_a_drill_without_sessions_shows_nothing() -> None:
    assert "nothing was shown" in faults(dataclasses.replace(passing(), requests=[]))


def test_a_gap_without_owner_is_not_a_holder() -> None:
    assert count_moves([change(1, "lb1"), change(101, None), change(102, "lb2")], KILL_S) == 1
    assert count_moves([change(1, "lb1"), change(101, None), change(102, "lb1")], KILL_S) == 0


def test_an_outage_that_does_not_end_is_as_long_as_it_was_watched() -> None:
    good = passing()
    never = [request for request in good.requests if request["end"] < KILL_S]
    never += [answer(s, 100.5 + second, outcome="timeout") for s in range(4) for second in range(10)]
    report = judge(FAILURE, dataclasses.replace(good, requests=never), 3.0)
    assert report.outage_s == pytest.approx(109.5 - 99.3)
    assert report.timeline[-1].what == "still no good answer when the drill ended"
    assert any("over its budget" in fault for fault in report.faults)


def test_a_health_check_that_would_wake_somebody_up_is_a_fault() -> None:
    evidence = dataclasses.replace(passing(), alarms={"proxy on lb2": "CRITICAL: no connection"})
    assert faults(evidence) == "the check of the proxy on lb2 raises an alarm at the end: CRITICAL: no connection"
