"""The rows of `show stat`, the statistics page and the metrics: one dict of HAProxy's fields for each proxy and server.

A value that does not apply is absent, as HAProxy leaves its cell empty; which cells those are was read off HAProxy 2.6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from haptk.core import agent
from haptk.core.health import State
from haptk.core.printable import as_text
from haptk.proxy.health import Checked
from haptk.proxy.outcomes import CHECKS
from haptk.proxy.runtime.world import Proxy, World
from haptk.proxy.tables import Frontend
from haptk.proxy.tally import Tally

Row = Mapping[str, int | str]
Scope = tuple[str, int, int]
FRONTEND, BACKEND, SERVER, LISTENER = 0, 1, 2, 3


# -- what a server is -------------------------------------------------------------------------------------------------


def check_code(one: Checked) -> str:
    """The short name of the last check's outcome."""
    if one.last is None:
        return "INI"
    return one.last.code or "UNK"


def status(world: World, one: Checked) -> str:
    """`UP`, `UP 1/3`, `DOWN 1/2`, `NOLB`, `DRAIN`, `MAINT`, `no check`... as HAProxy shows it."""
    chain = world.health.chain(one)
    ref = chain[-1] if chain else one
    state = world.state(one)
    if state is State.MAINT:
        via = next((each for each in chain if each.health.state is State.MAINT), None)
        return f"MAINT (via {via.name})" if via is not None and one.health.state is not State.MAINT else "MAINT"
    if not one.host and not one.server.unix_path:
        return "MAINT (resolution)"
    rules = ref.health.rules
    checked = ref.plan is not None
    asked = ref.agent is not None and ref.agent.state.enabled
    if state is State.DOWN:
        if asked and ref.health.agent_down:
            return "DOWN (agent)"
        going_up = checked and ref.health.health > 0
        return f"DOWN {ref.health.health}/{rules.rise}" if going_up else "DOWN"
    text = "UP"
    if ref.health.stopping and one.health.wish != "drain":
        text = "NOLB"
    elif state is State.DRAIN:
        if asked:
            return "DRAIN (agent)"
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


def address(one: Checked) -> str:
    """`host:port` with brackets around IPv6, or `unix`; where it is now."""
    if one.server.unix_path:
        return "unix"
    return f"[{one.host}]:{one.port}" if ":" in one.host else f"{one.host}:{one.port}"


# -- rows -------------------------------------------------------------------------------------------------------------


def _answers(tally: Tally, mode: str) -> dict[str, int | str]:
    """Responses by class; TCP has none."""
    names = ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other")
    return dict(zip(names, tally.answers, strict=True)) if mode == "http" else {}


# the columns of a server's Tally, in its order; names in brackets are none
SERVER_FIELDS = (
    "stot", "req_tot", "hrsp_other", "hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "bin", "bout",
    "(dreq)", "dresp", "(ereq)", "econ", "eresp", "wretr", "wredis", "cli_abrt", "srv_abrt", "lbtot", "connect",
    "reuse", "(intercepted)", "eint", "qtime", "ctime", "rtime", "ttime", "qtime_max", "ctime_max", "rtime_max",
    "ttime_max", "smax", "qmax", "lastsess", "rate", "rate_max", "(req_rate)", "(req_rate_max)", "scur", "qcur",
    "srv_icur", "used_conn_cur",
)  # fmt: skip
DROPPED = tuple(name for name in SERVER_FIELDS if name.startswith("("))
DROPPED_TCP = (*DROPPED, *(name for name in SERVER_FIELDS if name.startswith(("hrsp", "req_tot"))))


def _times(tally: Tally) -> dict[str, int | str]:
    return {
        "qtime": tally.queue_ms, "ctime": tally.connect_ms, "rtime": tally.response_ms, "ttime": tally.total_ms,
        "qtime_max": tally.queue_ms_max, "ctime_max": tally.connect_ms_max, "rtime_max": tally.response_ms_max,
        "ttime_max": tally.total_ms_max,
    }  # fmt: skip


_COMPRESSION: dict[str, int | str] = dict.fromkeys(("comp_in", "comp_out", "comp_byp", "comp_rsp"), 0)


