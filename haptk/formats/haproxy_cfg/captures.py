"""`capture`, `declare capture`, and what `http-request capture` and `http-response capture` say.

Slots are numbered per side in the order of the file, whichever of the three lines makes them; a log shows them in that order.
"""

from __future__ import annotations

import re
from typing import Any

from haptk.formats.haproxy_cfg import expressions, units
from haptk.formats.haproxy_cfg.model import Args, Refused, Section

SLOTS_MAX = 120  # of each side
LENGTH_MAX = 32768
COOKIE_MAX = 63  # HAProxy's tune.http.cookielen without its NUL


def capture(section: Section, args: Args) -> None:
    """`capture request|response header NAME len N` and `capture cookie NAME len N`."""
    kind = args.take("request, response or cookie")
    units.one_of(kind, "capture", ("cookie", "request", "response"))
    if kind == "cookie":
        name = args.take("the beginning of a cookie's name")
        length = _length(args, f"capture cookie {name}")
        if not 0 < len(name) <= 256:
            raise Refused(f"capture cookie: a name has 1 to 256 characters, found {len(name)}")
        if length > COOKIE_MAX:
            section.warn(args.line, f"capture cookie {name}: the length is cut to {COOKIE_MAX}, as in HAProxy")
        section.set("capture_cookie", (name, min(length, COOKIE_MAX)))
    else:
        units.one_of(args.take("'header'"), f"capture {kind}", ("header",))
        name = args.take("a header's name")
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise Refused(f"capture {kind} header: {name!r} is no header name")
        _slot(section, kind, name.lower(), _length(args, f"capture {kind} header {name}"))
    args.done()


def declare(section: Section, args: Args) -> None:
    """`declare capture request|response len N`: a slot that only rules fill."""
    units.one_of(args.take("'capture'"), "declare", ("capture",))
    side = units.one_of(args.take("request or response"), "declare capture", ("request", "response"))
    _slot(section, side, "", _length(args, f"declare capture {side}"))
    args.done()


def action(key: str, response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    """`capture EXPRESSION len N|id N` of a rule; only a slot with an id exists on the response's side."""
    choice = "'id N'" if response else "'len N' or 'id N'"
    if len(words) != 3 or words[1] not in (("id",) if response else ("len", "id")):
        raise Refused(f"{key} takes an expression and {choice}")
    expr = expressions.expression(words[0], key, response=response)
    if words[1] == "len":
        return {"expr": expr, "length": units.integer(words[2], f"{key} len", 1, LENGTH_MAX)}
    return {"expr": expr, "slot": units.integer(words[2], f"{key} id", 0, SLOTS_MAX - 1)}


def allot(section: Section, values: dict[str, Any]) -> None:
    """Give the slot of its own that `http-request capture ... len N` asks for."""
    if "length" in values:
        if not section.has("f") or section.kind == "defaults":
            raise Refused(
                f"http-request capture: 'len' makes a slot in a frontend, and {section.title} is none; use 'id N'"
            )
        values["slot"] = _slot(section, "request", "", values.pop("length"))


def _length(args: Args, what: str) -> int:
    units.one_of(args.take("'len'"), what, ("len",))
    return units.integer(args.take("a length"), f"{what} len", 1, LENGTH_MAX)


def _slot(section: Section, side: str, name: str, length: int) -> int:
    slots = section.get(f"{side}_captures", ())
    if len(slots) >= SLOTS_MAX:
        raise Refused(f"more than {SLOTS_MAX} captures of {side}s in {section.title}")
    section.set(f"{side}_captures", (*slots, (name, length)))
    return len(slots)
