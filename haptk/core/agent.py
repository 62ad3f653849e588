"""What an agent says about its server. Pure.

An agent is a program beside the server: one connection, one line of words, the end (HAProxy's `agent-check`). Words may
stand in any order, with blanks or commas between them:

    up                      the agent has no objection          down stopped fail   it wants no traffic at all
    ready drain maint       as an administrator would say       75%                 share of the configured weight
    maxconn:30              the most requests at once           # text              a reason, to the end of the line

What is no word is reported and changes nothing. An agent that cannot be reached, is silent or says nothing changes
nothing either: only its words count. That is HAProxy's rule, and the states are kept in core/health.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

UP, DOWN = ("up",), ("down", "stopped", "fail")
ADMIN = ("ready", "drain", "maint")
CHECKED, PASSED, REFUSED = "CHECKED", "L7OK", "L7STS"
_WORD = re.compile(r"[^ \t,\r\n]+")
MAX_LINE = 1024  # characters that are looked at


@dataclass(frozen=True)
class Said:
    """One answer. `code` and `text` are what HAProxy shows of it; None for what was not mentioned."""

    line: str
    code: str = CHECKED
    text: str = ""
    weight_percent: int | None = None
    maxconn: int | None = None


def parse(line: str) -> Said:
    """The meaning of one line."""
    line = line[:MAX_LINE]
    spoken, comment = parted(line)
    health = error = ""
    weight = maxconn = None
    for word in spoken:
        lower = word.lower()
        if lower in (*UP, *DOWN):
            health = word
        elif found := re.match(r"(\d+)%", word):
            weight = int(found[1])
        elif found := re.fullmatch(r"maxconn:(\d+)", lower):
            maxconn = min(int(found[1]), 2**31 - 1)
        elif lower not in ADMIN:
            error = error or word
    if health:
        code = PASSED if health.lower() in UP else REFUSED
        told = error or comment if code == PASSED else comment or error
        why = f" ({told})" if told else ""
        return Said(line, code, f"via agent : {health}{why}", weight, maxconn)
    return Said(line, CHECKED, f"agent reports an error : {error}" if error else "", weight, maxconn)


def parted(line: str) -> tuple[list[str], str]:
    """The words, and the reason behind a word that begins with #. Blanks, tabs and commas part them, nothing else does."""
    words: list[str] = []
    at = 0
    while (found := _WORD.search(line, at)) is not None:
        if found[0].startswith("#"):
            return words, line[found.start() + 1 :].strip(" \t\r\n")
        words.append(found[0])
        at = found.end()
    return words, ""


@dataclass
class AgentCheck:
    """What came of an agent last; `duration_ms` is the time its answer took, -1 before the first one."""

    enabled: bool = True
    code: str = "INI"
    text: str = ""
    duration_ms: int = -1
