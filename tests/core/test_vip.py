"""Whose address it is and what a wish for it does: the decisions alone, without an API.

The agent's own tests (tests/eip) meet them through the cloud; here is every row, also the ones a cloud rarely shows.
"""

from __future__ import annotations

import pytest

from haptk.core.vip import (
    METADATA_LAG_S,
    Call,
    Holder,
    Last,
    Metadata,
    NotOurs,
    Ours,
    Sighting,
    Silence,
    Status,
    Target,
    Unknown,
    choose_place,
    judge,
    plan_start,
    plan_stop,
    plan_takeover,
)

HERE = Target(("eni-1", "eni-2"), None, None)
MINE, OTHERS = Holder("eni-1", "i-1", "10.0.0.1"), Holder("eni-9", "i-9", "10.0.0.9")
QUIET = Silence("no answer in time", trouble="AwsUnreachable")


@pytest.mark.parametrize(
    ("target", "holder", "covered"),
    [
        (HERE, MINE, True),
        (HERE, Holder("eni-2"), True),
        (HERE, OTHERS, False),
        (HERE, Holder(None, None), False),
        (Target((), None, "i-1"), MINE, True),
        (Target((), None, "i-1"), OTHERS, False),
        (Target((), None, None), MINE, False),  # a target that names nothing is nobody
        (Target((), None, None), Holder("eni-1", None), False),
        (Target(("eni-1",), "10.0.0.1"), MINE, True),
        (Target(("eni-1",), "10.0.0.2"), MINE, False),
        (Target((), "10.0.0.1", "i-9"), Holder("eni-9", "i-9", "10.0.0.9"), False),
    ],
)
def test_who_is_this_node(target: Target, holder: Holder, covered: bool) -> None:
    assert target.covers(holder) is covered


def test_holders_are_named_by_what_is_known_of_them() -> None:
    assert str(MINE) == "eni-1 (10.0.0.1) of i-1"
    assert str(Holder("eni-1")) == "eni-1"
    assert str(Holder(None, "i-1")) == "i-1"
    assert str(Holder(None, None, "10.0.0.1")) == "an unnamed holder (10.0.0.1)"
    assert str(Target()) == "an unnamed holder"
    assert str(HERE) == "eni-1"


LET_GO = Last(NotOurs(), 10.0)
WAS_OURS = Last(Ours("EC2"), 10.0)


@pytest.mark.parametrize(
    ("metadata", "seen", "last", "status"),
    [
        # The API's answer wins over metadata, which may lag either way.
        (Metadata.HELD, Sighting(OTHERS), None, NotOurs(OTHERS, "EC2")),
        (Metadata.ABSENT, Sighting(MINE), LET_GO, Ours("EC2")),
        (Metadata.HELD, Sighting(None), WAS_OURS, NotOurs(None, "EC2")),
        # Metadata's yes is enough while nothing contradicts it.
        (Metadata.HELD, None, None, Ours("metadata")),
        (Metadata.HELD, None, WAS_OURS, Ours("metadata")),
        (Metadata.HELD, QUIET, None, Ours("metadata")),
        # It is not, right after EC2 said no, until the lag is over.
        (Metadata.HELD, None, LET_GO, None),
        (Metadata.HELD, QUIET, Last(NotOurs(), METADATA_LAG_S + 0.5), Ours("metadata")),
        # Every other doubt asks the API first.
        (Metadata.ABSENT, None, WAS_OURS, None),
        (Metadata.SILENT, None, None, None),
    ],
)
def test_whose_it_is(metadata: Metadata, seen: Sighting | Silence | None, last: Last | None, status: Status) -> None:
    assert judge(metadata, seen, HERE, last) == status


@pytest.mark.parametrize(
    ("metadata", "last", "why"),
    [
        (Metadata.HELD, LET_GO, "the metadata service lists it, but 10 s ago EC2 did not, and no answer in time"),
        (
            Metadata.HELD,
            Last(NotOurs(), METADATA_LAG_S),
            "the metadata service lists it, but 60 s ago EC2 did not, and ",
        ),
        (Metadata.ABSENT, WAS_OURS, "the metadata service does not list it, which may be lag, and no answer in time"),
        (Metadata.SILENT, None, "no answer in time"),
        (Metadata.SILENT, LET_GO, "no answer in time"),
    ],
)
def test_what_nobody_can_tell_is_unknown_and_says_why(metadata: Metadata, last: Last | None, why: str) -> None:
    status = judge(metadata, QUIET, HERE, last)
    assert isinstance(status, Unknown) and status.why.startswith(why)
    assert (status.last, status.trouble) == (last, "AwsUnreachable")
    assert status.last_was_ours is (last is WAS_OURS)


