"""What is asked of a lease store, in which order, and what each answer means."""

from __future__ import annotations

import pytest

from haptk.core.lease import Record, Silent
from haptk.core.lease_keeper import Ask, Call, Keeper, Refused

TTL_S = 3.0
SILENT = Silent("no answer in time")


class Table:
    """A store with one record, as aws.lease.LeaseStore answers."""

    def __init__(self) -> None:
        self.record: Record | None = None
        self.silent = False

    def __call__(self, me: str, call: Call) -> Record | Silent | Refused | None:
        if self.silent:
            return SILENT
        now, was = self.record, call.record
        if call.ask is Ask.READ:
            return now
        if call.ask is Ask.TAKE:
            if now != was:
                return Refused()
            self.record = Record(me, (now.rvn if now else 0) + 1, (now.epoch if now else 0) + 1, TTL_S)
        elif was is None or now is None or (now.owner, now.epoch) != (was.owner, was.epoch):
            return Refused()
        else:
            self.record = was._replace(rvn=was.rvn + 1, owner="" if call.ask is Ask.LET_GO else was.owner)
        return self.record


class Side:
    """A keeper and its record of what it asked."""

    def __init__(self, name: str, table: Table) -> None:
        self.keeper = Keeper(name, TTL_S, 0.0)
        self.table = table
        self.asked: list[Ask] = []

    def until(self, now: float) -> Side:
        while self.keeper.due_at() <= now:
            at = self.keeper.due_at()
            call = self.keeper.call(at)
            self.asked.append(call.ask)
            self.keeper.answer(call, self.table(self.keeper.me, call), at)
        return self

    @property
    def ours(self) -> bool | None:
        return self.keeper.standing.ours


@pytest.fixture
def table() -> Table:
    return Table()


def holder(table: Table, now: float = 0.0) -> Side:
    side = Side("a", table)
    side.keeper.want(True, True, now)
    return side.until(now)


def test_what_is_up_here_takes_a_lease_that_never_was(table: Table) -> None:
    side = holder(table)
    assert (side.ours, side.asked) == (True, [Ask.READ, Ask.TAKE])
    side.until(3.0)
    assert side.asked[2:] == [Ask.RENEW] * 3  # three renewals fit into a time to live


def test_what_is_not_up_here_waits_the_time_to_live_where_there_never_was_a_lease(table: Table) -> None:
    """The other node may be about to make its first."""
    side = Side("b", table)
    side.keeper.want(True, False, 0.0)
    assert side.until(2.9).ours is None
    assert side.until(3.1).ours is True


def test_a_watcher_takes_an_expired_lease_with_one_request(table: Table) -> None:
    holder(table)
    b = Side("b", table).until(8.0)
    b.asked.clear()
    b.keeper.want(True, False, 8.1)
    b.until(8.1)
    assert (b.ours, b.asked) == (True, [Ask.TAKE])
    assert table.record == Record("b", 2, 2, TTL_S)


def test_a_lease_that_is_renewed_is_never_taken(table: Table) -> None:
    a = holder(table)
    b = Side("b", table)
    b.keeper.want(True, False, 0.0)
    for step in range(1, 200):
        a.until(step / 10)
        assert b.until(step / 10).ours is False or step < 2
    assert table.record is not None and table.record.owner == "a"


def test_of_two_takers_one_wins(table: Table) -> None:
    holder(table)
    sides = [Side(name, table) for name in "bc"]
    for side in sides:
        side.until(10.0)
        side.keeper.want(True, False, 10.1)
    calls = [side.keeper.call(10.1) for side in sides]
    for side, call in zip(sides, calls, strict=True):
        side.keeper.answer(call, table(side.keeper.me, call), 10.1)
    sides[1].until(10.2)
    assert [side.ours for side in sides] == [True, False]


def test_a_holder_keeps_it_while_the_store_is_silent_and_a_taker_gets_nothing(table: Table) -> None:
    a, b = holder(table), Side("b", table).until(1.0)
    table.silent = True
    b.keeper.want(True, False, 5.0)
    assert (a.until(60.0).ours, b.until(60.0).ours) == (True, None)
    assert "silent" in a.keeper.standing.why
    table.silent = False
    assert b.until(62.0).ours is True  # it had stood still for long
    assert a.until(63.0).ours is False


