"""`show stat` and `show info`: the values, and their CSV, typed and JSON forms (management.txt, 9.1 and 9.3).

A value that haptk does not count is absent. Counters that the workers keep for the process are shown for a frontend
or a backend only where there is one of its kind, so that they cannot mean anything else.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import haptk
from haptk.core.health import State
from haptk.proxy.health import Checked
from haptk.proxy.runtime.fields import INFO, NATURES, ORIGINS, SCOPES, STAT, Field
from haptk.proxy.runtime.world import Proxy, World, descriptors
from haptk.proxy.tables import Server

Row = Mapping[str, int | str]
FRONTEND, BACKEND, SERVER = 0, 1, 2
OBJECTS = ("Frontend", "Backend", "Server")
# what HAProxy calls the outcomes of a check
CHECKS = {
    "UNK": "Unknown", "INI": "Initializing", "HANA": "Health analyze", "SOCKERR": "Socket error",
    "L4OK": "Layer4 check passed", "L4TOUT": "Layer4 timeout", "L4CON": "Layer4 connection problem",
    "L6OK": "Layer6 check passed", "L6TOUT": "Layer6 timeout", "L6RSP": "Layer6 invalid response",
    "L7OK": "Layer7 check passed", "L7OKC": "Layer7 check conditionally passed", "L7STS": "Layer7 wrong status",
    "L7RSP": "Layer7 invalid response", "L7TOUT": "Layer7 timeout",
}  # fmt: skip


# -- what a server is -------------------------------------------------------------------------------------------------


def check_code(one: Checked) -> str:
    """The short name of the last check's outcome."""
    if one.last is None:
        return "INI"
    return "L7OKC" if one.health.stopping and one.last.status == 404 else one.last.code or "UNK"


def status(world: World, one: Checked) -> str:
    """`UP`, `UP 1/3`, `DOWN 1/2`, `NOLB`, `DRAIN`, `MAINT`, `no check`... as HAProxy shows it."""
    chain = world.health.chain(one)
    ref = chain[-1] if chain else one
    state = world.state(one)
    if state is State.MAINT:
        via = next((each for each in chain if each.health.state is State.MAINT), None)
        return f"MAINT (via {via.name})" if via is not None and one.health.state is not State.MAINT else "MAINT"
    if not one.server.host and not one.server.unix_path:
        return "MAINT (resolution)"
    rules = ref.health.rules
    checked = ref.plan is not None
    if state is State.DOWN:
        going_up = checked and ref.health.health > 0
        return f"DOWN {ref.health.health}/{rules.rise}" if going_up else "DOWN"
    text = "UP"
    if ref.health.stopping and one.health.wish != "drain":
        text = "NOLB"
    elif state is State.DRAIN:
        text = "DRAIN"
    elif not checked:
        return "no check"
    if checked and ref.health.health < rules.full:
        text += f" {ref.health.health - rules.rise + 1}/{rules.fall}"
    return text


def weight_now(one: Checked) -> int:
    """The weight that counts now: less than what was set while the server warms up."""
    if not one.warming:
        return one.weight
    from haptk.io import clock

    return max(1, int(one.weight * one.health.weight_percent(clock.monotonic()) / 100))


def usable(world: World, one: Checked) -> bool:
    """True when new sessions may be sent there."""
    return world.state(one) is State.UP and one.weight > 0


def address(server: Server) -> str:
    """`host:port` with brackets around IPv6, or `unix`."""
    if server.unix_path:
        return "unix"
    return f"[{server.host}]:{server.port}" if ":" in server.host else f"{server.host}:{server.port}"


# -- rows -------------------------------------------------------------------------------------------------------------


