"""haresources of heartbeat: one line per group, `NODE RESOURCE...`, started from left to right.

`name::arg1::arg2` is a resource script with arguments, a bare IPv4 address is IPaddr. A backslash at the end of a
line continues it. The first resource of a group is its key and has to be unique.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from haptk.errors import ConfigError


@dataclass(frozen=True)
class Line:
    """One group: the node that it belongs to, its resources, and the line where it starts."""

    node: str
    resources: tuple[str, ...]
    line: int


def parse(text: str, file: str, nodes: Collection[str]) -> list[Line]:
    """The groups of a haresources file; raises ConfigError with file and line."""
    found: list[Line] = []
    keys: dict[str, int] = {}
    for number, whole in _logical_lines(text):
        words = whole.split()
        node, resources = words[0].lower(), tuple(words[1:])
        if node not in nodes:
            why = f"{words[0]} is not a node of ha.cf: {', '.join(nodes)} are"
            raise ConfigError(file=file, line=number, why=why)
        if not resources:
            raise ConfigError(file=file, line=number, why=f"{node} is given no resource")
        if resources[0] in keys:
            why = f"{resources[0]} is the first resource of line {keys[resources[0]]} already; it must be unique"
            raise ConfigError(file=file, line=number, why=why)
        keys[resources[0]] = number
        found.append(Line(node, resources, number))
    return found


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Lines without comments, continued ones joined, with the number of their first line."""
    found: list[tuple[int, str]] = []
    start, parts = 0, ""
    for number, raw in enumerate(text.splitlines(), 1):
        body = raw.split("#", 1)[0].rstrip()
        start = start if parts else number
        if body.endswith("\\"):
            parts += body[:-1] + " "
            continue
        parts += body
        if parts.strip():
            found.append((start, parts))
        parts = ""
    if parts.strip():
        found.append((start, parts))
    return found
