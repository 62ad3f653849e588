"""What the data plane runs on: immutable tables, compiled from a haproxy.cfg and swapped whole on a reload.

The rule of this file: everything here is frozen, plain data (str, int, float, bool, bytes, tuple), already resolved
and validated, so that the compiled workers and the slow reference read one and the same description. No parsing and
no defaults of HAProxy's language happen here: `proxy/compile.py` decides what an absent word means. Times are seconds
as float; `None` is "not configured", which for a timeout means for ever.

Order matters and is kept as in the file: frontends, backends and servers are found by index in the data plane.
"""

from __future__ import annotations

from dataclasses import dataclass

from haptk.core.acl import Condition, Format
from haptk.core.captures import Slot as Slot
from haptk.core.cookie import CookieRule as CookieRule

CONNECTION_MODES = ("http-keep-alive", "http-server-close", "httpclose")
BALANCE_ALGORITHMS = (
    "roundrobin",
    "static-rr",
    "leastconn",
    "first",
    "source",
    "random",
    "uri",
    "url_param",
    "hdr",
)
COOKIE_MODES = ("passive", "rewrite", "insert", "prefix")
REUSE_MODES = ("never", "safe", "aggressive", "always")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The `timeout` lines of one proxy, seconds; None where the file has none (HAProxy then waits for ever).

    `http_request` falls back to `client`, `http_keep_alive` to `http_request` then `client`, `queue` and `check` to
    `connect`, `tunnel` to `client`/`server`: the data plane applies these fallbacks, the compiler leaves None.
    """

    connect: float | None = None
    client: float | None = None
    server: float | None = None
    http_request: float | None = None
    http_keep_alive: float | None = None
    queue: float | None = None
    check: float | None = None
    tunnel: float | None = None
    client_fin: float | None = None
    server_fin: float | None = None
    tarpit: float | None = None


@dataclass(frozen=True, slots=True)
class AppSession:
    """`appsession NAME len N timeout T [request-learn] [prefix] [mode path-parameters|query-string]`."""

    name: str
    length: int
    timeout_s: float
    request_learn: bool = False
    prefix: bool = False
    mode: str = "path-parameters"


@dataclass(frozen=True, slots=True)
class StickRule:
    """One `stick match|on|store-request|store-response` line.

    `fetch` is req.cook, res.cook, hdr, src, url_param...; `argument` its first argument ("" for none); `delimiter` the
    second one (url_param); `condition` is None when the rule always applies; `table` is the name of its table.
    """

    action: str
    fetch: str
    argument: str = ""
    delimiter: str = ""
    condition: Condition | None = None
    table: str = ""


@dataclass(frozen=True, slots=True)
class StickTable:
    """`stick-table type T len N size S expire E [nopurge] [peers NAME] [store KIND[,...]]`.

    `name` is the proxy that declares the table, or `SECTION/NAME` for one of a peers section; `wire_name` is its name
    between peers. `stored` is what `store` adds to the server: (kind of core.sticktable.KINDS, elements, period in ms).
    """

    name: str = ""
    type: str = "string"
    length: int = 32
    size: int = 0
    expire_s: float | None = None
    nopurge: bool = False
    peers: str = ""
    wire_name: str = ""
    stored: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Balance:
    """`balance ALGORITHM [argument]` with its modifiers.

    `argument` is the parameter of url_param or the header of hdr(); `hash_consistent` is `hash-type consistent`;
    `draws` belongs to random; `uri_*` to uri; `use_domain_only` to hdr.
    """

    algorithm: str = "roundrobin"
    argument: str = ""
    hash_consistent: bool = False
    hash_function: str = ""
    hash_avalanche: bool = False
    draws: int = 2
    uri_whole: bool = False
    uri_path_only: bool = False
    uri_length: int = 0
    uri_depth: int = 0
    use_domain_only: bool = False


@dataclass(frozen=True, slots=True)
class AddHeader:
    """`option forwardfor` and `option originalto`: which header, when not, and for which sources not.

    `except_networks` are CIDR texts ("127.0.0.0/8"): of the source for forwardfor, of the destination for originalto.
    """

    header: str
    if_none: bool = False
    except_networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpSend:
    """The request of an HTTP check, as `option httpchk` and `http-check send` describe it."""

    method: str = "OPTIONS"
    uri: str = "/"
    version: str = "HTTP/1.0"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    raw_suffix: bytes = b""  # text after the version in the old "\\r\\nHost:\\ www" trick, unescaped


@dataclass(frozen=True, slots=True)
class Expect:
    """One `http-check expect` or `tcp-check expect`: kind is status, rstatus, string, rstring, binary, rbinary, hdr, fhdr.

    `ok_status`, `error_status` and `timeout_status` are HAProxy's codes for its outcomes, "" for the usual ones;
    `min_recv` -1 waits until the pattern is found or nothing more can come. `name` and `value` are a header's.
    """

    kind: str
    pattern: str
    negate: bool = False
    min_recv: int = -1
    ok_status: str = ""
    error_status: str = ""
    timeout_status: str = ""
    on_success: str = ""
    on_error: str = ""
    name: str = ""
    name_how: str = "str"
    value: str = ""
    value_how: str = "str"


@dataclass(frozen=True, slots=True)
class TcpStep:
    """One step of a check: action is connect, send or expect; `data` what is sent, as it is or as `send` says.

    `number` is HAProxy's of it (comments count), 0 for the connection that nobody wrote down (`implicit`). A `plain`
    connection is made as the server's line says.
    """

    action: str
    data: bytes = b""
    port: int = 0
    expect: Expect | None = None
    number: int = 0
    comment: str = ""
    send: HttpSend | None = None
    addr: str = ""
    send_proxy: int = 0
    linger: bool = False
    plain: bool = False
    implicit: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """`source ADDRESS[:PORT[-PORT]]`: where connections to a server come from; ports 0 for the kernel's choice."""

    host: str
    low: int = 0
    high: int = 0


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """How one server is checked: what is sent where, what counts as good, and how often. Seconds and counts.

    `kind` is "tcp" (a connection is enough), "http" or "tcp-check". `host` and `port` are where the check goes
    (already resolved from `addr`, `port` and the server's own address). `timeout_s` (`timeout check`) is the limit for
    the exchange after the connection; without it the whole check takes `inter_s` at most. `connect_timeout_s` is the
    limit for the connection. `steps` are what is done; empty, the check is a connection, or `send` and `expects`.
    """

    kind: str
    host: str
    port: int
    inter_s: float = 2.0
    fastinter_s: float | None = None
    downinter_s: float | None = None
    rise: int = 2
    fall: int = 3
    connect_timeout_s: float | None = None
    timeout_s: float | None = None
    send: HttpSend | None = None
    expects: tuple[Expect, ...] = ()
    steps: tuple[TcpStep, ...] = ()
    disable_on_404: bool = False
    send_proxy: int = 0  # version of the PROXY header that a check begins with, 0 for none
    init_state: str = "up"
    source: Source | None = None  # where the server's connections come from, its checks come from, too
    send_state: bool = False  # http-check send-state


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """`agent-check` of one server: where the agent listens, what it is sent first, how often it is asked. Seconds."""

    host: str
    port: int
    inter_s: float = 2.0
    send: bytes = b""
    timeout_s: float | None = None
    connect_timeout_s: float | None = None
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """One `server` line, resolved. `host` is an IP literal, or "" when the name did not resolve at start.

    For a unix socket `unix_path` is set and host/port are empty. `cookie` is None for a server without a value (with
    `dynamic` the compiler puts the computed value). `port_offset` is the `+N`/absent port case: when `port` is 0 the
    client's destination port plus `port_offset` is used. `check` is None when it is not checked; `track` names
    "backend/server" to follow instead.
    """

    name: str
    host: str
    port: int
    id: int = 0
    unix_path: str = ""
    forced_id: bool = False  # its number stands in the file
    hostname: str = ""
    port_offset: int = 0
    cookie: str | None = None
    weight: int = 1
    maxconn: int = 0
    minconn: int = 0
    maxqueue: int = 0
    backup: bool = False
    disabled: bool = False
    slowstart_s: float = 0.0
    on_marked_down: str = ""
    on_marked_up: str = ""
    send_proxy: int = 0  # version of the PROXY protocol header to send, 0 for none
    track: str = ""
    observe: str = ""
    error_limit: int = 10
    on_error: str = "fail-check"
    redir: str = ""
    source: Source | None = None
    max_reuse: int = -1
    pool_max_conn: int = -1
    pool_purge_delay_s: float = 5.0
    init_addr: tuple[str, ...] = ()
    resolvers: str = ""  # of the section that is asked for its name; "" for the system's resolver
    resolve_prefer: str = "ipv6"
    resolve_net: tuple[str, ...] = ()
    allow_dup_ip: bool = False  # resolve-opts: several servers may have one address
    non_stick: bool = False
    check: CheckPlan | None = None
    agent: AgentPlan | None = None
    check_host: str = ""  # resolved `addr` of its checks, "" and 0 where they go to the server itself
    check_port: int = 0
    agent_host: str = ""  # resolved `agent-addr`, "" where the agent is at the server's own address


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """TCP keep-alives of one side; 0 leaves the system's value (tcp(7): TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL)."""

    probes: int = 0
    idle_s: int = 0
    interval_s: int = 0