def test_a_renewal_whose_answer_was_lost_is_still_ours(table: Table) -> None:
    a = holder(table)
    call = a.keeper.call(1.0)
    table("a", call)
    a.keeper.answer(call, SILENT, 1.0)
    assert a.until(3.0).ours is True


def test_who_wants_it_anew_has_to_hear_that_it_is_still_ours(table: Table) -> None:
    """It was to be let go, the store was silent, somebody else took it: what was once ours proves nothing."""
    a = holder(table)
    table.silent = True
    a.keeper.want(False, False, 1.0)
    a.until(10.0)
    table.record = Record("b", 9, 2, TTL_S)
    a.keeper.want(True, False, 10.5)
    assert a.ours is None
    assert a.until(10.9).ours is None  # and silence is no answer for who has nothing up
    table.silent = False
    assert a.until(13.0).ours is False


def test_a_graceful_end_lets_go_and_the_other_takes_at_once(table: Table) -> None:
    a = holder(table)
    a.keeper.want(False, False, 1.0)
    a.until(1.0)
    assert (a.ours, table.record) == (None, Record("", 2, 1, TTL_S))
    b = Side("b", table)
    b.keeper.want(True, True, 1.1)
    assert b.until(1.1).ours is True
    assert table.record == Record("b", 3, 2, TTL_S)


def test_a_lease_of_its_own_from_before_its_crash_is_taken_at_once(table: Table) -> None:
    holder(table)
    again = Side("a", table)
    again.keeper.want(True, True, 0.5)
    assert again.until(0.5).ours is True
    assert table.record is not None and table.record.epoch == 2


def refused(side: Side, now: float) -> None:
    """The next request of the holder is a renewal, and the store says no."""
    call = side.keeper.call(now)
    assert call.ask is Ask.RENEW
    side.keeper.answer(call, Refused(), now)
    side.asked.clear()


def test_a_refused_renewal_is_looked_into_and_ours_is_still_ours(table: Table) -> None:
    a = holder(table)
    refused(a, 1.0)
    assert a.ours is True  # nothing is known to be lost
    a.until(2.5)
    assert (a.ours, a.asked) == (True, [Ask.READ, Ask.RENEW])


def test_a_refused_renewal_of_what_another_has_is_a_loss(table: Table) -> None:
    a = holder(table)
    table.record = Record("b", 7, 2, TTL_S)
    refused(a, 1.0)
    assert (a.until(1.0).ours, a.asked) == (False, [Ask.READ])
    assert "b" in a.keeper.standing.why
    a.until(2.1)
    assert Ask.RENEW not in a.asked, "what was lost is not renewed"


def test_a_doubt_lasts_while_the_store_is_silent(table: Table) -> None:
    a = holder(table)
    table.record = Record("b", 7, 2, TTL_S)
    refused(a, 1.0)
    table.silent = True
    assert a.until(5.0).ours is True
    assert set(a.asked) == {Ask.READ}, "before the next renewal it has to be known whose it is"
    table.silent = False
    assert a.until(7.0).ours is False


def test_after_a_take_without_an_answer_and_after_letting_go_it_is_read_first(table: Table) -> None:
    side = Side("a", table)
    side.keeper.want(True, True, 0.0)
    side.keeper.answer(side.keeper.call(0.0), None, 0.0)
    take = side.keeper.call(0.1)
    assert take.ask is Ask.TAKE
    table("a", take)
    side.keeper.answer(take, SILENT, 0.1)  # it was taken, and the answer was lost
    assert side.ours is None
    assert side.keeper.call(0.2).ask is Ask.READ
    assert side.until(2.0).ours is True

    quick = holder(Table())  # what it read a moment ago is from before it took it
    quick.keeper.want(False, False, 0.1)
    quick.until(0.1)
    quick.keeper.want(True, True, 0.2)
    assert quick.keeper.call(0.2).ask is Ask.READ
    assert quick.until(0.2).ours is True
