"""`acl`, conditions, `use_backend`, `redirect`, `http-request`, `http-response`, `force-persist`, `ignore-persist`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from haptk.core.acl import ALIASES, FETCHES, REQUEST_ONLY, Condition, Format, Term, Test
from haptk.formats.haproxy_cfg import captures, expressions, patterns, units
from haptk.formats.haproxy_cfg.logs import LEVELS
from haptk.formats.haproxy_cfg.model import Args, Refused, Section, names

_PREDEFINED = {
    "FALSE": ("always_false",), "TRUE": ("always_true",), "HTTP": ("req.proto_http",),
    "HTTP_1.0": ("req.ver", "1.0"), "HTTP_1.1": ("req.ver", "1.1"), "LOCALHOST": ("src", "127.0.0.1/8", "::1"),
    "METH_CONNECT": ("method", "CONNECT"), "METH_DELETE": ("method", "DELETE"), "METH_GET": ("method", "GET", "HEAD"),
    "METH_HEAD": ("method", "HEAD"), "METH_OPTIONS": ("method", "OPTIONS"), "METH_POST": ("method", "POST"),
    "METH_PUT": ("method", "PUT"), "METH_TRACE": ("method", "TRACE"), "HTTP_CONTENT": ("req.hdr_val(content-length)", "gt", "0"),
    "HTTP_URL_ABS": ("url", "-m", "reg", "^[^/:]*://"), "HTTP_URL_SLASH": ("url", "-m", "beg", "/"),
    "HTTP_URL_STAR": ("url", "*"), "WAIT_END": ("wait_end",),
}  # fmt: skip


def acl(section: Section, args: Args) -> None:
    """`acl NAME CRITERION [flags] [operator] VALUES...`; lines of one name are alternatives."""
    name = args.take("a name")
    if not re.fullmatch(r"[A-Za-z0-9_.:-]+", name) or name in ("or", "and", "if", "unless"):
        raise Refused(f"acl: {name!r} is no name for an ACL; accepted are A-Z a-z 0-9 - _ . :")
    criterion = args.take("a criterion")
    words = patterns.with_files(section, (criterion, *args.rest()), f"acl {name}")
    # A line may look at the response; whether that is there is decided where the ACL is used.
    test = expressions.test(words, f"acl {name}", response=_looks_at_response(criterion))
    _warn_without_patterns(section, args, words, test)
    section.settings["acls"] = {**section.get("acls", {}), name: (*section.get("acls", {}).get(name, ()), test)}


def _looks_at_response(criterion: str) -> bool:
    name = re.split(r"[(,]", criterion)[0]
    for suffix in ("", "_beg", "_end", "_sub", "_dir", "_dom", "_reg", "_len"):
        row = FETCHES.get(ALIASES.get(name.removesuffix(suffix), name.removesuffix(suffix)))
        if row is not None:
            return row.response
    return False


def condition(section: Section, args: Args, *, response: bool = False) -> Condition | None:
    """What stands at the cursor: nothing, or `if|unless` with terms up to the end of the line."""
    if not args:
        return None
    word = args.take("")
    if word not in ("if", "unless"):
        raise Refused(f"{' '.join(args.words[: args.at - 1])!r}: 'if' or 'unless' is accepted here, found {word!r}")
    any_of: list[tuple[Term, ...]] = []
    terms: list[Term] = []
    negated = False
    for operand in args:
        if operand in ("or", "||"):
            if not terms or negated:
                raise Refused(f"a condition stands before and after {operand!r}")
            any_of.append(tuple(terms))
            terms.clear()
            continue
        while operand.startswith("!"):
            negated = not negated
            operand = operand[1:]
        if not operand:
            continue
        terms.append(_term(section, args, operand, negated, response=response))
        negated = False
    if not terms or negated:
        raise Refused(f"{word!r} needs a condition: names of ACLs, '!', '||' and '{{ anonymous }}' ones")
    return Condition((*any_of, tuple(terms)), unless=word == "unless")


def _term(section: Section, args: Args, operand: str, negated: bool, *, response: bool) -> Term:
    if operand == "{":
        words: list[str] = []
        for word in args:
            if word == "}":
                break
            words.append(word)
        else:
            raise Refused("the anonymous ACL does not close: '}' is missing, with blanks around it")
        if not words:
            raise Refused("an anonymous ACL needs a criterion between its braces")
        whole = patterns.with_files(section, tuple(words), "anonymous acl")
        test = expressions.test(whole, "anonymous acl", response=response, early=True)
        _warn_without_patterns(section, args, whole, test)
        _warn_too_early(section, args, operand, (test,), response=response)
        return Term("", (test,), negated)
    tests = section.get("acls", {}).get(operand)
    if tests is None and operand in _PREDEFINED:
        tests = (expressions.test(_PREDEFINED[operand], operand),)
    if tests is None:
        known = ", ".join([*section.get("acls", {}), *_PREDEFINED])
        raise Refused(f"no ACL {operand!r} stands above in this section; known are {known}")
    _warn_too_early(section, args, operand, tests, response=response)
    return Term(operand, tests, negated)


def _warn_without_patterns(section: Section, args: Args, words: tuple[str, ...], test: Test) -> None:
    """HAProxy accepts an ACL that nothing can match; `--` says that it is meant, as an empty file of patterns may be."""
    if not test.values and test.method not in ("found", "bool") and "--" not in words:
        section.warn(args.line, f"{words[0]}: no pattern to compare with, so it never holds ('-m found' asks for any)")


def _warn_too_early(section: Section, args: Args, name: str, tests: tuple[Test, ...], *, response: bool) -> None:
    """HAProxy accepts a condition on the response where there is none yet, warns, and never finds it true."""
    if not response and any(FETCHES[test.expr.fetch.name].response for test in tests):
        section.warn(args.line, f"the condition {name!r} looks at the response, which is not there yet: it never holds")
    if response and any(test.expr.fetch.name in REQUEST_ONLY for test in tests):
        section.warn(args.line, f"the condition {name!r} looks at the request, which is gone by then: it never holds")


# -- the rules ----------------------------------------------------------------------------------------------------


def _cut(args: Args) -> tuple[str, ...]:
    """The words before `if` or `unless`."""
    words: list[str] = []
    while args and args.peek() not in ("if", "unless"):
        words.append(args.take(""))
    return tuple(words)


def use_backend(section: Section, args: Args) -> None:
    """`use_backend NAME [if|unless CONDITION]`."""
    name = args.take("the name of a backend")
    if "%" in name:
        raise Refused("use_backend: HAProxy knows names computed by a format, haptk does not")
    rule = {"name": name, "condition": condition(section, args), "file": args.line.file, "line": args.line.number}
    section.append("use_backends", rule)


def persist(section: Section, args: Args) -> None:
    """`force-persist if ...` and `ignore-persist if ...`."""
    kind = args.words[0]
    found = condition(section, args)
    if found is None:
        raise Refused(f"{kind} needs a condition: if or unless")
    section.append("persist_rules", {"kind": kind, "condition": found, "where": args.line.where})


def _name_and_format(key: str, response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    if len(words) != 2:
        raise Refused(f"{key} takes a header's name and a value")
    _header_name(words[0], key)
    return {"name": words[0], "format": expressions.format_string(words[1], key, response=response)}


def _header_name(name: str, key: str) -> None:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise Refused(f"{key}: {name!r} is no header name")


def _del_header(key: str, _response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    if len(words) == 1:
        _header_name(words[0], key)
        return {"name": words[0], "match": "str"}
    if len(words) == 3 and words[1] == "-m":
        method = units.one_of(words[2], key, ("str", "beg", "end", "sub", "reg"))
        if method == "reg":
            expressions.compiled_or_refused(words[0], key)
        return {"name": words[0], "match": method}
    raise Refused(f"{key} takes a header's name and maybe '-m METHOD'")


def _replace(key: str, response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    if len(words) != 3:
        raise Refused(f"{key} takes a header's name, a regular expression and a replacement")
    _header_name(words[0], key)
    expressions.compiled_or_refused(words[1], key)
    return {
        "name": words[0],
        "pattern": words[1],
        "format": expressions.format_string(words[2], key, response=response),
    }


def _nothing(key: str, _response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    if words:
        raise Refused(f"{key} takes nothing more, found {words[0]!r}")
    return {}


def _uri_format(key: str, response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    if len(words) != 1 or not words[0]:
        raise Refused(f"{key} takes one value, and not an empty one")
    return {"format": expressions.format_string(words[0], key, response=response)}


def _replace_uri(key: str, response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    if len(words) != 2:
        raise Refused(f"{key} takes a regular expression and a replacement")
    expressions.compiled_or_refused(words[0], key)
    return {"pattern": words[0], "format": expressions.format_string(words[1], key, response=response)}


def _deny(key: str, response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    values = _answer(key, response, words, {"status": 403 if "request" in key else 502})
    if not words or (len(words) == 2 and words[0] == "deny_status"):
        values["errorfiles"] = True  # any other word asks for an answer made to measure
    return values


def _return(key: str, response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    return _answer(key, response, words, {"status": 200})


# Statuses that have a built-in page.
STATUSES = frozenset({200, 400, 401, 403, 404, 405, 407, 408, 410, 413, 421, 422, 425, 429, 500, 501, 502, 503, 504})


def _answer(key: str, response: bool, words: tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
    """`[status N] [content-type T] [string S|lf-string S|default-errorfiles] [hdr NAME VALUE]...`."""
    at = 0
    deny = "deny" in key or "tarpit" in key
    values = {**values, "headers": (), "body": None}

    def argument() -> str:
        nonlocal at
        at += 1
        if at >= len(words):
            raise Refused(f"{key}: a value is missing after {words[at - 1]!r}")
        return words[at]

    while at < len(words):
        word = words[at]
        if word in ("status", "deny_status"):
            values["status"] = units.integer(argument(), f"{key} status", 200, 599)
        elif word == "content-type":
            values["content_type"] = argument()
        elif word == "string":
            values["body"] = expressions.literal(argument())
        elif word == "lf-string":
            values["body"] = expressions.format_string(argument(), key, response=response)
        elif word == "hdr":
            name = argument()
            _header_name(name, key)
            values["headers"] += ((name, expressions.format_string(argument(), key, response=response)),)
        elif word == "default-errorfiles":
            values["errorfiles"] = True
        elif word in ("errorfile", "errorfiles", "file", "lf-file"):
            raise Refused(f"{key}: HAProxy knows {word!r}, haptk does not")
        else:
            raise Refused(
                f"{key}: {word!r} is unknown; accepted are status, content-type, string, lf-string, hdr, default-errorfiles"
            )
        at += 1
    paged = values.get("errorfiles") or (deny and words[:1] == ("deny_status",) and len(words) == 2)
    if paged and values["status"] not in STATUSES:
        known = ", ".join(map(str, sorted(STATUSES)))
        raise Refused(f"{key}: status {values['status']} has no page; those that have one are {known}")
    if values["body"] is not None and values["body"].parts and "content_type" not in values:
        raise Refused(f"{key}: a content-type is needed where there is content")
    return values


def _redirect(key: str, response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    """`location|prefix|scheme FORMAT [code N] [drop-query] [append-slash] [set-cookie C] [clear-cookie C]`."""
    values: dict[str, Any] = {"code": 302}
    at = 0
    while at < len(words):
        word = words[at]
        if word in ("drop-query", "append-slash", "ignore-empty"):
            values[word.replace("-", "_")] = True
            at += 1
            continue
        if at + 1 >= len(words):
            raise Refused(f"{key}: {word!r} needs a value")
        value = words[at + 1]
        if word in ("location", "prefix", "scheme"):
            values.update(kind=word, format=_destination(key, response, word, value))
        elif word == "code":
            values["code"] = int(units.one_of(value, f"{key} code", ("301", "302", "303", "307", "308")))
        elif word in ("set-cookie", "clear-cookie"):
            values.pop("set_cookie", None)  # the last one counts
            values.pop("clear_cookie", None)
            values[word.replace("-", "_")] = value
        else:
            accepted = "location, prefix, scheme, code, drop-query, append-slash, set-cookie, clear-cookie"
            raise Refused(f"{key}: {word!r} is unknown; accepted are {accepted}")
        at += 2
    if "kind" not in values:
        raise Refused(f"{key} needs one of location, prefix, scheme")
    if response and values["kind"] != "location":
        raise Refused(f"{key}: {values['kind']} is made of the request, which is gone; accepted is location")
    return values


def _destination(key: str, response: bool, kind: str, text: str) -> Format:
    """Where to: a format in rules, but the text as it stands in the old `redirect` line."""
    if response and kind != "location":
        raise Refused(f"{key}: {kind!r} needs the request; accepted here is location")
    if kind == "prefix" and text == "/":
        return expressions.literal("")  # the same place again
    return expressions.literal(text) if key == "redirect" else expressions.format_string(text, key, response=response)


def _status(key: str, _response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    if not words or (len(words) > 1 and (len(words) != 3 or words[1] != "reason")):
        raise Refused(f"{key} takes a status and maybe 'reason TEXT'")
    return {"status": units.integer(words[0], key, 100, 999), "reason": words[2] if len(words) == 3 else ""}


def _log_level(key: str, _response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    """`set-log-level LEVEL|silent`; `level` is the number of syslog, silent is one more than the last."""
    if len(words) != 1:
        raise Refused(f"{key} takes one level")
    levels = (*LEVELS, "silent")
    return {"level": levels.index(units.one_of(words[0], key, levels))}


def _service(key: str, _response: bool, words: tuple[str, ...]) -> dict[str, Any]:
    if words != ("prometheus-exporter",):
        raise Refused(f"{key}: {' '.join(words)!r} is not a service that haptk has; accepted is prometheus-exporter")
    return {"service": words[0]}


_Reader = Callable[[str, bool, tuple[str, ...]], dict[str, Any]]
_EDITS: dict[str, _Reader] = {
    "add-header": _name_and_format,
    "del-header": _del_header,
    "replace-header": _replace,
    "replace-value": _replace,
    "set-header": _name_and_format,
    "allow": _nothing,
    "capture": captures.action,
    "deny": _deny,
    "redirect": _redirect,
    "return": _return,
    "set-log-level": _log_level,
}
REQUEST_ACTIONS: dict[str, _Reader] = {
    **_EDITS,
    "disable-l7-retry": _nothing,
    "replace-path": _replace_uri,
    "replace-pathq": _replace_uri,
    "replace-uri": _replace_uri,
    "set-method": _uri_format,
    "set-path": _uri_format,
    "set-pathq": _uri_format,
    "set-query": _uri_format,
    "set-uri": _uri_format,
    "use-service": _service,
}
RESPONSE_ACTIONS: dict[str, _Reader] = {**_EDITS, "set-status": _status}
UNSUPPORTED_REQUEST = names(
    "add-acl auth cache-use del-acl del-map do-resolve early-hint normalize-uri reject "
    "sc-inc-gpc sc-inc-gpc0 sc-inc-gpc1 sc-set-gpt sc-set-gpt0 send-spoe-group "
    "set-dst set-dst-port set-map set-mark set-nice set-priority-class set-priority-offset set-src "
    "set-src-port set-timeout set-tos set-var set-var-fmt silent-drop strict-mode tarpit track-sc0 track-sc1 track-sc2 "
    "unset-var wait-for-body wait-for-handshake"
)


def _rule(section: Section, args: Args, kind: str, table: dict[str, _Reader]) -> None:
    action = args.take("an action")
    reader = table.get(action)
    key = f"{kind} {action}"
    response = kind == "http-response"
    if reader is None:
        name = re.split(r"[(]", action)[0]
        known = "HAProxy knows it, haptk does not" if name in UNSUPPORTED_REQUEST else "nor does HAProxy know it"
        raise Refused(f"{kind}: unknown action {action!r} ({known}); accepted are {', '.join(sorted(table))}")
    values = reader(key, response, _cut(args))
    found = condition(section, args, response=response)
    if action == "capture":
        captures.allot(section, values)
    section.append(
        kind.replace("-", "_"), {"action": action, "values": values, "condition": found, "where": args.line.where}
    )


def http_request(section: Section, args: Args) -> None:
    """`http-request ACTION ... [if|unless CONDITION]`."""
    _rule(section, args, "http-request", REQUEST_ACTIONS)


def http_response(section: Section, args: Args) -> None:
    """`http-response ACTION ... [if|unless CONDITION]`."""
    _rule(section, args, "http-response", RESPONSE_ACTIONS)


def redirect(section: Section, args: Args) -> None:
    """The old `redirect ...` line: the same as `http-request redirect`, carried out after those rules."""
    values = _redirect("redirect", False, _cut(args))
    found = condition(section, args)
    rule = {"action": "redirect", "values": values, "condition": found, "where": args.line.where}
    section.append("redirects", rule)