def frontend_row(world: World, proxy: Proxy, total: Mapping[str, int]) -> dict[str, int | str]:
    """The FRONTEND row; `total` has the workers' counters when they can only be this frontend's."""
    frontend = proxy.frontend
    if frontend is None:
        return {}
    row: dict[str, int | str] = {"slim": world.frontend_maxconn(frontend)}
    if total:
        row |= {"scur": total["sessions"], "stot": total["connections"], "conn_tot": total["connections"]}
        row |= {"bin": total["bytes_up"], "bout": total["bytes_down"], "ereq": total["bad_requests"]}
        if frontend.mode == "http":
            row["req_tot"] = total["requests"]
    row["status"] = "STOP" if frontend.disabled or world.stopping else "OPEN"
    row |= {"rate_lim": 0, "mode": frontend.mode}
    return row


def server_row(world: World, proxy: Proxy, one: Checked) -> dict[str, int | str]:
    """The row of one server."""
    server, count, backend = one.server, world.count(one), proxy.backend
    row: dict[str, int | str] = {
        "scur": count["sessions"], "stot": count["total"], "econ": count["failed"], "eresp": count["errors"],
        "wredis": count["redispatched"], "status": status(world, one), "weight": weight_now(one),
        "act": int(not server.backup), "bck": int(server.backup), "lastchg": world.age_s(one.since),
        "mode": backend.mode if backend is not None else "", "addr": address(server), "uweight": one.weight,
    }  # fmt: skip
    if "queued" in count:
        row["qcur"] = count["queued"]
    if server.maxconn:
        row["slim"] = server.maxconn
    if server.maxqueue:
        row["qlimit"] = server.maxqueue
    if one.warming:
        row["throttle"] = int(100 * weight_now(one) / max(1, one.weight))
    if server.track:
        row["tracked"] = world.health.leaders[one.gid]
    if server.cookie is not None:
        row["cookie"] = server.cookie
    if one.plan is not None:
        down = world.age_s(one.since) if not one.health.state.usable else 0
        row |= {"chkfail": one.failed, "chkdown": one.downs, "downtime": int(one.down_s) + down}
        if one.health.state is not State.MAINT:
            row |= check_cells(one)
    return row


def check_cells(one: Checked) -> dict[str, int | str]:
    """What the last check of a server said."""
    code = check_code(one)
    row: dict[str, int | str] = {"check_status": code, "check_desc": CHECKS.get(code, code)}
    row |= {"check_rise": one.health.rules.rise, "check_fall": one.health.rules.fall}
    row["check_health"] = one.health.health
    if one.last is not None:
        row["check_duration"] = int(one.last.duration_s * 1000)
        if code != "L4OK":  # there is nothing to say about a connection that was accepted
            row["last_chk"] = one.last.reason
        if one.last.status is not None and code.startswith("L7"):
            row["check_code"] = one.last.status
    return row


def backend_row(world: World, proxy: Proxy, total: Mapping[str, int], flags: frozenset[str]) -> dict[str, int | str]:
    """The BACKEND row: sums over its servers, and the workers' counters when they can only be this backend's."""
    backend = proxy.backend
    if backend is None:
        return {}
    counts = [world.count(one) for one in proxy.servers]
    able = [one for one in proxy.servers if usable(world, one)]
    active = [one for one in able if not one.server.backup]
    spare = [one for one in able if one.server.backup]
    serving = active or (spare if backend.allbackups else spare[:1])
    weight = sum(weight_now(one) for one in serving)
    up = not proxy.servers or weight > 0
    row: dict[str, int | str] = {
        "scur": sum(count["sessions"] for count in counts), "slim": world.fullconn(backend),
        "stot": sum(count["total"] for count in counts), "econ": sum(count["failed"] for count in counts),
        "eresp": sum(count["errors"] for count in counts), "wredis": sum(count["redispatched"] for count in counts),
        "status": "UP" if up else "DOWN", "weight": weight, "act": len(active), "bck": len(spare),
        "mode": backend.mode, "algo": backend.balance.algorithm, "uweight": weight,
    }  # fmt: skip
    if not up and flags & {"up", "no-maint"}:
        row["status"] = f"DOWN ({len(able)}/{len(proxy.servers)})"
    if any("queued" in count for count in counts):
        row["qcur"] = sum(count.get("queued", 0) for count in counts)
    if backend.cookie is not None:
        row["cookie"] = backend.cookie.name
    if total:
        row |= {"bin": total["bytes_up"], "bout": total["bytes_down"], "wretr": total["retries"]}
    return row


