"""Log lines of the proxy, as HAProxy writes them: `httplog`, `tcplog`, the plain form and `log-format`. Pure.

A `Record` is one finished exchange. The variables of configuration.txt 8.2.4 are a table here; a missing value is "-".
Times are milliseconds, -1 where the phase was not reached, as operators know them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from haptk.core.acl import Facts, Format, Variable, path_of, query_of
from haptk.core.acl import text as expression_text

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass
class Record:
    """What is known about an exchange at its end. `*_ms` are durations; `*_s` Unix times; flags are HAProxy's four."""

    facts: Facts = field(default_factory=Facts)
    accepted_s: float = 0.0
    request_s: float = 0.0
    server: str = "<NOSRV>"
    server_address: str = ""
    server_port: int = 0
    status: int = -1
    bytes_down: int = 0
    bytes_up: int = 0
    flags: str = "----"
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
    mode: str = "http"
    host: str = ""
    pid: int = 0
    number: int = 0
    unique_id: str = ""
    unlogged: bool = False  # an answer to monitor-uri, which no log mentions


def haproxy_date(unix_s: float) -> str:
    """`23/Nov/2026:14:03:05.123`, in UTC."""
    moment = datetime.fromtimestamp(unix_s, tz=UTC)
    month = _MONTHS[moment.month - 1]
    return f"{moment.day:02}/{month}/{moment.year}:{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"


def apache_date(unix_s: float) -> str:
    """`23/Nov/2026:14:03:05 +0000`."""
    moment = datetime.fromtimestamp(unix_s, tz=UTC)
    return f"{moment.day:02}/{_MONTHS[moment.month - 1]}/{moment.year}:{moment:%H:%M:%S} +0000"


def _ratio_words(record: Record) -> str:
    return "+" * record.redispatched + str(record.retries)


_Read = Callable[[Record], object]
VARIABLES: dict[str, _Read] = {
    "B": lambda r: r.bytes_down,
    "CC": lambda r: "-",
    "CS": lambda r: "-",
    "H": lambda r: r.host,
    "HM": lambda r: r.facts.method,
    "HP": lambda r: r.facts.target.partition("?")[0],
    "HPO": lambda r: path_of(r.facts.target),
    "HQ": lambda r: f"?{query_of(r.facts.target)}" if "?" in r.facts.target else "",
    "HU": lambda r: r.facts.target,
    "HV": lambda r: f"HTTP/{r.facts.version}",
    "ID": lambda r: r.unique_id,
    "ST": lambda r: r.status,
    "T": lambda r: f"{datetime.fromtimestamp(r.accepted_s, tz=UTC):%d/%b/%Y:%H:%M:%S +0000}",
    "Ta": lambda r: r.active_ms,
    "Tc": lambda r: r.connect_ms,
    "Td": lambda r: max(r.active_ms - max(r.request_ms, 0) - max(r.queue_ms, 0) - max(r.connect_ms, 0) - max(r.response_ms, 0), 0),
    "Th": lambda r: 0,
    "Ti": lambda r: r.idle_ms,
    "Tl": lambda r: apache_date(r.accepted_s),
    "Tq": lambda r: r.request_ms + r.idle_ms if r.request_ms >= 0 else -1,
    "TR": lambda r: r.request_ms,
    "Tr": lambda r: r.response_ms,
    "Ts": lambda r: int(r.accepted_s),
    "Tt": lambda r: r.total_ms,
    "Tu": lambda r: r.total_ms,
    "Tw": lambda r: r.queue_ms,
    "U": lambda r: r.bytes_up,
    "ac": lambda r: r.actives,
    "b": lambda r: r.facts.backend,
    "bc": lambda r: r.backend_active,
    "bi": lambda r: "-",
    "bp": lambda r: "-",
    "bq": lambda r: r.backend_queue,
    "ci": lambda r: r.facts.src or "unix",
    "cp": lambda r: r.facts.src_port,
    "f": lambda r: r.facts.frontend,
    "fc": lambda r: r.frontend_active,
    "fi": lambda r: r.facts.dst,
    "fp": lambda r: r.facts.dst_port,
    "ft": lambda r: r.facts.frontend,
    "hr": lambda r: "",
    "hrl": lambda r: "",
    "hs": lambda r: "",
    "hsl": lambda r: "",
    "lc": lambda r: r.number,
    "ms": lambda r: f"{int(r.accepted_s * 1000) % 1000:03}",
    "pid": lambda r: r.pid,
    "r": lambda r: r.request_line or "<BADREQ>",
    "rc": _ratio_words,
    "rt": lambda r: r.number,
    "s": lambda r: r.server,
    "sc": lambda r: r.server_active,
    "si": lambda r: r.server_address,
    "sp": lambda r: r.server_port,
    "sq": lambda r: r.server_queue,
    "t": lambda r: haproxy_date(r.accepted_s),
    "tr": lambda r: haproxy_date(r.request_s),
    "trg": lambda r: apache_date(r.request_s),
    "trl": lambda r: apache_date(r.request_s),
    "ts": lambda r: r.flags[:2],
    "tsc": lambda r: r.flags,
}  # fmt: skip