def frontend_row(world: World, proxy: Proxy) -> dict[str, int | str]:
    """The FRONTEND row."""
    frontend = proxy.frontend
    if frontend is None:
        return {}
    tally = world.tallies.frontends[world.tables.frontends.index(frontend)]
    row: dict[str, int | str] = {
        "scur": tally.live, "smax": tally.live_max, "slim": world.frontend_maxconn(frontend), "stot": tally.sessions,
        "bin": tally.bytes_in, "bout": tally.bytes_out, "dreq": tally.denied_requests,
        "dresp": tally.denied_responses, "ereq": tally.bad_requests, "rate": tally.rate, "rate_lim": 0,
        "rate_max": tally.rate_max, "req_rate": tally.request_rate, "req_rate_max": tally.request_rate_max,
        "req_tot": tally.requests, "mode": frontend.mode, "conn_rate": tally.rate, "conn_rate_max": tally.rate_max,
        "conn_tot": max(tally.connects, tally.sessions), "dcon": 0, "dses": 0, "wrew": 0, "eint": tally.internal_errors,
        "status": world.frontend_status(frontend),
        **_COMPRESSION, **_answers(tally, frontend.mode),
    }  # fmt: skip
    if frontend.mode == "http":
        row |= {"intercepted": tally.intercepted, "cache_lookups": 0, "cache_hits": 0}
    return row


def listener_row(world: World, frontend: Frontend, at: int) -> dict[str, int | str]:
    """The row of one socket of a frontend with `option socket-stats`."""
    bind = frontend.binds[at]
    before = world.tables.frontends[: world.tables.frontends.index(frontend)]
    tally = world.tallies.doors[sum(len(one.binds) for one in before if one.socket_stats) + at]
    host = f"[{bind.host}]" if ":" in bind.host else bind.host or "0.0.0.0"
    return {
        "scur": tally.live, "smax": tally.live_max, "slim": bind.maxconn, "stot": tally.sessions, "bin": tally.bytes_in,
        "bout": tally.bytes_out, "dreq": tally.denied_requests, "dresp": tally.denied_responses,
        "ereq": tally.bad_requests, "status": world.frontend_status(frontend), "mode": frontend.mode,
        "addr": "unix" if bind.unix_path else f"{host}:{bind.port}", "dcon": 0, "dses": 0, "wrew": 0, "eint": 0,
    }  # fmt: skip


def server_row(world: World, proxy: Proxy, one: Checked) -> dict[str, int | str]:
    """The row of one server."""
    server, backend, tally = one.server, proxy.backend, world.tallies.servers[one.gid]
    mode = backend.mode if backend is not None else ""
    row: dict[str, int | str] = dict(zip(SERVER_FIELDS, tally, strict=True))
    for name in DROPPED if mode == "http" else DROPPED_TCP:
        del row[name]
    state = status(world, one)
    row.update(
        status=state, weight=weight_now(one), act=int(not server.backup), bck=int(server.backup),
        lastchg=world.age_s(one.since), addr=address(one), mode=mode, wrew=0, safe_conn_cur=tally.idle,
        idle_conn_cur=0, need_conn_est=tally.used, uweight=one.weight,
    )  # fmt: skip
    if limit := world.adjust.server_maxconn.get(one.gid, server.maxconn):
        row["slim"] = limit
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
    if one.agent is not None:
        row |= agent_cells(one)
    return row


def agent_cells(one: Checked) -> dict[str, int | str]:
    """What the agent of a server said. As in HAProxy, a star says that it is being asked now."""
    if one.agent is None:
        return {}
    state = one.agent.state
    row: dict[str, int | str] = {
        "agent_status": f"* {state.code}" if one.agent.asking else state.code, "agent_desc": CHECKS.get(state.code, state.code),
        "agent_rise": 1, "agent_fall": 1, "agent_health": int(not one.health.agent_down),
    }  # fmt: skip
    if state.duration_ms >= 0 and not one.agent.asking:
        row["agent_duration"] = state.duration_ms
    if state.code in (agent.PASSED, agent.REFUSED):
        row["agent_code"] = 0
    if state.text and not one.agent.asking:
        row["last_agt"] = as_text(state.text)
    return row


def check_cells(one: Checked) -> dict[str, int | str]:
    """What the last check of a server said."""
    code = check_code(one)
    busy = one.busy  # as in HAProxy, a star says that a check is under way, and its text is still to come
    row: dict[str, int | str] = {"check_status": f"* {code}" if busy else code, "check_desc": CHECKS.get(code, code)}
    row |= {"check_rise": one.health.rules.rise, "check_fall": one.health.rules.fall}
    row["check_health"] = one.health.health
    if one.last is not None:
        row["check_duration"] = max(0, round(one.last.duration_s * 1000))
        if one.last.reason and not busy:
            row["last_chk"] = as_text(one.last.reason)
        if one.last.status is not None and code in ("L7OK", "L7OKC", "L7STS"):
            row["check_code"] = one.last.status
    return row