def rows(world: World, scope: tuple[str, int, int], flags: frozenset[str], *, secret: bool) -> Iterator[Row]:
    """The rows of `show stat`: `scope` is (proxy name or number or -1, bits of types, server number or -1).

    `secret` leaves out what HAProxy shows from the level operator on: addresses, cookies and algorithms.
    """
    name, kinds, sid = scope
    counters = world.counters()
    total = {key: value for key, value in counters.items() if isinstance(value, int)}
    fronts = [one for one in world.tables.frontends if not one.disabled]
    backs = world.tables.backends
    for proxy in world.proxies:
        if name not in ("-1", proxy.name, str(proxy.iid)):
            continue
        if proxy.frontend is not None and kinds & 1 and sid in (-1, 0):
            alone = total if len(fronts) == 1 else {}
            yield _named(proxy, "FRONTEND", FRONTEND, 0, frontend_row(world, proxy, alone), secret=secret)
        if proxy.backend is None:
            continue
        for one in proxy.servers if kinds & 4 else ():
            if sid not in (-1, one.server.id) or _hidden(world, one, flags):
                continue
            row = server_row(world, proxy, one)
            yield _named(proxy, one.server.name, SERVER, one.server.id, row, secret=secret)
        if kinds & 2 and sid in (-1, 0):
            row = backend_row(world, proxy, total if len(backs) == 1 else {}, flags)
            yield _named(proxy, "BACKEND", BACKEND, 0, row, secret=secret)


def _hidden(world: World, one: Checked, flags: frozenset[str]) -> bool:
    state = world.state(one)
    return (bool(flags & {"no-maint", "up"}) and state is State.MAINT) or ("up" in flags and state is State.DOWN)


def _named(proxy: Proxy, svname: str, kind: int, sid: int, row: dict[str, int | str], *, secret: bool) -> Row:
    if secret:
        row = {key: value for key, value in row.items() if key not in ("addr", "cookie", "algo")}
    return row | {"pxname": proxy.name, "svname": svname, "pid": 1, "iid": proxy.iid, "sid": sid, "type": kind}


def info(world: World) -> dict[str, int | str]:
    """The values of `show info`. TLS, compression, pipes and busy polling do not exist here: their figures are 0."""
    process, total = world.tables.process, world.counters()
    uptime = world.uptime_s()
    minutes = uptime // 60
    listening = 0 if world.stopping else world.listeners
    row: dict[str, int | str] = {entry.name: 0 for entry in INFO if entry.name.startswith(("Ssl", "Compress", "Pipes"))}
    row |= dict.fromkeys(
        ("Memmax_MB", "Memmax_bytes", "PoolFailed", "MaxSslConns", "CurrSslConns", "CumSslConns", "MaxSslRate",
         "Maxpipes", "ConnRateLimit", "SessRateLimit", "Run_queue", "Unstoppable Jobs", "ActivePeers",
         "ConnectedPeers", "BusyPolling", "TotalSplicdedBytesOut", "DebugCommandsIssued", "CumRecvLogs"), 0,
    )  # fmt: skip
    made = datetime.datetime.fromtimestamp(Path(haptk.__file__).stat().st_mtime, datetime.UTC)
    row |= {
        "Name": "haptk", "Version": haptk.__version__, "Release_date": made.strftime("%Y/%m/%d"),
        "Nbthread": max(1, process.nbthread), "Nbproc": 1, "Process_num": 1, "Pid": world.pid(),
        "Uptime": f"{uptime // 86400}d {minutes // 60 % 24}h{minutes % 60:02}m{uptime % 60:02}s", "Uptime_sec": uptime,
        "Ulimit-n": descriptors(), "Maxsock": descriptors(), "Maxconn": world.maxconn(),
        "Hard_maxconn": world.maxconn(), "CurrConns": total["sessions"], "CumConns": total["connections"],
        "CumReq": total["requests"], "Tasks": total["sessions"] + len(world.health.checked),
        "node": process.node or _node(), "Stopping": int(world.stopping), "Jobs": total["sessions"] + listening,
        "Listeners": listening, "DroppedLogs": total.get("log_dropped", 0), "TotalBytesOut": total["bytes_down"],
        "Build info": haptk.__version__, "Start_time_sec": int(world.began.wall), "Tainted": "0",
    }  # fmt: skip
    return row


