"""`show schema json`: what the JSON forms of `show info` and `show stat` look like, as HAProxy 2.6 describes them."""

from __future__ import annotations

import json
from typing import Any

_Node = dict[str, Any]
SAFE = 2**53 - 1  # what a program whose numbers are doubles still counts exactly


def _ref(name: str) -> _Node:
    return {"$ref": f"#/definitions/{name}"}


def _whole(low: int, high: int | None = None) -> _Node:
    return {"type": "integer", "minimum": low} | ({"maximum": high} if high is not None else {})


def _one_of(words: str) -> list[str]:
    return words.split()


def _list_of(title: str, properties: _Node, required: list[str]) -> _Node:
    item = {"title": "InfoItem", "type": "object", "properties": properties, "required": required}
    return {"title": title, "type": "array", "items": item}


def _typed(kind: str, value: _Node) -> _Node:
    kinds = {"type": "string", "enum": [kind]}
    return {"properties": {"type": kinds, "value": value}, "required": ["type", "value"]}


def schema() -> _Node:
    """The whole document."""
    common = {"field": _ref("field"), "processNum": _ref("processNum"), "tags": _ref("tags")}
    number = {"type": "integer", "minimum": 0}
    rows = {
        "objType": {"enum": _one_of("Frontend Backend Listener Server Unknown")}, "proxyId": number, "id": number,
        **common, "typedValue": _ref("typedValue"),
    }  # fmt: skip
    error = {
        "title": "Error", "type": "object", "properties": {"errorStr": {"type": "string"}}, "required": ["errorStr"],
    }  # fmt: skip
    return {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "oneOf": [
            _list_of("Info", {**common, "value": _ref("typedValue")}, _one_of("field processNum tags value")),
            _list_of("Stat", rows, _one_of("objType proxyId id field processNum tags value")),
            error,
        ],
        "definitions": _definitions(),
    }


def _definitions() -> _Node:
    def words(text: str) -> _Node:
        return {"type": "string", "enum": _one_of(text)}

    tags = {
        "type": "object", "origin": words("Metric Status Key Config Product Unknown"),
        "nature": words("Gauge Limit Min Max Rate Counter Duration Age Time Name Output Avg Unknown"),
        "scope": words("Cluster Process Service System Unknown"), "required": _one_of("origin nature scope"),
    }  # fmt: skip
    values = {
        "s32Value": _typed("s32", _whole(-(2**31), 2**31 - 1)), "s64Value": _typed("s64", _whole(-SAFE, SAFE)),
        "u32Value": _typed("u32", _whole(0, 2**32 - 1)), "u64Value": _typed("u64", _whole(0, SAFE)),
        "strValue": _typed("str", {"type": "string"}),
    }  # fmt: skip
    chosen = [_ref(f"typedValue/definitions/{name}") for name in values]
    unknown = {"properties": {"type": _whole(0), "value": words("unknown")}, "required": ["type", "value"]}
    return {
        "field": {"type": "object", "pos": _whole(0), "name": {"type": "string"}, "required": ["pos", "name"]},
        "processNum": _whole(1), "tags": tags,
        "typedValue": {"type": "object", "oneOf": chosen, "definitions": {**values, "unknownValue": unknown}},
    }  # fmt: skip


def text() -> str:
    """As one line."""
    return json.dumps(schema(), separators=(",", ":")) + "\n"
