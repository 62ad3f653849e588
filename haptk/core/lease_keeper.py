"""Keeping one lease: which request to the store comes next, and what its answer means. Pure; `now` is monotonic seconds.

The rules are core.lease's; this is their order in time. A lease that is not wanted is only watched, so that it is known
for how long it has stood still when it is wanted: then one conditional write takes it, without a read before it. The
write is conditional on what was seen, so an old look costs a second try and never a wrong owner.

The shell asks `call(now)` at `due_at()`, sends it, and hands the answer to `answer`; one request at a time.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from haptk.core.lease import Move, Record, Silent, Watch, decide_take, judge_renewal

RETRY_S = 1.0
"""A silent store is asked again after this, or a third of the time to live."""


class Ask(Enum):
    """A request to the store."""

    READ = "read"
    TAKE = "take"
    RENEW = "renew"
    LET_GO = "let go"


class Call(NamedTuple):
    """What to ask; `record` is what was seen (TAKE) or what is ours (RENEW, LET_GO)."""

    ask: Ask
    record: Record | None = None


class Refused(NamedTuple):
    """The store says that the record is not what the request expected."""


class Standing(NamedTuple):
    """What is known: ours is True, False (another has it), or None; and why."""

    ours: bool | None
    why: str


class Keeper:
    """One node's side of one lease."""

    def __init__(self, me: str, ttl_s: float, now: float) -> None:
        self.me = me
        self.ttl_s = ttl_s
        self.mine: Record | None = None
        self.standing = Standing(None, "the store was not asked yet")
        self._wanted = self._here = False
        self._watch = Watch()
        self._seen: Record | Silent | None = Silent("not asked yet")
        self._seen_at = float("-inf")
        self._doubt = False
        self._due = now

    @property
    def every_s(self) -> float:
        """Between two renewals, and between two looks."""
        return self.ttl_s / 3

    def due_at(self) -> float:
        return self._due

    def want(self, wanted: bool, here: bool, now: float) -> None:
        """Keep the lease, or let it go. `here`: what it stands for is up on this node.

        Only what is up here is kept without an answer; who wants it anew has to hear that it is still ours.
        """
        before, (self._wanted, self._here) = (self._wanted, self._here), (wanted, here)
        if before != (wanted, here) and not (here and self.standing.ours):
            self.standing = Standing(None, "it is being asked for" if wanted else "it is not wanted")
            self._due = now

    def call(self, now: float) -> Call:
        """The next request."""
        if self._doubt:
            return Call(Ask.READ)
        if self.mine is not None:
            return Call(Ask.RENEW if self._wanted else Ask.LET_GO, self.mine)
        seen, fresh = self._seen, now - self._seen_at <= self.every_s
        if isinstance(seen, Silent) or not (self._wanted and fresh) or self._decide(now)[0] is not Move.TAKE:
            return Call(Ask.READ)
        return Call(Ask.TAKE, seen)

    def _decide(self, now: float) -> tuple[Move, str, float]:
        """Without any record the other node may be one that is only about to make its first."""
        return decide_take(self.me, self._seen, self._watch, self.ttl_s, now, held_by_other=not self._here)

    def answer(self, call: Call, found: Record | Silent | Refused | None, now: float) -> None:
        """The store's answer to `call`; for TAKE, RENEW and LET_GO the new record, or Refused."""
        silent = isinstance(found, Silent)
        self._due = now + (min(RETRY_S, self.every_s) if silent else self.every_s)
        if call.ask is Ask.READ:
            if not isinstance(found, Refused):
                self._read(found, now)
        elif call.ask is Ask.TAKE:
            self._taken(found, now)
        elif call.ask is Ask.RENEW and self.mine is not None:
            self._renewed(found, now)
        elif call.ask is Ask.LET_GO and not silent:
            self.mine = None
            self._forget()
            self.standing = Standing(None, "it was let go")

    def _read(self, found: Record | Silent | None, now: float) -> None:
        self._seen, self._seen_at = found, now
        if not isinstance(found, Silent):
            self._watch.saw(found, now)
        if self._doubt and self.mine is not None:
            self._judge(self.mine, found)
        elif self._wanted:
            move, why, wait_s = self._decide(now)
            known = isinstance(found, Record) and move is Move.WAIT
            self.standing = Standing(False if known else None, why)
            if not isinstance(found, Silent):
                self._due = now if move is Move.TAKE else now + min(wait_s, self.every_s)

    def _judge(self, mine: Record, found: Record | Silent | None) -> None:
        """After a refused renewal."""
        decision = judge_renewal(mine, found)
        self._doubt = isinstance(found, Silent)
        lost = decision.move is Move.LOST
        if lost:
            self.mine = None
        self.standing = Standing(not lost, decision.because)

    def _taken(self, found: Record | Silent | Refused | None, now: float) -> None:
        if isinstance(found, Record):
            self.mine = found
            self.standing = Standing(True, f"taken (epoch {found.epoch})")
        elif isinstance(found, Silent):
            self._forget()  # it may be ours by now: look before the next try
            self.standing = Standing(None, f"the lease store is silent ({found.why}): nobody takes anything")
        else:
            self._forget()
            self._due = now

    def _renewed(self, found: Record | Silent | Refused | None, now: float) -> None:
        if isinstance(found, Record):
            self.mine = found
            self.standing = Standing(True, f"renewed (epoch {found.epoch})")
        elif isinstance(found, Silent) and self.mine is not None:
            self.standing = Standing(self._here or None, judge_renewal(self.mine, found).because)
        else:
            self._doubt = True
            self._due = now

    def _forget(self) -> None:
        self._seen, self._seen_at = Silent("it has to be read again"), float("-inf")
