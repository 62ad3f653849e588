"""Every accepted word is carried out in some test that looks: it stands in a configuration of the tests that run one, or in
words_unobserved.txt with the reason why nothing can be seen of it. That list may only get shorter.

Together with test_diff_table.py (accepted, warned of, refused as the real haproxy does it) this is the table of words, sections
and modes: a new word without an example fails there, one that no test runs fails here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from haptk.formats.haproxy_cfg.options import OPTIONS
from tests.diff import word_examples as words

TESTS = Path(__file__).parents[1]
UNOBSERVED = Path(__file__).parent / "words_unobserved.txt"
FORMS = (
    "stats",
    "balance",
    "stick",
    "http-check",
    "tcp-check",
    "capture",
    "cookie",
    "hash-type",
)  # each form is a word
# in pieces: test_diff_seen.py, and tests/proxy/test_inherit.py the one of `stats socket`
COMPOSED = {
    "bind maxconn", "bind id", "bind backlog", "bind expose-fd", "server stick", "server no-check-send-proxy",
}  # fmt: skip
NOT_RUN = ("word_examples.py", "test_diff_table.py", "test_diff_observed.py")


def _sources() -> str:
    folders = ("diff", "proxy", "chaos", "interop", "lab", "bench")
    files = [file for folder in folders for file in sorted((TESTS / folder).glob("*.py")) if file.name not in NOT_RUN]
    return "\n".join(file.read_text() for file in files)


def _patterns() -> Iterator[tuple[str, str]]:
    """(name in the list, what stands in a configuration that uses the word)"""
    begin = r"(?:^|\\n|[\"'({|\n])[ ]*"
    for keyword, lines in words.PROXY.items():
        if keyword == "timeout":
            for line in lines:
                yield " ".join(line.split()[:2]), rf"(?<![\w-]){line.split()[1]} \d"
        elif keyword in FORMS:
            for line in lines:
                form = " ".join(line.split("; ")[-1].split()[:2])
                yield form, re.escape(form).replace(r"\ ", r"\s+")
        else:
            yield keyword, begin + re.escape(keyword) + r"(?![\w-])"
    for name in OPTIONS:
        yield f"option {name}", rf"option {re.escape(name)}(?![\w-])"
    for name in words.BIND:
        yield (
            f"bind {name}",
            rf"(?:bind|stats socket) [^\\\n]*\b{re.escape(name)}(?![\w-])|bind_options.*{re.escape(name)}",
        )
    for name in words.SERVER:
        yield f"server {name}", rf"server[^\\\n]* [^\\\n]*(?<![\w-]){re.escape(name)}(?![\w-])"
    for kind, table in (("http-request", words.REQUEST), ("http-response", words.RESPONSE)):
        for action in table:
            yield f"{kind} {action}", rf"{kind} {re.escape(action)}(?![\w-])"
    for keyword in words.GLOBAL:
        yield f"global {keyword}", begin + re.escape(keyword) + r"(?![\w-])"


def test_every_word_is_looked_at_or_listed() -> None:
    text = _sources()
    missing = {name for name, pattern in _patterns() if not re.search(pattern, text, re.MULTILINE)} - COMPOSED
    listed = {
        line.partition(" # ")[0].strip() for line in UNOBSERVED.read_text().splitlines() if line and line[0] != "#"
    }
    reasons = [line for line in UNOBSERVED.read_text().splitlines() if line and line[0] != "#" and " # " not in line]
    assert not reasons, f"without a reason: {reasons}"
    assert not missing - listed, f"no test runs these: {sorted(missing - listed)}"
    assert not listed - missing, f"these are looked at now; take them out: {sorted(listed - missing)}"
