"""What an agent says about its server, and when it is asked again. Pure; `now` is a parameter.

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
    spoken, _, comment = _parted(line)
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
            error = word
    why = f" ({comment})" if comment else ""
    if health:
        code = PASSED if health.lower() in UP else REFUSED
        return Said(line, code, f"via agent : {health}{why}", weight, maxconn)
    return Said(line, CHECKED, f"agent reports an error : {error}{why}" if error else "", weight, maxconn)


def _parted(line: str) -> tuple[list[str], str, str]:
    """(words, "#", the reason behind it)."""
    words = re.split(r"[ \t,]+", line.strip(" \t,\r\n"))
    at = next((index for index, word in enumerate(words) if word.startswith("#")), len(words))
    mark, _, comment = line.partition("#") if at < len(words) else ("", "", "")
    del mark
    return [word for word in words[:at] if word], "#" if comment else "", comment.strip()


@dataclass
class AgentCheck:
    """When one agent is asked, and what came of it last. `begin`, then `heard` or `failed`; `due_at` says when again.

    `duration_ms` is the time the last answer took, -1 before the first one.
    """

    inter_s: float
    started_at: float = 0.0
    enabled: bool = True
    asking: bool = False
    code: str = "INI"
    text: str = ""
    duration_ms: int = -1
    _began: float = 0.0
    _due: float = -1.0

    def due_at(self) -> float | None:
        """When it is to be asked; None while it is being asked or was disabled."""
        if self.asking or not self.enabled:
            return None
        return self._due if self._due >= 0 else self.started_at

    def begin(self, now: float) -> None:
        """A connection is being made."""
        self.asking = True
        self._began = now

    def heard(self, said: Said, now: float) -> None:
        """It answered."""
        self._end(said.code, said.text, now)

    def failed(self, code: str, why: str, now: float) -> None:
        """It did not answer; the server stays what it is."""
        self._end(code, why, now)

    def _end(self, code: str, text: str, now: float) -> None:
        self.asking = False
        self.code, self.text = code, text
        self.duration_ms = round((now - self._began) * 1000)
        # counted from the beginning of the question, as HAProxy does, but never at once
        self._due = max(self._began + self.inter_s, now)
