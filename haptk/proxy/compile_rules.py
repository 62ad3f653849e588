"""What rules need beyond their grammar: existing backends, usable expressions, framing left alone, texts as bytes.

Strings of rules have one character for each byte of the file, as heads have for each byte that a client sent: that
way a pattern and what it is compared with are the same thing on both paths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from haptk.core.acl import Call, Expr, Format, Test, Variable
from haptk.formats.haproxy_cfg import Section
from haptk.proxy.tables import Backend, Frontend, ProxyTables, Rule

Complain = Callable[[str, str], None]
# These say where a message ends: a rule that could change them could make two messages of one.
FRAMING = ("content-length", "transfer-encoding")
# In a buffer with what is captured: the request line, two cookies and a unique id.
KEPT_BESIDE = 2048
# Variables of formats that look at the request line, which is kept for them.
_OF_LINE = ("HM", "HP", "HPO", "HQ", "HU", "HV", "r")
_EDITS = ("set-header", "add-header", "del-header", "replace-header", "replace-value")


def bytewise(value: Any) -> Any:
    """The same value with every text as one character per byte."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("latin-1")
    if isinstance(value, tuple):
        return tuple(bytewise(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: bytewise(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def parts_of(value: Any) -> Iterator[Any]:
    """Every dataclass inside a rule: conditions, tests, expressions, calls, formats, variables."""
    if isinstance(value, tuple):
        for item in value:
            yield from parts_of(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        for field in dataclasses.fields(value):
            yield from parts_of(getattr(value, field.name))


def needs_destination(value: Any) -> bool:
    """Whether rules or a format look at the address that the client connected to."""
    return any(
        (isinstance(part, Call) and part.name in ("dst", "dst_port"))
        or (isinstance(part, Variable) and part.name in ("fi", "fp"))
        for part in parts_of(value)
    )


def looks_at_connection(one: Frontend | Backend) -> bool:
    """Whether a rule or a capture reads Connection, of which only what is no mode of the connection may be seen."""
    captured = (*one.request_captures, *one.response_captures) if isinstance(one, Frontend) else ()
    return any(name.lower() == "connection" for name, _ in captured) or any(
        isinstance(part, Call) and any(text.lower() == "connection" for text in part.args)
        for part in parts_of(one.rules)
    )


def sees_added(tables: ProxyTables, back: Backend) -> bool:
    """Whether a stick rule or the balance may look at a header that the proxy adds: HAProxy adds before both look."""
    owners: list[Frontend | Backend] = [*tables.frontends, back]
    added = {rule.header.lower() for one in owners for rule in (one.forwardfor, one.originalto) if rule is not None} | {
        front.unique_id_header.lower() for front in tables.frontends if front.unique_id_header
    }
    names = {back.balance.argument.lower()} if back.balance.algorithm == "hdr" else set()
    names |= {rule.argument.lower() for rule in back.sticks}
    return bool(added) and (bool(added & names) or any(rule.condition is not None for rule in back.sticks))


def keeps_line(value: Any) -> bool:
    """Whether rules look at the request line as it was kept, or at what is kept beside it."""
    return any(
        (isinstance(part, Call) and part.name in ("capture.req.method", "capture.req.uri"))
        or (isinstance(part, Variable) and part.name in _OF_LINE)
        for part in parts_of(value)
    )


def check(rules: Iterable[Rule], known: Collection[str], complain: Complain) -> None:
    """Report by `complain(where, why)` what a rule asks for and cannot have; `known` are the names of the backends."""
    for rule in rules:
        _check_framing(rule, complain)
        for part in parts_of((rule.condition, *(value for _, value in rule.values))):
            if isinstance(part, Call) and part.name in ("nbsrv", "be_conn") and part.args and part.args[0] not in known:
                names = ", ".join(known) or "none"
                complain(rule.where, f"{part.name}: there is no backend {part.args[0]!r}; known are {names}")
        for pattern, ignore_case in _patterns(rule):
            why = _pcre_problem(pattern, ignore_case=ignore_case)
            if why:
                complain(rule.where, f"{pattern!r} is no regular expression of libpcre2: {why}")


def check_captures(section: Section, rules: Iterable[Rule], bufsize: int, complain: Complain) -> None:
    """Whether a frontend has the slots that its rules name, and room for what they hold beside a request line."""
    slots = {side: section.get(f"{side}_captures", ()) for side in ("request", "response")}
    room = min(bufsize, 65536) - KEPT_BESIDE
    total = sum(length + 3 for found in slots.values() for _, length in found)
    if total > room:
        complain(section.where, f"{section.title}: its captures take {total} bytes together; {room} is the most")
    for rule in rules:
        if rule.action == "capture":
            side, slot = rule.kind.removeprefix("http-"), dict(rule.values)["slot"]
            if slot >= len(slots[side]):  # type: ignore[operator]
                declared = f"it has {len(slots[side])} of {side}s, counted from 0"
                complain(rule.where, f"{rule.kind} capture: {section.title} has no slot {slot}; {declared}")


def _check_framing(rule: Rule, complain: Complain) -> None:
    values: dict[str, Any] = dict(rule.values)
    name = str(values.get("name", "")).lower()
    if rule.action in _EDITS and values.get("match", "str") == "str" and name in FRAMING:
        complain(
            rule.where, f"{rule.kind} {rule.action}: {name} says where the message ends; haptk lets no rule change it"
        )
    if rule.kind == "http-request" and rule.action == "add-header" and name == "host":
        complain(rule.where, "http-request add-header: a second Host makes a message ambiguous; use set-header")
    status = values.get("status", 200)
    if rule.action == "set-status" and (status < 200 or status in (204, 304)):
        complain(
            rule.where, f"http-response set-status: {status} says that there is no body; a rule cannot take it away"
        )


def _patterns(rule: Rule) -> Iterator[tuple[str, bool]]:
    values: dict[str, Any] = dict(rule.values)
    if rule.action in ("replace-header", "replace-value", "replace-path", "replace-pathq", "replace-uri"):
        yield values["pattern"], False
    if rule.action == "del-header" and values["match"] == "reg":
        yield values["name"], False
    for part in parts_of((rule.condition, *values.values())):
        if isinstance(part, Test) and part.method == "reg":
            yield from ((value, part.ignore_case) for value in part.values)
        if isinstance(part, Expr):
            for call in part.converters:
                if call.name == "regsub":
                    yield call.args[0], "i" in "".join(call.args[2:])


def _pcre_problem(pattern: str, *, ignore_case: bool) -> str:
    """What the compiled path would have against a pattern that Python accepts; "" where that path is not there."""
    try:
        from haptk._fast.regex import problem
    except ImportError:
        return ""
    return str(problem(pattern.encode("latin-1", "replace"), ignore_case))


def literal_text(chosen: Format) -> str:
    """What of a format string is written as it stands."""
    return "".join(part for part in chosen.parts if isinstance(part, str))
