"""Messages that were none: the last invalid request of each frontend and response of each backend, for `show errors`."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One captured message. `proxy` is the index of the frontend (a request) or backend (a response) whose it is.

    `other` is the index of the one at the other end, -1 where none was chosen; `server` an index over all backends, -1
    for none. `at` is where the reader stood in `data` when that is the body, -1 when `data` begins with the head.
    """

    response: bool
    proxy: int
    other: int
    server: int
    event: int
    wall_s: float
    src: str
    src_port: int
    at: int
    data: bytes


class Faults:
    """The reference's faults of one configuration. Events are counted over the life of the process."""

    lock = threading.Lock()
    events = 0

    def __init__(self, bufsize: int) -> None:
        self.bufsize = bufsize
        self._last: dict[tuple[bool, int], Fault] = {}

    def note(
        self, *, response: bool, proxy: int, other: int, server: int, wall_s: float, src: tuple[str, int], data: bytes,
        at: int = -1,
    ) -> None:  # fmt: skip
        """Keep a message in place of the one before it."""
        with self.lock:
            event = Faults.events
            Faults.events += 1
            self._last[response, proxy] = Fault(
                response, proxy, other, server, event, wall_s, src[0], src[1], at, data[: self.bufsize]
            )

    def all(self) -> tuple[int, list[Fault]]:
        """How many were seen, and what is kept."""
        with self.lock:
            return Faults.events, list(self._last.values())
