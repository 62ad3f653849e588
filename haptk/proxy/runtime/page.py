"""The statistics page: one HTML document without scripts, proxies in the order of the file, readable on a telephone.

Everything that comes from the configuration, from servers or from the request is escaped; a content security policy
forbids scripts altogether, so that a check's answer can never become one.
"""

from __future__ import annotations

import html
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, pairwise

from haptk.core.printable import markup
from haptk.proxy.runtime import identity
from haptk.proxy.runtime.rows import BACKEND, FRONTEND, LISTENER, SERVER, Row
from haptk.proxy.runtime.world import World
from haptk.proxy.tables import Stats

SAFETY = [
    ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
     "frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
]  # fmt: skip
CODES = {
    "DONE": "The action was carried out.",
    "PART": "The action was carried out for some of the servers only; the others are not known.",
    "NONE": "Nothing was changed: no server was chosen.",
    "ERRP": "Nothing was changed: the request could not be understood.",
    "UNKN": "Nothing was changed: the action is not known.",
    "DENY": "Nothing was changed: this is not allowed from here.",
}
ACTIONS = (
    ("ready", "Set state to READY"), ("drain", "Set state to DRAIN"), ("maint", "Set state to MAINT"),
    ("dhlth", "Health: disable checks"), ("ehlth", "Health: enable checks"), ("hrunn", "Health: force UP"),
    ("hnolb", "Health: force NOLB"), ("hdown", "Health: force DOWN"), ("shutdown", "Kill sessions"),
)  # fmt: skip
# title of a group, and (title, field, kind) of its columns
COLUMNS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("Queue", (("now", "qcur", "n"), ("max", "qmax", "n"), ("limit", "qlimit", "n"))),
    ("Sessions", (("now", "scur", "n"), ("max", "smax", "n"), ("limit", "slim", "n"), ("total", "stot", "n"),
                  ("chosen", "lbtot", "n"), ("last", "lastsess", "ago"))),
    ("Per second", (("now", "rate", "n"), ("max", "rate_max", "n"))),
    ("Responses", (("2xx", "hrsp_2xx", "n"), ("3xx", "hrsp_3xx", "n"), ("4xx", "hrsp_4xx", "n"),
                   ("5xx", "hrsp_5xx", "n"), ("other", "hrsp_other", "n"))),
    ("Bytes", (("in", "bin", "b"), ("out", "bout", "b"))),
    ("Denied", (("req", "dreq", "n"), ("resp", "dresp", "n"))),
    ("Errors", (("req", "ereq", "n"), ("conn", "econ", "n"), ("resp", "eresp", "n"))),
    ("Retries", (("same", "wretr", "n"), ("other", "wredis", "n"))),
    ("Aborts", (("client", "cli_abrt", "n"), ("server", "srv_abrt", "n"))),
    ("Average ms", (("queue", "qtime", "n"), ("conn", "ctime", "n"), ("resp", "rtime", "n"), ("total", "ttime", "n"))),
)  # fmt: skip
STYLE = """
:root{color-scheme:light dark;--line:#ccc;--soft:#f4f4f2;--ink:#222;--paper:#fff;--up:#cfe9cf;--warn:#f6e2a8;
--down:#f3c1bb;--maint:#d9cdea;--none:#e2e2e2}
@media(prefers-color-scheme:dark){:root{--line:#444;--soft:#262626;--ink:#ddd;--paper:#181818;--up:#1f4d27;
--warn:#5c4a10;--down:#6b231c;--maint:#43306b;--none:#3a3a3a}}
body{font:12px/1.4 system-ui,sans-serif;margin:1.2em;color:var(--ink);background:var(--paper)}
h1{font-size:1.4em;margin:0}h2{font-size:1.1em;margin:1.6em 0 .3em}small,.dim{opacity:.7}
nav a,nav form{margin-right:1em;display:inline-block}
.wide{overflow-x:auto}table{border-collapse:collapse;white-space:nowrap}
th,td{border:1px solid var(--line);padding:.15em .32em;text-align:right}
th{background:var(--soft);font-weight:600}th.g,th[rowspan]{text-align:center}
td:first-child,th:first-child,td.l{text-align:left}tr.front,tr.back{background:var(--soft);font-weight:600}
.up{background:var(--up)}.warn{background:var(--warn)}.down{background:var(--down)}.maint{background:var(--maint)}
.none{background:var(--none)}.note{padding:.5em .8em;border:1px solid var(--line);background:var(--warn)}
dl{display:grid;grid-template-columns:max-content auto;gap:0 .8em;margin:.6em 0}dd{margin:0}
"""


