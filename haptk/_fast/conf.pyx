# Plain translation, field by field; what an absent word means was decided before, in proxy/compile.py. Only the
# fallbacks between time-outs are applied here.

import ipaddress
import math
import os
import socket as pysocket
from array import array
from dataclasses import replace

cimport cython

from libc.stdint cimport uint16_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from haptk._fast.descriptors cimport FD_ALARM, fd_opened
from haptk._fast.balance cimport map_places
from haptk._fast.faults cimport faults_free, faults_of
from haptk._fast.hashing cimport HASH_CRC32, HASH_DJB2, HASH_SDBM, HASH_WT6
from haptk._fast.inet cimport htons, sockaddr_in, sockaddr_in6, sockaddr_un
from haptk._fast.logplan cimport log_plan
from haptk._fast.program cimport LOG_HEADER, LOG_MERGE
from haptk._fast.proxyproto cimport PROXY_OUT_MAX
from haptk._fast.retry cimport (RE_401, RE_403, RE_404, RE_408, RE_425, RE_500, RE_501, RE_502, RE_503, RE_504,
                                RE_CONN, RE_EMPTY, RE_JUNK, RE_TIMEOUT)
from haptk._fast.ring cimport ring_fill, ring_size
from haptk._fast.scan cimport hk_load, hk_store, hk_store_ptr
from haptk._fast.sockets cimport close_fd
from haptk._fast.observe cimport (SAW_BAD_BODY, SAW_BAD_HEAD, SAW_BAD_STATUS, SAW_CLOSE, SAW_NO_CONNECT, SAW_READ_ERROR,
                                  SAW_READ_TIMEOUT)
from haptk._fast.state cimport (AddHeaderC, AppSessionC, BackendC, CK_INDIRECT, CK_INSERT, CK_NOCACHE, CK_POSTONLY, CK_PREFIX,
                                CK_PRESERVE, CK_REWRITE, CK_RULE, FETCH_COOKIE, FETCH_HEADER, FETCH_LINE, FETCH_PARAM,
                                FETCH_PATH, FETCH_SRC, FETCH_URL, FrontendC, Gate, LB_FIRST, LB_HDR, LB_LEASTCONN,
                                LB_RANDOM, LB_ROUNDROBIN, LB_SOURCE, LB_STATIC_RR, LB_URI, LB_URL_PARAM, LIVE_DOWN,
                                LIVE_DRAIN, LIVE_MAINT, LIVE_UP, Limits, MODE_CLOSE, MODE_KEEP, MODE_SERVER_CLOSE,
                                Net, Place, REUSE_AGGRESSIVE, REUSE_ALWAYS, REUSE_NEVER, REUSE_SAFE, RingPoint, ServerC,
                                ServerTurn, SharedC, SharedRate, WaitLine,
                                STICK_MATCH, STICK_STORE, StickC, StickRuleC, StickTableC, Text, Turns, WEIGHT_SCALE)
from haptk._fast.table cimport Table
from haptk.proxy.sticktables import appsession_name, stores_for

from haptk.core.acl import Variable
from haptk.proxy.compile_rules import keeps_line, looks_at_connection, needs_destination, parts_of, sees_added
from haptk.proxy.pages import STATUSES, as_sent, builtin

_BALANCE = {
    "roundrobin": LB_ROUNDROBIN, "static-rr": LB_STATIC_RR, "leastconn": LB_LEASTCONN, "first": LB_FIRST,
    "source": LB_SOURCE, "random": LB_RANDOM, "uri": LB_URI, "url_param": LB_URL_PARAM, "hdr": LB_HDR,
}
_CONNECTION = {"http-keep-alive": MODE_KEEP, "http-server-close": MODE_SERVER_CLOSE, "httpclose": MODE_CLOSE}
_REUSE = {"never": REUSE_NEVER, "safe": REUSE_SAFE, "aggressive": REUSE_AGGRESSIVE, "always": REUSE_ALWAYS}
_FETCHES = {
    "src": FETCH_SRC, "url_param": FETCH_PARAM, "urlp": FETCH_PARAM, "path": FETCH_PATH, "url": FETCH_URL,
    **dict.fromkeys(("req.cook", "cook", "cookie", "res.cook", "scook", "set-cookie"), FETCH_COOKIE),
    **dict.fromkeys(("hdr", "req.hdr", "res.hdr", "shdr"), FETCH_HEADER),
    **dict.fromkeys(("req.fhdr", "res.fhdr"), FETCH_LINE),
}
_HASHES = {"sdbm": HASH_SDBM, "djb2": HASH_DJB2, "wt6": HASH_WT6, "crc32": HASH_CRC32}
_STATES = {"DOWN": LIVE_DOWN, "UP": LIVE_UP, "DRAIN": LIVE_DRAIN, "MAINT": LIVE_MAINT}
SPARE = 1024                                                # servers that may be added to one configuration
ADDING = ("roundrobin", "leastconn", "first", "random")     # balances that know no map of their servers
_STATE_NAMES = {value: name for name, value in _STATES.items()}
_SIGHTS = {
    SAW_NO_CONNECT: "L4 unsuccessful connection", SAW_BAD_STATUS: "Wrong http response",
    SAW_BAD_HEAD: "Invalid http response (headers)", SAW_BAD_BODY: "Invalid http response",
    SAW_READ_ERROR: "Read error (http)", SAW_READ_TIMEOUT: "Read timeout (http)", SAW_CLOSE: "Close from server (http)",
}


