"""Counting on the reference path, by HAProxy's rules (see tally.py), written apart from the compiled counting.

A `Meter` is what one frontend, backend or server did; a `Bill` follows one exchange and charges the meters it meets.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from haptk.core.logline import Record
from haptk.io import clock
from haptk.proxy.reference_rules import Reply
from haptk.proxy.tally import Tally

if TYPE_CHECKING:
    from haptk.proxy.reference import Image

_TIMES = ("queue_ms", "connect_ms", "response_ms", "total_ms")
_HIGHEST = (*(f"{name}_max" for name in _TIMES), "live_max", "queued_max", "rate_max", "request_rate_max")


class Meter:
    """Counters by the names of Tally's fields, from any thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: dict[str, int] = {}
        self.clear(everything=True)

    def clear(self, *, everything: bool) -> None:
        """Back to zero: the highest values, or all but what is there now."""
        with self.lock:
            if everything:
                kept = {name: self.values.get(name, 0) for name in ("live", "queued")}
                self.values = kept
                self.times: dict[str, deque[int]] = {name: deque(maxlen=512) for name in _TIMES}
                self.moments: dict[str, deque[float]] = {"rate": deque(), "request_rate": deque()}
                self.last: float | None = None
            for name in _HIGHEST:
                self.values[name] = 0

    def add(self, name: str, by: int = 1) -> None:
        """Add to a counter; `live` and `queued` remember their highest value."""
        with self.lock:
            self.values[name] = self.values.get(name, 0) + by
            if name in ("live", "queued"):
                self._highest(f"{name}_max", self.values[name])

    def event(self, rate: str) -> None:
        """One more of what `rate` or `request_rate` counts by the second."""
        with self.lock:
            now = clock.monotonic()
            moments = self.moments[rate]
            moments.append(now)
            while moments[0] < now - 1.0:
                moments.popleft()
            self._highest(f"{rate}_max", len(moments))

    def took(self, spans_ms: Sequence[int]) -> None:
        """Queue, connect, response and total time of one exchange."""
        with self.lock:
            for name, span_ms in zip(_TIMES, spans_ms, strict=True):
                self.times[name].append(max(span_ms, 0))
                self._highest(f"{name}_max", span_ms)

    def _highest(self, name: str, value: int) -> None:
        self.values[name] = max(self.values.get(name, 0), value)

    def tally(self) -> Tally:
        """The values now."""
        with self.lock:
            now = clock.monotonic()
            found = dict(self.values)
            found |= {name: sum(times) // len(times) for name, times in self.times.items() if times}
            found |= {name: sum(at >= now - 1.0 for at in moments) for name, moments in self.moments.items()}
            found["last_s"] = -1 if self.last is None else int(now - self.last)
            return Tally(**found)


class Both(Meter):
    """A frontend's meter and that of one of its sockets."""

    def __init__(self, front: Meter, door: Meter) -> None:
        super().__init__()
        self.front, self.door = front, door

    def add(self, name: str, by: int = 1) -> None:
        self.front.add(name, by)
        self.door.add(name, by)

    def event(self, rate: str) -> None:
        self.front.event(rate)


class Meters:
    """All of one image."""

    def __init__(self, frontends: int, backends: int, servers: int, doors: Sequence[int] = ()) -> None:
        """`doors` is how many sockets with counters of their own each frontend has."""
        self.frontends = [Meter() for _ in range(frontends)]
        self.backends = [Meter() for _ in range(backends)]
        self.servers = [Meter() for _ in range(servers)]

        self.doors = [[Meter() for _ in range(count)] for count in doors]

    def front(self, frontend: int, bind: int) -> Meter:
        """What a connection through one socket is charged to."""
        if frontend < len(self.doors) and bind < len(self.doors[frontend]):
            return Both(self.frontends[frontend], self.doors[frontend][bind])
        return self.frontends[frontend]

    def clear(self, *, everything: bool) -> None:
        of_doors = (meter for meters in self.doors for meter in meters)
        for meter in (*self.frontends, *self.backends, *self.servers, *of_doors):
            meter.clear(everything=everything)

    def tallies(self) -> tuple[list[Tally], ...]:
        return (
            [meter.tally() for meter in self.frontends],
            [meter.tally() for meter in self.backends],
            [meter.tally() for meter in self.servers],
            [meter.tally() for meters in self.doors for meter in meters],
        )


class Bill:
    """One exchange: what it is charged to. `end` once."""

    def __init__(self, image: Image, frontend: int, received: int, bind: int = 0) -> None:
        self.image = image
        self.front = image.meters.front(frontend, bind)
        self.back: Meter | None = None
        self.server: Meter | None = None
        self.farm = self.gid = -1  # indices of the backend and the server
        self.received = received
        self.denied = False
        self.asked = False
        self.answered = False

    def request(self) -> None:
        """A request, or what was to be one, was received."""
        self.asked = True
        self.front.add("requests")
        self.front.event("request_rate")

    def backend(self, index: int) -> None:
        """A backend was chosen."""
        if self.back is None:
            self.back = self.image.meters.backends[index]
            self.farm = index
            self.back.add("sessions")
            self.back.add("live")
            self.back.event("rate")

    def slot(self, seat: object, *, balanced: bool) -> None:
        """A place at a server was taken."""
        self.gid = self.image.gids[id(seat)]
        self.server = self.image.meters.servers[self.gid]
        self.server.add("live")
        if balanced and self.back is not None:
            self.server.add("balanced")
            self.back.add("balanced")

    def free(self, seat: object) -> None:
        """The place was given back."""
        self.image.meters.servers[self.image.gids[id(seat)]].add("live", -1)

    def attempt(self, *, reused: bool) -> None:
        """A connection to the server is used, or tried."""
        for meter in (self.server, self.back):
            if meter is not None:
                meter.add("reused" if reused else "connects")
                meter.last = clock.monotonic()
        if self.server is not None:
            self.server.add("sessions")
            self.server.event("rate")

    def again(self, *, elsewhere: bool) -> None:
        """The attempt failed and there will be another one."""
        for meter in (self.server, self.back):
            if meter is not None:
                meter.add("redispatches" if elsewhere else "retries")

    def deny(self, reply: Reply, *, response: bool = False) -> None:
        """A rule gave the answer; one that refuses is counted."""
        if reply.cause == "P":
            self.denied = True
            for meter in (self.front, self.back, self.server if response else None):
                if meter is not None:
                    meter.add("denied_responses" if response else "denied_requests")

    def end(self, record: Record, received: int) -> None:
        """It is over: `record` says how."""
        http = record.mode == "http"
        if http and not self.asked:
            self.request()
        met = [meter for meter in (self.front, self.back, self.server) if meter is not None]
        for meter in met:
            meter.add("bytes_in", received - self.received)
            meter.add("bytes_out", record.bytes_down)
        name = f"answers_{record.status // 100}xx" if 100 <= record.status < 600 else "answers_other"
        if http:
            self.front.add(name)
        cause, at = record.flags[0], record.flags[1]
        if cause == "L" and self.back is None:
            self.front.add("intercepted")
        elif cause == "R":
            self.front.add("internal_errors")
        elif at == "R" and cause in "CcPs" and not self.denied:
            self.front.add("bad_requests")
        if self.back is None:
            return
        self.back.add("live", -1)
        if http:
            self.back.add(name)
            self.back.add("requests")
            if self.server is not None and self.answered:
                self.server.add(name)
                self.server.add("requests")
        for meter in met[1:]:
            if not self.denied:
                _blame(meter, cause, at, http=http)
            if record.connect_ms >= 0 or not http:
                meter.took((record.queue_ms, record.connect_ms, record.response_ms, record.total_ms))


def _blame(meter: Meter, cause: str, at: str, *, http: bool) -> None:
    """What the two letters of the termination state count as, for a backend or a server."""
    if at == "R" or cause in "-L":
        return
    if cause in "Cc":
        meter.add("client_aborts")
    elif at in "CQ":
        meter.add("connect_errors")
    elif at == "H" and cause in "SsP":
        meter.add("bad_responses")
    elif at == "D" and cause in "Ss":
        meter.add("server_aborts")
        if http and cause == "S":
            meter.add("bad_responses")
    elif at == "D" and cause == "P":
        meter.add("bad_responses")
