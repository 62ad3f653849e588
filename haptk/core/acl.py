"""Conditions and expressions of a haproxy.cfg as values, and what they mean for one exchange. Pure.

An `Expr` fetches a property of the exchange ("hdr(host)") and may convert it ("lower"). A `Test` compares it with
patterns; the tests of one ACL name are alternatives. A `Condition` is what stands after `if` or `unless`: terms
side by side must all hold, `||` separates alternatives. A fetch that finds nothing makes its test fail, also under
the absence of patterns (`-m found` asks just that).

The tables of fetches and converters below are the whole supported language: the parser takes its names from here.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

Sample = str | int | bool | None


@dataclass(frozen=True, slots=True)
class Call:
    """A fetch or a converter with its arguments."""

    name: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expr:
    """A fetch followed by converters."""

    fetch: Call
    converters: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Test:
    """One `acl` line. `method` is a key of MATCHES; `values` the patterns, of which one has to match."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    expr: Expr
    method: str
    values: tuple[str, ...] = ()
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """One operand of a condition: the alternatives that an ACL name stands for, maybe negated."""

    name: str
    tests: tuple[Test, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """`if`/`unless` with alternatives of conjunctions."""

    any_of: tuple[tuple[Term, ...], ...]
    unless: bool = False


@dataclass(frozen=True, slots=True)
class Variable:
    """A `%xx` of a format string with its flags, e.g. %ci, %[...] is an Expr instead."""

    name: str
    flags: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """A format string cut into literal text, variables and expressions (with flags)."""

    parts: tuple[str | Variable | Expr, ...] = ()


@dataclass
class Facts:
    """What rules can see of one exchange. Header names are lower-case; `res_*` are set once the response is there."""

    method: str = "GET"
    target: str = "/"
    version: str = "1.1"
    headers: list[tuple[str, str]] = field(default_factory=list)
    src: str = ""
    src_port: int = 0
    dst: str = ""
    dst_port: int = 0
    status: int | None = None
    res_version: str = ""
    res_headers: list[tuple[str, str]] = field(default_factory=list)
    frontend: str = ""
    backend: str = ""
    server: str = ""
    bind_id: int = 0
    bind_name: str = ""
    first_request: bool = True
    usable_servers: Mapping[str, int] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)
    hostname: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)


# -- fetches ------------------------------------------------------------------------------------------------------


