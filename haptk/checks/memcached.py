"""`memcached`: store a value, read it back, delete it (text protocol, doc/protocol.txt of memcached).

A server that accepts connections but stores nothing (full with nothing to evict, its threads stuck) loses sessions; only
a round trip shows it. The value expires by itself after a minute should the check die in between. `read_only` asks for
the version and the statistics alone.
"""

from __future__ import annotations

import re

from haptk.checks.base import Check, Finding, Limits, conclude
from haptk.checks.lines import Lines, converse, fresh_value, shown
from haptk.io.exchange import Exchange, Failed
from haptk.report.nagios import State

FIGURES = ("time", "connections", "evictions", "memory", "hits", "uptime")
PORT = 11211
EXPIRE_S = 60


def memcached(host: str, port: int, timeout_s: float, limits: Limits, *, read_only: bool = False) -> Check:
    """A check of one memcached."""

    def talk(exchange: Exchange, lines: Lines) -> Finding:
        if not read_only:
            round_trip(exchange, lines)
        return of_stats(exchange.where, stats(exchange, lines), limits, read_only=read_only)

    where = host if host.startswith("/") else f"{host}:{port}"
    return Check("MEMCACHED", where, timeout_s, lambda timeout_s: converse(host, port, timeout_s, limits, talk))


def round_trip(exchange: Exchange, lines: Lines) -> None:
    """set, get, delete; Failed says which of them went wrong and what the server answered."""
    value = fresh_value()
    key = b"haptk-check-" + value[:12]
    exchange.send(b"set %s 0 %d %d\r\n%s\r\n" % (key, EXPIRE_S, len(value), value))
    answer = lines.line()
    if answer != b"STORED":
        raise Failed("L7STS", f"{exchange.where} did not store a value: {shown(answer)}")
    exchange.send(b"get %s\r\n" % key)
    head = lines.line().split()
    if len(head) < 4 or head[0] != b"VALUE" or not re.fullmatch(rb"[0-9]{1,9}", head[3]):
        raise Failed("L7STS", f"{exchange.where} has lost a value that it stored just before: {shown(b' '.join(head))}")
    back = lines.exactly(int(head[3]))
    if back != value or lines.line() != b"END":
        raise Failed("L7RSP", f"{exchange.where} gave back another value than the one stored")
    exchange.send(b"delete %s\r\n" % key)
    answer = lines.line()
    if answer != b"DELETED":
        raise Failed("L7STS", f"{exchange.where} did not delete a value: {shown(answer)}")


def stats(exchange: Exchange, lines: Lines) -> dict[str, str]:
    """The general statistics."""
    exchange.send(b"stats\r\n")
    found: dict[str, str] = {}
    while True:
        line = lines.line()
        if line == b"END":
            return found
        words = line.split(None, 2)
        if len(words) < 2 or words[0] != b"STAT":
            raise Failed("L7RSP", f"{exchange.where} does not speak memcached's protocol: {shown(line)}")
        found[shown(words[1])] = shown(words[2]) if len(words) == 3 else ""


def of_stats(where: str, found: dict[str, str], limits: Limits, *, read_only: bool) -> Finding:
    """The finding after all went well."""

    def number(name: str) -> float | None:
        text = found.get(name, "")
        return float(text) if text.isdecimal() else None

    limit, used = number("limit_maxbytes"), number("bytes")
    gets, hits = number("cmd_get"), number("get_hits")
    perf = [
        limits.perf("connections", number("curr_connections"), minimum=0, maximum=number("max_connections")),
        limits.perf("evictions", number("evictions"), "c", minimum=0),
        limits.perf("memory", round(100 * used / limit, 2) if used is not None and limit else None, "%"),
        limits.perf("hits", round(100 * hits / gets, 2) if hits is not None and gets else None, "%"),
        limits.perf("uptime", number("uptime"), "s"),
    ]
    did = "answers" if read_only else "stored, returned and deleted a value"
    text = f"{where} {did}, version {found.get('version', 'unknown')}"
    return conclude(State.OK, text, perf, facts={"stats": found})
