"""Run checks side by side: each ends at its own time-out, all of them inside one deadline, whatever their targets do.

Every look runs in a daemon thread. A check keeps its own deadline on sockets and children; where it cannot (a library's
name look-up, a file on a dead NFS server) the thread is left behind and the finding is the time-out. A time-out is
CRITICAL and never UNKNOWN: the service did not answer, which is what was asked.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from haptk.checks.base import Check, Finding
from haptk.errors import HaptkError, OperatorError
from haptk.io import clock
from haptk.report.nagios import State

# A check that keeps its own deadline reports the time-out better than we can: it gets this much longer to say so.
GRACE_S = 0.15
THREADS_MAX = 512
_STACK_BYTES = 512 * 1024


def look_at(check: Check, timeout_s: float) -> Finding:
    """One look; what it raises is UNKNOWN, because it says something about us and not about the service."""
    try:
        return check.look(timeout_s)
    except OperatorError as error:
        return Finding(State.UNKNOWN, str(error))
    except HaptkError as error:
        return Finding(State.CRITICAL if error.who == "peer" else State.UNKNOWN, str(error))
    except TimeoutError:
        return late(timeout_s)
    except Exception as error:
        return Finding(State.UNKNOWN, f"internal error: {type(error).__name__}: {error}")


def late(timeout_s: float) -> Finding:
    """The finding of a check that did not come back."""
    return Finding(State.CRITICAL, f"no result within {timeout_s:.3g} s")


class _Round:
    """One run of many checks: workers take the next one until the deadline; late ones keep what they find to themselves."""

    def __init__(self, checks: Sequence[Check], deadline_s: float) -> None:
        self.checks = checks
        self.deadline_s = deadline_s
        self.started = clock.monotonic()
        self.deadline = self.started + deadline_s
        self.findings: list[Finding | None] = [None] * len(checks)
        # When each has to be over. Those that find a thread at once are counted from now on, so that `wait` needs no
        # word from them; the others say so when their turn comes.
        self.at_once = min(len(checks), THREADS_MAX)
        self.until = [self._end(check, self.started) for check in checks[: self.at_once]]
        self.until += [self.deadline] * (len(checks) - self.at_once)
        self.missing = len(checks)
        self.changed = threading.Condition()
        self.next = 0

    def _end(self, check: Check, now: float) -> float:
        return min(now + check.timeout_s, self.deadline)

    def work(self) -> None:
        while True:
            with self.changed:
                at = self.next
                self.next += 1
                now = clock.monotonic()
                if at >= len(self.checks) or now >= self.deadline:
                    return
                if at >= self.at_once:
                    self.until[at] = self._end(self.checks[at], now)
                    self.changed.notify()
            wanted = self.checks[at].timeout_s
            # The start of a thread takes nothing off a time-out that is the whole deadline.
            found = look_at(self.checks[at], wanted if now + wanted <= self.deadline + GRACE_S else self.deadline - now)
            with self.changed:
                if self.findings[at] is None:
                    self.findings[at] = found
                    self.missing -= 1
                if not self.missing:
                    self.changed.notify()

    def wait(self) -> None:
        """Until every check has a finding; one that is over its time gets that as its finding."""
        with self.changed:
            while self.missing:
                now = clock.monotonic()
                soonest = self.deadline
                for at, found in enumerate(self.findings):
                    if found is None and self.until[at] + GRACE_S <= now:
                        self.findings[at] = late(min(self.checks[at].timeout_s, self.deadline_s))
                        self.missing -= 1
                    elif found is None:
                        soonest = min(soonest, self.until[at])
                if self.missing:
                    self.changed.wait(max(0.001, soonest + GRACE_S - now))


def run(checks: Sequence[Check], deadline_s: float | None = None) -> list[Finding]:
    """The findings of `checks`, in their order, within `deadline_s` seconds (default: the longest time-out of them)."""
    whole_s = max((check.timeout_s for check in checks), default=0.0) if deadline_s is None else deadline_s
    this = _Round(checks, whole_s)
    before = threading.stack_size()
    threading.stack_size(_STACK_BYTES)
    try:
        for _ in range(this.at_once):
            threading.Thread(target=this.work, daemon=True).start()
    finally:
        threading.stack_size(before)
    this.wait()
    return [found or late(whole_s) for found in this.findings]
