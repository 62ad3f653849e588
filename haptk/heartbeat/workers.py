"""Resources never block the heartbeat: each group has a thread of its own that does one operation after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from haptk.core.heartbeat.model import Op, Outcome, Run, Seen
from haptk.heartbeat.agents import WARM_EVERY_S, Resource
from haptk.io import clock

Report = Callable[[int, Outcome], None]


class GroupWorker:
    """The thread of one group. `report(ticket, outcome)` is called in that thread."""

    def __init__(self, resources: Sequence[Resource], report: Report, warn: Callable[[str], None], limit_s: float):
        self.resources = resources
        self._report = report
        self._warn = warn
        self._limit_s = limit_s
        self._orders: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._needs_warmth = any(resource.exclusive for resource in resources)
        # A daemon thread: a script that hangs must not keep a stopping daemon alive.
        self._thread = threading.Thread(target=self._work, name=f"group {resources[0].name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def order(self, run: Run) -> None:
        self._orders.put(run)

    def close(self) -> None:
        self._orders.put(None)

    def _work(self) -> None:
        warm_at = clock.monotonic()
        while True:
            try:
                wait = max(0.0, warm_at - clock.monotonic()) if self._needs_warmth else None
                run = self._orders.get(timeout=wait)
            except queue.Empty:
                self._warm()
                warm_at = clock.monotonic() + WARM_EVERY_S
                continue
            if run is None:
                return
            self._report(run.ticket, self._do(run.op))

    def _warm(self) -> None:
        for resource in self.resources:
            try:
                trouble = resource.warm()
            except Exception as error:  # the next order may be the take-over: this thread must live
                trouble = f"{type(error).__name__}: {error}"
            if trouble:
                self._warn(f"{resource.name} could not be made ready for a quick start: {trouble}")

    def _do(self, op: Op) -> Outcome:
        try:
            if op is Op.STATUS:
                return self._status()
            if op is Op.START:
                return self._start()
            return self._stop(op)
        except Exception as error:
            seen = Seen.UNKNOWN if op is Op.STATUS else Seen.FAILED
            return Outcome(seen, f"{type(error).__name__}: {error}")

    def _status(self) -> Outcome:
        """The whole group: ours when every member is; not ours when one is not; else nobody can tell."""
        found = [resource.status(self._limit_s) for resource in self.resources]
        for wanted in (Seen.NOT_OURS, Seen.UNKNOWN):
            for resource, outcome in zip(self.resources, found, strict=True):
                if outcome.seen is wanted:
                    # A script that does not run here runs nowhere else for that; only an exclusive one has a holder.
                    return outcome if resource.exclusive else replace(outcome, holder="")
        return found[0]

    def _start(self) -> Outcome:
        """Left to right; when one fails, stop the started ones from right to left."""
        for index, resource in enumerate(self.resources):
            outcome = resource.start(self._limit_s)
            if outcome.seen not in (Seen.DONE, Seen.OURS):
                for started in reversed(self.resources[: index + 1]):
                    started.stop(self._limit_s)
                return outcome
        return Outcome(Seen.DONE)

    def _stop(self, op: Op) -> Outcome:
        """Right to left, all of them even when one fails; the first failure is the answer."""
        failed: Outcome | None = None
        for resource in reversed(self.resources):
            outcome = resource.release(self._limit_s) if op is Op.RELEASE else resource.stop(self._limit_s)
            if outcome.seen not in (Seen.DONE, Seen.NOT_OURS):
                failed = failed or outcome
        return failed or Outcome(Seen.DONE)
