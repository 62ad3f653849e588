"""`/metrics`: the names, types and labels of HAProxy's own exporter, and `haptk_*` beside them (text format 0.0.4).

A series is made for a proxy or a server of the file, never for anything that a client sends, so their number is known
from the configuration. `?scope=global|frontend|listener|backend|server|sticktable|*` (several times) and `?no-maint`
narrow it, as HAProxy's do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl

import haptk
from haptk.proxy.runtime import identity, rows, stats
from haptk.proxy.runtime.rows import BACKEND, FRONTEND, SERVER, Row
from haptk.proxy.runtime.world import World
from haptk.proxy.service import Answer, Ask

CONTENT_TYPE = "text/plain; version=0.0.4"
SCOPES = ("global", "frontend", "listener", "backend", "server", "sticktable")
COUNTERS = frozenset({"process_failed_resolutions"})  # counters whose name does not end in _total
STATES = ("DOWN", "UP", "MAINT", "DRAIN", "NOLB")
CHECK_STATES = (
    "HANA", "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP", "L7TOUT", "L7RSP", "L7OK", "L7OKC",
    "L7STS", "PROCERR", "PROCTOUT", "PROCOK",
)  # fmt: skip
CODES = ("1xx", "2xx", "3xx", "4xx", "5xx", "other")


class Metric(NamedTuple):
    """`kinds` are the letters of f(rontend), b(ackend), s(erver); `field` the column of `show stat`; http: not in TCP mode."""

    name: str
    field: str
    kinds: str
    help: str
    http: bool = False
    milliseconds: bool = False


def _table(text: str) -> tuple[Metric, ...]:
    found = []
    for line in text.strip().splitlines():
        name, field, kinds, words = line.split(maxsplit=3)
        found.append(Metric(name, field, kinds.strip("hm"), words, "h" in kinds, "m" in kinds))
    return tuple(found)


METRICS = _table("""
    current_queue qcur bs Requests that wait for a server
    max_queue qmax bs Most of them at once
    current_sessions scur fbs Sessions that are open
    max_sessions smax fbs Most of them at once
    limit_sessions slim fbs Configured limit of sessions
    sessions_total stot fbs Sessions so far
    bytes_in_total bin fbs Bytes of requests
    bytes_out_total bout fbs Bytes of responses
    requests_denied_total dreq fb Requests that a rule refused
    responses_denied_total dresp fbs Responses that a rule refused
    request_errors_total ereq f Requests that were malformed or never complete
    connection_errors_total econ bs Requests that got no connection to a server
    response_errors_total eresp bs Responses that were malformed or missing
    retry_warnings_total wretr bs Attempts that were repeated at the same server
    redispatch_warnings_total wredis bs Attempts that were repeated at another server
    weight weight bs Weight that counts now
    active_servers act b Active servers that are usable
    backup_servers bck b Backup servers that are usable
    check_failures_total chkfail s Failed checks of a server that was up
    check_up_down_total chkdown bs Changes from up to down
    check_last_change_seconds lastchg bs Seconds since the last change of state
    downtime_seconds_total downtime bs Seconds that it was down
    queue_limit qlimit s Configured limit of the queue
    current_throttle throttle s Percentage of its weight during slowstart
    loadbalanced_total lbtot bs Requests that the balancing sent there
    limit_session_rate rate_lim f Configured limit of new sessions per second
    max_session_rate rate_max fbs Most new sessions in a second
    check_code check_code s Status code of the last check
    check_duration_seconds check_duration sm Duration of the last check
    http_requests_rate_max req_rate_max fh Most requests in a second
    http_requests_total req_tot fbh Requests so far
    client_aborts_total cli_abrt bs Transfers that the client ended
    server_aborts_total srv_abrt bs Transfers that the server ended
    http_comp_bytes_in_total comp_in fbh Bytes that were given to compression (haptk does not compress)
    http_comp_bytes_out_total comp_out fbh Bytes that came out of compression
    http_comp_bytes_bypassed_total comp_byp fbh Bytes that compression let pass
    http_comp_responses_total comp_rsp fbh Responses that were compressed
    last_session_seconds lastsess bs Seconds since the last session
    queue_time_average_seconds qtime bsm Average time in the queue
    connect_time_average_seconds ctime bsm Average time to connect
    response_time_average_seconds rtime bsm Average time to the response
    total_time_average_seconds ttime bsm Average time in all
    connections_rate_max conn_rate_max f Most new connections in a second
    connections_total conn_tot f Connections so far
    intercepted_requests_total intercepted fh Requests that haptk answered itself
    denied_connections_total dcon f Connections that a rule refused
    denied_sessions_total dses f Sessions that a rule refused
    failed_header_rewriting_total wrew fbs Header changes that failed
    connection_attempts_total connect bs Connections that were opened to servers
    connection_reuses_total reuse bs Requests that used an open connection
    http_cache_lookups_total cache_lookups fbh Look-ups in the cache (haptk has none)
    http_cache_hits_total cache_hits fbh Hits in the cache
    idle_connections_current srv_icur s Idle connections that may be used again
    idle_connections_limit src_ilim s Limit of idle connections
    max_queue_time_seconds qtime_max bsm Longest time in the queue
    max_connect_time_seconds ctime_max bsm Longest time to connect
    max_response_time_seconds rtime_max bsm Longest time to the response
    max_total_time_seconds ttime_max bsm Longest time in all
    internal_errors_total eint fbs Requests that failed here
    unsafe_idle_connections_current idle_conn_cur s Idle connections that only safe requests may use
    safe_idle_connections_current safe_conn_cur s Idle connections that any request may use
    used_connections_current used_conn_cur s Connections in use
    need_connections_current need_conn_est s Estimated need of connections
    uweight uweight bs Weight as it was set
