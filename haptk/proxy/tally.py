"""What one frontend, backend or server did since the start (or `clear counters all`), by HAProxy's rules of counting.

The compiled workers count in `_fast/tally.pyx`; the reference counts in `Meter`. Both hand out `Tally`, in this order.
Times are milliseconds, averages over the last 512 transactions or so; `last_s` is seconds ago, -1 for never.
"""

from __future__ import annotations

from typing import NamedTuple


class Tally(NamedTuple):
    """For a frontend `sessions` are connections, for a backend requests, for a server attempts to use it."""

    sessions: int = 0
    requests: int = 0
    answers_other: int = 0
    answers_1xx: int = 0
    answers_2xx: int = 0
    answers_3xx: int = 0
    answers_4xx: int = 0
    answers_5xx: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    denied_requests: int = 0
    denied_responses: int = 0
    bad_requests: int = 0
    connect_errors: int = 0
    bad_responses: int = 0
    retries: int = 0
    redispatches: int = 0
    client_aborts: int = 0
    server_aborts: int = 0
    balanced: int = 0
    connects: int = 0
    reused: int = 0
    intercepted: int = 0
    internal_errors: int = 0
    queue_ms: int = 0
    connect_ms: int = 0
    response_ms: int = 0
    total_ms: int = 0
    queue_ms_max: int = 0
    connect_ms_max: int = 0
    response_ms_max: int = 0
    total_ms_max: int = 0
    live_max: int = 0
    queued_max: int = 0
    last_s: int = -1
    rate: int = 0
    rate_max: int = 0
    request_rate: int = 0
    request_rate_max: int = 0
    live: int = 0
    queued: int = 0
    idle: int = 0
    used: int = 0

    @property
    def answers(self) -> tuple[int, ...]:
        """Responses by class, 1xx to 5xx and then the others."""
        return (*self[3:8], self.answers_other)


class Tallies(NamedTuple):
    """All of one engine, by index; servers by their index over all backends, doors (sockets of frontends with `option
    socket-stats`) in the order of the file."""

    frontends: list[Tally]
    backends: list[Tally]
    servers: list[Tally]
    doors: list[Tally] = []  # noqa: RUF012 (a NamedTuple's default)
