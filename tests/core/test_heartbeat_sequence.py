"""What was missed and what can be sent again."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from haptk.core.heartbeat.sequence import HISTORY, Incoming, Outgoing, Verdict


def incoming() -> Incoming:
    return Incoming(random.Random(1))


def test_in_order_gap_filled_duplicate_old() -> None:
    line = incoming()
    found = [line.judge(seq, 0.0) for seq in (1, 2, 2, 5, 4, 4, 3, 1)]
    wanted = ["ACCEPT", "ACCEPT", "DUPLICATE", "GAP", "FILLED", "OLD", "FILLED", "OLD"]
    assert [verdict.name for verdict in found] == wanted
    assert not line.missing


def test_a_gap_is_asked_for_after_50_to_250_ms_and_again_every_250_ms() -> None:
    line = incoming()
    line.judge(1, 10.0)
    line.judge(3, 10.0)
    due = line.ask_at()
    assert due is not None
    assert 10.05 <= due <= 10.25
    assert line.to_ask(10.04) == []
    assert line.to_ask(due) == [2]
    assert line.to_ask(due + 0.2) == []
    assert line.to_ask(due + 0.25) == [2]
    assert line.give_up(2)
    assert line.ask_at() is None


def test_a_jump_beyond_250_starts_over() -> None:
    line = incoming()
    line.judge(1, 0.0)
    assert line.judge(252, 0.0) is Verdict.TOO_FAR
    assert not line.missing
    assert line.judge(253, 0.0) is Verdict.ACCEPT


@given(st.lists(st.integers(1, 60), max_size=200))
def test_no_message_is_delivered_twice(numbers: list[int]) -> None:
    line = incoming()
    delivered = [seq for seq in numbers if line.judge(seq, 0.0).deliver]
    assert len(delivered) == len(set(delivered))


def test_resends_are_the_same_bytes_at_most_every_240_ms() -> None:
    out = Outgoing()
    for _ in range(3):
        number = out.number()
        out.keep(number, b"packet %d" % number)
    assert out.resend("b", 2, 3, 1.0) == ([b"packet 2", b"packet 3"], [])
    assert out.resend("b", 2, 2, 1.2) == ([], [])
    assert out.resend("b", 2, 2, 1.25) == ([b"packet 2"], [])
    assert out.resend("b", 9000, 9000, 2.0) == ([], [])
    out.ack("b", 2)
    assert out.resend("b", 1, 3, 3.0) == ([b"packet 3"], [])


def test_what_was_forgotten_is_named() -> None:
    out = Outgoing()
    for _ in range(HISTORY + 5):
        number = out.number()
        out.keep(number, b"x")
    assert out.resend("b", 4, 6, 1.0) == ([b"x"], [4, 5])
    again, _ = out.resend("b", 100, 400, 1.0)
    assert len(again) == 50
