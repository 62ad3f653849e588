"""Time-outs under virtual time: the compiled table and the compiled wheel, with a clock that the test sets.

The specification below is written down a second time and independently: which limit is counted from which stamp, per phase
and missing side. tests/diff/test_diff_timeouts.py asks the real haproxy for the same in real time.
"""

from __future__ import annotations

import itertools
import random

import pytest

from haptk._fast.deadlines import Timepiece

HEAD, QUEUE, RELAY, REPLY, LINGER, RETRY, PROXY = range(7)
TICK_MS = 8
LIMITS = {
    "client": 900, "server": 700, "connect": 300, "request": 1600, "keep_alive": 1500, "queue": 400, "tunnel": 1300,
    "client_fin": 350, "server_fin": 450,
}  # fmt: skip
STAMPS = {
    "client_ms": 1_000_100,
    "server_ms": 1_000_230,
    "since_ms": 1_000_350,
    "started_ms": 1_000_410,
    "accepted_ms": 1_000_020,
}

# (name, state, [(limit, else limit ..., stamp, side)]): without a limit the next one named stands for it, if any
WAITING = {"phase": RELAY, "connected": 1, "head_done": 0, "request_done": 1, "response_done": 0}
ANSWERED = WAITING | {"head_done": 1}
TUNNEL = ANSWERED | {"tunnel": 1, "request_done": 0}
ROWS: list[tuple[str, dict[str, int], list[tuple[tuple[str, ...], str, str]]]] = [
    ("proxy header", {"phase": PROXY}, [(("client",), "accepted_ms", "c")]),
    ("nothing yet", {"phase": HEAD, "first": 1}, [(("request",), "started_ms", "c"), (("client",), "client_ms", "c")]),
    ("part of a head", {"phase": HEAD, "got_byte": 1}, [(("request",), "started_ms", "c"), (("client",), "client_ms", "c")]),
    ("between requests", {"phase": HEAD}, [(("keep_alive",), "since_ms", "c"), (("client",), "client_ms", "c")]),
    ("queue", {"phase": QUEUE}, [(("queue",), "since_ms", "s")]),
    ("connecting", {"phase": RELAY, "connected": 0}, [(("connect",), "since_ms", "s")]),
    ("no answer", WAITING, [(("server",), "server_ms", "s")]),
    ("answer owed, nothing done", ANSWERED, [(("server",), "server_ms", "s")]),
    ("body until the end", ANSWERED | {"until_close": 1}, [(("tunnel", "server"), "server_ms", "s")]),
    ("slow reader", ANSWERED | {"owed_client": 5}, [(("client",), "client_ms", "c")]),
    ("answered early", ANSWERED | {"request_done": 0, "response_done": 1}, [(("client",), "client_ms", "c")]),
    ("tunnel", TUNNEL, [(("tunnel", "client"), "client_ms", "c"), (("tunnel", "server"), "server_ms", "s")]),
    ("client ended", TUNNEL | {"eof": 1}, [(("tunnel", "server"), "server_ms", "s")]),
    ("client's end passed on", TUNNEL | {"eof": 1, "link_shut": 1}, [(("server_fin", "tunnel", "server"), "server_ms", "s")]),
    ("server ended", TUNNEL | {"server_eof": 1, "shut_client": 1}, [(("client_fin", "tunnel", "client"), "client_ms", "c")]),
    ("client owed", TUNNEL | {"owed_client": 3}, [(("tunnel", "client"), "client_ms", "c")]),
    ("server owed", TUNNEL | {"owed_server": 3}, [(("tunnel", "server"), "server_ms", "s")]),
    ("client ended, owed", TUNNEL | {"eof": 1, "owed_client": 3}, [(("client_fin", "tunnel", "client"), "client_ms", "c")]),
    ("server ended, owed", TUNNEL | {"server_eof": 1, "shut_client": 1, "owed_server": 3},
     [(("server_fin", "tunnel", "server"), "server_ms", "s")]),
    ("reply", {"phase": REPLY}, [(("client",), "client_ms", "c")]),
]  # fmt: skip


