"""Numbers on messages: what we missed of a peer, and what we can send again.

Incoming keeps one peer's sequence: accept, duplicate, gap, replay. A gap is asked for only after a random 50 to
250 ms, because a real node's message N+1 leaves before N whenever its own loop-back triggers it, and then every
250 ms. Outgoing keeps our last 500 datagrams and resends them byte for byte, each at most once per 240 ms.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

MAX_GAP = 250
"""A larger jump is not repaired message by message: the sequence starts over there (heartbeat.c MAXMISSING)."""

HISTORY = 500
REXMIT_FIRST_S = (0.05, 0.25)
REXMIT_EVERY_S = 0.25
RESEND_AT_MOST_EVERY_S = 0.24
RESEND_AT_MOST = 50


class Verdict(Enum):
    """What the sequence number says about a message."""

    ACCEPT = "accept"
    DUPLICATE = "duplicate"
    GAP = "gap"
    FILLED = "filled"
    TOO_FAR = "too far"
    OLD = "old"

    @property
    def deliver(self) -> bool:
        """Whether the message is new to us."""
        return self not in (Verdict.DUPLICATE, Verdict.OLD)


class Incoming:
    """The sequence of one peer since its (re)start; `forget` when it died or restarted."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.last: int | None = None
        self.missing: dict[int, float] = {}  # sequence number -> when to ask for it (monotonic s)

    def forget(self) -> None:
        self.last = None
        self.missing.clear()

    def judge(self, seq: int, now: float) -> Verdict:
        """Place `seq` in the sequence, note what is missing below it."""
        if self.last is None or seq == self.last + 1:
            self.last = seq
            return Verdict.ACCEPT
        if seq == self.last:
            return Verdict.DUPLICATE
        if seq < self.last:
            if self.missing.pop(seq, None) is not None:
                return Verdict.FILLED
            return Verdict.OLD
        if seq - self.last > MAX_GAP:
            self.missing.clear()
            self.last = seq
            return Verdict.TOO_FAR
        for number in range(self.last + 1, seq):
            self.missing[number] = now + self._rng.uniform(*REXMIT_FIRST_S)
        self.last = seq
        return Verdict.GAP

    def give_up(self, seq: int) -> bool:
        """The sender cannot send `seq` again; True when it was missing."""
        return self.missing.pop(seq, None) is not None

    def ask_at(self) -> float | None:
        return min(self.missing.values()) if self.missing else None

    def to_ask(self, now: float) -> list[int]:
        """The numbers to ask for now; each is due again after 250 ms."""
        due = [seq for seq, at in self.missing.items() if at <= now]
        for seq in due:
            self.missing[seq] = now + REXMIT_EVERY_S
        return due


@dataclass(slots=True)
class _Kept:
    data: bytes
    resent_at: float


class Outgoing:
    """Our own messages since our start: numbers from 1, the last 500 kept for a resend."""

    def __init__(self) -> None:
        self.last = 0
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self.acked: dict[str, int] = {}

    def number(self) -> int:
        self.last += 1
        return self.last

    def keep(self, seq: int, data: bytes) -> None:
        self._kept[seq] = _Kept(data, float("-inf"))
        while len(self._kept) > HISTORY:
            self._kept.popitem(last=False)

    def ack(self, peer: str, seq: int) -> None:
        if seq <= self.last:
            self.acked[peer] = max(seq, self.acked.get(peer, 0))

    def resend(self, peer: str, first: int, last: int, now: float) -> tuple[list[bytes], list[int]]:
        """Datagrams to send again for a request of `peer`, and the numbers that we cannot send any more.

        Numbers that the peer acknowledged, that were never sent, or that went out within 240 ms are passed over.
        """
        again: list[bytes] = []
        lost: list[int] = []
        oldest = next(iter(self._kept), self.last + 1)
        for seq in range(first, min(last, first + RESEND_AT_MOST - 1, self.last) + 1):
            if seq <= self.acked.get(peer, 0):
                continue
            kept = self._kept.get(seq)
            if kept is None:
                if seq < oldest:
                    lost.append(seq)
            elif now - kept.resent_at >= RESEND_AT_MOST_EVERY_S:
                kept.resent_at = now
                again.append(kept.data)
        return again, lost
