"""One selectors loop with one timer: descriptors first, then what threads left, then the timer.

Descriptors come first on purpose: a heartbeat that is already in the socket must be read before silence is judged.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
from collections.abc import Callable
from typing import Protocol

from haptk.io import clock

LONGEST_WAIT_S = 60.0


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Loop:
    """`timer_at` gives the next deadline (monotonic s), `on_timer` is called when it is due."""

    def __init__(self, timer_at: Callable[[], float], on_timer: Callable[[float], None]) -> None:
        self._timer_at = timer_at
        self._on_timer = on_timer
        self._selector = selectors.DefaultSelector()
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._running = True
        self.watch(self._wake, self._run_posted)

    def watch(self, source: HasFileno | int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `source` is readable."""
        self._selector.register(source, selectors.EVENT_READ, callback)

    def forget(self, source: HasFileno | int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(source)

    def post(self, work: Callable[[], None]) -> None:
        """Have `work` called in the loop's thread; may be called from any thread."""
        self._posted.put(work)
        with contextlib.suppress(OSError):  # after close there is nobody left to wake
            os.eventfd_write(self._wake, 1)

    def _run_posted(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while True:
            try:
                work = self._posted.get_nowait()
            except queue.Empty:
                return
            work()

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Until `stop`."""
        while self._running:
            due = self._timer_at()
            for key, _ in self._selector.select(max(0.0, min(due - clock.monotonic(), LONGEST_WAIT_S))):
                key.data()
            now = clock.monotonic()
            if self._running and now >= due:
                self._on_timer(now)

    def close(self) -> None:
        self._selector.close()
        os.close(self._wake)
