"""Bytes of strangers are reached through the types of haptk/_fast/bytes only (docs/decisions/0008).

What is raw is counted: calls that move or compare memory, pointers to bytes (declared or cast), and pointers taken out of
a span or room. A file without a line in ALLOWED has none. The numbers only get smaller: when one is too large the test
says so, and a larger one needs another reason than haste.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAST = ROOT / "haptk" / "_fast"
SOURCES = sorted(path for path in FAST.rglob("*.p[yx][xd]") if path.parent.name != "bytes")
RAW = re.compile(
    r"\b(?:memcpy|memmove|memcmp|memchr|memmem|strlen|strcpy|strncpy|strcat|sprintf|snprintf)\s*\("
    r"|\b(?:char|uint8_t)\s*\*+|\b(?:span_raw|room_raw)\s*\("
)
LITERAL = re.compile(r'cdef const char \*+[A-Z0-9_]+ = b?["\[]')
# file -> how many, and why they are not in the package
ALLOWED = {
    # not converted yet: the numbers are what is left to do
    "logline.pyx": (1, "a sentence about a PROXY header"),
    "logline.pxd": (1, "as above"),
    "journal.pyx": (4, "a lane is a ring of records between two threads"),
    "logwriter.pyx": (23, "takes records out of the lanes; bytes of ours"),
    "logwriter.pxd": (4, "as above"),
    "peerwire.pyx": (4, "rows and keys, which a table lays out itself"),
    "scan.pyx": (6, "helpers of the above"),
    "scan.pxd": (15, "as above"),
    "store.pyx": (23, "keys of entries, which a table lays out itself"),
    "store.pxd": (12, "as above"),
    "stick.pyx": (2, "keys on their way to store"),
    "table.pyx": (10, "keys on their way from store"),
    "counts.pyx": (12, "data of entries, laid out by a table"),
    "counts.pxd": (5, "as above"),
    "conf.pyx": (10, "texts of the configuration, made under the GIL"),
    "program.pyx": (3, "as above"),
    "program.pxd": (1, "as above"),
    # structures, not bytes
    "edit.pyx": (1, "moves an array of headers"),
    "regex.pyx": (13, "prototypes of libpcre2"),
    "inet.pxd": (3, "prototypes of the C library"),
    "match.pyx": (1, "an address is an array of 16"),
    "match.pxd": (1, "as above"),
    "hashkey.pyx": (1, "as above"),
    "state.pxd": (1, "the ring of a lane"),
    "checks/judge.pyx": (7, "words of the C library about an error"),
    "checks/judge.pxd": (1, "as above"),
    "checks/play.pyx": (1, "prototypes of the C library"),
    "convert.pyx": (1, "a result by place"),
    "deadlines.pyx": (1, "a letter by place"),
    "deadlines.pxd": (1, "as above"),
    "descriptors.pyx": (4, "words for people"),
    "descriptors.pxd": (2, "as above"),
}


def raw_in(path: Path) -> int:
    """How many raw accesses a file has outside comments and constants that are literals."""
    lines = (line.split("#")[0] for line in path.read_text().splitlines())
    return sum(len(RAW.findall(line)) for line in lines if not LITERAL.match(line.strip()))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(FAST)))
def test_bytes_are_reached_through_checked_types(path: Path) -> None:
    found, (allowed, _) = raw_in(path), ALLOWED.get(str(path.relative_to(FAST)), (0, ""))
    assert found <= allowed, f"{found} raw accesses, {allowed} allowed: use Span, Room and Buf of haptk/_fast/bytes"
    assert found == allowed, f"only {found} raw accesses are left: lower the number of ALLOWED"


def test_the_list_names_files_that_exist() -> None:
    assert not [name for name in ALLOWED if not (FAST / name).exists()]
