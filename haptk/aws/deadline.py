"""How long a caller is willing to wait, and what that means for one request: time-outs and attempts as a small table.

botocore's time-outs belong to a client, not to a call, so the table has few rows: each row is one client that stays
warm. A request that hangs costs at most (connect + read) for each attempt, plus the pauses between attempts.
"""

from __future__ import annotations

from typing import NamedTuple

from haptk.io import clock


class Deadline:
    """A moment on the monotonic clock, `seconds` from its making."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = clock.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._at - clock.monotonic())


class Patience(NamedTuple):
    """The time-outs (seconds) and total attempts of one client."""

    connect_s: float
    read_s: float
    attempts: int

    def worst_s(self) -> float:
        """The longest that a request under this patience takes when nothing answers."""
        # botocore's standard mode pauses a random time of at most 1 s, then 2 s, between attempts.
        pauses_s = sum(2.0**number for number in range(self.attempts - 1))
        return (self.connect_s + self.read_s) * self.attempts + pauses_s


ROWS = (
    Patience(1.0, 3.0, 3),
    Patience(1.0, 3.0, 2),
    Patience(0.5, 3.0, 1),
    Patience(0.5, 2.0, 1),
    Patience(0.5, 1.0, 1),
    Patience(0.25, 0.5, 1),
)


def patience(left_s: float) -> Patience:
    """The most patient row that ends within `left_s`; the least patient one when none does."""
    return next((row for row in ROWS if row.worst_s() <= left_s), ROWS[-1])
