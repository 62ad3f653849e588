"""The compiled extensions are hardened as Debian hardens its own programs; read from the files themselves."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import pytest

BUILT = sorted((Path(__file__).parents[2] / "haptk/_fast").rglob("*.so"))
pytestmark = [
    pytest.mark.real("readelf"),
    pytest.mark.skipif(
        "-fsanitize" in os.environ.get("HAPTK_FAST_CFLAGS", ""), reason="sanitizers have their own checks"
    ),
]


def readelf(what: str, path: Path) -> str:
    return subprocess.run(["readelf", "-W", what, str(path)], capture_output=True, text=True, check=True).stdout


def test_there_is_something_to_look_at() -> None:
    assert len(BUILT) > 20


@pytest.mark.parametrize("path", BUILT, ids=lambda path: path.name.partition(".")[0])
def test_tables_are_read_only_and_nothing_on_the_stack_runs(path: Path) -> None:
    segments = readelf("-l", path)
    assert "GNU_RELRO" in segments
    assert re.search(r"GNU_STACK\s.*\sRW\s", segments)
    assert re.search(r"\bNOW\b", readelf("-d", path))
    if platform.machine() == "x86_64":
        assert path.read_bytes().count(b"\xf3\x0f\x1e\xfa") > 3  # endbr64; the note also needs a C library that has it


def test_canaries_and_checked_copies() -> None:
    """Not every module has an array on its stack; most have, and the C library's checked functions are called."""
    symbols = {path: readelf("--dyn-syms", path) for path in BUILT}
    guarded = [path for path, text in symbols.items() if "__stack_chk_fail" in text]
    assert len(guarded) > len(BUILT) / 2
    assert any(re.search(r"__(memcpy|memset|snprintf|memmove|read|recv)_chk", text) for text in symbols.values())