# What `retry-on all-retryable-errors` stands for.
_RETRYABLE = ("conn-failure", "empty-response", "junk-response", "response-timeout", "500", "502", "503", "504")
_RETRY_ON = {
    "conn-failure": RE_CONN, "empty-response": RE_EMPTY, "junk-response": RE_JUNK, "response-timeout": RE_TIMEOUT,
    "401": RE_401, "403": RE_403, "404": RE_404, "408": RE_408, "425": RE_425,
    "500": RE_500, "501": RE_501, "502": RE_502, "503": RE_503, "504": RE_504,
    "none": 0, "0rtt-rejected": 0,      # there is no TLS that could reject early data
}


def _retry_mask(words):
    mask = 0
    for word in words:
        mask |= _retry_mask(_RETRYABLE) if word == "all-retryable-errors" else _RETRY_ON[word]
    return mask


def _ms(seconds):
    return 0 if seconds is None else max(1, round(seconds * 1000))


@cython.no_gc_clear     # __dealloc__ needs the blocks
cdef class Image:
    """The C image of `tables`; raises ValueError for what the data plane cannot do."""

    def __cinit__(self, tables, stores=None):
        self.alarm = -1
        self.tables = tables
        self.kept = []
        self.blocks = array("Q")
        self.places = {}
        self.cookies = {}
        self.server_names = []
        self.arena = Arena({be.name: index for index, be in enumerate(tables.backends)})

    def __init__(self, tables, stores=None):
        cdef int gid = 0
        self.stores = stores_for(tables, self.make_store) if stores is None else stores
        self.conf.bufsize = tables.process.bufsize
        self.conf.maxrewrite = tables.process.maxrewrite
        self.conf.maxconn = self.conf.limit = tables.process.maxconn
        self.conf.connections = <Gate *>self.block(1, sizeof(Gate))
        self.conf.sessions = <Gate *>self.block(1, sizeof(Gate))
        self.conf.bells = <int *>self.block(256, sizeof(int))
        self.conf.server_count = sum(len(be.servers) for be in tables.backends)
        self.spare = SPARE if any(bind.level == "admin" for bind in tables.process.stats_sockets) else 0
        self.conf.server_room = self.conf.server_count + self.spare
        self.conf.servers = <ServerC **>self.block(self.conf.server_room, sizeof(ServerC *))
        self.live = <Live *>self.block(self.conf.server_room, sizeof(Live))
        self.conf.backend_count = len(tables.backends)
        self.conf.backends = <BackendC *>self.block(self.conf.backend_count, sizeof(BackendC))
        self.conf.frontend_count = len(tables.frontends)
        self.conf.front_rates = <SharedRate *>self.block(self.conf.frontend_count, sizeof(SharedRate))
        self.conf.request_rates = <SharedRate *>self.block(self.conf.frontend_count, sizeof(SharedRate))
        self.conf.back_rates = <SharedRate *>self.block(self.conf.backend_count, sizeof(SharedRate))
        self.conf.serv_rates = <SharedRate *>self.block(self.conf.server_room, sizeof(SharedRate))
        self.conf.request_faults = <void **>self.block(len(tables.frontends), sizeof(void *))
        self.conf.response_faults = <void **>self.block(len(tables.backends), sizeof(void *))
        self.conf.frontends = <FrontendC *>self.block(self.conf.frontend_count, sizeof(FrontendC))
        self.fill_process()
        for index, be in enumerate(tables.backends):
            self.fill_backend(&self.conf.backends[index], index, be, gid)
            gid += len(be.servers)
        self.conf.door_count = sum(len(fe.binds) for fe in tables.frontends if fe.socket_stats)
        self.conf.door_sessions = <int *>self.block(self.conf.door_count, sizeof(int))
        gid = self.conf.frontend_count
        for index, fe in enumerate(tables.frontends):
            if fe.socket_stats:
                self.conf.frontends[index].door = gid
                gid += len(fe.binds)
            self.fill_frontend(&self.conf.frontends[index], index, fe)

    def __dealloc__(self):
        faults_free(&self.conf)
        for address in self.blocks or ():
            free(<void *><size_t>address)
        if self.alarm >= 0:
            close_fd(self.alarm)

    @staticmethod
    def make_store(table):
        """An empty table."""
        return Table(table.name, table.type, table.length, table.size, table.expire_s, table.nopurge, table.stored)

    cdef void *block(self, size_t count, size_t size) except NULL:
        cdef void *got = calloc(count if count else 1, size)
        if got == NULL:
            raise MemoryError
        self.blocks.append(<size_t>got)
        return got

    cdef int text(self, Text *out, value) except -1:
        if value is None:
            out.p = NULL
            out.n = 0
            return 0
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        self.kept.append(raw)
        out.p = <char *>(<bytes>raw)
        out.n = len(raw)
        return 0

    cdef int add_header(self, AddHeaderC *out, rule) except -1:
        cdef int i
        if rule is None:
            return 0
        self.text(&out.name, rule.header.lower())
        out.if_none = rule.if_none
        out.except_count = len(rule.except_networks)
        out.except_nets = <Net *>self.block(out.except_count, sizeof(Net))
        for i, network in enumerate(rule.except_networks):
            net = ipaddress.ip_network(network, strict=False)
            packed = net.network_address.packed
            out.except_nets[i].family = pysocket.AF_INET if net.version == 4 else pysocket.AF_INET6
            out.except_nets[i].bits = net.prefixlen
            memcpy(out.except_nets[i].base, <char *>(<bytes>packed), len(packed))
        return 0

    cdef Place *place(self, str host, int port, str unix_path, bint mapped=False) except NULL:
        # A mapped port is added to the port that the client asked for. One structure for each address that was ever asked for:
        # a name that goes to and fro costs no memory.
        cdef Place *out
        cdef sockaddr_in *four
        cdef sockaddr_in6 *six
        cdef sockaddr_un *local
        key = (host, port, unix_path, mapped)
        if key in self.places:
            return <Place *><size_t>self.places[key]
        out = <Place *>self.block(1, sizeof(Place))
        if mapped:
            out.port_from_client, out.port_offset, port = 1, port, 0
        out.addr_from_client = host in ("0.0.0.0", "::")
        four, six, local = <sockaddr_in *>&out.addr, <sockaddr_in6 *>&out.addr, <sockaddr_un *>&out.addr
        if unix_path:
            path = unix_path.encode()
            if len(path) > (107 if path[0] else 108):
                raise ValueError(f"the path {unix_path} is longer than 107 bytes")
            out.family = local.sun_family = pysocket.AF_UNIX
            memcpy(local.sun_path, <char *>(<bytes>path), len(path))
            out.addr_len = 2 + len(path) + (1 if path[0] else 0)
        else:
            ip = ipaddress.ip_address(host)
            packed = ip.packed
            if ip.version == 4:
                out.family = four.sin_family = pysocket.AF_INET
                four.sin_port = htons(port)
                memcpy(&four.sin_addr, <char *>(<bytes>packed), 4)
                out.addr_len = sizeof(sockaddr_in)
            else:
                out.family = six.sin6_family = pysocket.AF_INET6
                six.sin6_port = htons(port)
                memcpy(&six.sin6_addr, <char *>(<bytes>packed), 16)
                out.addr_len = sizeof(sockaddr_in6)
        self.places[key] = <size_t>out
        return out

    cdef int fill_server(self, ServerC *out, int index, int gid, int be_index, be, server) except -1:
        out.index = index
        out.id = server.id or index + 1
        out.gid = gid
        out.non_stick = server.non_stick
        self.text(&out.name, server.name)
        self.text(&out.cookie, server.cookie)
        out.weight = server.weight
        out.maxconn = max(server.maxconn, server.minconn)
        out.minconn = server.minconn if server.minconn < server.maxconn else 0
        out.maxqueue = server.maxqueue
        out.backup = server.backup
        out.send_proxy = server.send_proxy
        out.backend = be_index
        self.text(&out.redir, server.redir or None)
        self.fill_source(out, server.source)
        out.tcpka = be.tcpka is not None
        if be.tcpka is not None:
            out.tcpka_probes, out.tcpka_idle_s, out.tcpka_interval_s = be.tcpka.probes, be.tcpka.idle_s, be.tcpka.interval_s
        out.nolinger = be.nolinger
        out.observe = {"": 0, "layer4": 4, "layer7": 7}[server.observe if server.check else ""]
        out.error_limit = server.error_limit
        out.alarm_fd = self.alarm
        if out.observe and self.alarm < 0:
            self.alarm = out.alarm_fd = os.eventfd(0, os.EFD_CLOEXEC)
            fd_opened(self.alarm, FD_ALARM)
        out.max_reuse = server.max_reuse
        out.pool_max = server.pool_max_conn
        out.pool_purge_ms = _ms(server.pool_purge_delay_s)
        if not server.pool_purge_delay_s:
            out.pool_max = 0
        out.live = &self.live[gid]
        if server.host or server.unix_path:
            mapped = not server.port and not server.unix_path
            hk_store_ptr(<void **>&out.live.place, self.place(
                server.host, server.port_offset if mapped else server.port, server.unix_path, mapped))
        out.live.weight = server.weight * WEIGHT_SCALE
        out.live.state = LIVE_MAINT if server.disabled or not (server.host or server.unix_path) else LIVE_UP
        self.server_names.append(f"{be.name}/{server.name}")
        return 0

    cdef int fill_source(self, ServerC *out, source) except -1:
        if source is None or source.host in ("", "0.0.0.0", "::") and not source.low:
            return 0
        out.source = self.place(source.host or "0.0.0.0", 0, "")
        out.source_low, out.source_high = source.low, source.high
        return 0

    cdef int fill_cookie(self, BackendC *out, rule) except -1:
        if rule is None:
            return 0
        out.cookie = CK_RULE | {"passive": 0, "rewrite": CK_REWRITE, "insert": CK_INSERT, "prefix": CK_PREFIX}[rule.mode]
        out.cookie |= CK_INDIRECT if rule.indirect else 0
        out.cookie |= CK_NOCACHE if rule.nocache else 0
        out.cookie |= CK_POSTONLY if rule.postonly else 0
        out.cookie |= CK_PRESERVE if rule.preserve else 0
        tail = "; path=/" + "".join(f"; domain={domain}" for domain in rule.domains)
        tail += "; HttpOnly" if rule.httponly else ""
        tail += "; Secure" if rule.secure else ""
        tail += "".join(f"; {attr}" for attr in rule.attrs)
        self.text(&out.cookie_name, rule.name)
        self.text(&out.cookie_tail, tail)
        out.maxidle_s = rule.maxidle_s
        out.maxlife_s = rule.maxlife_s
        return 0

    cdef int fill_limits(self, Limits *out, t) except -1:
        out.connect = _ms(t.connect)
        out.client = _ms(t.client)
        out.server = _ms(t.server)
        out.request = _ms(t.http_request)
        out.keep_alive = _ms(t.http_keep_alive) or out.request or out.client
        out.queue = _ms(t.queue) or out.connect
        out.tunnel = _ms(t.tunnel)
        out.client_fin = _ms(t.client_fin)
        out.server_fin = _ms(t.server_fin)
        return 0

    cdef int fill_stick_table(self, StickTableC *out, store, be) except -1:
        cdef Table table = store
        cdef int i
        out.store = &table.store
        out.own = <uint16_t *>self.block(self.room_of(be), sizeof(uint16_t))
        numbers = [table.number_of(server.name.encode(), True) for server in be.servers]
        out.names = max(numbers, default=0) + 1
        out.by_name = <int *>self.block(out.names, sizeof(int))
        for i in range(out.names):
            out.by_name[i] = -1
        for i, number in enumerate(numbers):
            out.own[i] = number
            if number:
                out.by_name[number] = i
        return 0

    cdef int fill_stick_rule(self, StickRuleC *out, rule, list names) except -1:
        out.act = {"match": STICK_MATCH, "on": STICK_MATCH | STICK_STORE}.get(rule.action, STICK_STORE)
        out.fetch = _FETCHES[rule.fetch]
        self.text(&out.argument, rule.argument.lower() if out.fetch in (FETCH_HEADER, FETCH_LINE) else rule.argument)
        out.delimiter = ord(rule.delimiter[:1] or "?")
        out.table = names.index(rule.table)
        out.condition = self.arena.condition(rule.condition)
        return 0

    cdef int fill_stick(self, BackendC *out, be) except -1:
        cdef StickC *s
        cdef int i
        if not be.sticks and be.appsession is None:
            return 0
        names = sorted({rule.table for rule in be.sticks})
        if be.appsession is not None:
            names.append(appsession_name(be))
        out.stick = s = <StickC *>self.block(1, sizeof(StickC))
        s.table_count = len(names)
        s.tables = <StickTableC *>self.block(len(names), sizeof(StickTableC))
        for i, name in enumerate(names):
            self.fill_stick_table(&s.tables[i], self.stores[name], be)
        requests = [rule for rule in be.sticks if rule.action != "store-response"]
        responses = [rule for rule in be.sticks if rule.action == "store-response"]
        s.request_count, s.response_count = len(requests), len(responses)
        s.requests = <StickRuleC *>self.block(len(requests), sizeof(StickRuleC))
        s.responses = <StickRuleC *>self.block(len(responses), sizeof(StickRuleC))
        for i, rule in enumerate(requests):
            self.fill_stick_rule(&s.requests[i], rule, names)
        for i, rule in enumerate(responses):
            self.fill_stick_rule(&s.responses[i], rule, names)
        if be.appsession is not None:
            s.app = <AppSessionC *>self.block(1, sizeof(AppSessionC))
            self.text(&s.app.name, be.appsession.name)
            s.app.length = be.appsession.length
            s.app.prefix = be.appsession.prefix
            s.app.query = be.appsession.mode == "query-string"
            s.app.request_learn = be.appsession.request_learn
            s.app.table = len(names) - 1
        return 0

    cdef int fill_backend(self, BackendC *out, int index, be, int gid) except -1:
        cdef int i
        out.index = index
        self.text(&out.name, be.name)
        out.tcp = be.mode == "tcp"
        out.room = self.room_of(be)
        out.servers = <ServerC *>self.block(out.room, sizeof(ServerC))
        out.count = 0 if be.disabled else len(be.servers)      # nobody serves for a disabled backend
        for i, server in enumerate(be.servers):
            self.conf.servers[gid + i] = &out.servers[i]
            self.fill_server(&out.servers[i], i, gid + i, index, be, server)
        out.equal_weights = len({server.weight for server in be.servers}) <= 1
        out.head_room = PROXY_OUT_MAX if any(server.send_proxy for server in be.servers) else 0
        out.fullconn = max(1, be.fullconn)
        out.limited = any(server.maxconn or server.minconn for server in be.servers)
        out.weight_unit = math.gcd(*(server.weight for server in be.servers)) or 1
        out.balance = _BALANCE[be.balance.algorithm]
        out.hash_function = _HASHES[be.balance.hash_function or "sdbm"]
        # consistent hashing without a function is sdbm with avalanche
        out.hash_avalanche = be.balance.hash_avalanche or (
            be.balance.hash_consistent and (be.balance.algorithm == "source" or not be.balance.hash_function))
        out.by_hash = be.balance.algorithm in ("source", "uri", "url_param", "hdr")
        if be.balance.hash_consistent and out.by_hash:
            out.ring = <RingPoint *>self.block(ring_size(out), sizeof(RingPoint))
            ring_fill(out)
        out.uri_path_only = be.balance.uri_path_only
        out.draws = be.balance.draws
        out.uri_whole = be.balance.uri_whole
        out.uri_length = be.balance.uri_length
        out.uri_depth = be.balance.uri_depth
        out.domain_only = be.balance.use_domain_only
        named = be.balance.argument
        self.text(&out.balance_arg, named.lower() if be.balance.algorithm == "hdr" else named)
        self.fill_cookie(out, be.cookie)
        out.connection = _CONNECTION[be.connection]
        out.reuse = _REUSE[be.reuse]
        out.redispatch = 0 if be.redispatch is None else be.redispatch
        out.retries = be.retries
        out.retry_on = _retry_mask(be.retry_on)
        out.persist = be.persist
        out.strict = be.strict_persist
        out.abortonclose = be.abortonclose
        out.lax = be.accept_invalid
        out.prefer_last = be.prefer_last_server
        out.max_ka_queue = be.max_keep_alive_queue
        out.pretend_ka = be.pretend_keepalive
        out.allbackups = be.allbackups
        self.fill_stick(out, be)
        out.sees_added = sees_added(self.tables, be)
        out.sessions = <int *>self.block(1, 64)
        self.fill_shared(out, out.room)
        self.text(&out.stats_uri, be.stats.uri if be.stats is not None and be.mode == "http" else None)
        self.fill_limits(&out.limits, be.timeouts)
        self.add_header(&out.forwardfor, be.forwardfor)
        self.add_header(&out.originalto, be.originalto)
        out.program = self.arena.program(be.rules)
        out.ruled_response = out.program.response_count > 0
        self.fill_pages(out.pages, be.errorfiles)
        return 0

    cdef int fill_shared(self, BackendC *out, int servers) except -1:
        cdef int i
        out.shared = <SharedC *>self.block(1, sizeof(SharedC))
        out.shared.bound = <WaitLine *>self.block(servers, sizeof(WaitLine))
        out.shared.servers = <ServerTurn *>self.block(servers, sizeof(ServerTurn))
        if out.by_hash or out.balance == LB_STATIC_RR:
            out.shared.gathered = <int *>self.block(servers, sizeof(int))
            for i in range(out.count):
                out.shared.map_room += map_places(out, i)
            out.shared.map = <int *>self.block(out.shared.map_room, sizeof(int))
        return 0

    cdef int fill_pages(self, Text *out, errorfiles) except -1:
        for page in errorfiles:
            self.text(&out[<int>STATUSES.index(page.status)], as_sent(page.content))
        return 0

    cdef int fill_rules(self, FrontendC *out, fe) except -1:
        cdef int i
        reached = self.reached(fe)
        requests = ("http-request", "redirect", "use_backend", "force-persist", "ignore-persist")
        out.program = self.arena.program(fe.rules)
        out.ruled = any(rule.kind in requests for one in reached for rule in one.rules) or \
            any(one.stats is not None for one in reached)
        out.ruled_response = out.program.response_count > 0
        if fe.is_listen and fe.default_backend >= 0 and self.tables.backends[fe.default_backend].name == fe.name:
            out.own = out.backend
        out.wants_local = any(one.originalto is not None for one in reached) or \
            any(needs_destination(one.rules) for one in reached) or needs_destination(fe.unique_id_format)
        out.bind_names = <Text *>self.block(len(fe.binds) + 1, sizeof(Text))
        out.bind_ids = <int *>self.block(len(fe.binds) + 1, sizeof(int))
        out.turns = <Turns *>self.block(len(fe.binds) + 1, sizeof(Turns))
        for i, bind in enumerate(fe.binds):
            self.text(&out.bind_names[i], bind.name)
            out.bind_ids[i] = bind.number or i + 1
        if any(bind.maxconn for bind in fe.binds):
            out.bind_limits = <int *>self.block(len(fe.binds), sizeof(int))
            out.bind_admitted = <int *>self.block(len(fe.binds), sizeof(int))
            for i, bind in enumerate(fe.binds):
                out.bind_limits[i] = bind.maxconn
        return 0

    cdef int fill_log(self, FrontendC *out, int index, fe) except -1:
        if fe.log.targets:
            out.log = log_plan(self.arena, fe, index, self.log_most)
        self.arena.format(&out.unique, fe.unique_id_format, LOG_HEADER | LOG_MERGE)
        if fe.unique_id_format is not None:
            self.text(&out.unique_header, fe.unique_id_header or None)
        out.noting = out.log != NULL or out.unique.count > 0 or self.conf.numbers != NULL
        return 0

    cdef int fill_process(self) except -1:
        # What all frontends share.
        fronts = self.tables.frontends
        formats = [one for fe in fronts for one in (
            fe.log.log_format, fe.log.error_format, fe.log.sd_format, fe.unique_id_format)]
        self.conf.connection_seen = any(looks_at_connection(one) for one in (*fronts, *self.tables.backends))
        self.log_most = max((target.length for fe in fronts for target in fe.log.targets), default=1024)
        self.log_most = max(self.log_most, 1024)
        names = {part.name for part in parts_of((*formats, *(one.rules for one in (*fronts, *self.tables.backends))))
                 if isinstance(part, Variable)}
        if "rt" in names:
            self.conf.numbers = <int *>self.block(1, 64)
        if "ac" in names or any(fe.log.targets for fe in fronts):
            self.conf.actives = <int *>self.block(1, 64)
        return 0

    cdef int fill_captures(self, FrontendC *out, fe) except -1:
        out.request_slots, out.response_slots = len(fe.request_captures), len(fe.response_captures)
        out.request_captures = self.captures(fe.request_captures)
        out.response_captures = self.captures(fe.response_captures)
        if fe.capture_cookie is not None:
            self.text(&out.cookie_capture, fe.capture_cookie[0])
            out.cookie_length = fe.capture_cookie[1]
        out.capturing = out.request_slots > 0 or out.response_slots > 0 or fe.capture_cookie is not None
        if out.capturing or any(keeps_line(one.rules) for one in self.reached(fe)):
            out.noting = 1
        return 0

    cdef CaptureC *captures(self, slots) except NULL:
        cdef CaptureC *out = <CaptureC *>self.block(len(slots), sizeof(CaptureC))
        cdef int i
        for i, (name, length) in enumerate(slots):
            self.text(&out[i].name, name)
            out[i].length = length
        return out

    cdef list reached(self, fe):
        # A frontend and all backends that it can choose: what they need is looked at before one is chosen.
        targets = {rule.target for rule in fe.rules if rule.kind == "use_backend"} | {fe.default_backend} - {-1}
        return [fe] + [self.tables.backends[target] for target in sorted(targets)]

    cdef int fill_frontend(self, FrontendC *out, int index, fe) except -1:
        cdef int i
        out.index = index
        self.text(&out.name, fe.name)
        out.tcp = fe.mode == "tcp"
        out.nolinger = fe.nolinger
        if fe.default_backend >= 0:
            out.backend = &self.conf.backends[fe.default_backend]
        out.maxconn = fe.maxconn or self.conf.maxconn
        out.sessions = <int *>self.block(1, 64)
        out.admitted = <int *>self.block(1, 64)
        out.connection = _CONNECTION[fe.connection]
        out.lax = fe.accept_invalid
        self.fill_log(out, index, fe)
        self.fill_captures(out, fe)
        out.dontlognull = fe.log.dontlognull
        out.ignore_probes = fe.ignore_probes
        self.fill_limits(&out.limits, fe.timeouts)
        self.add_header(&out.forwardfor, fe.forwardfor)
        self.add_header(&out.originalto, fe.originalto)
        self.text(&out.monitor_uri, fe.monitor_uri)
        self.text(&out.stats_uri, fe.stats.uri if fe.stats is not None and fe.mode == "http" else None)
        for i, status in enumerate(STATUSES):
            self.text(&out.pages[i], builtin(status))
        self.fill_pages(out.pages, fe.errorfiles)
        self.fill_rules(out, fe)
        return 0

    # ---- the shared states, for the control plane

    def set_state(self, int gid, str name):
        """Say what a server may be used for: UP, DOWN, DRAIN or MAINT. Seen by all workers at their next request."""
        if not 0 <= gid < self.conf.server_count:
            raise IndexError(gid)
        hk_store(&self.live[gid].state, _STATES[name])

    def set_weight(self, int gid, double weight):
        """Set the effective weight, which may be a fraction (0: no new sessions)."""
        if not 0 <= gid < self.conf.server_count:
            raise IndexError(gid)
        cdef int scaled = round(weight * WEIGHT_SCALE)
        hk_store(&self.home(gid).equal_weights, 0)
        hk_store(&self.live[gid].weight, 1 if scaled == 0 and weight > 0 else scaled)

    cdef BackendC *home(self, int gid) except NULL:
        if not 0 <= gid < self.conf.server_count:
            raise IndexError(gid)
        return &self.conf.backends[self.conf.servers[gid].backend]

    cdef int room_of(self, be):
        return len(be.servers) + (self.spare if be.balance.algorithm in ADDING and not be.disabled else 0)

    def add_server(self, int backend, server):
        """Another server of a backend, in maintenance; its index over all backends. ValueError where there is no room."""
        cdef BackendC *out = &self.conf.backends[backend]
        cdef int index = out.count, gid = self.conf.server_count
        be = self.tables.backends[backend]
        if index >= out.room or gid >= self.conf.server_room:
            raise ValueError(f"no room for another server before a reload ({self.spare} may be added)")
        if server.observe and self.alarm < 0:
            raise ValueError("'observe' of an added server needs one in the file")
        self.conf.servers[gid] = &out.servers[index]
        self.fill_server(&out.servers[index], index, gid, backend, be, replace(server, disabled=True))
        if out.stick != NULL:
            self.stick_with(out, index, True)
        hk_store(&out.equal_weights, 0)
        if server.maxconn or server.minconn:
            hk_store(&out.limited, 1)
        if server.send_proxy:
            hk_store(<int *>&out.head_room, PROXY_OUT_MAX)
        hk_store(&self.conf.server_count, gid + 1)
        hk_store(&out.count, index + 1)
        return gid

    def remove_server(self, int gid):
        """Nothing leads to a server any more that is in maintenance; False while requests or idle connections are there."""
        cdef BackendC *be = self.home(gid)
        cdef ServerC *srv = self.conf.servers[gid]
        if hk_load(&srv.live.sessions) or hk_load(&srv.live.queued) or hk_load(&srv.live.idle):
            return False
        if be.stick != NULL:
            self.stick_with(be, srv.index, False)
        hk_store_ptr(<void **>&srv.cookie.p, NULL)
        hk_store(&srv.id, -1)
        return True

    cdef int stick_with(self, BackendC *be, int index, bint with_it) except -1:
        # Tables may, or may no more, lead to a server by its name.
        cdef int i, k, number
        cdef StickTableC *t
        cdef Table table
        cdef int *fresh
        names = sorted({rule.table for rule in self.tables.backends[be.index].sticks})
        if be.stick.app != NULL:
            names.append(appsession_name(self.tables.backends[be.index]))
        for i, name in enumerate(names):
            t = &be.stick.tables[i]
            table = self.stores[name]
            if not with_it:
                if t.own[index]:
                    hk_store(&t.by_name[t.own[index]], -1)
                continue
            number = table.number_of(be.servers[index].name.p[:be.servers[index].name.n], True)
            t.own[index] = <uint16_t>number
            if number >= t.names:
                fresh = <int *>self.block(number + 1, sizeof(int))
                for k in range(number + 1):
                    fresh[k] = t.by_name[k] if k < t.names else -1
                # workers look at the length first
                hk_store_ptr(<void **>&t.by_name, fresh)
                hk_store(&t.names, number + 1)
            if number:
                hk_store(&t.by_name[number], index)
        return 0

    def set_address(self, int gid, str host, int port, bint mapped=False):
        """Where a server is from now on; connections that are open stay where they are. Raises ValueError."""
        if not 0 <= gid < self.conf.server_count:
            raise IndexError(gid)
        hk_store_ptr(<void **>&self.live[gid].place, self.place(host, port, "", mapped))

    def set_cookie(self, int gid, str value):
        """The cookie of a server that has moved: a dynamic one comes from its address and is always as long."""
        cdef bytes raw
        if not 0 <= gid < self.conf.server_count:
            raise IndexError(gid)
        raw = self.cookies.setdefault(value, value.encode())    # one for each value that ever was
        self.conf.servers[gid].cookie.n = len(raw)
        hk_store_ptr(<void **>&self.conf.servers[gid].cookie.p, <void *><char *>raw)

    def set_server_maxconn(self, int gid, int count):
        """The most requests at once to a server, 0 for no limit; wake the workers afterwards."""
        hk_store(&self.home(gid).limited, 1)
        hk_store(&self.conf.servers[gid].maxconn, count)

    def set_frontend_maxconn(self, int index, int count):
        """The most connections of a frontend, below 0 for none at all; wake the workers afterwards."""
        if not 0 <= index < self.conf.frontend_count:
            raise IndexError(index)
        hk_store(&self.conf.frontends[index].maxconn, count)

    def set_limit(self, int count):
        """The most client connections of all frontends together, 0 for no limit; wake the workers afterwards."""
        hk_store(&self.conf.limit, count)

    def set_rates(self, int connections, int sessions):
        """The most connections and sessions a second, of all workers together; 0 for no limit."""
        hk_store(&self.conf.connections.limit, connections)
        hk_store(&self.conf.sessions.limit, sessions)

    def end_sessions(self, int gid):
        """Have all sessions of a server ended by an administrator's word; wake the workers afterwards."""
        if not 0 <= gid < self.conf.server_count:
            raise IndexError(gid)
        hk_store(&self.live[gid].cuts, hk_load(&self.live[gid].cuts) + 1)

    def pause_frontend(self, int index, bint paused):
        """Have a frontend accept nothing, or accept again; wake the workers afterwards."""
        if not 0 <= index < self.conf.frontend_count:
            raise IndexError(index)
        hk_store(&self.conf.frontends[index].paused, paused)

    def set_ease(self, int gid, int percent):
        """Under slowstart: the share of its maxconn that a server may use now; 100 when that is over."""
        if not 0 <= gid < self.conf.server_count:
            raise IndexError(gid)
        hk_store(&self.live[gid].eased, 0 if percent >= 100 else 1 + percent)

    def set_fuse(self, int gid, int trips):
        """How many more times its error-limit takes a server down; 0 when live traffic alone never does."""
        if not 0 <= gid < self.conf.server_count:
            raise IndexError(gid)
        hk_store(&self.live[gid].fuse, trips)

    def tripped(self, int gid):
        """How often live traffic reached the server's error-limit so far (`observe`)."""
        return hk_load(&self.live[gid].tripped)

    def trip_cause(self, int gid):
        """The sentence of the error that reached the server's error-limit last, as HAProxy writes it."""
        return _SIGHTS.get(hk_load(&self.live[gid].trip_cause), "Unknown")

    def forgive(self, int gid):
        """A check has passed: errors of live traffic are counted from zero again."""
        hk_store(&self.live[gid].observed, 0)

    def cut_sessions(self, int gid):
        """Have all sessions of a server ended (on-marked-down shutdown-sessions); wake the workers afterwards."""
        if not 0 <= gid < self.conf.server_count:
            raise IndexError(gid)
        hk_store(&self.live[gid].kills, hk_load(&self.live[gid].kills) + 1)

    def faults(self):
        """(how many invalid messages were seen, the last ones as the fields of proxy.faults.Fault)."""
        return faults_of(&self.conf)

    def server(self, int gid):
        """State of one server as a dict; what it did is counted by the workers."""
        if not 0 <= gid < self.conf.server_count:
            raise IndexError(gid)
        cdef Live *live = &self.live[gid]
        return {
            "name": self.server_names[gid],
            "state": _STATE_NAMES[hk_load(&live.state)],
            "weight": hk_load(&live.weight) / <double>WEIGHT_SCALE,
            "sessions": hk_load(&live.sessions),
            "queued": hk_load(&live.queued),
        }
