"""What makes a session stick: `cookie`, `dynamic-cookie-key`, `appsession`, `stick-table`, `stick`."""

from __future__ import annotations

import re
from typing import Any

from haptk.core.sticktable import ARRAYS, KINDS, SERVER_ID, SERVER_KEY
from haptk.formats.haproxy_cfg import units
from haptk.formats.haproxy_cfg.model import Args, Refused, Section

_MODES = ("rewrite", "insert", "prefix")
_FLAGS = ("indirect", "nocache", "postonly", "preserve", "httponly", "secure", "dynamic")
_COOKIE_WORDS = (*_MODES, *_FLAGS, "domain", "maxidle", "maxlife", "attr")
TABLE_TYPES = ("ip", "ipv6", "integer", "string", "binary")


def cookie(section: Section, args: Args) -> None:
    """`cookie NAME [rewrite|insert|prefix] [indirect] [nocache] ...`."""
    if section.get("cookie") is not None and "cookie" in section.own:
        section.warn(args.line, "'cookie' replaces the one that this section had before")
    name = args.take("the name of the cookie")
    modes: list[str] = []
    rule: dict[str, Any] = {"name": name, "domains": (), "attrs": ()}
    for word in args:
        if word in _MODES:
            if word not in modes:
                modes.append(word)
        elif word in _FLAGS:
            rule[word] = True
        elif word == "domain":
            rule["domains"] += (_domain(section, args),)
        elif word in ("maxidle", "maxlife"):
            value = units.seconds(args.take("a time"), f"cookie {word}")
            rule[f"{word}_s"] = value
        elif word == "attr":
            rule["attrs"] += (_attribute(args.take("an attribute")),)
        else:
            raise Refused(f"cookie: {word!r} is unknown; accepted are {', '.join(_COOKIE_WORDS)}")
    _check_cookie(rule, modes)
    rule["mode"] = modes[0] if modes else "passive"
    section.set("cookie", rule)


def _domain(section: Section, args: Args) -> str:
    domain = args.take("a domain")
    if not domain.isascii() or any(not (char.isalnum() or char in ".-_") for char in domain):
        raise Refused(f"cookie domain: {domain!r} is no domain name")
    if not domain.startswith(".") and "." not in domain:
        section.warn(args.line, f"cookie domain: browsers may refuse {domain!r}, which has no dot")
    return domain


def _attribute(text: str) -> str:
    if any(ord(char) < 32 or char in ";\x7f" for char in text):
        raise Refused(f"cookie attr: {text!r} has a control character or a semicolon")
    return text


def _check_cookie(rule: dict[str, Any], modes: list[str]) -> None:
    """The combinations HAProxy refuses."""
    if len(modes) > 1:
        raise Refused(f"cookie: {' and '.join(modes)} exclude each other")
    if "rewrite" in modes and rule.get("indirect"):
        raise Refused("cookie: rewrite and indirect exclude each other")
    if rule.get("preserve") and "insert" not in modes and not rule.get("indirect"):
        raise Refused("cookie: preserve needs insert or indirect")


def dynamic_cookie_key(section: Section, args: Args) -> None:
    """`dynamic-cookie-key KEY`."""
    section.set("dynamic_key", args.take("a key"))
    args.done()


def appsession(section: Section, args: Args) -> None:
    """`appsession NAME len N timeout T [request-learn] [prefix] [mode path-parameters|query-string]`.

    HAProxy dropped it in 1.6; here it works again, because configurations still have it.
    """
    rule: dict[str, Any] = {"name": args.take("the name of the cookie")}
    for word in args:
        if word == "len":
            rule["length"] = units.integer(args.take("a length"), "appsession len", 1, 65535)
        elif word == "timeout":
            rule["timeout_s"] = units.time_s(args.take("a time"), "appsession timeout")
        elif word == "request-learn":
            rule["request_learn"] = True
        elif word == "prefix":
            rule["prefix"] = True
        elif word == "mode":
            modes = ("path-parameters", "query-string")
            rule["mode"] = units.one_of(args.take("a mode"), "appsession mode", modes)
        else:
            raise Refused(f"appsession: {word!r} is unknown; accepted are len, timeout, request-learn, prefix, mode")
    if "length" not in rule or "timeout_s" not in rule:
        raise Refused("appsession needs 'len N' and 'timeout T'")
    section.set("appsession", rule)


def stick_table(section: Section, args: Args) -> None:
    """`stick-table type T [len N] size S [expire E] [nopurge] [peers P] [store ...]`."""
    if "stick_table" in section.own:
        raise Refused("stick-table: this section has one already")
    section.set("stick_table", {"where": args.line.where, **table_words(args)})


