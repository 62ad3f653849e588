"""`haproxy`: what a running haproxy says of itself: `show info` and `show stat` on its runtime socket, or its stats page.

Judged, for the proxies that are asked for (default: all): a frontend that is not open, a backend without a usable server,
servers that are down, queues and sessions. A server that an administrator took out (MAINT) is not missing; one that lost
its name (`MAINT (resolution)`) is. Columns are found by their names, because each version adds some (management.txt, 9.1).
`haptk proxy` answers the same commands, so `check proxy` is this module too.
"""

from __future__ import annotations

import base64
import csv
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from haptk.checks.base import Check, Finding, Limits, conclude
from haptk.checks.http import Url
from haptk.checks.lines import Denied, Lines, converse, shown
from haptk.io.exchange import Exchange, Failed
from haptk.io.probe import unchunk
from haptk.report.nagios import Perf, State, worst

FIGURES = ("servers", "queue", "sessions", "load", "time")
Row = Mapping[str, str]


class Source(NamedTuple):
    """Where to ask: a runtime socket (`host` may be its path), or the stats page at `page`, with `user:password`."""

    host: str
    port: int
    page: Url | None = None
    secret: str = ""


class Judged(NamedTuple):
    """The judgement on one proxy."""

    state: State
    text: str
    perf: tuple[Perf, ...]


def haproxy(
    source: Source, timeout_s: float, limits: Limits, *, proxies: Sequence[str] = (), service: str = "HAPROXY"
) -> Check:
    """A check of one process and of `proxies` (all of them without a name)."""

    def talk(exchange: Exchange, lines: Lines) -> Finding:
        if source.page is not None:
            return of_rows(exchange.where, {}, fetch_page(exchange, lines, source), limits, proxies)
        exchange.send(b"show info;show stat\n")
        info, rows = read_answer(exchange.where, lines.rest())
        return of_rows(exchange.where, info, rows, limits, proxies)

    name = source.host if source.host.startswith("/") else f"{source.host}:{source.port}"
    return Check(
        service, name, timeout_s, lambda timeout_s: converse(source.host, source.port, timeout_s, limits, talk)
    )


def fetch_page(exchange: Exchange, lines: Lines, source: Source) -> list[Row]:
    """The stats page's CSV."""
    page = source.page
    if page is None:
        return []
    auth = f"authorization: Basic {base64.b64encode(source.secret.encode()).decode()}\r\n" if source.secret else ""
    uri = page.uri if page.uri.endswith(";csv") else f"{page.uri};csv"
    exchange.send(f"GET {uri} HTTP/1.0\r\nhost: {page.named}\r\n{auth}\r\n".encode("latin-1"))
    head, _, body = lines.rest().partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0]
    if b" 200" not in status:
        raise Failed("L7STS", f"{exchange.where} answered {shown(status)} for {uri}")
    if re.search(rb"(?i)\ntransfer-encoding:[ \t]*chunked", head):
        body, _ = unchunk(body)  # haproxy answers in chunks even to HTTP/1.0
    return read_rows(exchange.where, body.decode("utf-8", "replace"))


def read_answer(where: str, data: bytes) -> tuple[dict[str, str], list[Row]]:
    """Both answers apart: `Name: value` lines, and CSV from the line that begins with `# pxname`."""
    text = data.decode("utf-8", "replace")
    info_text, mark, table = text.partition("# pxname")
    info = {}
    for line in info_text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            info[name.strip()] = value.strip()
    if not mark:
        said = next((line for line in text.splitlines() if line.strip()), "nothing")
        failure = Denied if "permission denied" in said.lower() else Failed
        raise failure("L7RSP", f"{where} did not answer `show stat`: {said[:80]}")
    return info, read_rows(where, mark + table)


def read_rows(where: str, text: str) -> list[Row]:
    """The rows of the CSV, each with the names of the columns."""
    lines = text.removeprefix("# ").strip().splitlines()
    if not lines or not lines[0].startswith("pxname,svname,"):
        raise Failed("L7RSP", f"{where} sent no statistics: {text[:40]!r}")
    try:
        rows: list[Row] = list(csv.DictReader(lines))
    except csv.Error as error:
        raise Failed("L7RSP", f"{where} sent statistics that cannot be read: {error}") from None
    if any(not row.get("svname") or not row.get("status") for row in rows):
        raise Failed("L7RSP", f"{where} sent statistics without names or states")
    return rows


