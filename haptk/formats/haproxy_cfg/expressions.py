"""Sample expressions (`hdr(host),lower`), ACL tests and format strings (`%ci %[src]`), from words to the values of core.acl."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

from haptk.core.acl import (
    ALIASES,
    CONVERTERS,
    FETCHES,
    LOG_FETCHES,
    METHODS,
    REQUEST_ONLY,
    Call,
    Expr,
    Format,
    Test,
    Variable,
)
from haptk.formats.haproxy_cfg.model import Refused

_SUFFIXES = ("beg", "end", "sub", "dir", "dom", "reg", "len")
# What HAProxy has and haptk has not; enough names to say "HAProxy knows it" for the common ones.
_KNOWN_PREFIXES = (
    "ssl_", "sc0_", "sc1_", "sc2_", "sc_", "src_", "fc_", "bc_", "table_", "srv_", "be_", "fe_", "req.", "res.", "txn.",
    "capture.", "http_auth", "payload", "rdp_cookie", "req_", "rep_", "internal.", "map", "unique-id", "uuid", "rand",
    "date", "base", "url", "queue", "avg_queue", "connslots", "dst_", "var", "stopping", "thread", "proc", "meth",
)  # fmt: skip
# The variables of configuration.txt 8.2.4 that logs and header values may use here.
VARIABLES = (
    "o", "B", "CC", "CS", "H", "HM", "HP", "HPO", "HQ", "HU", "HV", "ID", "ST", "T", "Ta", "Tc", "Td", "Th", "Ti",
    "Tl", "Tq", "TR", "Tr", "Ts", "Tt", "Tu", "Tw", "U", "ac", "b", "bc", "bi", "bp", "bq", "ci", "cp", "f", "fc",
    "fi", "fp", "ft", "hr", "hrl", "hs", "hsl", "lc", "ms", "pid", "r", "rc", "rt", "s", "sc", "si", "sp", "sq", "sslc",
    "sslv", "t", "tr", "trg", "trl", "ts", "tsc",
)  # fmt: skip


def split_arguments(text: str, what: str) -> tuple[str, ...]:
    """The comma-separated arguments inside parentheses, with the second level of quoting that they have."""
    found: list[str] = []
    current: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        if quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"' and at + 1 < len(text):
                at += 1
                current.append(text[at] if text[at] in "\"\\'" else "\\" + text[at])
            else:
                current.append(char)
        elif char in "'\"":
            quote = char
        elif char == "\\" and at + 1 < len(text) and text[at + 1] in " \\'\",":
            at += 1
            current.append(text[at])
        elif char == ",":
            found.append("".join(current))
            current.clear()
        else:
            current.append(char)
        at += 1
    if quote:
        raise Refused(f"{what}: unmatched quote in the arguments {text!r}")
    return (*found, "".join(current)) if text else ()


def _calls(text: str, what: str) -> list[tuple[str, tuple[str, ...]]]:
    """`a(x,y),b,c(z)` as names with their arguments. A parenthesis closes at the first unquoted `)`, as in HAProxy."""
    calls: list[tuple[str, tuple[str, ...]]] = []
    rest = text
    while rest:
        found = re.match(r"[A-Za-z0-9_.+-]+", rest)
        if not found:
            raise Refused(f"{what}: {rest!r} is no name of a fetch or converter")
        name, rest = found[0], rest[found.end() :]
        arguments: tuple[str, ...] = ()
        if rest.startswith("("):
            inside = re.match(r'\(((?:"(?:\\.|[^"\\])*"|\'[^\']*\'|\\.|[^)"\'\\])*)\)', rest)
            if not inside:
                raise Refused(f"{what}: the parenthesis after {name!r} does not close")
            arguments, rest = split_arguments(inside[1], what), rest[inside.end() :]
        calls.append((name, arguments))
        if rest.startswith(","):
            rest = rest[1:]
        elif rest:
            raise Refused(f"{what}: {rest!r} behind {name!r}; a comma and a converter are accepted there")
    return calls


def expression(
    text: str, what: str, *, response: bool = False, early: bool = False, condition: bool = False, log: bool = False
) -> Expr:
    """An expression; `response` says whether it stands on the response's side.

    `early` accepts fetches of the response on the request's side, where they find nothing. In a `condition` a fetch of
    the other side is accepted: it never holds. A `log` may look at both sides.
    """
    calls = _calls(text, what)
    if not calls:
        raise Refused(f"{what}: an expression is missing")
    (name, arguments), *converters = calls
    resolved = ALIASES.get(name, name)
    direct = ("hdr", "hdr_cnt", "hdr_val", "cook", "cook_cnt", "fhdr")
    if name in direct and response and not condition and not log and f"res.{name}" in FETCHES:
        resolved = f"res.{name}"
    fetch = FETCHES.get(resolved)
    if fetch is None:
        raise Refused(_unknown(name, what))
    if fetch.response and not (response or early or log):
        raise Refused(f"{what}: {name!r} looks at the response, which is not there yet")
    if response and not condition and not log and resolved in REQUEST_ONLY:
        raise Refused(f"{what}: {name!r} looks at the request's head, which is gone when the response is there")
    if log and resolved not in LOG_FETCHES:
        known = ", ".join(sorted(LOG_FETCHES))
        raise Refused(f"{what}: what {name!r} looks at is gone when the line is written; accepted are {known}")
    if not fetch.low <= len(arguments) <= fetch.high:
        raise Refused(f"{what}: {name!r} takes {fetch.low} to {fetch.high} arguments, found {len(arguments)}")
    _check_arguments(resolved, arguments, what)
    return Expr(Call(resolved, arguments), tuple(_converter(call, what) for call in converters))


def _check_arguments(name: str, arguments: tuple[str, ...], what: str) -> None:
    """Arguments that are numbers: an occurrence, a slot, a constant."""
    numbers = arguments[1:] if "hdr" in name else ()
    if name in ("int", "capture.req.hdr", "capture.res.hdr"):
        numbers = arguments
    for number in numbers:
        if not re.fullmatch(r"[+-]?\d+", number) and (number or "hdr" not in name):
            raise Refused(f"{what}: {name!r} takes a number here, found {number!r}")
        if number and "hdr" in name and int(number) < -OCCURRENCES_MAX:
            raise Refused(
                f"{what}: an occurrence in {name!r} is counted from the last {OCCURRENCES_MAX}, found {number!r}"
            )


OCCURRENCES_MAX = 10  # so many from the end, as HAProxy
NUMBERED = ("add", "sub", "mul", "div", "mod", "and", "or", "xor", "bytes", "field", "word")


def _converter(call: tuple[str, tuple[str, ...]], what: str) -> Call:
    name, arguments = call
    row = CONVERTERS.get(name)
    if row is None:
        raise Refused(f"{what}: the converter {name!r} is not known to haptk; accepted are {', '.join(CONVERTERS)}")
    if not row.low <= len(arguments) <= row.high:
        raise Refused(f"{what}: the converter {name!r} takes {row.low} to {row.high} arguments, found {len(arguments)}")
    for argument in arguments[:1]:
        if name in NUMBERED and not re.fullmatch(r"-?\d+", argument):
            raise Refused(f"{what}: the converter {name!r} takes a number first, found {argument!r}")
        if name == "regsub":
            _regex(argument, what)
        if (name in ("field", "word") and int(argument) == 0) or (name == "bytes" and int(argument) < 0):
            raise Refused(f"{what}: the converter {name!r} cannot begin at {argument}")
        if name == "regsub" and not argument:
            raise Refused(f"{what}: the converter 'regsub' takes a regular expression first, found ''")
    if name in ("field", "word") and not arguments[1]:
        raise Refused(f"{what}: the converter {name!r} takes delimiters second, found ''")
    if name == "bytes" and len(arguments) > 1 and not re.fullmatch(r"\d+", arguments[1]):
        raise Refused(f"{what}: the converter 'bytes' takes a length second, found {arguments[1]!r}")
    if name == "regsub" and set("".join(arguments[2:])) - set("gi"):
        raise Refused(f"{what}: the flags of regsub are i and g, found {arguments[2]!r}")
    return Call(name, arguments)


def _unknown(name: str, what: str) -> str:
    known = "HAProxy may know it, haptk does not" if name.startswith(_KNOWN_PREFIXES) else "nor does HAProxy know it"
    return f"{what}: unknown fetch {name!r} ({known}); accepted are {', '.join(sorted({*FETCHES, *ALIASES}))}"


def _regex(pattern: str, what: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise Refused(f"{what}: {pattern!r} is no regular expression haptk can use: {error}") from None


def test(words: tuple[str, ...], what: str, *, response: bool = False, early: bool = False) -> Test:
    """`CRITERION [-i] [-m METHOD] [--] [OPERATOR] VALUES...` as a Test; see `expression` for the flags."""
    name, opened, rest = words[0].partition("(")
    base, _, suffix = name.rpartition("_")
    method = ""
    text = words[0]
    if suffix in _SUFFIXES and (base in FETCHES or base in ALIASES):
        method, text = suffix, base + opened + rest
    # in a condition `hdr` and its kin always mean the request's, as in HAProxy
    expr = expression(text, what, response=response, early=early, condition=True)
    kind = CONVERTERS[expr.converters[-1].name].kind if expr.converters else FETCHES[expr.fetch.name].kind
    method = method or {"int": "int", "ip": "ip", "bool": "bool"}.get(kind, "str")
    method, ignore_case, values = _flags(words[1:], method, what)
    if method in ("int", "len") and (negative := next((value for value in values if "-" in value), "")):
        raise Refused(f"{what}: {negative!r}: numbers of a pattern begin at 0; use an operator such as lt")
    values = _operators(values, method, what)
    if method in ("found", "bool"):
        values = ()  # as in HAProxy, which does not look at them
    _check_values(method, values, what)
    return Test(expr, method, values, ignore_case)


def _flags(words: tuple[str, ...], method: str, what: str) -> tuple[str, bool, tuple[str, ...]]:
    ignore_case = False
    at = 0
    while at < len(words) and words[at].startswith("-") and not re.fullmatch(r"-\d+", words[at]):
        flag = words[at]
        if flag == "--":
            at += 1
            break
        if flag == "-i":
            ignore_case = True
        elif flag == "-n":
            pass  # addresses are never looked up here
        elif flag == "-m":
            at += 1
            method = words[at] if at < len(words) else ""
            if method not in METHODS:
                raise Refused(f"{what}: -m {method!r} is unknown; accepted are {', '.join(METHODS)}")
        elif flag in ("-f", "-M", "-u"):
            raise Refused(f"{what}: HAProxy knows the flag {flag}, haptk does not")
        else:
            raise Refused(f"{what}: the flag {flag!r} is unknown; accepted are -i, -m, -n, --")
        at += 1
    return method, ignore_case, words[at:]


def _operators(values: tuple[str, ...], method: str, what: str) -> tuple[str, ...]:
    """`ge 500` for integers as the range "500:"."""
    if method not in ("int", "len") or not values or values[0] not in ("eq", "ge", "gt", "le", "lt"):
        return values
    operator, numbers = values[0], values[1:]
    ranges: list[str] = []
    for number in numbers:
        if operator == "eq":
            ranges.append(number)
            continue
        if not re.fullmatch(r"-?\d+", number):
            raise Refused(f"{what}: {operator} takes a number, found {number!r}")
        value = int(number)
        ranges.append({"ge": f"{value}:", "gt": f"{value + 1}:", "le": f":{value}", "lt": f":{value - 1}"}[operator])
    return tuple(ranges)


def _check_values(method: str, values: tuple[str, ...], what: str) -> None:
    for value in values:
        if method in ("int", "len") and not re.fullmatch(r"-?\d+|-?\d*:-?\d*", value):
            raise Refused(f"{what}: {value!r} is no number or range such as 80 or 1024:65535")
        if method == "reg":
            _regex(value, what)
        if method == "ip":
            try:
                ipaddress.ip_network(value, strict=False)
            except ValueError:
                raise Refused(f"{what}: {value!r} is no address or network") from None


def format_string(text: str, what: str, *, response: bool = True, log: bool = False) -> Format:
    """A format string cut into literals, `%xx` variables and `%[expression]`; a `log` may look at both sides."""
    parts: list[str | Variable | Expr] = []
    literal: list[str] = []
    at = 0

    def flush() -> None:
        if literal:
            parts.append("".join(literal))
            literal.clear()

    while at < len(text):
        if text[at] != "%":
            literal.append(text[at])
            at += 1
        elif text.startswith("%%", at):
            literal.append("%")
            at += 2
        else:
            flush()
            part, at = _directive(text, at, what, response=response, log=log)
            parts.append(part)
    flush()
    return Format(tuple(parts))


def _directive(text: str, start: int, what: str, *, response: bool, log: bool) -> tuple[str | Variable | Expr, int]:
    flags = ""
    at = start + 1
    if text.startswith("{", at):
        end = text.find("}", at)
        if end < 0:
            raise Refused(f"{what}: the brace after % at position {start + 1} does not close")
        flags, at = text[at + 1 : end], end + 1
    if text.startswith("[", at):
        end = _closing_bracket(text, at, what)
        found_expr = expression(text[at + 1 : end].strip(), what, response=response, log=log)
        return replace(found_expr, flags=flags), end + 1
    found = re.match(r"[A-Za-z][A-Za-z0-9]*", text[at:])
    if not found:
        raise Refused(f"{what}: a lone % at position {start + 1}; write %% for a percent sign")
    if found[0] in VARIABLES:
        return Variable(found[0], flags), at + len(found[0])
    raise Refused(f"{what}: the variable %{found[0]} is unknown; accepted are {', '.join(VARIABLES)}")


def _closing_bracket(text: str, start: int, what: str) -> int:
    depth = 0
    quote = ""
    for at in range(start, len(text)):
        char = text[at]
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "]" and depth <= 0:
            return at
    raise Refused(f"{what}: the bracket at position {start + 1} does not close")


def compiled_or_refused(pattern: str, what: str) -> str:
    """`pattern` when it is a regular expression that can be used here."""
    _regex(pattern, what)
    return pattern


def literal(text: str) -> Format:
    """A text in which nothing is a variable."""
    return Format((text,) if text else ())
