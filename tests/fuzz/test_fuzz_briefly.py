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


# An update with a number whose last byte stands at bit 60: more than 64 bits, which one codec once let pass.
OVERFLOW = bytes.fromhex("0a82110106737472696e670609f1f100f0fe97140a85170000001700000000000000ffffffffffffffffff62696e")


def test_a_number_that_does_not_fit_ends_a_peer_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import fuzz_peers

    found = fuzz_peers.outcomes(OVERFLOW, [10] * 10)
    assert found[0] == found[1]
    assert found[0][1], "the session is over"