""")
# metric and line of `show info`; bytes and flags as they are
PROCESS = tuple(
    tuple(line.split(maxsplit=2))
    for line in """
    nbthread Nbthread Worker threads
    nbproc Nbproc Processes (always 1)
    relative_process_id Process_num Number of the process (always 1)
    uptime_seconds Uptime_sec Seconds since the start
    pool_failures_total PoolFailed Failed allocations of pools
    max_fds Ulimit-n Limit of descriptors
    max_sockets Maxsock Limit of sockets
    max_connections Maxconn Limit of connections
    hard_max_connections Hard_maxconn Limit of connections that cannot be raised
    current_connections CurrConns Connections that are open
    connections_total CumConns Connections so far
    requests_total CumReq Requests so far
    max_ssl_connections MaxSslConns Limit of TLS connections
    current_ssl_connections CurrSslConns TLS connections that are open
    ssl_connections_total CumSslConns TLS connections so far
    max_pipes Maxpipes Limit of pipes
    pipes_used_total PipesUsed Pipes in use
    pipes_free_total PipesFree Pipes at rest
    current_connection_rate ConnRate New connections in the last second
    limit_connection_rate ConnRateLimit Limit of new connections per second
    max_connection_rate MaxConnRate Most new connections in a second
    current_session_rate SessRate New sessions in the last second
    limit_session_rate SessRateLimit Limit of new sessions per second
    max_session_rate MaxSessRate Most new sessions in a second
    current_ssl_rate SslRate New TLS sessions in the last second
    limit_ssl_rate SslRateLimit Limit of new TLS sessions per second
    max_ssl_rate MaxSslRate Most new TLS sessions in a second
    current_frontend_ssl_key_rate SslFrontendKeyRate TLS keys made for clients in the last second
    max_frontend_ssl_key_rate SslFrontendMaxKeyRate Most TLS keys for clients in a second
    frontend_ssl_reuse SslFrontendSessionReuse_pct Percentage of TLS sessions of clients that were resumed
    current_backend_ssl_key_rate SslBackendKeyRate TLS keys made for servers in the last second
    max_backend_ssl_key_rate SslBackendMaxKeyRate Most TLS keys for servers in a second
    ssl_cache_lookups_total SslCacheLookups Look-ups of TLS sessions
    ssl_cache_misses_total SslCacheMisses Look-ups of TLS sessions that found none
    http_comp_bytes_in_total CompressBpsIn Bytes per second into compression
    http_comp_bytes_out_total CompressBpsOut Bytes per second out of compression
    limit_http_comp CompressBpsRateLim Limit of compression
    current_zlib_memory - Memory of compression
    max_zlib_memory - Limit of the memory of compression
    current_tasks Tasks Tasks
    current_run_queue Run_queue Tasks that want to run
    idle_time_percent Idle_pct Percentage of idle time
    stopping Stopping 1 while it is stopping
    jobs Jobs Connections and listeners
    unstoppable_jobs Unstoppable_Jobs Jobs that do not end by themselves
    listeners Listeners Listening sockets
    active_peers ActivePeers Peers that are used
    connected_peers ConnectedPeers Peers that are connected
    dropped_logs_total DroppedLogs Log lines that were dropped
    busy_polling_enabled BusyPolling 1 when it polls without sleeping
    failed_resolutions FailedResolutions Failed look-ups of names
    bytes_out_total TotalBytesOut Bytes sent to clients
    spliced_bytes_out_total TotalSplicdedBytesOut Bytes that were spliced
    bytes_out_rate BytesOutRate Bytes sent to clients in the last second
    recv_logs_total CumRecvLogs Log lines that were received
    max_memory_bytes Memmax_bytes Limit of memory
    pool_allocated_bytes PoolAlloc_bytes Memory of pools
    pool_used_bytes PoolUsed_bytes Memory of pools in use
    start_time_seconds Start_time_sec Unix time of the start
    """.strip().splitlines()
)
OWN = (
    ("timeouts", "counter", "Time-outs of clients and servers", "timeouts"),
    ("descriptors_exhausted", "counter", "Times that no descriptor was left", "fd_exhausted"),
    ("log_lines_dropped", "counter", "Log lines that were lost because their reader was too slow", "log_dropped"),
    ("server_connections_opened", "counter", "Connections opened to servers", "server_connections"),
    ("server_connections_reused", "counter", "Requests over a connection that was open", "reused"),
    ("server_connections", "gauge", "Connections to servers", "server_links"),
    ("idle_server_connections", "gauge", "Connections to servers that nobody uses", "idle_links"),
)


class Page:
    """Lines of the text format: a metric's HELP and TYPE once, before its first series."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def metric(self, name: str, kind: str, words: str, series: Iterable[tuple[str, float | str]]) -> None:
        """All series of one metric; nothing at all without any."""
        lines = [f"{name}{labels} {value}\n" for labels, value in series]
        if lines:
            self.parts += [f"# HELP {name} {words}\n# TYPE {name} {kind}\n", *lines]


