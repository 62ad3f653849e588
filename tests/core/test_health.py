"""The rise/fall machine against HAProxy's definition of it, and against properties that must hold for any sequence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptk.core.health import INIT_STATES, CheckRules, Health, State, Verdict, transplant

PASS, FAIL, DRAIN = Verdict.PASS, Verdict.FAIL, Verdict.DRAIN


def feed(health: Health, text: str, start: float = 0.0) -> str:
    """Run `+` passes, `-` failures and `4` conditional passes; one letter of the state after each."""
    verdicts = {"+": PASS, "-": FAIL, "4": DRAIN}
    states = []
    for step, mark in enumerate(text):
        health.check(verdicts[mark], mark, start + step)
        states.append({"UP": "U", "DOWN": "D", "DRAIN": "N", "MAINT": "M"}[health.state.value])
    return "".join(states)


@pytest.mark.parametrize(
    ("init", "checks", "states"),
    [
        ("up", "-", "D"),  # up before the first check, one below the fall
        ("up", "+--", "UUU"),
        ("up", "+---", "UUUD"),
        ("up", "+--+--", "UUUUUU"),
        ("fully-up", "---", "UUD"),
        ("down", "+", "U"),
        ("down", "-++", "DDU"),
        ("fully-down", "++", "DU"),
        ("fully-down", "+-++", "DDDU"),
        ("up", "-+-++---", "DDDDUUUD"),
        ("up", "+4", "UN"),  # 404 drains
        ("up", "+4+", "UNU"),
        ("up", "+4---", "UNNND"),
        ("up", "-4444", "DDNNN"),  # ok-status L7OKC lets a server return that drains at once
        ("up", "-44++", "DDNUU"),
        ("up", "-+4++", "DDNUU"),
    ],
)
def test_sequences(init: str, checks: str, states: str) -> None:
    assert feed(Health("s", CheckRules(rise=2, fall=3, init_state=init)), checks) == states


def test_initial_state_is_that_of_haproxy() -> None:
    health = Health("s", CheckRules())
    assert health.state is State.UP
    assert health.health == health.rules.rise
    assert health.due_at() == 0.0


def test_intervals_follow_the_counter() -> None:
    rules = CheckRules(rise=2, fall=3, inter_s=10, fastinter_s=1, downinter_s=30)
    health = Health("s", rules)
    assert health.interval_s() == 1  # neither fully up nor fully down before the first check
    health.check(PASS, "", 100)
    assert health.due_at() == 110
    health.check(FAIL, "", 110)
    assert health.due_at() == 111
    health.check(FAIL, "", 111)
    health.check(FAIL, "", 112)
    assert (health.state, health.due_at()) == (State.DOWN, 142)
    health.check(PASS, "", 142)
    assert health.due_at() == 143


def test_missing_intervals_fall_back_to_inter() -> None:
    health = Health("s", CheckRules(inter_s=7))
    for verdict in (FAIL, PASS, PASS, FAIL):
        health.check(verdict, "", 0)
        assert health.interval_s() == 7


def test_change_carries_the_reason() -> None:
    health = Health("webfarm/A", CheckRules(rise=1, fall=1))
    change = health.check(FAIL, "connection refused", 3)
    assert change is not None
    assert (change.old, change.new, change.at) == (State.UP, State.DOWN, 3)
    assert change.reason == "webfarm/A is DOWN (was UP): connection refused (fall 1)"
    assert health.check(FAIL, "connection refused", 4) is None


def test_observe_actions() -> None:
    def observed(action: str, errors: int) -> Health:
        health = Health("s", CheckRules(error_limit=3, on_error=action, inter_s=10, fastinter_s=1))
        health.check(PASS, "", 0)
        for _ in range(errors):
            health.observe(False, "502", 5)
        return health

    assert observed("mark-down", 2).state is State.UP
    assert observed("mark-down", 3).state is State.DOWN
    fast = observed("fastinter", 3)
    assert (fast.health, fast.due_at()) == (fast.rules.full, 6)
    failed = observed("fail-check", 3)
    assert (failed.health, failed.due_at()) == (failed.rules.full - 1, 6)
    dying = observed("sudden-death", 3)
    assert dying.state is State.UP
    assert dying.check(FAIL, "", 6) is not None
    healthy = observed("mark-down", 2)
    healthy.observe(True, "", 6)
    assert healthy.observe(False, "", 6) is None


def test_admin_and_agent() -> None:
    health = Health("s", CheckRules())
    change = health.admin("maint", 1)
    assert change is not None
    assert change.new is State.MAINT
    assert health.due_at() is None
    assert health.check(FAIL, "late result", 2) is None
    assert health.admin("ready", 3) is not None
    assert (health.state, health.due_at()) == (State.UP, 3)
    assert health.agent("down # disk full", 4).reason.endswith("agent said 'down': disk full")  # type: ignore[union-attr]
    assert health.state is State.DOWN
    health.agent("up 50%", 5)
    assert (health.state, health.weight_percent(5)) == (State.UP, 50)
    health.agent("drain", 6)
    assert (health.state, health.weight_percent(6)) == (State.DRAIN, 0)
    health.agent("nonsense 9%%", 7)
    assert health.state is State.DRAIN
    with pytest.raises(ValueError, match="ready, drain, maint"):
        health.admin("gone", 8)


def test_slowstart_only_after_a_return() -> None:
    health = Health("s", CheckRules(rise=1, fall=1, slowstart_s=10))
    assert health.weight_percent(0) == 100
    health.check(FAIL, "", 1)
    health.check(PASS, "", 2)
    assert health.weight_percent(2) == pytest.approx(6.25)
    assert health.weight_percent(7) == 50
    assert health.weight_percent(12) == 100


@pytest.mark.parametrize(
    "wrong", [{"rise": 0}, {"fall": 0}, {"inter_s": 0}, {"init_state": "x"}, {"on_error": "x"}, {"error_limit": 0}]
)
def test_rules_refuse_nonsense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        CheckRules(**wrong)  # type: ignore[arg-type]


@given(
    rise=st.integers(1, 4),
    fall=st.integers(1, 4),
    init=st.sampled_from(INIT_STATES),
    checks=st.lists(st.booleans(), max_size=60),
)
def test_state_equals_the_definition_by_runs(rise: int, fall: int, init: str, checks: list[bool]) -> None:
    """Independent definition: up is left after `fall` failures in a row, reached after `rise` successes in a row."""
    health = Health("s", CheckRules(rise=rise, fall=fall, init_state=init))
    up = init in ("fully-up", "up")
    run = fall - 1 if init == "up" else rise - 1 if init == "down" else 0
    for good in checks:
        was = up
        run = 0 if good is up else run + 1
        if run >= (fall if up else rise):
            up, run = not up, 0
        change = health.check(PASS if good else FAIL, "", 0)
        assert (health.state is State.UP) is up
        assert (change is not None) is (was is not up)


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 5), st.integers(1, 5))
def test_reload_keeps_the_state(checks: list[bool], rise: int, fall: int) -> None:
    health = Health("s", CheckRules(rise=2, fall=3))
    for good in checks:
        health.check(PASS if good else FAIL, "", 0)
    moved = transplant(health, CheckRules(rise=rise, fall=fall))
    assert moved.state is health.state
    assert 0 <= moved.health <= moved.rules.full


def test_only_what_keeps_its_sessions_is_usable() -> None:
    assert [state for state in State if state.usable] == [State.UP, State.DRAIN]


def test_the_defaults_are_those_of_haproxys_manual() -> None:
    rules = CheckRules()
    assert (rules.rise, rules.fall, rules.inter_s, rules.error_limit) == (2, 3, 2.0, 10)
    assert (rules.on_error, rules.slowstart_s) == ("fail-check", 0.0)


def test_a_drain_is_the_agents_until_somebody_else_says_something() -> None:
    health = Health("s", CheckRules())
    health.agent("drain", 1)
    assert health.agent_drain and health.state is State.DRAIN
    health.agent("ready", 2)
    assert not health.agent_drain and health.state is State.UP
    health.agent("drain", 3)
    health.admin("drain", 4)
    assert not health.agent_drain and health.state is State.DRAIN


def test_a_forced_health_is_told_and_counts_from_there() -> None:
    health = Health("s", CheckRules(rise=2, fall=3))
    change = health.force("stopping", 1)
    assert change is not None and (change.old, change.new, change.at) == (State.UP, State.DRAIN, 1)
    assert health.health == health.rules.full
    change = health.force("up", 2)
    assert change is not None and change.new is State.UP
    change = health.force("down", 3)
    assert change is not None and change.new is State.DOWN
    assert health.force("down", 4) is None
    assert feed(health, "++", 5) == "DU"
    with pytest.raises(ValueError, match="up, stopping, down"):
        health.force("dead", 9)
