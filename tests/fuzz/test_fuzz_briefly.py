"""Every fuzz target runs for a moment with a fixed seed, so that none rots; scripts/fuzz runs them for long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("target", sorted(path.name for path in HERE.glob("fuzz_*.py")))
def test_target_runs_and_finds_nothing(target: str) -> None:
    command = [sys.executable, str(HERE / target), "--seconds", "2", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", ["parsers", "peers", "stream", "tables"])
def test_guided_target_takes_its_corpus(target: str) -> None:
    """Without instrumentation, which takes clang minutes to build: no input of the corpus is a finding."""
    command = [sys.executable, str(HERE / "guided.py"), "replay", target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "slow reference" not in done.stderr
