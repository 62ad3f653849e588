"""What each field of `show info desc` and `show stat desc` means, in our words: NAME: TEXT, one a line."""

from __future__ import annotations


def _read(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.strip().splitlines())
    return {name.strip(): meaning.strip() for name, _, meaning in pairs}


STAT = _read("""
    pxname: name of the proxy
    svname: name of the server, or FRONTEND, BACKEND, or of a listening socket
    qcur: requests that wait in the queue now
    qmax: most that waited at once
    scur: sessions now
    smax: most sessions at once
    slim: limit of sessions
    stot: sessions since the start
    bin: bytes received from clients
    bout: bytes sent to clients
    dreq: requests that a rule refused
    dresp: responses that a rule refused
    ereq: requests that were none, or never came whole
    econ: connections to servers that failed
    eresp: responses that were none, or broke off
    wretr: attempts that were repeated at the same server
    wredis: requests that were sent to another server after a failure
    status: UP, DOWN, NOLB, DRAIN, MAINT, no check; OPEN or STOP for a frontend
    weight: weight that counts now; for a backend the sum of its usable servers
    act: 1 for an active server; for a backend the usable active ones
    bck: 1 for a backup server; for a backend the usable backup ones
    chkfail: checks that failed while the server was up
    chkdown: times that it went down
    lastchg: seconds since it went up or down the last time
    downtime: seconds that it was down in all
    qlimit: limit of the queue
    pid: number of the process, always 1
    iid: number of the proxy
    sid: number of the server or listening socket inside its proxy
    throttle: percent of its weight that a server has while it warms up
    lbtot: times that the balancing chose it
    tracked: the server whose state it follows
    type: 0 frontend, 1 backend, 2 server, 3 listening socket
    rate: sessions in the last second
    rate_lim: limit of sessions in a second
    rate_max: most sessions in a second
    check_status: outcome of the last check
    check_code: status or code that the last check was answered with
    check_duration: milliseconds that the last check took
    hrsp_1xx: responses 100 to 199
    hrsp_2xx: responses 200 to 299
    hrsp_3xx: responses 300 to 399
    hrsp_4xx: responses 400 to 499
    hrsp_5xx: responses 500 to 599
    hrsp_other: exchanges that ended without a status
    hanafail: unused
    req_rate: requests in the last second
    req_rate_max: most requests in a second
    req_tot: requests since the start
    cli_abrt: exchanges that the client ended early
    srv_abrt: exchanges that the server ended early
    comp_in: bytes before compression
    comp_out: bytes after compression
    comp_byp: bytes that were not compressed
    comp_rsp: responses that were compressed
    lastsess: seconds since the last session, -1 for none
    last_chk: what the last check found
    last_agt: what the agent said last
    qtime: average milliseconds in the queue, over the last 512 or so
    ctime: average milliseconds to connect
    rtime: average milliseconds until the server answered
    ttime: average milliseconds of an exchange
    agent_status: outcome of the last question to the agent
    agent_code: unused
    agent_duration: milliseconds that the agent took
    check_desc: the outcome of the last check in words
    agent_desc: the outcome of the last question to the agent in words
    check_rise: good checks that bring a server up
    check_fall: bad checks that take it down
    check_health: where it stands between 0 and rise + fall - 1
    agent_rise: good answers of the agent that bring a server up
    agent_fall: bad answers that take it down
    agent_health: where the agent's view stands
    addr: address and port
    cookie: value of the cookie, or the cookie's name for a backend
    mode: tcp or http
    algo: how requests are balanced
    conn_rate: connections in the last second
    conn_rate_max: most connections in a second
    conn_tot: connections since the start
    intercepted: requests that the proxy answered itself by a rule
    dcon: connections that a rule refused
    dses: sessions that a rule refused
    wrew: headers that could not be rewritten
    connect: attempts to connect
    reuse: times that an open connection was used again
    cache_lookups: look-ups in the cache
    cache_hits: answers from the cache
    srv_icur: idle connections now
    src_ilim: limit of idle connections
    qtime_max: longest milliseconds in the queue
    ctime_max: longest milliseconds to connect
    rtime_max: longest milliseconds until the server answered
    ttime_max: longest milliseconds of an exchange
    eint: errors inside the proxy
    idle_conn_cur: idle connections that may not be used by others
    safe_conn_cur: idle connections that may be used by anybody
    used_conn_cur: connections in use
    need_conn_est: connections that are needed, as estimated
    uweight: weight that was set
    agg_server_status: servers by state
    agg_server_check_status: servers by the outcome of their checks
    agg_check_status: the same, by code
""")

INFO = _read("""
    Name: name of the program
    Version: version of the program
    Release_date: date of its files
    Nbthread: worker threads
    Nbproc: processes, always 1
    Process_num: number of this process, always 1
    Pid: number of this process in the system
    Uptime: time since the start
    Uptime_sec: seconds since the start
    Memmax_MB: limit of memory in MB, 0 for none
    Memmax_bytes: limit of memory in bytes, 0 for none
    PoolFailed: allocations that failed
    Ulimit-n: descriptors that the process may have
    Maxsock: sockets that the process may have
    Maxconn: limit of client connections
    Hard_maxconn: limit that cannot be raised while it runs
    CurrConns: client connections now
    CumConns: client connections since the start
    CumReq: requests since the start
    MaxSslConns: limit of TLS connections; there is no TLS
    CurrSslConns: TLS connections; there is no TLS
    CumSslConns: TLS connections since the start; there is no TLS
    Maxpipes: pipes for splicing; there is none
    PipesUsed: pipes in use
    PipesFree: pipes that are free
    ConnRate: connections in the last second
    ConnRateLimit: limit of connections in a second, 0 for none
    MaxConnRate: most connections in a second
    SessRate: sessions in the last second
    SessRateLimit: limit of sessions in a second, 0 for none
    MaxSessRate: most sessions in a second
    Tasks: sessions and checked servers
    Run_queue: tasks that wait for a turn; there is no such queue
    node: name of this node
    Stopping: 1 while it finishes its last connections
    Jobs: connections and listening sockets
    Unstoppable Jobs: jobs that a stop waits for in vain
    Listeners: listening sockets
    ActivePeers: peers that are connected and known
    ConnectedPeers: connections with peers
    DroppedLogs: log lines that were dropped
    BusyPolling: 1 when it never sleeps; it does
    TotalBytesOut: bytes sent to clients
    TotalSplicdedBytesOut: bytes sent through pipes; there are none
    DebugCommandsIssued: commands for debugging; there are none
    CumRecvLogs: log lines received; none are
    Build info: version of the build
    Start_time_sec: Unix time of the start
    Tainted: experimental features in use
""")


def stat(name: str) -> str:
    """Of one field of `show stat`."""
    return STAT.get(name, "a protocol that haptk does not speak")


def info(name: str) -> str:
    """Of one field of `show info`."""
    return INFO.get(name, "a thing that haptk does not have: always 0")
