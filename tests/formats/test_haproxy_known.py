"""`HAProxy does not know it either` is true: it is said of no word that HAProxy's manual or the program itself lists."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

import pytest

from haptk.errors import HaptkError
from haptk.formats.haproxy_cfg import Source, parse

MANUAL = Path("/usr/share/doc/haproxy/configuration.txt.gz")
TITLES = {"global": "global", "listen": "listen x", "peers": "peers p", "userlist": "userlist u"}


def said(kind: str, line: str) -> str:
    """What haptk has against one line in a section."""
    try:
        found = parse([Source("x", f"{TITLES[kind]}\n {line}\n")], {})
    except HaptkError as error:
        return str(error)
    return " ".join(str(each) for each in getattr(found, "errors", ()))


def nobodys(words: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of which haptk says that nobody knows them."""
    return sorted(each for each in words if re.search("HAProxy does not know (it )?either", said(*each)))


def test_a_word_of_nobody_is_called_so() -> None:
    words = {("listen", "no-such-word"), ("listen", "option no-such"), ("global", "no-such")}
    assert nobodys(words) == sorted(words)


@pytest.mark.real("haproxy")
def test_words_that_the_program_lists() -> None:
    out = subprocess.run(["haproxy", "-dKcfg", "-c", "-f", "/dev/null"], capture_output=True, text=True, check=False)
    words, kind = set(), ""
    for line in out.stdout.splitlines():
        if not line.startswith("\t"):
            kind = line.strip()
            continue
        word = re.sub(r" \[.*| [+-].*|\*$", "", line.strip())
        word = word.replace("<name> <addr>", "n 127.0.0.1:1").replace("<addr>", "127.0.0.1:1")
        if kind in TITLES:
            words.add((kind, word))
    assert len(words) > 300
    assert nobodys(words) == []


def test_words_of_the_manual() -> None:
    if not MANUAL.exists():
        pytest.skip("HAProxy's manual is not installed")
    text = gzip.decompress(MANUAL.read_bytes()).decode("utf-8", "replace")
    start = text.index("4.1. Proxy keywords matrix", 8000)
    matrix = text[start : text.index("4.2. Alphabetically", start)]
    rows = re.findall(r"^(\S.*?)\s+(?:\(\S+\)\s+)?[X-]\s+[X-]\s+[X-]\s+[X-]\s*$", matrix, re.MULTILINE)
    words = {("listen", row) for row in rows if row != "keyword"}
    assert len(words) > 150
    assert nobodys(words) == []