def labels(**pairs: object) -> str:
    """`{a="b",c="d"}` with what the format wants escaped."""
    inside = ",".join(f'{name}="{_escaped(str(value))}"' for name, value in pairs.items())
    return f"{{{inside}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _kind(name: str) -> str:
    return "counter" if name.endswith("_total") or name in COUNTERS else "gauge"


def scrape(world: World, ask: Ask) -> Answer:
    """The answer to one scrape."""
    if ask.method not in ("GET", "HEAD"):
        return Answer(400, b"GET and HEAD are accepted here\n", [("content-type", "text/plain")])
    pairs = parse_qsl(ask.target.partition("?")[2], keep_blank_values=True)
    named = [value for name, value in pairs if name == "scope"]
    if any(name not in ("*", "", *SCOPES) for name in named):
        return Answer(400, b"scope is one of * " + " ".join(SCOPES).encode() + b"\n", [("content-type", "text/plain")])
    wanted = set(SCOPES) if not named or "*" in named else set(named)
    flags = frozenset({"no-maint"}) if ("no-maint", "") in pairs else frozenset[str]()
    text = render(world, wanted, flags)
    return Answer(200, text.encode(), [("cache-control", "no-cache"), ("content-type", CONTENT_TYPE)])


def render(world: World, wanted: set[str], flags: frozenset[str]) -> str:
    """The text: process, frontends, backends, servers, tables, and what only haptk counts."""
    out = Page()
    if "global" in wanted:
        _process(out, world)
    found = list(rows.rows(world, ("-1", -1, -1), flags, secret=False)) if wanted - {"global", "sticktable"} else []
    for kind, scope, letter in ((FRONTEND, "frontend", "f"), (BACKEND, "backend", "b"), (SERVER, "server", "s")):
        if scope in wanted:
            _proxies(out, scope, letter, [row for row in found if row["type"] == kind], found)
    if "sticktable" in wanted:
        _tables(out, world)
    if "global" in wanted:
        _own(out, world)
    return "".join(out.parts)


def _process(out: Page, world: World) -> None:
    values = stats.info(world)
    for name, line, words in PROCESS:
        # what is not known is NaN: a 0 would be a lie (of idle time, that there is none)
        value = values.get(line.replace("_Jobs", " Jobs"), math.nan)
        out.metric(f"haproxy_process_{name}", _kind(f"process_{name}"), words, [("", _number(value))])
    build = [(labels(version=identity.VERSION), 1)]
    out.metric("haproxy_process_build_info", "gauge", "The version that runs", build)


