"""From the text of cluster.toml to a frozen Cluster, with every error of every table at once.

Values are converted field by field, so one wrong word hides no other; a line is found for each. The rules between
fields run when all tables are whole, because half a table would make them guess.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import typing
from dataclasses import dataclass, field
from typing import Any

import msgspec

from haptk.cluster import rules, schema
from haptk.cluster.lines import Lines, Path, index
from haptk.cluster.problem import WARNING, Problem, refuse
from haptk.cluster.units import Seconds

CODES = {
    "C001": "The file is TOML.",
    "C002": "Every table is known.",
    "C003": "Every key is known.",
    "C004": "Every required key is there.",
    "C005": "Every value has the type and form of its key.",
    "C006": "Every required table is there.",
    "C007": "A table that may be repeated has double brackets, every other has single ones.",
}


@dataclass(frozen=True)
class Loaded:
    """A declaration that was accepted, and what is worth a second look in it."""

    cluster: schema.Cluster
    warnings: tuple[Problem, ...]


def load(text: str, file: str = "cluster.toml") -> Loaded:
    """The declaration in `text`. Raises ConfigError that lists every error with file and line."""
    cluster, problems = examine(text, file)
    refuse(problems)
    if cluster is None:  # pragma: no cover (a missing cluster always has its error)
        raise AssertionError("no cluster and no error")
    return Loaded(cluster, tuple(problem for problem in problems if problem.severity == WARNING))


def examine(text: str, file: str = "cluster.toml") -> tuple[schema.Cluster | None, list[Problem]]:
    """The declaration, None when a table has errors, and every problem in the order of the file."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return None, [_syntax_problem(str(error), text, file)]
    reader = _Reader(file, index(text))
    found = reader.document(document)
    if found is not None:
        reader.problems.extend(rules.check(found, reader.lines, file))
    return found, sorted(reader.problems)


def dec_hook(kind: type, value: object) -> object:
    """msgspec's hook for our own types."""
    if kind is Seconds:
        return Seconds.parse(value)
    raise NotImplementedError(kind)


def accepted(kind: Any) -> str:
    """The words of a field's type for what is accepted."""
    for meta in _metas(kind):
        if meta.extra and "accepted" in meta.extra:
            return str(meta.extra["accepted"])
    return "another value"


def described(kind: Any) -> str:
    """The description of a field's type."""
    return next((meta.description for meta in _metas(kind) if meta.description), "")


def _metas(kind: Any) -> list[msgspec.Meta]:
    found = [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    for part in typing.get_args(kind):
        found += _metas(part)
    return found


def _syntax_problem(error: str, text: str, file: str) -> Problem:
    found = re.search(r"\(at line (\d+), column (\d+)\)", error)
    line = int(found[1]) if found else max(1, text.count("\n"))
    what = re.sub(r"\s*\(at .*\)$", "", error)
    column = f" at column {found[2]}" if found else " at the end of the file"
    return Problem(file, line, "C001", f"not TOML{column}: {what[:1].lower() + what[1:]}")


@dataclass
class _Reader:
    file: str
    lines: Lines
    problems: list[Problem] = field(default_factory=list)

    def document(self, document: dict[str, Any]) -> schema.Cluster | None:
        for name in document:
            if name not in schema.ORDER:
                near = _near(name, schema.ORDER)
                self._add((name,), "C002", f"unknown table [{name}]{near}; accepted are {', '.join(schema.ORDER)}")
        whole: dict[str, Any] = {}
        for name in schema.ORDER:
            if name in document:
                whole[name] = self._named(name, document[name])
            elif name in schema.REQUIRED:
                form = f"[[{name}]]" if name in schema.ARRAYS else f"[{name}]"
                self.problems.append(Problem(self.file, 1, "C006", f"table {form} is missing: it is required"))
        return None if self.problems else schema.Cluster(**whole)

    def _named(self, name: str, value: Any) -> Any:
        if name in schema.ARRAYS:
            if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
                self._add((name,), "C007", f"[{name}] may be repeated: write [[{name}]] above each")
                return ()
            return tuple(self._table(schema.ARRAYS[name], one, (name, place)) for place, one in enumerate(value))
        if not isinstance(value, dict):
            self._add((name,), "C007", f"[{name}] is one table: write [{name}] once")
            return None
        return self._table(schema.TABLES[name], value, (name,))

    def _table(self, kind: type[schema.Table], data: dict[str, Any], path: Path) -> schema.Table | None:
        before = len(self.problems)
        title = _title(data, path)
        fields = {one.name: one for one in msgspec.structs.fields(kind)}
        for key in data:
            if key not in fields:
                why = f"{title}: unknown key {key!r}{_near(key, fields)}; accepted are {', '.join(fields)}"
                self._add((*path, key), "C003", why)
        values = {}
        for name, one in fields.items():
            if name in data:
                values[name] = self._value(one.type, data[name], (*path, name), title)
            elif one.required:
                self._add(path, "C004", f"{title}: {name} is missing: {accepted(one.type)} is required")
        return kind(**values) if len(self.problems) == before else None

    def _value(self, kind: Any, value: Any, path: Path, title: str) -> Any:
        try:
            return msgspec.convert(value, type=kind, dec_hook=dec_hook)
        except msgspec.ValidationError:
            self._add(path, "C005", f"{title}: {path[-1]} = {_shown(value)}: {accepted(kind)} is accepted")
            return None

    def _add(self, path: Path, code: str, why: str) -> None:
        self.problems.append(Problem(self.file, self.lines.at(*path), code, why))


def _title(data: dict[str, Any], path: Path) -> str:
    if len(path) == 1:
        return f"[{path[0]}]"
    name = data.get("name")
    return f"[[{path[0]}]] {name}" if isinstance(name, str) else f"[[{path[0]}]] number {int(path[1]) + 1}"


def _near(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
