"""Conditions and expressions of a haproxy.cfg as values, and what they mean for one exchange. Pure.

An `Expr` fetches a property of the exchange ("hdr(host)") and may convert it ("lower"). A `Test` compares it with
patterns; the tests of one ACL name are alternatives. A `Condition` is what stands after `if` or `unless`: terms
side by side must all hold, `||` separates alternatives. A fetch that finds nothing makes its test fail, also under
the absence of patterns (`-m found` asks just that).

The tables of fetches and converters below are the whole supported language: the parser takes its names from here.
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from haptk.core.captures import Captures

Sample = str | int | bool | None


@dataclass(frozen=True, slots=True)
class Call:
    """A fetch or a converter with its arguments."""

    name: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expr:
    """A fetch followed by converters; in a format string with the flags of `%{flags}[...]`."""

    fetch: Call
    converters: tuple[Call, ...] = ()
    flags: str = ""


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
    line: str = ""  # the request line as the client sent it, where rules may have changed method and target
    log_level: int = -1  # that a rule set; 8 for no line
    retries_answers: bool = True  # until `http-request disable-l7-retry`
    captures: Captures = field(default_factory=Captures)
    answering: bool = False  # the response is looked at: of the request only the method is still there


# -- fetches ------------------------------------------------------------------------------------------------------


def path_of(target: str) -> str:
    """The path of a request target, without query; "" for `*` and authority form."""
    found = re.match(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)?(/[^?#]*)", target)
    return found[1] if found else ""


def query_of(target: str) -> str:
    """What stands after the `?` of a request target."""
    return target.partition("?")[2].partition("#")[0]


# Bytes are one character each and their case is ASCII's.
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_UPPER = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_OCCURRENCES_MAX = 10  # from the end; HAProxy remembers no more
_INT_MAX = (1 << 63) - 1


class Address(str):
    """A sample that is an address, not a text that looks like one: it is no number."""

    __slots__ = ()


def number_of(text: str) -> int:
    """What a text begins with: a sign and digits, held at the ends of 64 bits; nothing is 0."""
    found = re.match(r"([+-]?)([0-9]+)", text)
    if not found:
        return 0
    value = int(found[2])
    return max(-value, -_INT_MAX - 1) if found[1] == "-" else min(value, _INT_MAX)


def _values(headers: list[tuple[str, str]], name: str, *, split: bool) -> list[str]:
    """The values of a header: whole lines, or the comma-separated parts outside quotes."""
    lines = [value for key, value in headers if key == name.lower()]
    return [part for line in lines for part in comma_parts(line)] if split else [line.strip(" \t") for line in lines]


def comma_parts(line: str) -> list[str]:
    """The parts of a header line between commas that stand outside quotes, without the blanks around them."""
    return [part.strip(" \t") for part in comma_pieces(line)]


def comma_pieces(line: str) -> list[str]:
    """The same with the blanks."""
    parts: list[str] = []
    start = at = 0
    quoted = False
    while at < len(line):
        if quoted and line[at] == "\\":
            at += 1
        elif line[at] == '"':
            quoted = not quoted
        elif line[at] == "," and not quoted:
            parts.append(line[start:at])
            start = at + 1
        at += 1
    return [*parts, line[start:]]


def _header(side: str, *, split: bool) -> Callable[[Facts, tuple[str, ...]], list[Sample]]:
    def fetch(facts: Facts, args: tuple[str, ...]) -> list[Sample]:
        headers = facts.headers if side == "req" else facts.res_headers
        values: list[Sample] = list(_values(headers, args[0], split=split))
        if len(args) > 1:
            at = int(args[1])
            if at < -_OCCURRENCES_MAX or at == 0:
                return values if at == 0 else []
            at = at - 1 if at > 0 else at
            return values[at : at + 1 or None] if -len(values) <= at < len(values) else []
        return values

    return fetch


def cookies_of(headers: list[tuple[str, str]], name: str, *, response: bool = False) -> list[str]:
    """Values of a cookie over all Cookie (or Set-Cookie) headers in order, as `req.cook` and `res.cook` see them."""
    wanted = "set-cookie" if response else "cookie"
    parts = [part for key, value in headers if key == wanted for part in comma_parts(value)]
    return [value for part in parts for value in _cookies_in(part, name, response=response)]


def _cookies_in(part: str, name: str, *, response: bool) -> list[str]:
    """One part between commas. A Set-Cookie has its name in the first pair; an empty value at the very end is not seen."""
    found: list[str] = []
    start = 0
    while start + len(name) + 1 < len(part):
        end = _pair_end(part, start, response=response)
        left, equals, right = part[start:end].partition("=")
        if equals and left.strip(" \t") == name and not left.lstrip(" \t").startswith("$"):
            found.append(right.strip(" \t"))
        if response:
            break
        start = end + 1
    return found


def _pair_end(part: str, start: int, *, response: bool) -> int:
    """Where the pair that begins at `start` ends: at a semicolon or comma, which only a value may hold, in quotes."""
    at = start
    value = quoted = False
    while at < len(part):
        char = part[at]
        if quoted and char == "\\":
            at += 1
        elif value and char == '"':
            quoted = not quoted
        elif not quoted and (char == ";" or (char == "," and (value or not response))):
            return at
        elif char == "=":
            value = True
        at += 1
    return len(part)


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


def _base(facts: Facts, args: tuple[str, ...]) -> list[Sample]:
    host = next((value for name, value in facts.headers if name == "host"), "")
    return [host + path_of(facts.target)] if host else _path(facts, args)


def _path(facts: Facts, _args: tuple[str, ...]) -> list[Sample]:
    return [path_of(facts.target)] if path_of(facts.target) else []


def _pathq(facts: Facts, _args: tuple[str, ...]) -> list[Sample]:
    path, asked = path_of(facts.target), "?" in facts.target
    return [path + (f"?{query_of(facts.target)}" if asked else "")] if path else []


_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT")


def _method(facts: Facts, _args: tuple[str, ...]) -> list[Sample]:
    """What the client asked with, whatever rules made of it, as long as it is one of the known ones."""
    asked = facts.line.partition(" ")[0] or facts.method
    if asked in _METHODS:
        return [asked]
    return [] if facts.answering else [facts.method]


def _captured(*, response: bool) -> Callable[[Facts, tuple[str, ...]], list[Sample]]:
    def fetch(facts: Facts, args: tuple[str, ...]) -> list[Sample]:
        found = facts.captures.get(int(args[0]), response=response)
        return [] if found is None else [found]

    return fetch


def _kept_line(facts: Facts, at: int) -> str:
    words = facts.line.split(" ")
    return words[at] if at < len(words) else ""


def _captured_uri(facts: Facts, _args: tuple[str, ...]) -> list[Sample]:
    """Path and query of the request line as it was kept for the log."""
    target = _kept_line(facts, 1)
    path, query = path_of(target), target.partition("?")[1:]
    return [path + "".join(query)] if path else []


def _address_text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """As the C library writes it: an IPv6 address that holds an IPv4 one shows that in its own form."""
    number = int(address)
    if address.version == 6 and (0xFFFF < number < 1 << 32 or number >> 32 == 0xFFFF):
        inner = ipaddress.IPv4Address(number & 0xFFFFFFFF)
        return f"::ffff:{inner}" if number >> 32 else f"::{inner}"
    return str(address)


def _header_ip(facts: Facts, args: tuple[str, ...]) -> list[Sample]:
    """Addresses, None for what is none; a port behind an IPv4 one is left out."""
    found: list[Sample] = []
    for value in _req_hdr(facts, args):
        text = str(value)
        four = re.fullmatch(r"([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})(?::[0-9]+)?", text)
        try:
            if four:
                text = ".".join(str(int(octet)) for octet in four[1].split("."))
            if "%" in text:  # Python takes the zone of a link (RFC 4007); inet_pton(3) does not
                raise ValueError(text)
            parsed = ipaddress.ip_address(text)
            found.append(Address(_address_text(parsed)))
        except ValueError:
            found.append(None)
    return found


def _count(fetch: Callable[[Facts, tuple[str, ...]], list[Sample]]) -> Callable[[Facts, tuple[str, ...]], list[Sample]]:
    return lambda facts, args: [len(fetch(facts, args))]


def _as_int(
    fetch: Callable[[Facts, tuple[str, ...]], list[Sample]],
) -> Callable[[Facts, tuple[str, ...]], list[Sample]]:
    return lambda facts, args: [number_of(str(value)) for value in fetch(facts, args)]


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
    "be_name": Fetch(lambda f, a: [f.backend or f.frontend]),
    "bool": Fetch(lambda f, a: [a[0].lower() in ("1", "true", "yes", "on")], "bool", 1, 1),
    "capture.req.hdr": Fetch(_captured(response=False), "str", 1, 1),
    "capture.req.method": Fetch(lambda f, a: [_kept_line(f, 0)] if f.line else []),
    "capture.req.uri": Fetch(_captured_uri),
    "capture.req.ver": Fetch(lambda f, a: [f"HTTP/{f.version}"] if f.line else []),
    "capture.res.hdr": Fetch(_captured(response=True), "str", 1, 1, True),
    "capture.res.ver": Fetch(lambda f, a: [f"HTTP/{f.res_version}"] if f.res_version else []),
    "dst": Fetch(lambda f, a: [Address(f.dst)] if f.dst else [], "ip"),
    "dst_port": Fetch(lambda f, a: [f.dst_port], "int"),
    "env": Fetch(lambda f, a: [f.environ[a[0]]] if a[0] in f.environ else [], "str", 1, 1),
    "fe_name": Fetch(lambda f, a: [f.frontend]),
    "hostname": Fetch(lambda f, a: [f.hostname]),
    "http_first_req": Fetch(lambda f, a: [f.first_request], "bool"),
    "int": Fetch(lambda f, a: [int(a[0])], "int", 1, 1),
    "method": Fetch(_method),
    "nbsrv": Fetch(
        lambda f, a: [f.usable_servers[a[0] if a else f.backend]] if (a or [f.backend])[0] in f.usable_servers else [],
        "int",
        0,
        1,
    ),
    "path": Fetch(_path),
    "pathq": Fetch(_pathq),
    "query": Fetch(lambda f, a: [query_of(f.target)] if "?" in f.target else []),
    "req.cook": Fetch(_req_cook, "str", 1, 1),
    "req.cook_cnt": Fetch(_count(_req_cook), "int", 1, 1),
    "req.cook_val": Fetch(_as_int(_req_cook), "int", 1, 1),
    "req.fhdr": Fetch(_header("req", split=False), "str", 1, 2),
    "req.fhdr_cnt": Fetch(_count(_header("req", split=False)), "int", 1, 1),
    "req.hdr": Fetch(_req_hdr, "str", 1, 2),
    "req.hdr_cnt": Fetch(_count(_req_hdr), "int", 1, 1),
    "req.hdr_ip": Fetch(_header_ip, "ip", 1, 2),
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
    "so_name": Fetch(lambda f, a: [f.bind_name] if f.bind_name else []),
    "src": Fetch(lambda f, a: [Address(f.src)] if f.src else [], "ip"),
    "src_port": Fetch(lambda f, a: [f.src_port], "int"),
    "srv_name": Fetch(lambda f, a: [f.server], "str", 0, 0, True),
    "ssl_fc": Fetch(lambda f, a: [False], "bool"),
    "status": Fetch(lambda f, a: [] if f.status is None else [f.status], "int", 0, 0, True),
    "str": Fetch(lambda f, a: [a[0] if a else ""], "str", 0, 1),
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
    return parts[at] if -len(parts) <= at < len(parts) else ""


def fill_groups(template: str, found: re.Match[str]) -> str:
    """A replacement: `\\0` to `\\9` from the match, `\\xHH` a byte, any other character behind a backslash itself."""

    def piece(part: re.Match[str]) -> str:
        what = part[1]
        if what.isdecimal():
            return (found[int(what)] or "") if int(what) <= found.re.groups else ""
        return chr(int(what[1:], 16)) if len(what) == 3 else what

    return re.sub(r"\\([0-9]|x[0-9A-Fa-f]{2}|.|$)", piece, template, flags=re.DOTALL)


def _regsub(value: Sample, args: tuple[str, ...]) -> Sample:
    """One match or all. An empty match stands in front of a character, which stays."""
    text = str(value)
    flags = args[2] if len(args) > 2 else ""
    pattern = compiled(args[0], "i" in flags)
    out: list[str] = []
    at = 0
    while found := pattern.search(text, at):
        out += [text[at : found.start()], fill_groups(args[1], found)]
        at = found.end()
        if found.end() == found.start():
            if at == len(text):
                break
            out.append(text[at])
            at += 1
        if "g" not in flags:
            break
    return "".join(out) + text[at:]


def _number(value: Sample) -> int | None:
    """A sample as a number; an address and an empty text are none."""
    if isinstance(value, (int, bool)):
        return int(value)
    return number_of(str(value)) if value and not isinstance(value, Address) else None


def _arithmetic(sign: int) -> Callable[[Sample, tuple[str, ...]], Sample]:
    def apply(value: Sample, args: tuple[str, ...]) -> Sample:
        number = _number(value)
        return None if number is None else max(-_INT_MAX - 1, min(_INT_MAX, number + sign * int(args[0])))

    return apply


def _held(number: int) -> int:
    return max(-_INT_MAX - 1, min(_INT_MAX, number))


def _quotient(number: int, by: int) -> int:
    """Towards zero; by nothing it is the largest number, as in HAProxy."""
    if by == 0:
        return _INT_MAX
    return (abs(number) // abs(by)) * (1 if (number < 0) is (by < 0) else -1)


def _numeric(compute: Callable[[int, int], int | bool]) -> Callable[[Sample, tuple[str, ...]], Sample]:
    """A converter of whole numbers, whose result is held at the ends of 64 bits."""

    def apply(value: Sample, args: tuple[str, ...]) -> Sample:
        number = _number(value)
        if number is None:
            return None
        found = compute(number, _held(int(args[0])) if args else 0)
        return found if isinstance(found, bool) else _held(found)

    return apply


def _b64dec(value: Sample, _args: tuple[str, ...]) -> Sample:
    text = _text_of(value)
    if not re.fullmatch(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", text):
        return None
    return base64.b64decode(text).decode("latin-1")


def _not(value: Sample, _args: tuple[str, ...]) -> Sample:
    number = _number(value)
    return None if number is None else number == 0


def _url_dec(value: Sample, args: tuple[str, ...]) -> Sample:
    """`+` means a blank in a form, and always behind a `?`. A % without two digits makes the whole nothing."""
    text = _text_of(value)
    form = bool(args) and args[0] not in ("", "0")
    out: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == "%":
            if not re.fullmatch(r"[0-9A-Fa-f]{2}", text[at + 1 : at + 3]):
                return None
            out.append(chr(int(text[at + 1 : at + 3], 16)))
            at += 2
        else:
            form = form or text[at] == "?"
            out.append(" " if text[at] == "+" and form else text[at])
        at += 1
    return "".join(out)


def _text_of(value: Sample) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Converter:
    apply: Callable[[Sample, tuple[str, ...]], Sample]
    low: int = 0
    high: int = 0
    kind: str = "str"


CONVERTERS: dict[str, Converter] = {
    "add": Converter(_arithmetic(1), 1, 1, "int"),
    "and": Converter(_numeric(lambda n, a: n & a), 1, 1, "int"),
    "b64dec": Converter(_b64dec),
    "base64": Converter(lambda v, a: base64.b64encode(_text_of(v).encode("latin-1")).decode()),
    "bool": Converter(_numeric(lambda n, a: n != 0), 0, 0, "bool"),
    "bytes": Converter(lambda v, a: _text_of(v)[int(a[0]) :][: int(a[1]) if len(a) > 1 else None], 1, 2),
    "concat": Converter(lambda v, a: f"{_text_of(v)}{''.join(a)}", 1, 1),
    "cpl": Converter(_numeric(lambda n, a: ~n), 0, 0, "int"),
    "div": Converter(_numeric(_quotient), 1, 1, "int"),
    "even": Converter(_numeric(lambda n, a: n % 2 == 0), 0, 0, "bool"),
    "field": Converter(lambda v, a: _field(_text_of(v), a), 2, 2),
    "hex": Converter(lambda v, a: _text_of(v).encode("latin-1").hex().upper()),
    "length": Converter(lambda v, a: len(_text_of(v)), 0, 0, "int"),
    "lower": Converter(lambda v, a: _text_of(v).translate(_LOWER)),
    "ltrim": Converter(lambda v, a: _text_of(v).lstrip(a[0]) if a[0] else v, 1, 1),
    "mod": Converter(_numeric(lambda n, a: n - _quotient(n, a) * a if a else 0), 1, 1, "int"),
    "mul": Converter(_numeric(lambda n, a: n * a), 1, 1, "int"),
    "neg": Converter(_numeric(lambda n, a: -n), 0, 0, "int"),
    "not": Converter(_not, 0, 0, "bool"),
    "odd": Converter(_numeric(lambda n, a: n % 2 == 1), 0, 0, "bool"),
    "or": Converter(_numeric(lambda n, a: n | a), 1, 1, "int"),
    "regsub": Converter(lambda v, a: _regsub(_text_of(v), a), 2, 3),
    "rtrim": Converter(lambda v, a: _text_of(v).rstrip(a[0]) if a[0] else v, 1, 1),
    "sub": Converter(_arithmetic(-1), 1, 1, "int"),
    "upper": Converter(lambda v, a: _text_of(v).translate(_UPPER)),
    "url_dec": Converter(_url_dec, 0, 1),
    "word": Converter(lambda v, a: _word(_text_of(v), a), 2, 2),
    "xor": Converter(_numeric(lambda n, a: n ^ a), 1, 1, "int"),
}
# What looks at the request's head, which is gone when the response is there.
REQUEST_ONLY = frozenset(
    {"base", "path", "pathq", "query", "url", "url_param", *(name for name in FETCHES if name.startswith("req."))}
) - {"req.proto_http"}


# What is still known when the log line is written.
LOG_FETCHES = frozenset(
    {"always_true", "always_false", "be_name", "bool", "capture.req.hdr", "capture.req.method", "capture.req.uri",
     "capture.req.ver", "capture.res.hdr", "capture.res.ver", "env", "fe_name", "hostname", "int", "method", "src", "src_port",
     "srv_name", "status", "str"}
)  # fmt: skip


def _found(expr: Expr, facts: Facts) -> list[Sample]:
    """The samples of the fetch alone; none on the wrong side of an exchange."""
    row = FETCHES[expr.fetch.name]
    if (facts.answering and expr.fetch.name in REQUEST_ONLY) or (row.response and facts.status is None):
        return []
    return row.read(facts, expr.fetch.args)


def _converted(value: Sample, expr: Expr) -> Sample:
    for call in expr.converters:
        value = CONVERTERS[call.name].apply(value, call.args)
        if value is None:
            return None
    return value


def samples(expr: Expr, facts: Facts) -> list[Sample]:
    """Every sample of an expression, as ACLs go through them; None results of converters are dropped."""
    converted = (_converted(value, expr) for value in _found(expr, facts) if value is not None)
    return [value for value in converted if value is not None]


def text(expr: Expr, facts: Facts) -> str | None:
    """One value as text, as log formats and header values take it: of several occurrences the last one."""
    found = _found(expr, facts)
    if not found:
        return None
    value = found[0] if expr.fetch.name == "url_param" else found[-1]
    value = None if value is None else _converted(value, expr)
    return None if value is None else _text_of(value)


# -- matching -----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    """A regular expression in Python's dialect, which agrees with PCRE on what configurations use."""
    return re.compile(pattern, re.ASCII | (re.IGNORECASE if ignore_case else 0))


