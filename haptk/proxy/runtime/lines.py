"""The CSV of `show stat` for many servers: what of a server's line changes only with its state is made once.

A monitoring system asks every few seconds, and of a thousand servers hardly one has changed its state since, while all
have counted. So each server keeps the format of its line, made from the ordinary row, beside everything that shaped
it; only counters and ages are put in. Servers whose row depends on more (followers, agents, warming up) are made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

from haptk.proxy.health import Checked
from haptk.proxy.runtime import rows, stats
from haptk.proxy.runtime.world import Proxy, World

AGES = ("lastchg", "downtime")
COUNTED = {name: place for place, name in enumerate((*rows.SERVER_FIELDS, *AGES)) if not name.startswith("(")}
# fields of a Tally that two columns show
COUNTED |= {"safe_conn_cur": COUNTED["srv_icur"], "need_conn_est": COUNTED["used_conn_cur"]}
Shown = tuple[tuple[Any, ...], str, Callable[[tuple[int, ...]], tuple[int, ...]]]


def csv_lines(world: World, scope: rows.Scope, flags: frozenset[str], *, secret: bool) -> Iterator[str]:
    """The lines of `show stat` without the header."""
    for proxy, kind, one in rows.chosen(world, scope, flags):
        if one is not None and not one.warming and one.agent is None and not one.server.track:
            yield _line(world, proxy, one, secret=secret)
        else:
            yield stats.csv_row(rows.row(world, proxy, kind, one, flags, secret=secret))


def _line(world: World, proxy: Proxy, one: Checked, *, secret: bool) -> str:
    health = one.health
    key = (
        secret, health.state, health.health, health.wish, health.stopping, one.weight, one.host, one.port, one.last, one.busy,
        one.failed, one.downs, world.adjust.server_maxconn.get(one.gid), proxy.iid, proxy.name,
    )  # fmt: skip
    shown: Shown | None = one.shown  # type: ignore[assignment]
    if shown is None or shown[0] != key:
        row = rows.row(world, proxy, rows.SERVER, one, frozenset(), secret=secret)
        shown = one.shown = (key, *_format(row))
    age = world.age_s(one.since)
    down = int(one.down_s) + (0 if health.state.usable else age)
    return shown[1] % shown[2]((*world.tallies.servers[one.gid], age, down))


def _format(row: rows.Row) -> tuple[str, Callable[[tuple[int, ...]], tuple[int, ...]]]:
    """A format with a place for each counter, and how to take their values from (tally..., age, time down)."""
    counted = {name: COUNTED[name] for name in row if name in COUNTED}
    marked = {name: value if name not in counted else 0 for name, value in row.items()}
    cells = stats.csv_row(marked).rstrip("\n").replace("%", "%%")
    text, take = _holes(cells, row, counted)
    return text + "\n", take


def _holes(
    cells: str, row: rows.Row, counted: dict[str, int]
) -> tuple[str, Callable[[tuple[int, ...]], tuple[int, ...]]]:
    """Put `%d` where a counter stands; cells are found by their place, quoted ones included."""
    out, order, at = [], [], 0
    for name in stats.NAMES:
        end = _end_of_cell(cells, at)
        if name in counted:
            out.append("%d")
            order.append(counted[name])
        else:
            out.append(cells[at:end])
        at = end + 1
    del row
    return ",".join(out) + ",", itemgetter(*order)


def _end_of_cell(cells: str, at: int) -> int:
    if cells[at : at + 1] != '"':
        return cells.index(",", at)
    at += 1
    while True:
        at = cells.index('"', at) + 1
        if cells[at : at + 1] != '"':
            return at
        at += 1