def table_words(args: Args) -> dict[str, Any]:
    """The words of a table, of a proxy or of a peers section."""
    table: dict[str, Any] = {}
    for word in args:
        if word == "type":
            table["type"] = units.one_of(args.take("a type"), "stick-table type", TABLE_TYPES)
            if args.peek() == "len":
                if table["type"] not in ("string", "binary"):
                    raise Refused(f"stick-table: 'len' belongs to string and binary, not to {table['type']}")
                args.take("len")
                table["length"] = units.integer(args.take("a length"), "stick-table len", 1, 16000)
        elif word == "size":
            table["size"] = units.size(args.take("a size"), "stick-table size")
        elif word == "expire":
            table["expire_s"] = units.time_s(args.take("a time"), "stick-table expire")
        elif word == "nopurge":
            table["nopurge"] = True
        elif word == "peers":
            table["peers"] = args.take("the name of a peers section")
        elif word == "store":
            table["stored"] = _stored(args.take("what to store"), table.get("stored", ()))
        elif word == "srvkey":
            units.one_of(args.take("name"), "stick-table srvkey (haptk knows servers by their names)", ("name",))
        elif word == "write-to":
            raise Refused(f"stick-table: HAProxy 3.0 knows {word!r}, haptk does not")
        else:
            known = "type, len, size, expire, nopurge, peers, srvkey, store"
            raise Refused(f"stick-table: {word!r} is unknown; accepted are {known}")
    if "type" not in table or not table.get("size"):
        raise Refused("stick-table needs 'type' and a 'size' above 0")
    if table["type"] not in ("string", "binary", "ip", "ipv6", "integer"):
        raise Refused(f"stick-table type {table['type']} is unknown")
    return table


def _stored(text: str, before: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, int, int], ...]:
    """(kind, elements, period in ms) of `KIND[(ARGUMENTS)],...` and of an earlier `store`; servers are stored anyway."""
    found = {kind: (kind, elements, period_ms) for kind, elements, period_ms in before}
    for item in re.findall(r"[^,(]+(?:\([^)]*\)?)?", text):
        name, opened, inside = item.partition("(")
        if name not in KINDS or (opened and not inside.endswith(")")):
            raise Refused(f"stick-table store: {item!r} is unknown; accepted are {', '.join(KINDS)}")
        arguments = [part.strip() for part in inside[:-1].split(",")] if opened else []
        wanted = [*(["a number of elements"] if name in ARRAYS else []), *(["a period"] if "_rate" in name else [])]
        if len(arguments) != len(wanted):
            raise Refused(f"stick-table store: {name} takes {' and '.join(wanted) or 'nothing'} in parentheses")
        elements = units.integer(arguments[0], f"stick-table store {name}", 1, 100) if name in ARRAYS else 1
        period_s = units.time_s(arguments[-1], f"stick-table store {name}") if "_rate" in name else 0.0
        if "_rate" in name and period_s <= 0:
            raise Refused(f"stick-table store: {name} over no time counts nothing")
        kind = KINDS.index(name)
        if kind not in (SERVER_ID, SERVER_KEY):
            found.setdefault(kind, (kind, elements, round(period_s * 1000)))
    for array, single in _OVERRIDES.items():
        if array in found and any(kind in found for kind in single):
            names = " and ".join(KINDS[kind] for kind in single)
            raise Refused(f"stick-table store: {KINDS[array]} stands for {names}; store one or the other")
    return tuple(found[kind] for kind in sorted(found))


_OVERRIDES = {22: (1,), 23: (2, 17), 24: (3, 18)}  # the arrays' first elements are what has a name of its own

_REQUEST_FETCHES = (
    "req.cook",
    "cook",
    "cookie",
    "hdr",
    "req.hdr",
    "req.fhdr",
    "src",
    "url_param",
    "urlp",
    "path",
    "url",
)
_RESPONSE_FETCHES = ("res.cook", "scook", "set-cookie", "res.hdr", "shdr", "res.fhdr")


def stick(section: Section, args: Args) -> None:
    """`stick match|on|store-request|store-response PATTERN [table NAME] [if|unless CONDITION]`."""
    actions = ("match", "on", "store-request", "store-response")
    action = units.one_of(args.take("one of match, on, store-request, store-response"), "stick", actions)
    text = args.take("what to stick on")
    fetch, argument, delimiter = _fetch(text)
    accepted = _RESPONSE_FETCHES if action == "store-response" else _REQUEST_FETCHES
    if fetch not in accepted:
        raise Refused(f"stick {action}: {text!r} is not taken here; accepted are {', '.join(accepted)}")
    if argument == "" and fetch not in ("src", "path", "url"):
        raise Refused(f"stick {action}: {fetch} needs a name in parentheses")
    rule: dict[str, Any] = {"action": action, "fetch": fetch, "argument": argument, "delimiter": delimiter}
    if args.peek() == "table":
        args.take("table")
        rule["table"] = args.take("the name of a table")
    rule["condition"] = _condition(section, args)
    rule["where"] = args.line.where
    section.append("sticks", rule)


def _fetch(text: str) -> tuple[str, str, str]:
    name, opened, rest = text.partition("(")
    if not opened:
        if "," in text:
            raise Refused(f"stick: converters are not taken here ({text!r})")
        return name, "", ""
    inside, closed, behind = rest.rpartition(")")
    if not closed or behind:
        raise Refused(f"stick: {text!r} has no closing parenthesis at its end, or converters, which are not taken here")
    argument, _, delimiter = inside.partition(",")
    return name, argument, delimiter


def _condition(section: Section, args: Args) -> Any:
    from haptk.formats.haproxy_cfg.rules import condition

    return condition(section, args)