def _own(out: Page, world: World) -> None:
    total = world.counters()
    for name, kind, words, counter in OWN:
        if counter in total:
            full = f"haptk_proxy_{name}{'_total' if kind == 'counter' else ''}"
            out.metric(full, kind, words, [("", total[counter])])
    out.metric("haptk_build_info", "gauge", "The version that runs", [(labels(version=haptk.__version__), 1)])


def _number(value: float | str | None, *, milliseconds: bool = False) -> str:
    if value is None:
        return "NaN"
    number = float(value)
    if milliseconds:
        return f"{number / 1000:.6f}"
    return "NaN" if math.isnan(number) else str(int(number)) if number.is_integer() else str(number)


def _labels(row: Row, scope: str, **more: str) -> str:
    server = {"server": row["svname"]} if scope == "server" else {}
    return labels(proxy=row["pxname"], **server, **more)


def _proxies(out: Page, scope: str, letter: str, own: list[Row], every: list[Row]) -> None:
    prefix = f"haproxy_{scope}"
    for metric in METRICS:
        if letter in metric.kinds:
            series = [
                (_labels(row, scope), _number(row.get(metric.field), milliseconds=metric.milliseconds))
                for row in own
                if _applies(metric, row)
            ]
            out.metric(f"{prefix}_{metric.name}", _kind(metric.name), metric.help, series)
    names = ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other")
    responses = [
        (_labels(row, scope, code=code), _number(row[name]))
        for row in own
        if "hrsp_2xx" in row
        for code, name in zip(CODES, names, strict=True)
    ]
    out.metric(f"{prefix}_http_responses_total", "counter", "Responses by class", responses)
    states = STATES if scope == "server" else STATES[:2]
    status = [(_labels(row, scope, state=state), int(_state(row) == state)) for row in own for state in states]
    out.metric(f"{prefix}_status", "gauge", "Which state holds", status)
    if scope == "server":
        checks = [
            (_labels(row, scope, state=state), int(row["check_status"] == state))
            for row in own
            if "check_status" in row
            for state in CHECK_STATES
        ]
        out.metric(f"{prefix}_check_status", "gauge", "Which outcome the last check had", checks)
    if scope == "backend":
        _aggregates(out, prefix, own, [row for row in every if row["type"] == SERVER])


def _applies(metric: Metric, row: Row) -> bool:
    """Whether a row has the metric at all; where it has, an absent value is NaN, as with HAProxy."""
    if metric.http and row.get("mode") != "http":
        return False
    return metric.field in row or metric.field not in ("check_code", "check_duration") or "check_status" in row


def _state(row: Row) -> str:
    """One of STATES."""
    text = str(row["status"])
    if row["type"] == SERVER:
        if text.startswith("MAINT"):
            return "MAINT"
        if text.startswith(("DRAIN", "NOLB", "DOWN")):
            return text.split(" ")[0]
        return "UP"
    return "DOWN" if text.startswith(("DOWN", "STOP")) else "UP"


def _aggregates(out: Page, prefix: str, own: list[Row], servers: list[Row]) -> None:
    def of(row: Row) -> list[Row]:
        return [one for one in servers if one["iid"] == row["iid"]]

    counts = [
        (_labels(row, "backend", state=state), sum(_state(one) == state for one in of(row)))
        for row in own
        for state in STATES
    ]
    for name in ("agg_server_status", "agg_server_check_status"):
        out.metric(f"{prefix}_{name}", "gauge", "Servers by state", counts)
    checks = [
        (_labels(row, "backend", state=state), sum(one.get("check_status") == state for one in of(row)))
        for row in own
        for state in CHECK_STATES
    ]
    out.metric(f"{prefix}_agg_check_status", "gauge", "Servers by the outcome of their last check", checks)


def _tables(out: Page, world: World) -> None:
    sizes = [(labels(name=one.name, type=one.type), one.size) for one in world.stores.values()]
    used = [(labels(name=one.name, type=one.type), one.used) for one in world.stores.values()]
    out.metric("haproxy_sticktable_size", "gauge", "Most entries that a table may have", sizes)
    out.metric("haproxy_sticktable_used", "gauge", "Entries of a table", used)
