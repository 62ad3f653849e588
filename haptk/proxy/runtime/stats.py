"""`show stat` and `show info`: CSV, typed and JSON forms, and the values of `show info` (management.txt, 9.1 and 9.3)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter

import haptk
from haptk.proxy import fdlimits
from haptk.proxy.runtime import identity, meanings
from haptk.proxy.runtime.fields import INFO, NATURES, ORIGINS, SCOPES, STAT, Field, tag
from haptk.proxy.runtime.rows import Row
from haptk.proxy.runtime.world import World, descriptors

Value = int | str | float
OBJECTS = ("Frontend", "Backend", "Server", "Listener")


def info(world: World) -> dict[str, Value]:
    """The values of `show info`. TLS, compression, pipes and busy polling do not exist here: their figures are 0."""
    process, total = world.tables.process, world.counters()
    fronts = world.tallies.frontends
    rate, most = sum(one.rate for one in fronts), sum(one.rate_max for one in fronts)
    limits = world.adjust.rates
    connected = sum(one["status"] == "ESTA" for peering in world.peerings for one in peering.report()["peers"])
    uptime = int(world.uptime_s())
    minutes = uptime // 60
    listening = 0 if world.stopping else world.listeners
    row: dict[str, Value] = {entry.name: 0 for entry in INFO if entry.name.startswith(("Ssl", "Compress", "Pipes"))}
    row |= dict.fromkeys(
        ("Memmax_MB", "Memmax_bytes", "PoolFailed", "MaxSslConns", "CurrSslConns", "CumSslConns", "MaxSslRate",
         "Maxpipes", "Run_queue", "Unstoppable Jobs", "BusyPolling", "TotalSplicdedBytesOut", "DebugCommandsIssued", "CumRecvLogs"), 0,
    )  # fmt: skip
    row |= {
        "Name": identity.NAME, "Version": identity.VERSION, "Release_date": identity.RELEASED,
        "Nbthread": max(1, process.nbthread), "Nbproc": 1, "Process_num": 1, "Pid": world.pid(),
        "Uptime": f"{uptime // 86400}d {minutes // 60 % 24}h{minutes % 60:02}m{uptime % 60:02}s", "Uptime_sec": uptime,
        "Ulimit-n": descriptors(), "Maxsock": fdlimits.maxsock(world.tables), "Maxconn": world.maxconn(),
        "Hard_maxconn": world.hard_maxconn(), "CurrConns": total["sessions"], "CumConns": total["connections"],
        "CumReq": total["requests"], "Tasks": total["sessions"] + len(world.health.checked),
        "node": process.node or _node(), "Stopping": int(world.stopping), "Jobs": total["sessions"] + listening,
        "Listeners": listening, "DroppedLogs": total.get("log_dropped", 0), "TotalBytesOut": total["bytes_down"],
        "ConnRate": rate, "ConnRateLimit": limits[0], "MaxConnRate": most, "SessRate": rate,
        "SessRateLimit": limits[1], "MaxSessRate": most, "ActivePeers": connected, "ConnectedPeers": connected,
        "Build info": f"haptk {haptk.__version__}", "Start_time_sec": int(world.began.wall),
        "Uptime_sec exact": round(world.uptime_s(exact=True), 6), "Start_time_sec exact": round(world.began.wall, 6), "Tainted": "0",
    }  # fmt: skip
    return row


def _node() -> str:
    import socket

    return socket.gethostname()


# -- forms ------------------------------------------------------------------------------------------------------------


def csv_header() -> str:
    """The first line, as HAProxy writes it: every field and a comma behind the last one."""
    return "# " + "".join(f"{entry.name}," for entry in STAT) + "\n"


NAMES = tuple(entry.name for entry in STAT)
_SPECIAL = frozenset(',"\r\n')
_PLACES = {entry.name: place for place, entry in enumerate(STAT)}
_FREE = frozenset({"pxname", "svname", "status", "tracked", "last_chk", "last_agt", "check_desc", "addr", "cookie"})
_Template = tuple[str, Callable[[Row], tuple[int | str, ...]], tuple[str, ...]]
_templates: dict[tuple[str, ...], _Template] = {}  # by the keys of a row: rows of one kind are alike


def _template(keys: tuple[str, ...]) -> _Template:
    """A format for rows with these keys, how to take the values for it, and the keys whose text may need quoting."""
    present = sorted(keys, key=_PLACES.__getitem__)
    cells = ["%s" if entry.name in keys else "-" if entry.position < 0 else "" for entry in STAT]
    if len(_templates) > 256:
        _templates.clear()
    found = (",".join(cells) + ",\n", itemgetter(*present), tuple(key for key in present if key in _FREE))
    _templates[keys] = found
    return found


def csv_row(row: Row) -> str:
    """One row; what has a comma, a quote or a line end inside is quoted as in RFC 4180."""
    keys = tuple(row)
    text, take, free = _templates.get(keys) or _template(keys)
    for name in free:
        if not _SPECIAL.isdisjoint(str(row[name])):
            row = {**row, name: _quoted(str(row[name]))}
    return text % take(row)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""').replace("\n", " ").replace("\r", " ") + '"'


def typed_row(row: Row, *, desc: bool = False) -> str:
    """`S.3.1.17.status.1:SGP:str:UP`, a line for each field that has a value, and an empty line."""
    head = f"{'FBSL'[int(row['type'])]}.{row['iid']}.{row['sid']}"
    present = [entry for entry in STAT if entry.position >= 0 and entry.name in row]
    lines = [
        f"{head}.{entry.position}.{entry.name}.1:{tag(entry, int(row['type']))}:{entry.type}:{row[entry.name]}"
        f"{_meaning(meanings.stat(entry.name), desc=desc)}\n"
        for entry in present
    ]
    return "".join(lines)


def json_rows(found: Iterator[Row]) -> str:
    """All rows as one line of JSON."""
    return "[" + ",".join(_json_row(row) for row in found) + "]\n"


def _of_bytes(value: int | str) -> int | str:
    """What is no UTF-8 with one character for each byte: JSON has no others."""
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) and not value.isascii() else b""
    return raw.decode("latin-1") if raw and raw.decode("utf-8", "replace") != value else value


_pieces: dict[tuple[str, int], tuple[str, str]] = {}  # by field and kind of row: what stands around the value


def _json_row(row: Row) -> str:
    kind = int(row["type"])
    head = f'{{"objType":"{OBJECTS[kind]}","proxyId":{row["iid"]},"id":{row["sid"]},'
    out = []
    for entry in STAT:
        if entry.position >= 0 and entry.name in row:
            before, behind = _pieces.get((entry.name, kind)) or _around(entry, kind)
            value = row[entry.name]
            text = str(value) if entry.type != "str" and isinstance(value, int) else json.dumps(_of_bytes(value))
            out.append(f"{head}{before}{text}{behind}")
    return "[" + ",".join(out) + "]"


def _around(entry: Field, kind: int) -> tuple[str, str]:
    whole = json.dumps(_json_field(entry, "@", tag(entry, kind)), separators=(",", ":"))
    before, _, behind = whole[1:].partition('"@"')
    _pieces[entry.name, kind] = (before, behind)
    return before, behind


def _json_field(entry: Field, value: Value, letters: str) -> dict[str, object]:
    origin, nature, scope = tuple(letters)
    return {
        "field": {"pos": entry.position, "name": entry.name}, "processNum": 1,
        "tags": {"origin": ORIGINS[origin], "nature": NATURES[nature], "scope": SCOPES[scope]},
        "value": {"type": entry.type, "value": value},
    }  # fmt: skip


def _meaning(text: str, *, desc: bool) -> str:
    return f':"{text}"' if desc else ""


def info_text(values: Mapping[str, Value], form: str, *, desc: bool = False, exact: bool = False) -> str:
    """`show info` in the form "", "typed" or "json"; `desc` says what each field means, `exact` shows fractions."""
    present = [entry for entry in INFO if entry.name in values]
    if exact:
        present = [entry._replace(type="flt") if f"{entry.name} exact" in values else entry for entry in present]
        values = {name.removesuffix(" exact"): value for name, value in values.items()}
    if form == "json":
        return (
            json.dumps([_json_field(entry, values[entry.name], entry.tag) for entry in present], separators=(",", ":"))
            + "\n"
        )
    if form == "typed":
        lines = (
            f"{e.position}.{e.name}.1:{e.tag}:{e.type}:{values[e.name]}{_meaning(meanings.info(e.name), desc=desc)}\n"
            for e in present
        )
        return "".join(lines)
    return "".join(
        f"{entry.name}: {values[entry.name]}{_meaning(meanings.info(entry.name), desc=desc)}\n" for entry in present
    )
