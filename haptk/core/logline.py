"""Log lines of the proxy, as HAProxy writes them: `httplog`, `tcplog`, the plain form and `log-format`. Pure.

A `Record` is one finished exchange. The variables of configuration.txt 8.2.4 are a table here; a missing value is "-".
Times are milliseconds, -1 where the phase was not reached, as operators know them. Dates are local time but for %T and
%trg; the zone comes in with the record, because which offset holds at which moment is not for a pure module to know.

The compiled twin is haptk/_fast/logline.pyx; neither is made from the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from haptk.core.acl import Expr, Facts, Format, Variable, path_of, query_of
from haptk.core.acl import text as expression_text

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _utc(_unix_s: float) -> int:
    return 0


@dataclass
class Record:
    """What is known about an exchange at its end. `*_ms` are durations; `*_s` Unix times; flags are HAProxy's four.

    `bare` is an exchange without a request that could be understood; `early` a line that is written before the end;
    `offset_of` gives the seconds east of Greenwich at a Unix time. `ended_ms` is the time since `accepted_s`.
    """

    facts: Facts = field(default_factory=Facts)
    accepted_s: float = 0.0
    request_s: float = 0.0
    server: str = "<NOSRV>"
    server_address: str = ""
    server_port: int = 0
    source_address: str = ""
    source_port: int = 0
    status: int = -1
    bytes_down: int = 0
    bytes_up: int = 0
    flags: str = "----"
    handshake_ms: int = 0
    idle_ms: int = 0
    request_ms: int = -1
    queue_ms: int = -1
    connect_ms: int = -1
    response_ms: int = -1
    active_ms: int = 0
    total_ms: int = 0
    actives: int = 1
    frontend_active: int = 1
    backend_active: int = 0
    server_active: int = 0
    retries: int = 0
    redispatched: bool = False
    server_queue: int = 0
    backend_queue: int = 0
    request_line: str = ""
    request_captures: tuple[str | None, ...] = ()
    response_captures: tuple[str | None, ...] = ()
    client_cookie: str | None = None
    server_cookie: str | None = None
    mode: str = "http"
    host: str = ""
    pid: int = 0
    number: int = 0
    lines: int = 0
    unique_id: str = ""
    unlogged: bool = False  # an answer to monitor-uri, which no log mentions
    bare: bool = False
    early: bool = False
    offset_of: Callable[[float], int] = _utc


def _moment(unix_s: float, offset_s: int) -> datetime:
    return datetime.fromtimestamp(unix_s, tz=timezone(timedelta(seconds=offset_s)))


def haproxy_date(unix_s: float, offset_s: int = 0) -> str:
    """`23/Nov/2026:14:03:05.123`, `offset_s` seconds east of Greenwich."""
    moment = _moment(unix_s, offset_s)
    month = _MONTHS[moment.month - 1]
    return f"{moment.day:02}/{month}/{moment.year}:{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"


def apache_date(unix_s: float, offset_s: int = 0) -> str:
    """`23/Nov/2026:14:03:05 +0000`."""
    moment = _moment(unix_s, offset_s)
    sign, minutes = "-" if offset_s < 0 else "+", abs(offset_s) // 60
    zone = f"{sign}{minutes // 60:02}{minutes % 60:02}"
    return f"{moment.day:02}/{_MONTHS[moment.month - 1]}/{moment.year}:{moment:%H:%M:%S} {zone}"


def _ratio_words(record: Record) -> str:
    return "+" * record.redispatched + str(record.retries)


def _ms_of(unix_s: float) -> int:
    return int(unix_s * 1000) % 1000


def _data_ms(r: Record) -> int:
    """From the response's head (or the connection, in TCP mode) to the end."""
    if r.mode == "tcp":
        return r.total_ms - max(r.queue_ms, 0) - r.connect_ms if r.connect_ms >= 0 else -1
    before = sum(max(one, 0) for one in (r.request_ms, r.queue_ms, r.connect_ms, r.response_ms))
    return max(r.active_ms - before, 0) if r.response_ms >= 0 else -1


def _words(r: Record) -> list[str]:
    """Method, target and version as the client sent them; none without a request."""
    return [] if r.bare else r.request_line.split(" ")


def _word(r: Record, index: int) -> str:
    words = _words(r)
    return words[index] if len(words) == 3 else "<BADREQ>"


def _target(r: Record, take: Callable[[str], str]) -> str:
    words = _words(r)
    return take(words[1]) if len(words) == 3 else "<BADREQ>"


