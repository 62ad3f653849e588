"""The formats of log lines that have names, and when a line is written.

HAProxy writes a line as soon as everything that its format names is known: a format without an end value (bytes, total
times, connection counts, termination state) is written when the response begins, one that only names the request and
dates right behind the request. `option logasap` does not wait for end values; those that are still growing get a "+".
"""

from __future__ import annotations

import functools

from haptk.core.acl import Expr, Format, Variable
from haptk.proxy.tables import LogPlan

TEXTS = {
    "http": "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r",
    "tcp": "%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq",
    "clf": "%{+Q}o %{-Q}ci - - [%trg] %r %ST %B \"\" \"\" %cp %ms %ft %b %s %TR %Tw %Tc %Tr %Ta %tsc %ac %fc %bc %sc %rc "
    "%sq %bq %CC %CS %hrl %hsl",
}  # fmt: skip
# The forms of a header, in the order of logwriter.pxd.
HEADERS = ("local", "rfc3164", "rfc5424", "priority", "short", "timed", "iso", "raw")
# what is known at the end only, and what each variable waits for besides
_END = frozenset(
    ["B", "ID", "Ta", "Tc", "Th", "Ti", "Tq", "Tr", "TR", "Td", "Tt", "Tu", "Tw", "U", "ac", "bc", "bq", "fc", "rc", "sc",
     "sq", "ts"]
)  # fmt: skip
_REQUEST = frozenset(["HM", "HP", "HPO", "HQ", "HU", "HV", "r", "rt"])
_FIRST = frozenset(["H", "T", "Tl", "Ts", "b", "f", "ft", "lc", "ms", "pid", "t", "tr", "trg", "trl", "tsc", "o"])


@functools.cache
def named(style: str) -> Format:
    """The format behind `option httplog`, `option httplog clf` and `option tcplog` ("http", "clf", "tcp")."""
    from haptk.formats.haproxy_cfg.expressions import format_string

    return format_string(TEXTS[style], f"option {style}log", log=True)


def line_of(plan: LogPlan) -> Format | None:
    """The format of a plan's lines; None for the plain form."""
    if plan.style == "custom":
        return plan.log_format
    return named(plan.style) if plan.style in TEXTS else None


def _names(plan: LogPlan, unique: Format | None) -> set[str]:
    formats = (line_of(plan), plan.error_format, plan.sd_format, unique)
    parts = [part for one in formats if one is not None for part in one.parts]
    return {part.name for part in parts if isinstance(part, Variable)} | {
        "[]" for part in parts if isinstance(part, Expr)
    }


def is_early(plan: LogPlan, unique: Format | None = None) -> bool:
    """True when lines do not wait for the end: nothing in them does, or `option logasap`."""
    return line_of(plan) is not None and (plan.logasap or not _names(plan, unique) & _END)


def moment_of(plan: LogPlan, unique: Format | None = None) -> str:
    """When lines are written: "request", "response" or "end". What a unique-id-format names is waited for too."""
    if not is_early(plan, unique):
        return "end"
    waits = _names(plan, unique) - _FIRST - _END
    return "request" if waits and waits <= _REQUEST else "response"


def header_of(word: str, hostname: str) -> str:
    """The form of header behind `format WORD`; without one it depends on `log-send-hostname`."""
    return word or ("rfc3164" if hostname else "local")
