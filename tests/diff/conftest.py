"""The differential with several threads: HAPTK_DIFF_THREADS=4 runs both programs with `nbthread 4`.

HAPTK_DIFF_SAMPLE=8 takes every eighth test, by a hash of its name that differs with the number of threads, so that over
the runs of CI different ones meet. The reference has one thread only and is left out. HAPTK_DIFF_STRANGERS=1 starts haptk
without standard input and among descriptors of others, to which nothing may be written.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from tests.diff.rig import STRANGERS, THREADS

SAMPLE = int(os.environ.get("HAPTK_DIFF_SAMPLE", "1"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not THREADS and not STRANGERS:
        return
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    kept = [
        item
        for item in ours
        if "reference" not in item.name and zlib.crc32(f"{THREADS} {STRANGERS} {item.nodeid}".encode()) % SAMPLE == 0
    ]
    left = set(map(id, ours)) - set(map(id, kept))
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left])
    items[:] = [item for item in items if id(item) not in left]