def _node() -> str:
    import socket

    return socket.gethostname()


# -- forms ------------------------------------------------------------------------------------------------------------


def csv_header() -> str:
    """The first line, as HAProxy writes it: every field and a comma behind the last one."""
    return "# " + "".join(f"{entry.name}," for entry in STAT) + "\n"


_SPECIAL = frozenset(',"\r\n')
_PLACES = {entry.name: place for place, entry in enumerate(STAT)}
_BLANK = ["-" if entry.position < 0 else "" for entry in STAT] + [""]


def csv_row(row: Row) -> str:
    """One row; what has a comma, a quote or a line end inside is quoted as in RFC 4180."""
    cells = _BLANK.copy()
    for name, value in row.items():
        cells[_PLACES[name]] = _quoted(value) if isinstance(value, str) else str(value)
    return ",".join(cells) + "\n"


def _quoted(text: str) -> str:
    if _SPECIAL.isdisjoint(text):
        return text
    return '"' + text.replace('"', '""').replace("\n", " ").replace("\r", " ") + '"'


def typed_row(row: Row) -> str:
    """`S.3.1.17.status.1:SGP:str:UP`, a line for each field that has a value, and an empty line."""
    head = f"{'FBS'[int(row['type'])]}.{row['iid']}.{row['sid']}"
    present = [entry for entry in STAT if entry.position >= 0 and entry.name in row]
    lines = [
        f"{head}.{entry.position}.{entry.name}.1:{entry.tag}:{entry.type}:{row[entry.name]}\n" for entry in present
    ]
    return "".join(lines)


def json_rows(found: Iterator[Row]) -> str:
    """All rows as one line of JSON."""
    out = []
    for row in found:
        head = {"objType": OBJECTS[int(row["type"])], "proxyId": row["iid"], "id": row["sid"]}
        out.append(
            [head | _json_field(entry, row[entry.name]) for entry in STAT if entry.position >= 0 and entry.name in row]
        )
    return json.dumps(out, separators=(",", ":")) + "\n"


def _json_field(entry: Field, value: int | str) -> dict[str, object]:
    origin, nature, scope = tuple(entry.tag)
    return {
        "field": {"pos": entry.position, "name": entry.name}, "processNum": 1,
        "tags": {"origin": ORIGINS[origin], "nature": NATURES[nature], "scope": SCOPES[scope]},
        "value": {"type": entry.type, "value": value},
    }  # fmt: skip


def info_text(values: Row, form: str) -> str:
    """`show info` in the form "", "typed" or "json"."""
    present = [entry for entry in INFO if entry.name in values]
    if form == "json":
        return json.dumps([_json_field(entry, values[entry.name]) for entry in present], separators=(",", ":")) + "\n"
    if form == "typed":
        lines = (f"{e.position}.{e.name}.1:{e.tag}:{e.type}:{values[e.name]}\n" for e in present)
        return "".join(lines)
    return "".join(f"{entry.name}: {values[entry.name]}\n" for entry in present)