def _dashed(r: Record, number: int, known: object) -> object:
    return number if known else None


_Read = Callable[[Record], object]
# What a growing value carries in a line that is written before the end.
_GROWING = frozenset({"B", "Ta", "Tt", "Tu"})
# Pieces of the request line: #XX for what is not printable, and never a dash.
_OF_LINE = frozenset({"HM", "HP", "HPO", "HQ", "HU", "HV", "r"})
VARIABLES: dict[str, _Read] = {
    "B": lambda r: 0 if r.bare else r.bytes_down,
    "CC": lambda r: r.client_cookie,
    "CS": lambda r: r.server_cookie,
    "H": lambda r: r.host,
    "HM": lambda r: _word(r, 0),
    "HP": lambda r: _target(r, lambda target: target.partition("?")[0]),
    "HPO": lambda r: _target(r, path_of),
    "HQ": lambda r: _target(r, lambda target: f"?{query_of(target)}" if "?" in target else ""),
    "HU": lambda r: _word(r, 1),
    "HV": lambda r: _word(r, 2),
    "ID": lambda r: r.unique_id,
    "ST": lambda r: r.status,
    "T": lambda r: apache_date(r.accepted_s),
    "Ta": lambda r: r.active_ms,
    "Tc": lambda r: r.connect_ms,
    "Td": _data_ms,
    "Th": lambda r: r.handshake_ms,
    "Ti": lambda r: r.idle_ms,
    "Tl": lambda r: apache_date(r.accepted_s, r.offset_of(r.accepted_s)),
    "Tq": lambda r: r.request_ms + r.idle_ms + r.handshake_ms if r.request_ms >= 0 else -1,
    "TR": lambda r: r.request_ms,
    "Tr": lambda r: r.response_ms,
    "Ts": lambda r: int(r.accepted_s),
    "Tt": lambda r: r.total_ms,
    "Tu": lambda r: r.total_ms - r.idle_ms,
    "Tw": lambda r: r.queue_ms,
    "U": lambda r: 0 if r.bare else r.bytes_up,
    "ac": lambda r: r.actives,
    "b": lambda r: r.facts.backend or r.facts.frontend,
    "bc": lambda r: r.backend_active,
    "bi": lambda r: r.source_address,
    "bp": lambda r: _dashed(r, r.source_port, r.source_address),
    "bq": lambda r: r.backend_queue,
    "ci": lambda r: r.facts.src or "unix",
    "cp": lambda r: r.facts.src_port if r.facts.src else r.facts.bind_id or 1,
    "f": lambda r: r.facts.frontend,
    "fc": lambda r: r.frontend_active,
    "fi": lambda r: r.facts.dst or "unix",
    "fp": lambda r: r.facts.dst_port if r.facts.dst else r.facts.bind_id or 1,
    "ft": lambda r: r.facts.frontend,
    "lc": lambda r: r.lines,
    "ms": lambda r: f"{_ms_of(r.accepted_s):03}",
    "pid": lambda r: r.pid,
    "r": lambda r: "<BADREQ>" if r.bare else r.request_line or "<BADREQ>",
    "rc": _ratio_words,
    "rt": lambda r: r.number,
    "s": lambda r: r.server,
    "sc": lambda r: r.server_active,
    "si": lambda r: r.server_address,
    "sp": lambda r: _dashed(r, r.server_port, r.server_address),
    "sq": lambda r: r.server_queue,
    "sslc": lambda r: None,
    "sslv": lambda r: None,
    "t": lambda r: haproxy_date(r.accepted_s, r.offset_of(r.accepted_s)),
    "tr": lambda r: haproxy_date(r.request_s, r.offset_of(r.request_s)),
    "trg": lambda r: apache_date(r.request_s),
    "trl": lambda r: apache_date(r.request_s, r.offset_of(r.request_s)),
    "ts": lambda r: r.flags[:2],
    "tsc": lambda r: r.flags,
}  # fmt: skip
# What %{+X} makes hexadecimal, with the least digits.
_HEXADECIMAL = {"Ts": 4, "ms": 2, "pid": 4, "rt": 4, "lc": 4, "cp": 4, "fp": 4, "bp": 4, "sp": 4}
_ADDRESSES = frozenset({"ci", "fi", "bi", "si"})
_CAPTURES = {"hr": False, "hrl": True, "hs": False, "hsl": True}  # in braces, or each for itself