def _segment(value: str, pattern: str, delimiters: str) -> bool:
    """True when `pattern` stands in `value` between delimiters (or the ends), delimiters at its own ends not counted."""
    inner = pattern.strip(delimiters)
    if not inner:
        return False
    ends = f"[{re.escape(delimiters)}]"
    return re.search(f"(?:^|{ends}){re.escape(inner)}(?:$|{ends})", value) is not None


def _integer(value: Sample, pattern: str) -> bool:
    number = _number(value)
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
        return any(bool(_number(value)) for value in found)
    return any(_one(test, value, pattern) for value in found for pattern in test.values)


def _one(test: Test, value: Sample, pattern: str) -> bool:
    if test.method == "int":
        return _integer(value, pattern)
    if test.method == "ip":
        return _in_network(value, pattern)
    if test.method == "len":
        return _integer(len(_text_of(value)), pattern)
    if test.method == "reg":
        return compiled(pattern, test.ignore_case).search(_text_of(value)) is not None
    left, right = _text_of(value), pattern
    if test.ignore_case:
        left, right = left.translate(_LOWER), right.translate(_LOWER)
    return TEXT_MATCHES[test.method](left, right)


def holds(condition: Condition | None, facts: Facts) -> bool:
    """Whether a condition holds; no condition always does."""
    if condition is None:
        return True
    result = any(all(_term(term, facts) for term in terms) for terms in condition.any_of)
    return result is not condition.unless


def _term(term: Term, facts: Facts) -> bool:
    return any(matches(test, facts) for test in term.tests) is not term.negated