def http_line(r: Record) -> str:
    """The line of `option httplog`."""
    return (
        f"{r.facts.src or 'unix'}:{r.facts.src_port} [{haproxy_date(r.request_s)}] {r.facts.frontend} "
        f"{r.facts.backend or r.facts.frontend}/{r.server} "
        f"{r.request_ms}/{r.queue_ms}/{r.connect_ms}/{r.response_ms}/{r.active_ms} {r.status} {r.bytes_down} - - "
        f"{r.flags} {r.actives}/{r.frontend_active}/{r.backend_active}/{r.server_active}/{_ratio_words(r)} "
        f'{r.server_queue}/{r.backend_queue} "{escape(r.request_line or "<BADREQ>")}"'
    )


def tcp_line(r: Record) -> str:
    """The line of `option tcplog`."""
    return (
        f"{r.facts.src or 'unix'}:{r.facts.src_port} [{haproxy_date(r.accepted_s)}] {r.facts.frontend} "
        f"{r.facts.backend or r.facts.frontend}/{r.server} {r.queue_ms}/{r.connect_ms}/{r.total_ms} {r.bytes_down} "
        f"{r.flags[:2]} {r.actives}/{r.frontend_active}/{r.backend_active}/{r.server_active}/{_ratio_words(r)} "
        f"{r.server_queue}/{r.backend_queue}"
    )


def plain_line(r: Record) -> str:
    """The line of a proxy that has a log target and no format."""
    f = r.facts
    return f"Connect from {f.src}:{f.src_port} to {f.dst}:{f.dst_port} ({f.frontend}/{r.mode.upper()})"


def custom_line(chosen: Format, r: Record) -> str:
    """The line of a `log-format`."""
    return "".join(_part(part, r) for part in chosen.parts)


def _part(part: object, r: Record) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Variable):
        if part.name == "o":
            return ""
        text = escape(str(VARIABLES[part.name](r)))
        if "Q" in part.flags and "-Q" not in part.flags:
            return f'"{text}"'
        return text if text != "" else "-"
    return escape(expression_text(part, r.facts) or "-")  # type: ignore[arg-type]


def escape(text: str) -> str:
    """Nothing a client sends may begin a line or end a quoted string: such bytes become #XX, as in HAProxy."""
    return re.sub(r'["#\x00-\x1f\x7f-\xff{|}]', lambda m: f"#{ord(m[0]):02X}", text)


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
            out.append("" if part.name == "o" else str(VARIABLES[part.name](record)))
        else:
            # A header is one line, whatever stood in what the client sent.
            found = expression_text(part, facts) or ""
            out.append(re.sub(r"[\x00-\x08\x0a-\x1f\x7f]", lambda m: f"%{ord(m[0]):02X}", found))
    return "".join(out)


def _as_sent(facts: Facts) -> Facts:
    words = facts.line.split(" ")
    if len(words) != 3:
        return facts
    return replace(facts, method=words[0], target=words[1], version=words[2].removeprefix("HTTP/"))


def syslog_line(format_name: str, priority: int, unix_s: float, host: str, tag: str, pid: int, message: str) -> bytes:
    """One datagram in the format that `log ... format F` names; "local" and "rfc3164" differ by the host name."""
    moment = datetime.fromtimestamp(unix_s, tz=UTC)
    stamp = f"{_MONTHS[moment.month - 1]} {moment.day:2} {moment:%H:%M:%S}"
    forms = {
        "local": f"<{priority}>{stamp} {tag}[{pid}]: {message}",
        "rfc3164": f"<{priority}>{stamp} {host} {tag}[{pid}]: {message}",
        "rfc5424": f"<{priority}>1 {moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06}+00:00 {host} {tag} {pid} - - {message}",
        "priority": f"<{priority & 7}>{message}",
        "short": f"<{priority & 7}>{message}",
        "timed": f"<{priority & 7}>{stamp} {message}",
        "iso": f"{moment:%Y-%m-%dT%H:%M:%S}+00:00 {tag}[{pid}]: {message}",
        "raw": message,
    }
    return (forms.get(format_name, forms["local"]) + "\n").encode("utf-8", "surrogateescape")