def http_line(r: Record) -> str:
    """The line of `option httplog`."""
    blocks = "".join(f"{block} " for block in (_block(r.request_captures), _block(r.response_captures)) if block)
    plus = "+" if r.early else ""
    return (
        f"{VARIABLES['ci'](r)}:{VARIABLES['cp'](r)} [{VARIABLES['tr'](r)}] {r.facts.frontend} "
        f"{VARIABLES['b'](r)}/{r.server} {r.request_ms}/{r.queue_ms}/{r.connect_ms}/{r.response_ms}/{plus}{r.active_ms} "
        f"{r.status} {plus}{VARIABLES['B'](r)} {r.client_cookie or '-'} {r.server_cookie or '-'} "
        f"{r.flags} {r.actives}/{r.frontend_active}/{r.backend_active}/{r.server_active}/{_ratio_words(r)} "
        f'{r.server_queue}/{r.backend_queue} {blocks}"{escape(str(VARIABLES["r"](r)))}"'
    )


def tcp_line(r: Record) -> str:
    """The line of `option tcplog`."""
    plus = "+" if r.early else ""
    return (
        f"{VARIABLES['ci'](r)}:{VARIABLES['cp'](r)} [{VARIABLES['t'](r)}] {r.facts.frontend} "
        f"{VARIABLES['b'](r)}/{r.server} {r.queue_ms}/{r.connect_ms}/{plus}{r.total_ms} {plus}{VARIABLES['B'](r)} "
        f"{r.flags[:2]} {r.actives}/{r.frontend_active}/{r.backend_active}/{r.server_active}/{_ratio_words(r)} "
        f"{r.server_queue}/{r.backend_queue}"
    )


def plain_line(r: Record) -> str:
    """The line of a proxy that has a log target and no format."""
    f = r.facts
    if not f.src:
        return f"Connect to unix:{f.bind_id or 1} ({f.frontend}/{r.mode.upper()})"
    return f"Connect from {f.src}:{f.src_port} to {f.dst}:{f.dst_port} ({f.frontend}/{r.mode.upper()})"


def refused_line(r: Record, bind: str, why: str) -> str:
    """The line of a connection whose PROXY header failed; `bind` is the listener's name or number."""
    return f"{VARIABLES['ci'](r)}:{VARIABLES['cp'](r)} [{VARIABLES['t'](r)}] {r.facts.frontend}/{bind}: {why}"


def custom_line(chosen: Format, r: Record, flags: frozenset[str] = frozenset("M")) -> str:
    """The line of a `log-format`. Blanks of the format that follow each other are one, and none begins a line.

    `flags` hold for every part: M prints a dash for what is not there, H makes a header of what expressions find.
    """
    line: list[str] = []
    spaced = True
    for part in chosen.parts:
        if isinstance(part, str):
            for index, piece in enumerate(part.split(" ")):
                if index and not spaced:
                    line.append(" ")
                    spaced = True
                if piece:
                    line.append(piece)
                    spaced = False
        elif isinstance(part, Variable) and part.name == "o":
            flags = _with(flags, part.flags)
        else:
            text = _part(part, r, _with(flags, part.flags))
            if text is not None:
                line.append(text)
                spaced = False
    return "".join(line)


def _with(flags: frozenset[str], text: str) -> frozenset[str]:
    for word in text.split(","):
        if word[:1] == "+":
            flags |= {word[1:]}
        elif word[:1] == "-":
            flags -= {word[1:]}
    return flags


def _part(part: Variable | Expr, r: Record, flags: frozenset[str]) -> str | None:
    """One part of a format; None when it is not there at all, so that no blank stands for it."""
    if isinstance(part, Expr):
        found = expression_text(part, r.facts) or ""
        if "H" in flags:
            return _header(found)
        return _quoted(_one_line(_escaped(found, flags)), flags)
    name = part.name
    if name in _CAPTURES:
        return _captures(r, name, flags)
    if name in _OF_LINE:
        shown = escape(str(VARIABLES[name](r)), structured="E" in flags)
        return f'"{shown}"' if "Q" in flags else shown
    value = VARIABLES[name](r)
    if "X" in flags and name in _HEXADECIMAL and value is not None:
        return f"{int(str(value)):0{_HEXADECIMAL[name]}X}"
    if "X" in flags and name in _ADDRESSES and value not in (None, "", "unix"):
        return _packed(str(value))
    if isinstance(value, int) or name in ("ms", "rc", "ts", "tsc"):
        return f"{'+' if r.early and name in _GROWING else ''}{value}"
    if name in ("t", "tr", "T", "Tl", "trg", "trl"):
        return str(value)
    return _quoted(_escaped("" if value is None else str(value), flags), flags)


