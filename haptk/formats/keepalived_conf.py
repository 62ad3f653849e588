"""keepalived.conf as blocks of words with their lines and comments: enough to read what a VRRP pair declares.

Nothing is judged here and no keyword is unknown: what the words should have been is in haptk.cluster.faults. Comments are
kept, because half of the faults that people copy are a comment that says something else than its line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from haptk.errors import ConfigError

_COMMENT = re.compile(r"(?:^|\s)[#!](.*)$")


@dataclass
class Block:
    """A line and, when it opens braces, what is inside. `comment` is its own, else that of the line above."""

    words: tuple[str, ...]
    line: int
    comment: str = ""
    children: list[Block] = field(default_factory=list)

    @property
    def keyword(self) -> str:
        return self.words[0]

    @property
    def value(self) -> str:
        """The first word after the keyword, "" without one."""
        return self.words[1] if len(self.words) > 1 else ""

    def all(self, keyword: str) -> Iterator[Block]:
        """Every child with this keyword."""
        return (child for child in self.children if child.keyword == keyword)

    def get(self, keyword: str) -> Block | None:
        """The first child with this keyword."""
        return next(self.all(keyword), None)

    def walk(self) -> Iterator[Block]:
        """Every block inside, outer before inner."""
        for child in self.children:
            yield child
            yield from child.walk()


def parse(text: str, file: str) -> Block:
    """The file as one block; raises ConfigError for braces that do not match."""
    root = Block(("",), 0)
    stack = [root]
    above = ""
    for number, raw in enumerate(text.splitlines(), 1):
        found = _COMMENT.search(raw)
        comment = found[1].strip() if found else ""
        body = raw[: found.start()] if found else raw
        if not body.strip():
            above = comment
            continue
        for part in re.split(r"([{}])", body):
            if part == "}":
                if len(stack) == 1:
                    raise ConfigError(file=file, line=number, why="'}' closes nothing")
                stack.pop()
            elif part == "{":
                target = stack[-1].children[-1] if stack[-1].children else stack[-1]
                stack.append(target)
            elif part.strip():
                stack[-1].children.append(Block(_words(part, file, number), number, comment or above))
        above = ""
    if len(stack) > 1:
        raise ConfigError(file=file, line=stack[-1].line, why=f"the '{{' of {stack[-1].keyword} is never closed")
    return root


def _words(text: str, file: str, line: int) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(file=file, line=line, why=f"{error}: {text.strip()}") from error
