"""What a lease says about a group: who may take, who has to let go, and who yields. The simulation runs it in whole clusters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from haptk.core.heartbeat.grants import Grants
from haptk.core.heartbeat.model import Claim, Grant, Op, Say


class One:
    """One group of a node, its lease, and what was said, claimed and stopped."""

    def __init__(self, *, on: bool = True, held: bool = True, exclusive: bool = False) -> None:
        config = SimpleNamespace(key="rsc", exclusive=exclusive)
        self.group: Any = SimpleNamespace(index=0, held=held, changing=False, config=config)
        self.said: list[Say] = []
        self.claims: list[Claim] = []
        self.stopped: list[tuple[Op, str]] = []
        self.peer: Any = SimpleNamespace(leases=set(), able=True)
        holdings: Any = SimpleNamespace(
            groups=[self.group],
            held=lambda: {0} if held else set(),
            stop=lambda _group, op, why: self.stopped.append((op, why)),
        )
        node: Any = SimpleNamespace(leases=on)
        self.grants = Grants(node, holdings, self.peer, self.said.append, self.claims.append)

    def know(self, grant: Grant) -> One:
        self.grants.may_take(self.group)
        self.grants.tell()
        if self.claims:
            self.grants.granted(self.claims[-1].ticket, grant, "the table says so")
        return self


@pytest.mark.parametrize(
    ("on", "grant", "theirs", "yields"),
    [
        (True, Grant.OURS, False, False),  # the other lets go
        (True, Grant.OTHERS, True, True),  # we do
        (True, Grant.UNKNOWN, True, True),
        (True, Grant.OURS, True, None),  # both have heard that they have it: the leases do not tell
        (True, Grant.UNKNOWN, False, None),
        (False, Grant.OURS, False, None),
        (False, Grant.UNKNOWN, True, None),
    ],
)
def test_two_claims_are_settled_where_exactly_one_has_the_lease(
    on: bool, grant: Grant, theirs: bool, yields: bool | None
) -> None:
    one = One(on=on).know(grant)
    one.peer.leases = {0} if theirs else set()
    assert one.grants.yields(one.group) is yields


def test_a_taker_waits_for_the_lease_and_without_leases_for_nothing() -> None:
    one = One(held=False)
    assert one.grants.may_take(one.group) is False
    one.grants.tell()
    assert [(claim.group, claim.wanted, claim.here) for claim in one.claims] == [(0, True, False)]
    assert one.know(Grant.OTHERS).grants.may_take(one.group) is False
    assert one.know(Grant.OURS).grants.may_take(one.group) is True
    assert one.grants.ours() == {0}
    off = One(on=False, held=False)
    assert off.grants.may_take(off.group) is True
    off.grants.tell()
    assert off.claims == []


@pytest.mark.parametrize(
    ("grant", "exclusive", "able", "theirs", "lost"),
    [
        (Grant.OTHERS, False, False, False, True),  # the other is not heard
        (Grant.OTHERS, False, True, True, True),  # it says that it holds it, too
        (Grant.OTHERS, False, True, False, False),  # an old lease of a node that does not hold it
        (Grant.OTHERS, True, False, True, False),  # whose an address is says the cloud
        (Grant.OURS, False, False, True, False),
        (Grant.UNKNOWN, False, False, True, False),  # a silent store stops nobody
    ],
)
def test_a_holder_lets_go_of_what_the_other_has(
    grant: Grant, exclusive: bool, able: bool, theirs: bool, lost: bool
) -> None:
    one = One(exclusive=exclusive).know(grant)
    one.peer.able = able
    assert one.grants.lost(one.group, theirs) is lost
    assert [op for op, _ in one.stopped] == ([Op.RELEASE] if lost else [])


def test_a_lease_that_is_lost_while_held_is_a_warning() -> None:
    one = One().know(Grant.OURS)
    one.grants.granted(one.claims[-1].ticket, Grant.OTHERS, "b took it")
    assert [say.level.name for say in one.said] == ["INFO", "WARN"]
    assert "b took it" in one.said[-1].text
    said = len(one.said)
    one.grants.granted(one.claims[-1].ticket, Grant.OTHERS, "b took it")
    one.grants.granted(12345, Grant.OURS, "an answer to a claim that nobody made")
    assert len(one.said) == said and one.grants.ours() == set()