def of_rows(
    where: str, info: Mapping[str, str], rows: Sequence[Row], limits: Limits, proxies: Sequence[str]
) -> Finding:
    """The finding over all proxies that were asked for."""
    limits.default("load", warning="90")
    present = list(dict.fromkeys(row["pxname"] for row in rows))
    missing = [name for name in proxies if name not in present]
    if missing:
        text = f"no proxy called {', '.join(missing)} on {where}; there are {', '.join(present) or 'none'}"
        return Finding(State.UNKNOWN, text)
    judged = []
    for name in proxies or present:
        mine = [row for row in rows if row["pxname"] == name]
        judged += [judge_frontend(row, limits) for row in mine if row["svname"] == "FRONTEND"]
        servers = [row for row in mine if row.get("type", "2") == "2" and row["svname"] not in ("FRONTEND", "BACKEND")]
        judged += [judge_backend(row, servers, limits) for row in mine if row["svname"] == "BACKEND"]
    state = worst(one.state for one in judged)
    bad = [one.text for one in judged if one.state is not State.OK]
    text = "; ".join(bad or [one.text for one in judged]) or "no proxies"
    if info.get("Stopping", "0") != "0":
        state, text = worst([state, State.WARNING]), f"it is stopping; {text}"
    if info.get("Version"):
        text += f" ({info.get('Name', 'haproxy')} {info['Version']}, up {info.get('Uptime', '?')})"
    facts = {"info": dict(info), "proxies": present}
    return conclude(state, text, [figure for one in judged for figure in one.perf], [one.text for one in judged], facts)


def _number(row: Row, name: str) -> float | None:
    text = row.get(name) or ""
    return float(text) if text.isdecimal() else None


def judge_frontend(row: Row, limits: Limits) -> Judged:
    """Open, and how full."""
    name = row["pxname"]
    sessions, limit = _number(row, "scur"), _number(row, "slim")
    perf = [limits.perf("sessions", sessions, minimum=0, maximum=limit, label=f"{name} sessions")]
    if sessions is not None and limit:
        load = round(100 * sessions / limit, 2)
        perf.append(limits.perf("load", load, "%", minimum=0, maximum=100, label=f"{name} load"))
    state = State.OK if row["status"] == "OPEN" else State.CRITICAL
    found = conclude(state, f"frontend {name} {row['status']}", perf)
    return Judged(found.state, found.text, found.perf)


def judge_backend(row: Row, servers: Sequence[Row], limits: Limits) -> Judged:
    """Usable at all, and which of its servers are not."""
    name = row["pxname"]
    wanted = [server for server in servers if not _taken_out(server)]
    up = [server for server in wanted if is_up(server)]
    down = [server for server in wanted if not is_up(server)]
    servers_perf = limits.perf("servers", len(up), minimum=0, maximum=len(servers), label=f"{name} servers")
    perf = [servers_perf, limits.perf("queue", _number(row, "qcur"), minimum=0, label=f"{name} queue")]
    perf.append(limits.perf("sessions", _number(row, "scur"), minimum=0, label=f"{name} sessions"))
    text = f"backend {name} {len(up)}/{len(wanted)} servers up"
    if down:
        text += f" ({', '.join(describe(server) for server in down[:3])}{', ...' if len(down) > 3 else ''})"
    if row["status"] != "UP":
        state = State.CRITICAL
    elif down and not {"servers"} & (limits.warning.keys() | limits.critical.keys()):
        state = State.WARNING  # unless the person said how many are enough
    else:
        state = State.OK
    found = conclude(state, text, perf)
    return Judged(found.state, found.text, found.perf)


def is_up(server: Row) -> bool:
    """`UP`, `UP 1/3` (failing, still used), `no check`, `DRAIN`, `NOLB` (keeps its sessions)."""
    return server["status"].startswith(("UP", "no check", "DRAIN", "NOLB"))


def _taken_out(server: Row) -> bool:
    return server["status"].startswith("MAINT") and "resolution" not in server["status"]


def describe(server: Row) -> str:
    """`a DOWN: Layer4 connection problem`."""
    why = server.get("check_desc") or server.get("check_status") or ""
    return f"{server['svname']} {server['status']}" + (f": {why}" if why else "")
