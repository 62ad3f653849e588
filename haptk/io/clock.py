"""The only module that reads a clock. Cores get `now` as a parameter; shells get it here."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def monotonic() -> float:
    """Seconds that never go back; the zero is arbitrary (CLOCK_MONOTONIC)."""
    return time.monotonic()


def monotonic_usec() -> int:
    """CLOCK_MONOTONIC in microseconds, as sd_notify(3) wants it in MONOTONIC_USEC."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def wall() -> float:
    """Unix time in seconds; may be stepped by an administrator, so never used for a deadline."""
    return time.time()


def wall_text(unix_s: float | None = None) -> str:
    """RFC 3339 text of a Unix time (now without one), UTC, milliseconds."""
    moment = datetime.fromtimestamp(wall() if unix_s is None else unix_s, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local_offset_s(unix_s: float) -> int:
    """Seconds east of Greenwich that this host's time zone has at a Unix time."""
    return time.localtime(unix_s).tm_gmtoff


def read_time_zone() -> None:
    """Have the C library read the time zone that TZ names now."""
    time.tzset()


def sleep(seconds: float) -> None:
    """Block this thread; for shells and the lab only."""
    time.sleep(seconds)
