"""How long a backend has had a server for new sessions, or none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Standing:
    """Whether a backend has a server for new sessions: since when, how often that ended, and how long it was over."""

    up: bool
    since: float
    downs: int = 0
    down_s: float = 0.0

    def see(self, now: float, *, up: bool) -> None:
        """Take notice of what it is now."""
        if up == self.up:
            return
        if up:
            self.down_s += now - self.since
        else:
            self.downs += 1
        self.up, self.since = up, now