def test_a_start_takes_what_is_not_here_and_never_in_the_dark() -> None:
    assert plan_start(Ours("EC2"), HERE).call is Call.NOTHING
    assert plan_start(NotOurs(None), HERE) == (Call.TAKE, "nobody holds it; taking it to eni-1", None)
    plan = plan_start(NotOurs(OTHERS), HERE)
    assert plan.call is Call.TAKE and "eni-9 (10.0.0.9) of i-9" in plan.because
    assert plan_start(Unknown("no answer"), HERE) == (Call.REFUSE, "not taken: no answer", None)
    blind = plan_start(Unknown("throttled"), HERE, blind=True)
    assert blind.call is Call.TAKE and "throttled" in blind.because


def test_a_warm_takeover_asks_nobody_unless_metadata_has_it() -> None:
    assert plan_takeover(Metadata.HELD, HERE) is None
    said = [plan_takeover(metadata, HERE) for metadata in (Metadata.ABSENT, Metadata.SILENT)]
    assert [plan.call for plan in said if plan is not None] == [Call.TAKE, Call.TAKE]
    assert said[0] is not None and "does not list it" in said[0].because
    assert said[1] is not None and "metadata is silent" in said[1].because


@pytest.mark.parametrize(
    ("private_ips", "taken", "wanted", "place"),
    [
        (["p1", "p2"], {}, None, ("p1", None)),
        (["p1", "p2"], {"p1": "x"}, None, ("p2", None)),
        (["p1", "p2"], {"p1": "me"}, None, ("p1", None)),  # where it is already
        (["p1", "p2"], {"p1": "x", "p2": "y"}, None, (None, "x")),
        ([], {}, None, (None, None)),
        (["p1", "p2"], {}, "p2", ("p2", None)),
        (["p1", "p2"], {"p2": "x"}, "p2", (None, "x")),
        (["p1", "p2"], {"p2": "me"}, "p2", ("p2", None)),
    ],
)
def test_where_it_goes(
    private_ips: list[str], taken: dict[str, str], wanted: str | None, place: tuple[str | None, str | None]
) -> None:
    assert choose_place(private_ips, taken, "me", wanted) == place


@pytest.mark.parametrize(
    ("seen", "call", "handle", "says"),
    [
        (Sighting(MINE, "eipassoc-1"), Call.RELEASE, "eipassoc-1", "by eipassoc-1"),
        (Sighting(MINE, None), Call.NOTHING, None, "left on eni-1"),
        (Sighting(OTHERS, "eipassoc-9"), Call.NOTHING, None, "left alone"),
        (Sighting(None), Call.NOTHING, None, "nobody holds it"),
        (Silence("no such address", gone=True), Call.NOTHING, None, "nothing to release"),
        (QUIET, Call.REFUSE, None, "cannot see who holds it"),
        (Silence("denied", answered=True), Call.REFUSE, None, "denied"),
    ],
)
def test_a_stop_releases_exactly_what_was_seen(
    seen: Sighting | Silence, call: Call, handle: str | None, says: str
) -> None:
    plan = plan_stop(seen, HERE)
    assert (plan.call, plan.handle) == (call, handle)
    assert says in plan.because


def test_states_are_sentences() -> None:
    assert str(Ours("metadata")) == "ours (says metadata)"
    assert str(NotOurs(OTHERS)) == "not ours: held by eni-9 (10.0.0.9) of i-9"
    assert str(NotOurs(None)) == "not ours: nobody holds it"
    assert str(Unknown("no answer")) == "unknown: no answer"
    assert str(Unknown("no answer", WAS_OURS)) == "unknown: no answer; 10 s ago it was ours"
    assert str(Unknown("no answer", LET_GO)) == "unknown: no answer; 10 s ago it was not ours"
