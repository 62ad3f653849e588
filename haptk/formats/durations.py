"""Durations as ha.cf and the flags write them: a bare number is seconds; `ms`, `us`, `s`, `m` and `h` are suffixes."""

from __future__ import annotations

import re

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(us|ms|s|sec|m|min|h|hr)?")
_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hr": 3600.0}
ACCEPTED = "a number of seconds, or a number with ms, us, s, m or h"


def parse(text: str) -> float:
    """Seconds; ValueError with what is accepted."""
    found = _DURATION.fullmatch(text.strip().lower())
    if not found:
        raise ValueError(f"{text!r} is not a duration: {ACCEPTED} is accepted")
    return float(found[1]) * _UNIT_S[found[2] or "s"]
