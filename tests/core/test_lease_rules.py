"""The rules of a lease, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haptk.core.lease import Move, Record, Silent, Watch, decide_hold, decide_take, judge_renewal

OTHER = Record("b", 7, 3, 9.0)


def take(seen: Record | Silent | None, watch: Watch, now: float, held_by_other: bool = False) -> Move:
    if not isinstance(seen, Silent):
        watch.saw(seen, now)
    return decide_take("a", seen, watch, 9.0, now, held_by_other).move


def test_another_clock_is_never_read_only_the_standing_still_of_the_record() -> None:
    watch = Watch()
    assert take(OTHER, watch, 1000.0) is Move.WAIT
    assert take(OTHER, watch, 1008.9) is Move.WAIT
    assert take(OTHER._replace(rvn=8), watch, 1008.95) is Move.WAIT  # renewed: the count begins anew
    assert take(OTHER._replace(rvn=8), watch, 1017.9) is Move.WAIT
    assert take(OTHER._replace(rvn=8), watch, 1017.95) is Move.TAKE


def test_a_lease_that_was_let_go_or_is_our_own_is_taken_at_once() -> None:
    assert take(Record("", 8, 3, 9.0), Watch(), 0.0, held_by_other=True) is Move.TAKE
    assert take(OTHER._replace(owner="a"), Watch(), 0.0) is Move.TAKE


def test_where_there_never_was_a_lease_a_node_that_has_the_address_gets_time_to_start() -> None:
    watch = Watch()
    assert take(None, watch, 0.0, held_by_other=True) is Move.WAIT
    assert take(None, watch, 8.9, held_by_other=True) is Move.WAIT
    assert take(None, watch, 9.0, held_by_other=True) is Move.TAKE
    assert take(None, Watch(), 0.0, held_by_other=False) is Move.TAKE


def test_a_silent_store_gives_nothing_and_takes_nothing() -> None:
    watch = Watch()
    watch.saw(OTHER, 0.0)
    assert take(Silent("down"), watch, 1e6) is Move.WAIT
    assert judge_renewal(OTHER, Silent("down")).move is Move.KEEP


def test_time_in_which_the_store_was_silent_counts_only_when_the_record_stood_still() -> None:
    """The holder may have renewed meanwhile: the first answer after the silence shows it."""
    watch = Watch()
    watch.saw(OTHER, 0.0)
    assert take(OTHER._replace(rvn=20), watch, 100.0) is Move.WAIT


def test_a_refused_renewal_is_lost_only_when_the_record_says_so() -> None:
    mine = OTHER
    assert judge_renewal(mine, mine._replace(rvn=99)).move is Move.KEEP
    assert judge_renewal(mine, mine._replace(owner="c", epoch=4)).move is Move.LOST
    assert judge_renewal(mine, mine._replace(epoch=4)).move is Move.LOST
    assert judge_renewal(mine, None).move is Move.LOST


def test_an_unhealthy_holder_lets_go() -> None:
    assert decide_hold(OTHER, healthy=False).move is Move.LET_GO
    assert decide_hold(OTHER, healthy=True).move is Move.RENEW


@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.booleans()), min_size=1, max_size=30))
def test_a_holder_that_renews_in_time_is_never_taken_from(steps: list[tuple[float, bool]]) -> None:
    """Looks come at any times; between any two of them at most a time to live passes without a renewal."""
    watch, now, rvn, renewed_at = Watch(), 0.0, 1, 0.0
    for pause_s, _look in steps:
        now += pause_s
        while renewed_at + 3.0 <= now:
            renewed_at += 3.0
            rvn += 1
        assert take(OTHER._replace(rvn=rvn), watch, now) is Move.WAIT


@given(st.integers(0, 5), st.floats(0.0, 30.0))
def test_every_decision_says_why(kind: int, now: float) -> None:
    seen = [OTHER, OTHER._replace(owner=""), OTHER._replace(owner="a"), None, Silent("x"), OTHER][kind]
    watch = Watch()
    if not isinstance(seen, Silent):
        watch.saw(seen, 0.0)
    decision = decide_take("a", seen, watch, 9.0, now, held_by_other=True)
    assert decision.because and decision.wait_s >= 0