@dataclass(frozen=True, slots=True)
class ErrorFile:
    """`errorfile CODE FILE` or `errorloc CODE URL`: the whole raw response, known at start."""

    status: int
    content: bytes


@dataclass(frozen=True, slots=True)
class LogTarget:
    """One `log TARGET facility [level [minlevel]]`: address is "stdout", "stderr", "fd@N", "ring@NAME", a path or "host:port".

    `format` is "" for HAProxy's default. `sample` are ranges, from 1, of every `sample_size` lines; () for all.
    """

    address: str
    facility: str = "local0"
    level: str = "debug"
    min_level: str = "emerg"
    format: str = ""
    length: int = 1024
    sample: tuple[tuple[int, int], ...] = ()
    sample_size: int = 0


@dataclass(frozen=True, slots=True)
class LogPlan:
    """What a frontend logs and where: `style` is "" (plain), "tcp", "http", "clf" or "custom" with `log_format`.

    `error_format` is for what never became a request, `sd_format` for the structured data of rfc5424; `hostname` is that of
    `log-send-hostname`, "" without.
    """

    targets: tuple[LogTarget, ...] = ()
    style: str = ""
    log_format: Format | None = None
    error_format: Format | None = None
    sd_format: Format | None = None
    dontlognull: bool = False
    dontlog_normal: bool = False
    log_separate_errors: bool = False
    logasap: bool = False
    tag: str = "haproxy"
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class LogRing:
    """A `ring` section: log lines in memory, `size` bytes of them, each up to `maxlen`."""

    name: str
    description: str = ""
    format: str = "raw"
    maxlen: int = 16384
    size: int = 16384


