"""What a child process cost."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Mapping


def cost_ms(argv: list[str], env: Mapping[str, str], *, check: bool = False) -> tuple[float, float]:
    """User and system time of one finished child, and its wall time, in milliseconds; `check` wants an exit code of 0."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL, env=env, check=check)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000, wall * 1000
