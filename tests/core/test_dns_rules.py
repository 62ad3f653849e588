"""What answers mean and who may leave the name: the rules alone, without a socket."""

from __future__ import annotations

import pytest

from haptk.core.dns import (
    Declared,
    Holding,
    Membership,
    Problem,
    Stored,
    View,
    chi_square,
    chi_square_tail,
    emptied,
    judge_holdings,
    judge_records,
    judge_views,
    serial_behind,
)
from haptk.core.health import CheckRules

A, B, C, X = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.99"


def declared(policy: str = "simple", weights: tuple[int, int, int] = (1, 1, 1), checked: bool = False) -> Declared:
    nodes = {A: "lb1", B: "lb2", C: "lb3"}
    return Declared("www.example.com", policy, 30, dict(zip((A, B, C), weights, strict=True)), nodes, checked)


def rotating(count: int, ttl_s: int = 30, **more: object) -> View:
    three = ((A, B, C), (B, C, A), (C, A, B))
    return View("ns1", True, tuple(three[at % 3] for at in range(count)), ttl_s, **more)  # type: ignore[arg-type]


def codes(problems: list[Problem]) -> list[str]:
    return [one.code for one in problems]


@pytest.mark.parametrize(
    ("statistic", "freedom", "tail"),
    [(3.841, 1, 0.05), (5.991, 2, 0.05), (7.815, 3, 0.05), (13.277, 4, 0.01), (20.515, 5, 0.001), (0.0, 2, 1.0)],
)
def test_the_tail_agrees_with_the_printed_table(statistic: float, freedom: int, tail: float) -> None:
    assert chi_square_tail(statistic, freedom) == pytest.approx(tail, rel=2e-3)


def test_small_samples_are_not_judged() -> None:
    assert chi_square({A: 9, B: 0}, {A: 1, B: 1}) is None
    tested = chi_square({A: 20, B: 0}, {A: 1, B: 1})
    assert tested is not None and tested[0] == pytest.approx(20) and tested[1] < 1e-4


def test_serials_wrap() -> None:
    assert serial_behind(1, 2) and not serial_behind(2, 1) and not serial_behind(7, 7)
    assert serial_behind(2**32 - 1, 0) and not serial_behind(0, 2**32 - 1)


def test_what_is_declared_is_no_problem() -> None:
    assert judge_views(declared(), [rotating(60)], {}) == []


def test_no_rotation_is_found_and_a_cache_is_not_asked_for_it() -> None:
    fixed = ((A, B, C),) * 60
    (one,) = judge_views(declared(), [View("ns1", True, fixed, 30), View("cache", False, fixed, 30)], {})
    assert one.code == "rotation" and "60" in one.text and one.text.startswith("ns1")


def test_a_wrong_weight_is_measured() -> None:
    """10:10:5 is declared and 10:10:10 is served; what is declared passes with the same number of answers."""
    wanted = declared("weighted", (10, 10, 5))
    equal = View("ns1", True, tuple((address,) for address in (A, B, C) * 80), 30)
    (one,) = judge_views(wanted, [equal], {})
    assert one.code == "weight" and "10:10:5" in one.text
    right = View("ns1", True, tuple((address,) for address in (A, A, B, B, C) * 48), 30)
    assert judge_views(wanted, [right], {}) == []


def test_chance_explains_a_member_that_few_answers_do_not_show() -> None:
    wanted = declared("weighted", (10, 10, 5))
    assert judge_views(wanted, [View("ns1", True, ((A,), (B,)), 30)], {}) == []
    many = View("ns1", True, ((A,), (B,)) * 30, 30)
    assert codes(judge_views(wanted, [many], {})) == ["missing"]
    assert codes(judge_views(wanted, [many], {C: "refused"})) == ["withdrawn"]


def test_stale_drained_ttl_lame_and_silent() -> None:
    assert codes(judge_views(declared(), [View("ns1", True, ((A, B, C, X),), 30)], {})) == ["stale"]
    drained = declared("weighted", (1, 1, 0))
    assert codes(judge_views(drained, [View("ns1", True, ((C,), (A,), (B,)), 30)], {})) == ["weight"]
    assert codes(judge_views(declared(), [rotating(3, 600)], {})) == ["ttl"]
    assert codes(judge_views(declared(), [rotating(3), View("cache", False, ((A, B, C),), 12)], {})) == []
    assert codes(judge_views(declared(), [rotating(3, lame=True)], {})) == ["lame"]
    silent = View("ns2", True, error="no answer")
    assert [(one.code, one.severity) for one in judge_views(declared(), [rotating(3), silent], {})] == [
        ("silent", "critical")
    ]
    assert {one.severity for one in judge_views(declared(), [silent], {})} == {"unknown"}, "it may be our own network"


def test_the_server_that_is_behind_is_named() -> None:
    late = View("ns2", True, ((A, B, C),), 30, serial=2**32 - 2)
    (one,) = judge_views(declared(), [rotating(3, serial=5), late], {})
    assert one.code == "behind" and one.text.startswith("ns2 is behind")


