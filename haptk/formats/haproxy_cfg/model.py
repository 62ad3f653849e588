"""What a parsed haproxy.cfg is made of, and how a directive's parser reads its words.

A section is its settings: keyword -> value, in the units of the tables they are compiled to. Values are set by
parsers and read by the compiler; `defaults` sections are copied into the sections that follow them, as HAProxy does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


def names(text: str) -> frozenset[str]:
    """The words of a text as a set: how long lists of keywords are written down readably."""
    return frozenset(text.split())


class Refused(Exception):
    """A parser's "no": the text says which word was wrong and what is accepted. The reader adds file and line."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True)
class Problem:
    """One error or warning of a file."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.why}"


@dataclass(frozen=True)
class Source:
    """One file to read: its name as the user gave it, and its text."""

    name: str
    text: str


@dataclass(frozen=True)
class Line:
    """The words of one directive, with where it stands. `words[0]` is the keyword (after `no`/`default`)."""

    file: str
    number: int
    words: tuple[str, ...]
    negated: bool = False

    @property
    def where(self) -> str:
        return f"{self.file}:{self.number}"

    @property
    def keyword(self) -> str:
        return self.words[0]


class Args:
    """A cursor over the words after the keyword; what is left over is an error."""

    def __init__(self, line: Line, start: int = 1) -> None:
        self.line = line
        self.words = line.words
        self.at = start

    def __bool__(self) -> bool:
        return self.at < len(self.words)

    def __iter__(self) -> Iterator[str]:
        while self:
            yield self.take("")

    def peek(self) -> str:
        return self.words[self.at] if self else ""

    def take(self, what: str) -> str:
        """The next word; `what` names it in the error when it is missing."""
        if not self:
            raise Refused(f"{what} is missing after {' '.join(self.words[: self.at])!r}")
        word = self.words[self.at]
        self.at += 1
        return word

    def rest(self) -> tuple[str, ...]:
        left = self.words[self.at :]
        self.at = len(self.words)
        return left

    def done(self) -> None:
        """Refuse words that nobody read."""
        if self:
            raise Refused(f"{' '.join(self.words[: self.at])!r} takes nothing more, found {self.words[self.at]!r}")


@dataclass
class Section:
    """One section: `kind` is global, defaults, frontend, backend, listen, peers or userlist."""

    kind: str
    name: str
    file: str
    line: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: list[Problem] = field(default_factory=list)
    read: Callable[[str], bytes] | None = None  # reads the files that lines name
    directory: str = ""  # what their names are relative to
    own: set[str] = field(default_factory=set)  # what this section said itself, not what it inherited

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}".strip()

    @property
    def letter(self) -> str:
        return self.kind[0]

    def has(self, side: str) -> bool:
        """True when the section has the side: `f` for what faces clients, `b` for what faces servers."""
        return self.kind in ("listen", "defaults") or self.letter == side

    def set(self, key: str, value: Any) -> None:
        self.settings[key] = value
        self.own.add(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self.settings.get(key, default)

    def append(self, key: str, value: Any) -> None:
        """Add to a list of this section; what was inherited is kept in front."""
        self.settings.setdefault(key, []).append(value)
        self.own.add(key)

    def merge(self, key: str, **values: Any) -> None:
        """Set some entries of a dict-valued setting, leaving the others."""
        self.settings[key] = {**self.settings.get(key, {}), **values}
        self.own.add(key)

    def warn(self, line: Line, why: str) -> None:
        self.warnings.append(Problem(line.file, line.number, why))

    def inherit(self, defaults: Section) -> None:
        """Start from a defaults section's settings; each section gets its own copy."""
        self.settings = copy.deepcopy(defaults.settings)
        self.settings.pop("acls", None)  # they serve the rules of that section, which hold them


@dataclass
class Config:
    """A whole configuration: sections in file order, and everything there is to say about it."""

    sections: list[Section] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)

    def proxies(self) -> list[Section]:
        return [section for section in self.sections if section.kind in ("frontend", "backend", "listen")]

    def globals(self) -> Section:
        """The settings of all `global` sections together (HAProxy lets one be continued later)."""
        return next((s for s in self.sections if s.kind == "global"), Section("global", "", "", 0))


Parser = Callable[[Section, Args], None]


@dataclass(frozen=True)
class Directive:
    """One row of a table of directives.

    `sections` has a letter for each kind that takes it (g d f l b p u); `no` says whether `no KEYWORD` is accepted;
    `side` is "f" or "b" when the word only matters to that half: elsewhere it draws HAProxy's warning.
    """

    parse: Parser
    sections: str
    no: bool = False
    side: str = ""
    removed: bool = False  # its parser only says what replaced it
