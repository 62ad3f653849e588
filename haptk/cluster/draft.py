"""A cluster.toml in the making: tables that flags and found files fill, and their text.

Nothing is invented: what nobody said is absent, and the loader then names the key that is missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from haptk.cluster import schema


@dataclass
class Draft:
    """Tables by name, repeated ones by their own names; what is said later wins."""

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    arrays: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def set(self, table: str, **values: Any) -> None:
        """Set keys of a table; None says nothing."""
        said = {key: value for key, value in values.items() if value is not None}
        if said:
            self.tables.setdefault(table, {}).update(said)

    def put(self, array: str, name: str, **values: Any) -> None:
        """Set keys of the element with this name, which is made when it is new; None says nothing."""
        element = self.arrays.setdefault(array, {}).setdefault(name, {"name": name})
        element.update({key: value for key, value in values.items() if value is not None})

    def names(self, array: str) -> list[str]:
        """The names of the elements so far."""
        return list(self.arrays.get(array, {}))

    def text(self, comment: str = "") -> str:
        """The file, tables in the order of the reference."""
        parts = [f"# {line}" for line in comment.splitlines()]
        for name in schema.ORDER:
            kind = schema.ARRAYS.get(name) or schema.TABLES[name]
            for element in self.arrays.get(name, {}).values():
                parts += ["", f"[[{name}]]", *_pairs(element, kind)]
            if name in self.tables:
                parts += ["", f"[{name}]", *_pairs(self.tables[name], kind)]
        return "\n".join(parts).lstrip("\n") + "\n"


def _pairs(table: dict[str, Any], kind: type[schema.Table]) -> list[str]:
    """The keys in the order of the reference."""
    order = list(kind.__struct_fields__)
    return [f"{key} = {_value(table[key])}" for key in sorted(table, key=order.index)]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {_value(inner)}" for key, inner in value.items())
            + " }"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(inner) for inner in value) + "]"
    # Strings of TOML and JSON agree for everything that JSON escapes.
    return json.dumps(value, ensure_ascii=False)
