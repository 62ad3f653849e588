"""Where in a TOML file a key stands: tomllib gives values without positions, so the lines are found here.

Only headers and keys at the outer level of a line are looked at; strings and comments are blanked first, and text inside
brackets or multi-line strings is passed over. tomllib has accepted the file before, so this never has to judge it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str | int, ...]
_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:\\.|[^\"\\])*\"|'[^']*')"
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_ARRAY = re.compile(rf"\s*\[\[\s*({_DOTTED})\s*\]\]")
_TABLE = re.compile(rf"\s*\[\s*({_DOTTED})\s*\]")
_PAIR = re.compile(rf"\s*({_DOTTED})\s*=")
_QUOTED = re.compile(r"\"\"\"|'''|\"(?:\\.|[^\"\\])*\"|'[^']*'|#.*")


@dataclass
class Lines:
    """The line of every table and key; `at` answers for anything inside with the nearest line that is known."""

    found: dict[Path, int] = field(default_factory=dict)

    def at(self, *path: str | int) -> int:
        """Line of a path such as ("balancers", 1, "zone"), of the nearest part that is known, else 1."""
        while path:
            if path in self.found:
                return self.found[path]
            path = path[:-1]
        return 1


def index(text: str) -> Lines:
    """Find the lines of a file that tomllib accepts."""
    lines = Lines()
    counts: dict[Path, int] = {}
    base: Path = ()
    depth, quote = 0, ""
    for number, raw in enumerate(text.splitlines(), 1):
        outer = depth == 0 and not quote
        bare, quote = _blank(raw, quote)
        if not outer:
            depth = max(0, depth + _balance(bare))
            continue
        if found := _ARRAY.match(raw):
            base = _keys(found[1])
            counts[base] = counts.get(base, -1) + 1
            base = (*base, counts[base])
            lines.found.setdefault(base[:-1], number)
            lines.found[base] = number
        elif found := _TABLE.match(raw):
            base = _keys(found[1])
            if base[:1] in counts and len(base) > 1:
                base = (base[0], counts[base[:1]], *base[1:])
            lines.found.setdefault(base, number)
        elif found := _PAIR.match(raw):
            keys = _keys(found[1])
            for end in range(1, len(keys) + 1):
                lines.found.setdefault((*base, *keys[:end]), number)
            depth = max(0, _balance(bare))
    return lines


def _keys(dotted: str) -> Path:
    """The parts of a dotted key, unquoted by tomllib itself."""
    nested: Any = tomllib.loads(f"{dotted} = 0")
    keys: list[str] = []
    while isinstance(nested, dict):
        key, nested = next(iter(nested.items()))
        keys.append(key)
    return tuple(keys)


def _blank(raw: str, quote: str) -> tuple[str, str]:
    """The line without strings and comments, and the multi-line quote that is open at its end."""
    bare = ""
    position = 0
    while position < len(raw):
        if quote:
            end = raw.find(quote, position)
            if end < 0:
                return bare, quote
            position, quote = end + 3, ""
            continue
        found = _QUOTED.search(raw, position)
        if not found:
            return bare + raw[position:], ""
        bare += raw[position : found.start()]
        position = found.end()
        if found[0] in ('"""', "'''"):
            quote = found[0]
    return bare, quote


def _balance(bare: str) -> int:
    return sum(bare.count(opening) for opening in "[{") - sum(bare.count(closing) for closing in "]}")
