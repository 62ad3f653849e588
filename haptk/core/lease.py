"""A lease on a name: who may hold it, decided without comparing clocks of two machines. Pure.

Theory. The store keeps one record for each name: owner, record-version number (rvn), epoch, and the time to live that
the owner promised. The owner changes the rvn at each renewal. An observer never reads a time out of the record: it
notes with its own monotonic clock when it first saw this rvn, and calls the lease expired when the rvn has stood
still for the whole time to live. Every change is conditional on what was seen, so of any number of takers one wins.

The epoch grows with every change of owner and never starts again (a record is never deleted; letting go writes an
empty owner): who carries an epoch can be told from who carried the name before.

When the store is silent the healthy holder keeps what it has (fail open: a store that is down must never take a service
down) and nobody takes anything (fail closed). Both together are safe: as long as nobody can take, keeping harms nobody.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Record(NamedTuple):
    """What the store holds for a name. An empty `owner` is a lease that was let go."""

    owner: str
    rvn: int
    epoch: int
    ttl_s: float


class Silent(NamedTuple):
    """The store gave no answer."""

    why: str


class Move(Enum):
    """What to do about a lease."""

    TAKE = "take"
    WAIT = "wait"
    RENEW = "renew"
    KEEP = "keep"  # hold on without having renewed
    LET_GO = "let go"  # it is ours and we release it
    LOST = "lost"  # it is another's: stop using what it stands for


class Decision(NamedTuple):
    """One decision and its sentence; `wait_s` is how long nothing can change (WAIT only)."""

    move: Move
    because: str
    wait_s: float = 0.0


class Watch:
    """One observer's notes on one name."""

    def __init__(self) -> None:
        self._seen: Record | None = None
        self._first_s: float | None = None

    def saw(self, record: Record | None, now: float) -> None:
        """Note an answer of the store; None is "there is no record". `now` is monotonic seconds."""
        if self._first_s is None or record != self._seen:
            self._seen, self._first_s = record, now

    def unchanged_s(self, now: float) -> float:
        """How long the record stands as it is, by our own clock."""
        return 0.0 if self._first_s is None else now - self._first_s


def decide_take(
    me: str, seen: Record | Silent | None, watch: Watch, ttl_s: float, now: float, held_by_other: bool
) -> Decision:
    """Whether a node that holds nothing may take this lease.

    `seen` must have been given to `watch` before. `held_by_other` says that somebody else has what the lease stands
    for: where there never was a record, that may be a member that is only about to start, so it gets the time to live.
    """
    if isinstance(seen, Silent):
        return Decision(Move.WAIT, f"the lease store is silent ({seen.why}): nobody takes anything", ttl_s)
    still_s = watch.unchanged_s(now)
    if seen is None:
        if held_by_other and still_s < ttl_s:
            return Decision(Move.WAIT, "there is no lease yet, but a node has it: it may be starting", ttl_s - still_s)
        return Decision(Move.TAKE, "there is no lease yet")
    if not seen.owner:
        return Decision(Move.TAKE, f"the lease was let go (epoch {seen.epoch})")
    if seen.owner == me:
        return Decision(Move.TAKE, f"the lease is this node's own from before its start (epoch {seen.epoch})")
    if still_s >= seen.ttl_s:
        return Decision(
            Move.TAKE, f"{seen.owner} has not renewed for {still_s:.1f} s, it promised every {seen.ttl_s:g} s"
        )
    return Decision(Move.WAIT, f"{seen.owner} holds the lease (epoch {seen.epoch})", seen.ttl_s - still_s)


def decide_hold(mine: Record, healthy: bool) -> Decision:
    """What a holder tries next."""
    if not healthy:
        return Decision(Move.LET_GO, f"this node is not healthy: a spare may have it (epoch {mine.epoch})")
    return Decision(Move.RENEW, "healthy")


def judge_renewal(mine: Record, seen: Record | Silent | None) -> Decision:
    """What a refused or unanswered renewal means; `seen` is what the store says now."""
    if isinstance(seen, Silent):
        return Decision(Move.KEEP, f"the lease store is silent ({seen.why}): a healthy holder keeps what it has")
    if seen is not None and seen.owner == mine.owner and seen.epoch == mine.epoch:
        return Decision(Move.KEEP, "the renewal arrived, its answer was lost")
    other = "nobody" if seen is None or not seen.owner else f"{seen.owner} (epoch {seen.epoch})"
    return Decision(Move.LOST, f"the lease is {other}'s now; ours was epoch {mine.epoch}")
