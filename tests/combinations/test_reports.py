"""What the run without HAProxy beside it takes for a finding."""

from __future__ import annotations

import io

import pytest

from tests.combinations.compare import alone
from tests.combinations.rig import Rig
from tests.ports import free_base

QUIET = {"started": True, "alive": True, "exit": 0, "notes": [], "stat": {"f/FRONTEND": {"scur": "0"}}, "sessions": []}


@pytest.mark.parametrize(
    "line",
    [
        "AddressSanitizer: heap-buffer-overflow on address 0x1",
        "runtime error: index 9 out of bounds",
        "haptk: bounds: haptk/_fast/bytes/span.pxd:12: n <= s.room does not hold",
        "Fatal Python error: Segmentation fault",
        "Traceback (most recent call last):",
    ],
)
def test_reports_are_findings(line):
    assert [kind for kind, _ in alone(QUIET | {"stderr": f"before\n{line}\nafter\n"})] == [f"CRASH: {line}"]


def test_what_the_sanitizers_write_to_their_files_is_seen():
    rig = Rig(free_base(100), sanitized=True)
    try:
        (rig.dir / "sanitizer.17").write_text("==17==ERROR: AddressSanitizer: heap-use-after-free\n")
        text = rig.said(io.BytesIO(b"said before\n"))
        assert rig.solo and [kind for kind, _ in alone(QUIET | {"stderr": text})] == [
            "CRASH: AddressSanitizer: heap-use-after-free"
        ]
        assert rig.said(io.BytesIO()) == ""  # a report belongs to one case
    finally:
        rig.close()
