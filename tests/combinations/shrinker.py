"""Makes a case smaller as long as the same kind of difference shows: sessions, lines, steps, by halves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

Case = dict[str, Any]


def shrink(case: Case, shows: Callable[[Case], bool], minutes: float) -> Case | None:
    """The smallest case found, None when the difference does not show."""
    if not shows(case):
        return None
    until = time.monotonic() + minutes * 60
    case = _fewer(case["sessions"], lambda x: {**case, "sessions": x} if x else None, shows, until) or case
    whole = case
    lines = case["config"].splitlines()
    case = _fewer(lines, lambda x: {**whole, "config": "\n".join(x) + "\n"}, shows, until) or case
    for n in range(len(case["sessions"])):
        case = _fewer(case["sessions"][n]["steps"], _with_steps(case, n), shows, until) or case
    used = json.dumps(case["sessions"])
    return {**case, "plans": {key: plan for key, plan in case["plans"].items() if f"X-Plan: {key}\\r" in used}}


def _with_steps(case: Case, n: int) -> Callable[[list[Any]], Case | None]:
    def put(steps: list[Any]) -> Case:
        sessions = [dict(one) for one in case["sessions"]]
        sessions[n]["steps"] = steps
        return {**case, "sessions": sessions}

    return put


def _fewer(
    items: list[Any], put: Callable[[list[Any]], Case | None], shows: Callable[[Case], bool], until: float
) -> Case | None:
    best, step = None, max(1, len(items) // 2)
    while step and time.monotonic() < until:
        at = 0
        while at < len(items) and time.monotonic() < until:
            rest = items[:at] + items[at + step :]
            one = put(rest)
            if one and shows(one):
                items, best = rest, one
            else:
                at += step
        step //= 2
    return best