def _packed(address: str) -> str:
    import ipaddress

    return ipaddress.ip_address(address).packed.hex().upper()


def _quoted(text: str, flags: frozenset[str]) -> str:
    if "Q" in flags:
        return f'"{text}"'
    return text or ("-" if "M" in flags else "")


def _escaped(text: str, flags: frozenset[str]) -> str:
    return re.sub(r'["\\\]]', lambda m: "\\" + m[0], text) if "E" in flags else text


def _one_line(text: str) -> str:
    """No sample may begin a line of its own, which HAProxy lets it."""
    return re.sub(r"[\0\r\n]", lambda m: f"#{ord(m[0]):02X}", text)


def _block(captures: tuple[str | None, ...]) -> str:
    return "{" + "|".join(escape(text or "", braces=True) for text in captures) + "}" if captures else ""


def _captures(r: Record, name: str, flags: frozenset[str]) -> str | None:
    captures = r.request_captures if name.startswith("hr") else r.response_captures
    if not captures or r.bare:
        return None
    shown = [None if text is None else escape(text, braces=True, structured="E" in flags) for text in captures]
    if not _CAPTURES[name]:
        block = "{" + "|".join(text or "" for text in shown) + "}"
        return f'"{block}"' if "Q" in flags else block
    if "Q" in flags:
        return " ".join(f'"{text or ""}"' for text in shown)
    return " ".join("-" if text is None else text for text in shown)


def escape(text: str, *, braces: bool = False, structured: bool = False) -> str:
    """Nothing a client sends may begin a line or end a quoted string: such bytes become #XX, as in HAProxy.

    `braces` are for captures, whose block they would end; `structured` (+E) puts a backslash before what ends a
    parameter of rfc5424.
    """
    ends = r'["#\x00-\x1f\x7f-\xff{|}]' if braces else r'["#\x00-\x1f\x7f-\xff]'

    def one(found: re.Match[str]) -> str:
        return f"#{ord(found[0]):02X}" if re.match(ends, found[0]) else "\\" + found[0]

    return re.sub(ends[:-1] + r"\\\]]" if structured else ends, one, text)


def _header(text: str) -> str:
    """A header is one line, whatever stood in what the client sent."""
    return re.sub(r"[\x00-\x08\x0a-\x1f\x7f]", lambda m: f"%{ord(m[0]):02X}", text)


def expand(chosen: Format, facts: Facts, r: Record | None = None) -> str:
    """A format string as rules use it: no quoting, and what is not there is nothing.

    Variables look at the request line as the client sent it; expressions look at what rules made of it.
    """
    record = r or Record(facts=_as_sent(facts), request_line=facts.line, status=facts.status or 0)
    record.server = facts.server or record.server
    out = []
    for part in chosen.parts:
        if isinstance(part, str):
            out.append(part)
        elif isinstance(part, Variable):
            found = "" if part.name == "o" else str(VARIABLES[part.name](record))
            out.append(escape(found) if part.name in _OF_LINE else found)
        else:
            out.append(_header(expression_text(part, facts) or ""))
    return "".join(out)


def _as_sent(facts: Facts) -> Facts:
    words = facts.line.split(" ")
    if len(words) != 3:
        return facts
    return replace(facts, method=words[0], target=words[1], version=words[2].removeprefix("HTTP/"))


def syslog_header(
    form: str,
    facility: int,
    level: int,
    unix_s: float,
    offset_s: int,
    host: str,
    tag: str,
    pid: int,
    structured: str = "-",
) -> str:
    """What stands before a line in the format that `log ... format F` names. Only four forms tell the facility."""
    moment = _moment(unix_s, offset_s)
    legacy = f"{_MONTHS[moment.month - 1]} {moment.day:2} {moment:%H:%M:%S}"
    iso = moment.isoformat(timespec="microseconds")
    full, short = f"<{facility * 8 + level}>", f"<{level}>"
    forms = {
        "local": f"{full}{legacy} {tag}[{pid}]: ",
        "rfc3164": f"{full}{legacy} {host or 'localhost'} {tag}[{pid}]: ",
        "rfc5424": f"{full}1 {iso} {host or '-'} {tag} {pid} - {structured.rstrip(' ') or '-'} ",
        "priority": full,
        "short": short,
        "timed": f"{short}{iso} ",
        "iso": f"{iso} ",
        "raw": "",
    }
    return forms[form]
