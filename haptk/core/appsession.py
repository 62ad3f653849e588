"""`appsession`, which HAProxy dropped in 1.6: learn from the application's own session id which server has the session. Pure.

The id is the value of a cookie, or of a parameter of the same name in the path (`;jsessionid=...`) or in the query.
The response that sets the cookie teaches; with `request-learn` also a request with an id that nobody knows yet. The
first `length` characters count. With `prefix` the configured name is only the beginning of the cookie's name, and the
id is everything behind it: `ASPSESSIONIDXYZ=abc` has the id `XYZ=abc`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol


class Rule(Protocol):
    """The words of an appsession line."""

    @property
    def name(self) -> str: ...
    @property
    def length(self) -> int: ...
    @property
    def prefix(self) -> bool: ...
    @property
    def mode(self) -> str: ...


def _pairs(header: str) -> list[str]:
    """The pieces of a Cookie header, cut at `;` and `,` outside quotes."""
    return [piece.strip(" \t") for piece in re.findall(r'(?:"(?:\\.|[^"\\])*"?|[^;,"])+', header)]


def _id(rule: Rule, pair: str) -> str | None:
    """The session id in one `name=value` piece."""
    name, equals, value = pair.partition("=")
    name, value = name.rstrip(" \t"), value.lstrip(" \t")
    if not equals:
        return None
    if rule.prefix and name.startswith(rule.name):
        return f"{name}={value}".removeprefix(rule.name)[: rule.length]
    return value[: rule.length] or None if name == rule.name else None


def request_id(rule: Rule, headers: Sequence[tuple[str, str]], target: str) -> str | None:
    """The id that a request carries: in a cookie, else in its target as `mode` says."""
    for name, value in headers:
        if name == "cookie":
            for pair in _pairs(value):
                if found := _id(rule, pair):
                    return found
    path, _, query = target.partition("?")
    parameters = query.split("&") if rule.mode == "query-string" else path.partition(";")[2].split(";")
    for pair in parameters:
        if found := _id(rule, pair):
            return found
    return None


def response_id(rule: Rule, headers: Sequence[tuple[str, str]]) -> str | None:
    """The id that a response sets; only the first pair of a Set-Cookie header counts."""
    for name, value in headers:
        if name == "set-cookie" and (found := _id(rule, value.partition(";")[0].strip(" \t"))):
            return found
    return None
