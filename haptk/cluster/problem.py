"""What is wrong with a declaration, as data: a line, a code that a document explains, and one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from haptk.errors import ConfigError

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True, order=True)
class Problem:
    """One finding; `code` is listed in docs/reference/cluster.toml.md."""

    file: str
    line: int
    code: str
    why: str
    severity: str = ERROR

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.why} [{self.code}]"


def refuse(problems: Iterable[Problem]) -> None:
    """Raise one ConfigError that shows every error, in the order of the file; nothing without errors."""
    errors = sorted(problem for problem in problems if problem.severity == ERROR)
    if not errors:
        return
    first, *rest = errors
    why = "\n".join([f"{first.why} [{first.code}]", *map(str, rest)])
    listed = [{"line": one.line, "code": one.code, "why": one.why} for one in errors]
    raise ConfigError(file=first.file, line=first.line, why=why, problems=listed)
