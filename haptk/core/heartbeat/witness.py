"""Witnesses: somebody else whom we can reach when the network is fine. Three states: one answers, none does, not known.

Ping nodes of ha.cf are witnesses. Without any the answer is "not known", and only the peer's silence counts, as in
the original. Before the first answer or the end of the first `deadping` it is not known either.
"""

from __future__ import annotations

from collections.abc import Iterable


class Witnesses:
    """When each witness answered last."""

    def __init__(self, names: Iterable[str], dead_s: float, now: float) -> None:
        self._dead_s = dead_s
        self._heard: dict[str, float] = dict.fromkeys(names, float("-inf"))
        self._up: set[str] = set()
        self._since = now
        self._answered_at = float("-inf")

    def heard(self, name: str, now: float) -> bool:
        """A witness answered; True when it was not up before."""
        if name not in self._heard:
            return False
        self._heard[name] = self._answered_at = now
        new = name not in self._up
        self._up.add(name)
        return new

    def forgive(self, seconds: float, now: float) -> None:
        self._heard = {name: min(now, at + seconds) for name, at in self._heard.items()}
        self._since = min(now, self._since + seconds)

    def newly_dead(self, now: float) -> list[str]:
        dead = [name for name in self._up if now - self._heard[name] >= self._dead_s]
        self._up.difference_update(dead)
        return dead

    def last_answer(self) -> float:
        """When any of them really answered last (monotonic s); a pause of ours is not forgiven here."""
        return self._answered_at

    def alive(self, now: float) -> int:
        return sum(now - at < self._dead_s for at in self._heard.values())

    def answer(self, now: float) -> bool | None:
        """True: a witness answers; False: none does any more; None: there are none, or it is too early to say."""
        if not self._heard:
            return None
        if self.alive(now):
            return True
        return False if now - self._since >= self._dead_s else None

    def state(self, now: float) -> dict[str, str]:
        return {name: "ping" if now - at < self._dead_s else "dead" for name, at in self._heard.items()}

    def next_at(self, now: float) -> float | None:
        due = [self._heard[name] + self._dead_s for name in self._up]
        later = [at for at in due if at > now]
        return min(later) if later else None
