"""Pairs of machines for every test here, and what a failed wait shows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.heartbeat_nodes import Pair


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """Makes pairs; all of them are gone when the test ends."""
    made: list[Pair] = []

    def make(**options: str) -> Pair:
        made.append(Pair(tmp_path / f"pair{len(made)}", **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