def backend_row(world: World, proxy: Proxy, flags: frozenset[str]) -> dict[str, int | str]:
    """The BACKEND row."""
    backend = proxy.backend
    if backend is None:
        return {}
    tally = world.tallies.backends[world.tables.backends.index(backend)]
    able = [one for one in proxy.servers if usable(world, one)]
    active = [one for one in able if not one.server.backup]
    spare = [one for one in able if one.server.backup]
    serving = active or (spare if backend.allbackups else spare[:1])
    weight = sum(weight_now(one) for one in serving)
    up = not proxy.servers or weight > 0
    since, downs, down_s = world.downtime(proxy)
    row: dict[str, int | str] = {
        "qcur": tally.queued, "qmax": tally.queued_max, "scur": tally.live, "smax": tally.live_max,
        "slim": world.fullconn(backend), "stot": tally.sessions, "bin": tally.bytes_in, "bout": tally.bytes_out,
        "dreq": tally.denied_requests, "dresp": tally.denied_responses, "econ": tally.connect_errors,
        "eresp": tally.bad_responses, "wretr": tally.retries, "wredis": tally.redispatches,
        "status": "UP" if up else "DOWN", "weight": weight, "act": len(active), "bck": len(spare), "chkdown": downs,
        "lastchg": since, "downtime": down_s, "lbtot": tally.balanced, "rate": tally.rate,
        "rate_max": tally.rate_max, "cli_abrt": tally.client_aborts, "srv_abrt": tally.server_aborts,
        "lastsess": tally.last_s, "mode": backend.mode, "algo": backend.balance.algorithm, "wrew": 0,
        "connect": tally.connects, "reuse": tally.reused, "eint": 0, "uweight": weight, "agg_server_status": 0,
        "agg_server_check_status": 0, "agg_check_status": 0, **_COMPRESSION, **_answers(tally, backend.mode),
        **_times(tally),
    }  # fmt: skip
    if backend.mode == "http":
        row |= {"req_tot": tally.requests, "cache_lookups": 0, "cache_hits": 0}
    if not up and flags & {"up", "no-maint"}:
        row["status"] = f"DOWN ({len(able)}/{len(proxy.servers)})"
    if backend.cookie is not None:
        row["cookie"] = backend.cookie.name
    return row


def chosen(world: World, scope: Scope, flags: frozenset[str]) -> Iterator[tuple[Proxy, int, Checked | None]]:
    """What `show stat` has a row for: (proxy, kind, server); the kind of a socket is LISTENER plus its index.

    `scope` is (proxy's name or number or -1, bits of types, server's number or -1).
    """
    name, kinds, sid = scope
    for proxy in world.proxies:
        if name not in ("-1", proxy.name, str(proxy.iid)):
            continue
        if proxy.frontend is not None and kinds & 1 and sid in (-1, 0):
            yield proxy, FRONTEND, None
        if proxy.frontend is not None and proxy.frontend.socket_stats and kinds & 8:
            for number in range(1, len(proxy.frontend.binds) + 1):
                if sid in (-1, number):
                    yield proxy, LISTENER + number - 1, None
        if proxy.backend is None:
            continue
        for one in proxy.servers if kinds & 4 else ():
            if sid in (-1, one.server.id) and not (flags and _hidden(world, one, flags)):
                yield proxy, SERVER, one
        if kinds & 2 and sid in (-1, 0):
            yield proxy, BACKEND, None


def row(world: World, proxy: Proxy, kind: int, one: Checked | None, flags: frozenset[str], *, secret: bool) -> Row:
    """One row, with its names. `secret` leaves out what HAProxy shows from the level operator on: addresses, cookies
    and algorithms."""
    if one is not None:
        return _named(proxy, one.server.name, SERVER, one.server.id, server_row(world, proxy, one), secret=secret)
    if kind >= LISTENER and proxy.frontend is not None:
        at = kind - LISTENER
        name = proxy.frontend.binds[at].name or f"sock-{at + 1}"
        return _named(proxy, name, LISTENER, at + 1, listener_row(world, proxy.frontend, at), secret=secret)
    if kind == FRONTEND:
        return _named(proxy, "FRONTEND", FRONTEND, 0, frontend_row(world, proxy), secret=secret)
    return _named(proxy, "BACKEND", BACKEND, 0, backend_row(world, proxy, flags), secret=secret)


def rows(world: World, scope: Scope, flags: frozenset[str], *, secret: bool) -> Iterator[Row]:
    """The rows of `show stat`."""
    for proxy, kind, one in chosen(world, scope, flags):
        yield row(world, proxy, kind, one, flags, secret=secret)


def _hidden(world: World, one: Checked, flags: frozenset[str]) -> bool:
    state = world.state(one)
    return (bool(flags & {"no-maint", "up"}) and state is State.MAINT) or ("up" in flags and state is State.DOWN)


def _named(proxy: Proxy, svname: str, kind: int, sid: int, row: dict[str, int | str], *, secret: bool) -> Row:
    if secret:
        row = {key: value for key, value in row.items() if key not in ("addr", "cookie", "algo")}
    row.update(pxname=proxy.name, svname=svname, pid=1, iid=proxy.iid, sid=sid, type=kind)
    return row
