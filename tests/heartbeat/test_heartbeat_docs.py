"""What the documentation says about the tests must be there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_comparison_names_exists() -> None:
    text = (ROOT / "docs" / "explanation" / "heartbeat.md").read_text()
    named = set(re.findall(r"`(test_[a-z_0-9]+)`", text))
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in [path.stem, *re.findall(r"^def (test_\w+)", path.read_text(), re.M)]
    }
    assert len(named) > 15
    assert not named - written
