"""The three states of the witnesses, by the second."""

from __future__ import annotations

import pytest

from haptk.core.heartbeat.witness import Witnesses


@pytest.fixture
def two() -> Witnesses:
    return Witnesses(["gw", "dns"], 5.0, 100.0)


def test_too_early_to_say_then_nobody(two: Witnesses) -> None:
    assert [two.answer(now) for now in (100.0, 104.9, 105.0, 200.0)] == [None, None, False, False]
    assert Witnesses([], 5.0, 100.0).answer(200.0) is None


def test_one_answer_counts_for_the_dead_time_and_no_longer(two: Witnesses) -> None:
    assert two.heard("gw", 110.0) is True
    assert two.heard("gw", 111.0) is False
    assert two.heard("somebody else", 111.0) is False
    assert (two.answer(115.9), two.alive(115.9), two.state(115.9)) == (True, 1, {"gw": "ping", "dns": "dead"})
    assert (two.answer(116.0), two.alive(116.0), two.state(116.0)) == (False, 0, {"gw": "dead", "dns": "dead"})
    assert two.last_answer() == 111.0


def test_the_death_of_one_is_told_once_and_asked_for_in_time(two: Witnesses) -> None:
    two.heard("gw", 110.0)
    two.heard("dns", 112.0)
    assert two.next_at(112.0) == 115.0
    assert two.newly_dead(114.9) == []
    assert two.newly_dead(115.0) == ["gw"]
    assert two.newly_dead(116.0) == []
    assert two.next_at(116.0) == 117.0
    assert two.newly_dead(117.0) == ["dns"]
    assert two.next_at(117.0) is None
    assert two.heard("gw", 118.0) is True


def test_a_pause_of_ours_is_no_silence_of_theirs_and_no_answer_either(two: Witnesses) -> None:
    two.heard("gw", 110.0)
    two.forgive(20.0, 131.0)
    assert two.answer(134.9) is True
    assert two.answer(135.0) is False
    assert two.last_answer() == 110.0
    two.forgive(1000.0, 140.0)
    assert two.answer(144.9) is True, "nobody is heard in the future"
    assert two.answer(145.0) is False