@dataclass(frozen=True, slots=True)
class Bind:
    """One listening address of a frontend, after ranges were expanded.

    Exactly one of (`host`, `port`), `unix_path` or `fd` is used; `fd` is an inherited, already listening socket.
    """

    host: str = ""
    port: int = 0
    unix_path: str = ""
    fd: int = -1
    name: str = ""
    number: int = 0  # in its frontend, as `id` says
    accept_proxy: bool = False
    maxconn: int = 0
    backlog: int = 0
    v6only: bool = False
    transparent: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    expose_fd: str = ""  # of a `stats socket`: "listeners" when it gives the listening sockets away
    level: str = "operator"  # of a `stats socket`: user, operator or admin
    severity_output: str = "none"  # of a `stats socket`: none, number or string
    text: str = ""  # as written in the file, for messages and %b/%bi in logs
    line: str = ""  # FILE:LINE for messages


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, ready to be carried out by whoever evaluates conditions (core.acl).

    `kind` is http-request, http-response, use_backend, monitor-fail, force-persist or ignore-persist; `action` the word after the
    first two (set-header, deny, ...); `values` its parameters by name; `target` the index of use_backend's backend;
    `condition` is None when the rule always applies; `where` is FILE:LINE.
    """

    kind: str
    action: str = ""
    values: tuple[tuple[str, object], ...] = ()
    condition: Condition | None = None
    target: int = -1
    where: str = ""


@dataclass(frozen=True, slots=True)
class Stats:
    """`stats enable|uri|realm|auth|refresh|hide-version|show-*|scope|admin|http-request` of one proxy.

    `auth` are USER:PASSWORD pairs; `scope` names the proxies that are shown (() for all); `admin` the conditions of which
    one has to hold for the form to be there and obeyed; `rules` are (allow, deny or auth, realm, condition).
    """

    uri: str = ""
    realm: str = ""
    auth: tuple[str, ...] = ()
    refresh_s: float = 0.0
    hide_version: bool = False
    show_legends: bool = False
    node: str | None = None
    description: str | None = None
    scope: tuple[str, ...] = ()
    admin: tuple[Condition | None, ...] = ()
    rules: tuple[tuple[str, str, Condition | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Frontend:
    """What accepts connections: a `frontend`, or the front half of a `listen`.

    `default_backend` is an index into `ProxyTables.backends`, -1 for none (503). `rules` holds use_backend and
    http-request rules in file order.
    """

    name: str
    binds: tuple[Bind, ...]
    mode: str = "http"
    default_backend: int = -1
    maxconn: int = 0
    connection: str = "http-keep-alive"
    timeouts: Timeouts = Timeouts()
    forwardfor: AddHeader | None = None
    originalto: AddHeader | None = None
    log: LogPlan = LogPlan()
    unique_id_format: Format | None = None
    unique_id_header: str = ""
    rules: tuple[Rule, ...] = ()
    errorfiles: tuple[ErrorFile, ...] = ()
    monitor_uri: str = ""
    stats: Stats | None = None
    accept_invalid: bool = False
    disabled: bool = False
    tcpka: KeepAlive | None = None
    nolinger: bool = False
    ignore_probes: bool = False
    socket_stats: bool = False  # its sockets have counters of their own
    backlog: int = 0
    is_listen: bool = False
    request_captures: tuple[Slot, ...] = ()
    response_captures: tuple[Slot, ...] = ()
    capture_cookie: Slot | None = None
    where: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """What owns servers: a `backend`, or the back half of a `listen`.

    `redispatch` is None without `option redispatch`, else its interval: -1 (the default) moves on the last retry,
    N on every Nth. `retry_on` are the words of `retry-on`. `persist` is `option persist`.
    """

    name: str
    servers: tuple[Server, ...]
    mode: str = "http"
    balance: Balance = Balance()
    cookie: CookieRule | None = None
    appsession: AppSession | None = None
    sticks: tuple[StickRule, ...] = ()
    connection: str = "http-keep-alive"
    reuse: str = "safe"
    timeouts: Timeouts = Timeouts()
    forwardfor: AddHeader | None = None
    originalto: AddHeader | None = None
    redispatch: int | None = None
    retries: int = 3
    retry_on: tuple[str, ...] = ("conn-failure",)
    persist: bool = False
    abortonclose: bool = False
    allbackups: bool = False
    fullconn: int = 0
    fullconn_automatic: bool = False  # reckoned from the frontends, not from the file
    prefer_last_server: bool = False
    max_keep_alive_queue: int = 0
    pretend_keepalive: bool = False
    tcpka: KeepAlive | None = None
    nolinger: bool = False
    rules: tuple[Rule, ...] = ()
    errorfiles: tuple[ErrorFile, ...] = ()
    log: LogPlan = LogPlan()
    log_checks: bool = False  # option log-health-checks
    stats: Stats | None = None
    accept_invalid: bool = False
    disabled: bool = False
    load_state: str = ""  # "global" or "local": servers begin as a server-state file says
    state_file: str = ""  # the one that "local" means
    check_template: CheckPlan | None = None  # what a check of a server that is added at run time does
    strict_persist: bool = False  # the one explicit knob: never leave a dead server (503) rather than fall back
    where: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """The `global` section as far as it says how the process runs."""

    nbthread: int = 1
    maxconn: int = 0
    maxconnrate: int = 0  # connections a second, 0 for no limit
    maxsessrate: int = 0
    ulimit_n: int = 0  # 0: what maxconn needs
    fd_hard_limit: int = 0  # the most descriptors that maxconn is reckoned from, 0 for no limit
    strict_limits: bool = True  # refuse to start where a limit cannot be set
    chroot: str = ""
    insecure_setuid: bool = False  # `insecure-setuid-wanted`: set-uid programs may still give rights
    user: str = ""
    group: str = ""
    uid: int | None = None
    gid: int | None = None
    pidfile: str = ""
    daemon: bool = False
    node: str = ""
    bufsize: int = 16384
    maxrewrite: int = 1024
    spread_checks: int = 0
    max_spread_checks_s: float = 0.0  # 0: no limit
    hard_stop_after_s: float | None = None
    server_state_file: str = ""
    stats_sockets: tuple[Bind, ...] = ()
    stats_timeout_s: float = 10.0
    stats_maxconn: int = 10
    log_targets: tuple[LogTarget, ...] = ()


@dataclass(frozen=True, slots=True)
class NameServer:
    """One `nameserver` line: an IP address and a port."""

    host: str
    port: int = 53
    tcp: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Resolvers:
    """A `resolvers` section. A server whose name is known is looked up every `valid_s`, else every `resolve_s`.

    A question waits `retry_s` and is sent `retries` times. `holds` says for how many seconds a server may live on after
    nx, refused, timeout, other or obsolete (its address is in the answer no more); what is not in it is never the end
    of a server, except nx.
    """

    name: str
    nameservers: tuple[NameServer, ...] = ()
    valid_s: float = 10.0
    resolve_s: float = 1.0
    retry_s: float = 1.0
    retries: int = 3
    payload: int = 512
    holds: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Peers:
    """A `peers` section: (name, host, port) of each member. `local` is this node's name among them, "" when it has none.

    Without a local name (or `disabled`) nothing is replicated; the tables work on their own.
    """

    name: str
    members: tuple[tuple[str, str, int], ...] = ()
    local: str = ""
    where: str = ""
    hostnames: tuple[tuple[str, str], ...] = ()  # (name, as its line has it) of members whose address was looked up


@dataclass(frozen=True, slots=True)
class ProxyTables:
    """Everything one configuration means. `warnings` are complete lines for stderr, in file order."""

    frontends: tuple[Frontend, ...]
    backends: tuple[Backend, ...]
    process: Process = Process()
    resolvers: tuple[Resolvers, ...] = ()
    warnings: tuple[str, ...] = ()
    peers: tuple[Peers, ...] = ()
    rings: tuple[LogRing, ...] = ()
    stick_tables: tuple[StickTable, ...] = ()
