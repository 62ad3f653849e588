"""checks.toml: the checks of a node, each written as it would be on the command line.

    deadline = "8s"              # for all of them together; default 10 s

    [checks]
    site    = "http http://127.0.0.1/health --expect OK -w 0.5 -c 2"
    haproxy = "haproxy --socket /run/haproxy/admin.sock -w servers=2:"
    peer    = "heartbeat"

One grammar for a file, a shell and a monitoring system: what works on the command line can be pasted here.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

from haptk.errors import ConfigError, MissingFile
from haptk.formats import durations

PATH = Path("/etc/haptk/checks.toml")


class Entry(NamedTuple):
    """One check: its name, the words after `haptk check`, and where it stands."""

    name: str
    words: tuple[str, ...]
    line: int


class CheckSet(NamedTuple):
    """A whole file."""

    path: Path
    entries: tuple[Entry, ...]
    deadline_s: float | None


def read(path: Path) -> CheckSet:
    """Read a file; ConfigError with its line, MissingFile when there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise MissingFile(path=path, why=f"{why}; it names the checks of this node") from None
    except UnicodeDecodeError:
        raise ConfigError(file=path, line=1, why="this is no UTF-8 text") from None
    return parse(text, path)


def parse(text: str, path: Path) -> CheckSet:
    """Read the text of a file."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        raise ConfigError(file=path, line=int(found[1]) if found else 1, why=f"no TOML: {error}") from None
    for name in tables:
        if name not in ("checks", "deadline"):
            raise _error(text, path, name, f"{name!r} is not known; accepted: deadline, [checks]")
    checks = tables.get("checks")
    if not isinstance(checks, dict) or not checks:
        raise ConfigError(file=path, line=1, why='no checks: a table [checks] with NAME = "KIND ..." is needed')
    entries = tuple(_entry(text, path, name, value) for name, value in checks.items())
    return CheckSet(path, entries, _deadline(text, path, tables.get("deadline")))


def _entry(text: str, path: Path, name: str, value: object) -> Entry:
    if not isinstance(value, str):
        raise _error(text, path, name, f'{name} has to be text: "KIND ..." as after `haptk check`')
    try:
        words = tuple(shlex.split(value))
    except ValueError as error:
        raise _error(text, path, name, f"{name}: {str(error).lower()}") from None
    if not words:
        raise _error(text, path, name, f"{name} is empty: a kind of check is needed")
    return Entry(name, words, _line(text, name))


def _deadline(text: str, path: Path, value: object) -> float | None:
    if value is None:
        return None
    try:
        seconds = durations.parse(str(value))
    except ValueError as error:
        raise _error(text, path, "deadline", str(error)) from None
    if seconds <= 0:
        raise _error(text, path, "deadline", "a deadline is more than 0")
    return seconds


def _line(text: str, name: str) -> int:
    """Where `name = ` or `[name]` stands; tomllib does not say."""
    pattern = re.compile(rf"""^\s*\[?\s*["']?{re.escape(name)}["']?\s*[=\]]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def _error(text: str, path: Path, name: str, why: str) -> ConfigError:
    return ConfigError(file=path, line=_line(text, name), why=why)