def path_of(target: str) -> str:
    """The path of a request target, without query; "" for `*` and authority form."""
    found = re.match(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)?(/[^?#]*)", target)
    return found[1] if found else ""


def query_of(target: str) -> str:
    """What stands after the `?` of a request target."""
    return target.partition("?")[2].partition("#")[0]


def _values(headers: list[tuple[str, str]], name: str, *, split: bool) -> list[str]:
    """The values of a header: whole lines, or the comma-separated parts outside quotes."""
    lines = [value for key, value in headers if key == name.lower()]
    if not split:
        return [line.strip(" \t") for line in lines]
    return [
        part.strip(" \t")
        for line in lines
        for part in re.findall(r'(?:"(?:\\.|[^"\\])*"?|[^,"])+|(?<=,)(?=,|$)|^(?=,)', line) or [""]
    ]


def _header(side: str, *, split: bool) -> Callable[[Facts, tuple[str, ...]], list[Sample]]:
    def fetch(facts: Facts, args: tuple[str, ...]) -> list[Sample]:
        headers = facts.headers if side == "req" else facts.res_headers
        values: list[Sample] = list(_values(headers, args[0], split=split))
        if len(args) > 1:
            at = int(args[1])
            at = at - 1 if at > 0 else at
            return values[at : at + 1 or None] if -len(values) <= at < len(values) else []
        return values

    return fetch


def cookies_of(headers: list[tuple[str, str]], name: str, *, response: bool = False) -> list[str]:
    """Values of a cookie over all Cookie (or Set-Cookie) headers in order, as `req.cook` and `res.cook` see them."""
    found: list[str] = []
    for key, value in headers:
        if key != ("set-cookie" if response else "cookie"):
            continue
        for part in re.split(r'[;,](?=(?:[^"]*"[^"]*")*[^"]*$)', value):
            left, equals, right = part.partition("=")
            if equals and left.strip(" \t") == name:
                found.append(right.strip(" \t"))
    return found


def _cookie(side: str) -> Callable[[Facts, tuple[str, ...]], list[Sample]]:
    def fetch(facts: Facts, args: tuple[str, ...]) -> list[Sample]:
        headers = facts.headers if side == "req" else facts.res_headers
        return list(cookies_of(headers, args[0], response=side == "res"))

    return fetch


def _url_param(facts: Facts, args: tuple[str, ...]) -> list[Sample]:
    """The value of a parameter; the parameters begin after `?`, or after the delimiter that the second argument names."""
    delimiter = args[1] if len(args) > 1 and args[1] else "?"
    _, _, text = facts.target.partition(delimiter)
    values: list[Sample] = []
    for part in re.split(f"[&;{re.escape(delimiter)}]", text):
        name, equals, value = part.partition("=")
        if equals and name == args[0]:
            values.append(value)
    return values


def _base(facts: Facts, _args: tuple[str, ...]) -> list[Sample]:
    host = next((value for name, value in facts.headers if name == "host"), "")
    return [host + path_of(facts.target)]


def _count(fetch: Callable[[Facts, tuple[str, ...]], list[Sample]]) -> Callable[[Facts, tuple[str, ...]], list[Sample]]:
    return lambda facts, args: [len(fetch(facts, args))]


def _as_int(
    fetch: Callable[[Facts, tuple[str, ...]], list[Sample]],
) -> Callable[[Facts, tuple[str, ...]], list[Sample]]:
    def convert(facts: Facts, args: tuple[str, ...]) -> list[Sample]:
        found = (re.match(r"\s*([+-]?\d+)", str(value)) for value in fetch(facts, args))
        return [int(match[1]) if match else 0 for match in found]

    return convert


_req_hdr, _res_hdr = _header("req", split=True), _header("res", split=True)
_req_cook, _res_cook = _cookie("req"), _cookie("res")


@dataclass(frozen=True)
class Fetch:
    """`low`-`high` arguments; `kind` is the type of the sample (str, int, ip, bool), which sets the default match."""

    read: Callable[[Facts, tuple[str, ...]], list[Sample]]
    kind: str = "str"
    low: int = 0
    high: int = 0
    response: bool = False


FETCHES: dict[str, Fetch] = {
    "always_true": Fetch(lambda f, a: [True], "bool"),
    "always_false": Fetch(lambda f, a: [False], "bool"),
    "base": Fetch(_base),
    "be_conn": Fetch(lambda f, a: [f.connections.get(a[0], 0)], "int", 1, 1),
    "be_name": Fetch(lambda f, a: [f.backend]),
    "bool": Fetch(lambda f, a: [a[0].lower() in ("1", "true", "yes")], "bool", 1, 1),
    "dst": Fetch(lambda f, a: [f.dst], "ip"),
    "dst_port": Fetch(lambda f, a: [f.dst_port], "int"),
    "env": Fetch(lambda f, a: [f.environ[a[0]]] if a[0] in f.environ else [], "str", 1, 1),
    "fe_name": Fetch(lambda f, a: [f.frontend]),
    "hostname": Fetch(lambda f, a: [f.hostname]),
    "http_first_req": Fetch(lambda f, a: [f.first_request], "bool"),
    "int": Fetch(lambda f, a: [int(a[0])], "int", 1, 1),
    "method": Fetch(lambda f, a: [f.method]),
    "nbsrv": Fetch(lambda f, a: [f.usable_servers.get(a[0] if a else f.backend, 0)], "int", 0, 1),
    "path": Fetch(lambda f, a: [path_of(f.target)] if path_of(f.target) else []),
    "pathq": Fetch(lambda f, a: [path_of(f.target) + (f"?{query_of(f.target)}" if "?" in f.target else "")]),
    "query": Fetch(lambda f, a: [query_of(f.target)]),
    "req.cook": Fetch(_req_cook, "str", 1, 1),
    "req.cook_cnt": Fetch(_count(_req_cook), "int", 1, 1),
    "req.cook_val": Fetch(_as_int(_req_cook), "int", 1, 1),
    "req.fhdr": Fetch(_header("req", split=False), "str", 1, 2),
    "req.fhdr_cnt": Fetch(_count(_header("req", split=False)), "int", 1, 1),
    "req.hdr": Fetch(_req_hdr, "str", 1, 2),
    "req.hdr_cnt": Fetch(_count(_req_hdr), "int", 1, 1),
    "req.hdr_ip": Fetch(_req_hdr, "ip", 1, 2),
    "req.hdr_val": Fetch(_as_int(_req_hdr), "int", 1, 2),
    "req.proto_http": Fetch(lambda f, a: [True], "bool"),
    "req.ver": Fetch(lambda f, a: [f.version]),
    "res.cook": Fetch(_res_cook, "str", 1, 1, True),
    "res.cook_cnt": Fetch(_count(_res_cook), "int", 1, 1, True),
    "res.fhdr": Fetch(_header("res", split=False), "str", 1, 2, True),
    "res.hdr": Fetch(_res_hdr, "str", 1, 2, True),
    "res.hdr_cnt": Fetch(_count(_res_hdr), "int", 1, 1, True),
    "res.hdr_val": Fetch(_as_int(_res_hdr), "int", 1, 2, True),
    "res.ver": Fetch(lambda f, a: [f.res_version], "str", 0, 0, True),
    "so_id": Fetch(lambda f, a: [f.bind_id], "int"),
    "so_name": Fetch(lambda f, a: [f.bind_name]),
    "src": Fetch(lambda f, a: [f.src], "ip"),
    "src_port": Fetch(lambda f, a: [f.src_port], "int"),
    "srv_name": Fetch(lambda f, a: [f.server], "str", 0, 0, True),
    "ssl_fc": Fetch(lambda f, a: [False], "bool"),
    "status": Fetch(lambda f, a: [] if f.status is None else [f.status], "int", 0, 0, True),
    "str": Fetch(lambda f, a: [a[0]], "str", 1, 1),
    "url": Fetch(lambda f, a: [f.target]),
    "url_param": Fetch(_url_param, "str", 1, 2),
    "wait_end": Fetch(lambda f, a: [True], "bool"),
}
ALIASES = {
    "cook": "req.cook", "cook_cnt": "req.cook_cnt", "cook_val": "req.cook_val", "cookie": "req.cook",
    "fc_src": "src", "fc_dst": "dst", "fc_src_port": "src_port", "fc_dst_port": "dst_port",
    "hdr": "req.hdr", "hdr_cnt": "req.hdr_cnt", "hdr_ip": "req.hdr_ip", "hdr_val": "req.hdr_val",
    "fhdr": "req.fhdr", "fhdr_cnt": "req.fhdr_cnt", "req_ver": "req.ver", "resp_ver": "res.ver",
    "req_proto_http": "req.proto_http", "scook": "res.cook", "scook_cnt": "res.cook_cnt", "set-cookie": "res.cook",
    "shdr": "res.hdr", "shdr_cnt": "res.hdr_cnt", "shdr_val": "res.hdr_val", "urlp": "url_param",
}  # fmt: skip

# -- converters ---------------------------------------------------------------------------------------------------


def _field(value: Sample, args: tuple[str, ...]) -> Sample:
    parts = re.split(f"[{re.escape(args[1])}]", str(value))
    at = int(args[0])
    at = at - 1 if at > 0 else at
    return parts[at] if -len(parts) <= at < len(parts) else None


def _word(value: Sample, args: tuple[str, ...]) -> Sample:
    parts = [part for part in re.split(f"[{re.escape(args[1])}]", str(value)) if part]
    at = int(args[0])
    at = at - 1 if at > 0 else at
    return parts[at] if -len(parts) <= at < len(parts) else None


def _regsub(value: Sample, args: tuple[str, ...]) -> Sample:
    flags = args[2] if len(args) > 2 else ""
    pattern = compiled(args[0], "i" in flags)
    return pattern.sub(re.sub(r"\\(\d)", r"\\g<\1>", args[1]), str(value), count=0 if "g" in flags else 1)


@dataclass(frozen=True)
class Converter:
    apply: Callable[[Sample, tuple[str, ...]], Sample]
    low: int = 0
    high: int = 0
    kind: str = "str"


CONVERTERS: dict[str, Converter] = {
    "add": Converter(lambda v, a: int(v or 0) + int(a[0]), 1, 1, "int"),
    "bytes": Converter(lambda v, a: str(v)[int(a[0]) :][: int(a[1]) if len(a) > 1 else None], 1, 2),
    "concat": Converter(lambda v, a: f"{v}{''.join(a)}", 1, 1),
    "field": Converter(_field, 2, 2),
    "length": Converter(lambda v, a: len(str(v)), 0, 0, "int"),
    "lower": Converter(lambda v, a: str(v).lower()),
    "not": Converter(lambda v, a: not v, 0, 0, "bool"),
    "regsub": Converter(_regsub, 2, 3),
    "sub": Converter(lambda v, a: int(v or 0) - int(a[0]), 1, 1, "int"),
    "upper": Converter(lambda v, a: str(v).upper()),
    "url_dec": Converter(lambda v, a: unquote_plus(str(v)) if a and a[0] == "1" else unquote_plus(str(v).replace("+", "%2B")), 0, 1),
    "word": Converter(_word, 2, 2),
}  # fmt: skip


def samples(expr: Expr, facts: Facts) -> list[Sample]:
    """Every sample of an expression, as ACLs go through them; None results of converters are dropped."""
    found = FETCHES[expr.fetch.name].read(facts, expr.fetch.args)
    for call in expr.converters:
        applied = (CONVERTERS[call.name].apply(value, call.args) for value in found)
        found = [value for value in applied if value is not None]
    return found


def text(expr: Expr, facts: Facts) -> str | None:
    """One value as text, as log formats and header values take it: of several occurrences the last one."""
    found = samples(expr, facts)
    if not found:
        return None
    value = found[0] if expr.fetch.name == "url_param" else found[-1]
    return str(int(value)) if isinstance(value, bool) else str(value)


# -- matching -----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    """A regular expression in Python's dialect, which agrees with PCRE on what configurations use."""
    return re.compile(pattern, re.IGNORECASE if ignore_case else 0)


def _segment(value: str, pattern: str, delimiters: str) -> bool:
    """True when `pattern` stands in `value` between delimiters (or the ends), delimiters at its own ends not counted."""
    inner = pattern.strip(delimiters)
    if not inner:
        return False
    ends = f"[{re.escape(delimiters)}]"
    return re.search(f"(?:^|{ends}){re.escape(inner)}(?:$|{ends})", value) is not None


def _integer(value: Sample, pattern: str) -> bool:
    number = (
        int(value)
        if isinstance(value, (int, bool))
        else int(str(value))
        if re.fullmatch(r"-?\d+", str(value))
        else None
    )
    if number is None:
        return False
    low, colon, high = pattern.partition(":")
    if not colon:
        return number == int(low)
    return (not low or number >= int(low)) and (not high or number <= int(high))


def _in_network(value: Sample, pattern: str) -> bool:
    try:
        return ipaddress.ip_address(str(value)) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False


_TextMatch = Callable[[str, str], bool]
TEXT_MATCHES: dict[str, _TextMatch] = {
    "str": lambda v, p: v == p,
    "beg": lambda v, p: v.startswith(p),
    "end": lambda v, p: v.endswith(p),
    "sub": lambda v, p: p in v,
    "dir": lambda v, p: _segment(v, p, "/?"),
    "dom": lambda v, p: _segment(v, p, "/?.:"),
}
METHODS = (*TEXT_MATCHES, "reg", "len", "int", "ip", "found", "bool")


def matches(test: Test, facts: Facts) -> bool:
    """Whether one sample of the test's expression matches one of its patterns."""
    found = samples(test.expr, facts)
    if test.method == "found":
        return bool(found)
    if test.method == "bool":
        return any(bool(value) for value in found)
    return any(_one(test, value, pattern) for value in found for pattern in test.values)


def _one(test: Test, value: Sample, pattern: str) -> bool:
    if test.method == "int":
        return _integer(value, pattern)
    if test.method == "ip":
        return _in_network(value, pattern)
    if test.method == "len":
        return _integer(len(str(value)), pattern)
    if test.method == "reg":
        return compiled(pattern, test.ignore_case).search(str(value)) is not None
    left, right = str(value), pattern
    if test.ignore_case:
        left, right = left.lower(), right.lower()
    return TEXT_MATCHES[test.method](left, right)


def holds(condition: Condition | None, facts: Facts) -> bool:
    """Whether a condition holds; no condition always does."""
    if condition is None:
        return True
    result = any(all(_term(term, facts) for term in terms) for terms in condition.any_of)
    return result is not condition.unless


def _term(term: Term, facts: Facts) -> bool:
    return any(matches(test, facts) for test in term.tests) is not term.negated