def test_records_and_holders() -> None:
    wanted = declared("weighted", (10, 10, 5), checked=True)
    stored = [Stored(A, 10, 30, True), Stored(B, 9, 30, False), Stored(X, 1, 30, True)]
    assert codes(judge_records(wanted, stored)) == ["stale", "weight", "unchecked", "missing"]
    held = {
        A: Holding(True, "lb1", ("lb1",)),
        B: Holding(True, "lb1", ("lb2",)),
        C: Holding(True),
        X: Holding(known=False),
    }
    found = judge_holdings(wanted, [A, X], held)
    assert codes(found) == ["holder", "free", "dangling"]
    assert B in found[0].text and "lb1" in found[0].text and C in found[1].text and X in found[2].text


LIVE = {A: 1, B: 1, C: 1}
UP, DOWN, BLIND = (True, "200"), (False, "refused"), (None, "no route")


def watch(withdrawn: dict[str, int] | None = None) -> Membership:
    return Membership(declared(), CheckRules(rise=2, fall=3), withdrawn or {}, 0.0)


def test_fall_withdraws_and_rise_returns() -> None:
    one = watch()
    live = dict(LIVE)
    bad = {A: DOWN, B: UP, C: UP}
    assert [dict(one.round(live, bad, at).edits) for at in range(3)] == [{}, {}, {A: 0}]
    one.done({A: 0}, live)
    live[A] = 0
    assert one.round(live, bad, 3.0).edits == {}
    good = {A: UP, B: UP, C: UP}
    assert [dict(one.round(live, good, at).edits) for at in (4.0, 5.0)] == [{}, {A: 1}]


def test_nothing_moves_while_one_cannot_see() -> None:
    one = watch()
    for at in range(9):
        assert one.round(LIVE, {A: DOWN, B: DOWN, C: DOWN}, at).edits == {}
        assert one.round(LIVE, {A: BLIND, B: UP, C: UP}, at).edits == {}
        assert one.round(LIVE, {A: BLIND, B: BLIND, C: BLIND}, at).edits == {}
    for at in range(9):
        assert one.round(None, {A: DOWN, B: UP, C: UP}, at).edits == {}
    assert one.round(LIVE, {A: DOWN, B: UP, C: UP}, 9.0).edits == {A: 0}, "the checks were counted meanwhile"


def test_the_last_one_that_serves_stays() -> None:
    """A and B fall while C, drained by hand, is the only one that answers: the name keeps A and B."""
    one = watch()
    live = {A: 1, B: 1, C: 0}
    for at in range(9):
        decision = one.round(live, {A: DOWN, B: DOWN, C: UP}, at)
        assert decision.edits == {}
    assert "nobody who answers would be left" in decision.reasons[-1]
    assert emptied(live, {A: 0, B: 0}) and not emptied(live, {A: 0})


def test_a_drain_by_hand_is_not_undone() -> None:
    one = watch()
    assert all(one.round({A: 0, B: 1, C: 1}, {A: UP, B: UP, C: UP}, at).edits == {} for at in range(5))


def test_a_restarted_watch_returns_what_it_withdrew_with_its_weight() -> None:
    one = watch({A: 7})
    good = {A: UP, B: UP, C: UP}
    assert [dict(one.round({B: 1, C: 1}, good, at).edits) for at in range(2)] == [{}, {A: 7}]
    other = watch({A: 7})
    for at in range(3):
        assert other.round(LIVE, good, at).edits == {}, "somebody else returned it"
    assert other.withdrawn == {}


def test_a_cache_may_not_keep_an_answer_longer_than_declared() -> None:
    (one,) = judge_views(declared(), [rotating(3), View("cache", False, ((A, B, C),), 31)], {})
    assert one.code == "ttl" and one.text.startswith("cache keeps the answer for 31 s")


def test_route_53_answers_with_eight_of_more_members() -> None:
    """A member of ten that one answer lacks is chance; that a hundred lack it is not."""
    ten = {f"203.0.113.{number}": 1 for number in range(10)}
    wanted = Declared("www.example.com", "multivalue", 30, ten, dict.fromkeys(ten, ""), False)
    eight = tuple(ten)[:8]
    assert [one for one in judge_views(wanted, [View("ns1", True, (eight,), 30)], {}) if one.code == "missing"] == []
    many = View("ns1", True, (eight,) * 100, 30)
    found = [one for one in judge_views(wanted, [many], {}) if one.code == "missing"]
    assert len(found) == 2


def test_equal_weights_of_one_are_weights() -> None:
    many = View("ns1", True, ((A,), (B,)) * 30, 30)
    assert codes(judge_views(declared("weighted", (1, 1, 1)), [many], {})) == ["missing"]


def test_a_statistic_that_cannot_be_is_refused() -> None:
    for statistic, freedom in ((-0.1, 1), (1.0, 0)):
        with pytest.raises(ValueError, match="at least one degree"):
            chi_square_tail(statistic, freedom)