def escape(text: str) -> str:
    """A text of strangers inside the page: neither markup nor control characters."""
    return markup(html.escape(text))


@dataclass(frozen=True)
class View:
    """What was asked for: the words behind the address, the code of the last action, whether the form is shown."""

    plan: Stats
    hidden: frozenset[str] = frozenset()
    code: str = ""
    scope: str = ""
    admin: bool = False
    still: bool = False

    def link(self, *extra: str, drop: frozenset[str] = frozenset()) -> str:
        """The page's address with its present words and others."""
        words = [*(sorted(self.hidden)), *(["norefresh"] if self.still else []), *extra]
        scope = [f"scope={self.scope}"] if self.scope else []
        return escape(";".join([self.plan.uri, *(word for word in words if word not in drop), *scope]))


def render(world: World, found: Iterable[Row], view: View) -> str:
    """The document."""
    plan = view.plan
    title = (
        f"Statistics Report for HAProxy{f' on {plan.node or socket.gethostname()}' if plan.node is not None else ''}"
    )
    parts = [
        "<!DOCTYPE html>\n<html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>{escape(title)}</title><style>{STYLE}</style>\n",
        f"<h1>{escape(title)}</h1>\n",
    ]
    if plan.description:
        parts.append(f"<p>{escape(plan.description)}</p>\n")
    if view.code in CODES:
        link = view.link()
        parts.append(f"<p class=note role=status>{CODES[view.code]} <a href='{link}'>Go on</a></p>\n")
    parts += [_process(world, view), _legend(), _links(view)]
    for _, group in groupby(found, key=lambda row: row["iid"]):
        parts.append(_proxy(world, list(group), view))
    return "".join(parts)


def _process(world: World, view: View) -> str:
    total = world.counters()
    workers = max(1, world.tables.process.nbthread)
    days, rest = divmod(int(world.uptime_s()), 86400)
    cells = {
        "version": f"HAProxy version {identity.VERSION}, released {identity.RELEASED}",
        "process": f"pid {world.pid()}, {workers} worker{'s' if workers > 1 else ''}",
        "running for": f"{days}d {rest // 3600}h{rest // 60 % 60:02}m{rest % 60:02}s",
        "connections": f"{total['sessions']} now, {total['connections']} in all, at most {world.maxconn()}",
        "requests": str(total["requests"]),
        "log lines lost": str(total.get("log_dropped", 0)),
    }
    if view.plan.hide_version:
        del cells["version"]
    return "<dl>" + "".join(f"<dt class=dim>{name}<dd>{escape(text)}" for name, text in cells.items()) + "</dl>\n"


def _links(view: View) -> str:
    up = ("show all servers", view.link(drop=frozenset({"up"}))) if "up" in view.hidden else (
        "hide servers that are down", view.link("up"))  # fmt: skip
    links = [up, ("CSV", view.link("csv")), ("JSON", view.link("json"))]
    if view.plan.refresh_s:
        stop = view.link(drop=frozenset({"norefresh"})) if view.still else view.link("norefresh")
        links.insert(1, ("refresh by itself" if view.still else "stop refreshing", stop))
    links.insert(1, ("refresh now", view.link()))
    parts = [f"<a href='{link}'>{text}</a>" for text, link in links]
    parts.append(
        f"<form method=get action='{escape(view.plan.uri)}'><label>only proxies with "
        f"<input name=scope size=12 value='{escape(view.scope)}'></label> <button>show</button></form>"
    )
    return f"<nav>{' '.join(parts)}</nav>\n"


def _proxy(world: World, group: list[Row], view: View) -> str:
    name = escape(str(group[0]["pxname"]))
    servers = [row for row in group if row["type"] == SERVER]
    form = view.admin and bool(servers)
    top = "".join(f"<th class=g colspan={len(columns)}>{title}" for title, columns in COLUMNS)
    sub = "".join(f"<th>{title}" for _, columns in COLUMNS for title, _, _ in columns)
    head = f"<tr><th rowspan=2>{name}<th rowspan=2>Status<th rowspan=2>Check<th rowspan=2>Weight<th class=g colspan=3>Down{top}"
    head += f"<tr><th>fails<th>times<th>for{sub}\n"
    body = "".join(_line(row, view, form=form) for row in group)
    table = f"<div class=wide><table><thead>{head}</thead><tbody>{body}</tbody></table></div>\n"
    out = f"<section><h2 id='{name}'>{name} <small>{escape(str(group[0].get('mode', '')))}</small></h2>\n"
    if not form:
        return f"{out}{table}</section>\n"
    choices = "<option value=''>choose an action" + "".join(f"<option value={value}>{text}" for value, text in ACTIONS)
    return (
        f"{out}<form method=post action='{escape(view.plan.uri)}'>{table}<p><label>With the chosen servers: "
        f"<select name=action required>{choices}</select></label> <input type=hidden name=b value='{name}'>"
        f"<button>apply</button></form></section>\n"
    )