def expected(rules: list[tuple[tuple[str, ...], str, str]], limits: dict[str, int]) -> tuple[int, str]:
    found = []
    for names, stamp, side in rules:
        limit = next((limits[name] for name in names if limits[name]), 0)
        if limit:
            found.append((STAMPS[stamp] + limit, side))
    return min(found, default=(0, "c"))


@pytest.mark.parametrize(("name", "state", "rules"), ROWS, ids=[row[0] for row in ROWS])
def test_each_row_with_and_without_each_limit(
    name: str, state: dict[str, int], rules: list[tuple[tuple[str, ...], str, str]]
) -> None:
    used = sorted({limit for names, _, _ in rules for limit in names})
    for present in itertools.product((0, 1), repeat=len(used)):
        limits = LIMITS | {limit: LIMITS[limit] * there for limit, there in zip(used, present, strict=True)}
        one = Timepiece()
        one.limits(**limits)
        one.set(**STAMPS, **state)
        at, side = one.due()
        wanted, whose = expected(rules, limits)
        if name == "reply" and not limits["client"]:
            wanted = STAMPS["client_ms"] + 10_000
        assert at == wanted, (limits, at - 1_000_000)
        assert not at or side == whose


def test_without_timeout_server_the_client_s_counts_for_a_request_that_is_not_whole() -> None:
    one = Timepiece()
    one.limits(client=900)
    one.set(**STAMPS, **WAITING)
    assert one.due()[0] == 0
    one.set(request_done=0)
    assert one.due() == (STAMPS["client_ms"] + 900, "c")


def test_pauses_of_our_own() -> None:
    one = Timepiece()
    one.limits(connect=300)
    one.set(**STAMPS, phase=RETRY)
    assert one.due()[0] == STAMPS["since_ms"] + 300
    one.limits(connect=5000)
    assert one.due()[0] == STAMPS["since_ms"] + 1000
    one.set(phase=LINGER)
    assert one.due()[0] == STAMPS["since_ms"] + 2000


def test_a_shorter_time_out_is_not_held_back_by_a_longer_one_before_it() -> None:
    """The timer of `timeout http-request` stands in the wheel when that of `timeout server` is set."""
    for request, server in itertools.product((100, 700, 3000, 9000, 20_000), repeat=2):
        one = Timepiece()
        one.limits(request=request, server=server)
        one.set(phase=HEAD, first=1, started_ms=one.now)
        one.arm()
        start = one.now + 50
        assert not one.run(start)
        one.set(**WAITING, server_ms=start)
        one.arm()
        went_off = one.run(start + 60_000)
        assert start + server <= went_off <= start + server + TICK_MS, (request, server, went_off - start)


@pytest.mark.parametrize("seed", range(20))
def test_the_wheel_is_exact_whatever_came_before(seed: int) -> None:
    """Steps that renew, lower and change what is waited for: the timer goes off at the deadline, within one tick."""
    rng = random.Random(seed)
    for _ in range(40):
        one = Timepiece()
        one.limits(**{name: rng.choice([0, rng.randrange(20, 12_000)]) for name in LIMITS})
        one.set(**dict.fromkeys(STAMPS, one.now))
        for _ in range(rng.randrange(1, 12)):
            _, state, _ = rng.choice(ROWS)
            renewed = {stamp: one.now for stamp in STAMPS if rng.random() < 0.4}
            one.set(**{"first": 0, "got_byte": 0, "tunnel": 0, "eof": 0, "server_eof": 0, "shut_client": 0, "until_close": 0,
                       "link_shut": 0, "owed_client": 0, "owed_server": 0} | state | renewed)  # fmt: skip
            one.arm()
            due, _ = one.due()
            until = one.now + rng.randrange(1, 3000)
            went_off = one.run(until)
            if due and due <= until - TICK_MS:
                assert went_off, (due, until)
            if went_off:
                assert due, went_off
                assert max(due, 0) <= went_off, (due, went_off)
                break