def _line(row: Row, view: View, *, form: bool) -> str:
    kind = row["type"]
    shown = escape(str(row["svname"]))
    label = {FRONTEND: "Frontend", BACKEND: "Backend", LISTENER: f"&nbsp;{shown}"}.get(int(kind), shown)
    if kind == SERVER and form:
        label = f"<label><input type=checkbox name=s value='{shown}'> {label}</label>"
    if kind == SERVER and row.get("bck"):
        label += " <small>backup</small>"
    text = str(row.get("status", ""))
    since = f" <small>{_ago(int(row['lastchg']))}</small>" if "lastchg" in row else ""
    cells = [
        f"<td{_legends(row) if view.plan.show_legends else ''}>{label}",
        f"<td class='l {_colour(row)}'>{escape(text)}{since}",
        f"<td class=l>{_check(row)}",
        f"<td>{row.get('weight', '')}" + (f"/{row['uweight']}" if row.get("throttle") else ""),
    ]
    down = _ago(int(row["downtime"])) if row.get("downtime") else ""
    cells += [f"<td>{row.get('chkfail', '')}", f"<td>{row.get('chkdown', '')}", f"<td>{down}"]
    for _, columns in COLUMNS:
        cells += [f"<td>{_cell(row.get(name), how)}" for _, name, how in columns]
    kinds = {FRONTEND: " class=front", BACKEND: " class=back", LISTENER: " class=door"}
    return f"<tr{kinds.get(int(kind), '')}>{''.join(cells)}\n"


def _legends(row: Row) -> str:
    words = [f"{name} {row[name]}" for name in ("addr", "cookie", "algo", "mode", "iid", "sid") if row.get(name)]
    return f" title='{escape(', '.join(words))}'"


def _colour(row: Row) -> str:
    text = str(row.get("status", ""))
    if text.startswith(("MAINT", "STOP", "PAUSED")):
        return "maint"
    if text.startswith("DOWN"):
        return "down"
    if text.startswith(("NOLB", "DRAIN")) or "/" in text or row.get("throttle"):
        return "warn"
    return "none" if text == "no check" else "up"


def _check(row: Row) -> str:
    parts = [_outcome(row, "check", "last_chk"), _outcome(row, "agent", "last_agt")]
    return "<br>agent ".join(part for part in parts if part) if parts[0] else parts[1] and f"agent {parts[1]}"


def _outcome(row: Row, kind: str, last: str) -> str:
    code = row.get(f"{kind}_status")
    if code is None:
        return ""
    parts = [str(code), *(f"/{row['check_code']}" for _ in (1,) if kind == "check" and "check_code" in row)]
    if f"{kind}_duration" in row:
        parts.append(f" in {row[f'{kind}_duration']} ms")
    title = f"{row.get(f'{kind}_desc', '')} {row.get(last, '')}".strip()
    return f"<span title='{escape(title)}'>{escape(''.join(parts))}</span>"


def _cell(value: int | str | None, how: str) -> str:
    if value is None or (how == "ago" and int(value) < 0):
        return ""
    if how == "b":
        return _bytes(int(value))
    return _ago(int(value)) if how == "ago" else escape(str(value))


def _bytes(count: int) -> str:
    """Three digits and a unit, with the whole number to hover over."""
    short = float(count)
    for unit in ("", "k", "M", "G", "T"):
        if short < 1000 or unit == "T":
            break
        short /= 1000
    return f"<span title='{count}'>{short:.3g}{unit}</span>" if count >= 1000 else str(count)


def _ago(seconds: int) -> str:
    """The two largest units: 3d4h, 5m7s."""
    units = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    for (size, name), (smaller, after) in pairwise(units):
        if seconds >= size:
            return f"{seconds // size}{name}{seconds % size // smaller}{after}"
    return f"{seconds}s"


def _legend() -> str:
    marks = (("up", "in service"), ("warn", "changing or draining"), ("down", "down"), ("maint", "in maintenance"),
             ("none", "not checked"))  # fmt: skip
    return "<p>" + " ".join(f"<span class={name}>&nbsp;{text}&nbsp;</span>" for name, text in marks) + "\n"
