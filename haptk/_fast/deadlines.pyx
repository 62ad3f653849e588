# The wheel is lazy, so that pushing a deadline back costs one store.

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from haptk._fast.http1 cimport BODY_EOF
from haptk._fast.relay cimport owes_client
from haptk._fast.service cimport service_deadline
from haptk._fast.state cimport (BackendC, FrontendC, Limits, Link, PH_HEAD, PH_LINGER, PH_PROXY, PH_QUEUE, PH_RELAY,
                                PH_REPLY, PH_RETRY, PH_SERVICE)
from haptk._fast.wheel cimport timer_set, wheel_init, wheel_next, wheel_wait

cdef enum:
    RETRY_MS = 1000         # HAProxy's turn-around before the same server is tried again
    REPLY_MS = 10000        # to take an answer of ours, without a `timeout client`


ctypedef struct Due:
    int64_t at
    char side


cdef inline void add(Due *d, int64_t start, int limit, char side) noexcept nogil:
    # A rule of the table; without a limit it does not count.
    if limit and (d.at == 0 or start + limit < d.at):
        d.at = start + limit
        d.side = side


cdef inline int first_of(int a, int b) noexcept nogil:
    return a if a else b


cdef inline bint owes_server(Session *s) noexcept nogil:
    return s.out_head.r < s.out_head.n or s.rx.r < s.rx.f


cdef void tunnel_rules(Session *s, Due *d) noexcept nogil:
    cdef Limits *front = &s.frontend.limits
    cdef Limits *back = &s.backend.limits
    cdef int client = first_of(back.tunnel, front.client), server = first_of(back.tunnel, back.server)
    cdef bint to_client = owes_client(s), to_server = owes_server(s)
    if to_client or not (s.eof or to_server):
        add(d, s.client_ms, first_of(front.client_fin, client) if s.eof or s.shut_client else client, c"c")
    if to_server or not (s.server_eof or to_client):
        add(d, s.server_ms, first_of(back.server_fin, server) if s.server_eof or s.link.shut else server, c"s")


cdef void relay_rules(Session *s, Due *d) noexcept nogil:
    cdef Limits *front = &s.frontend.limits
    cdef Limits *back = &s.backend.limits
    cdef int server = back.server
    if not s.link.connected:
        add(d, s.since_ms, back.connect, c"s")
    elif s.tunnel:
        tunnel_rules(s, d)
    elif owes_client(s) or (s.head_done and s.down.done):
        add(d, s.client_ms, front.client, c"c")
    else:
        if s.head_done and s.down.mode == BODY_EOF:
            server = first_of(back.tunnel, server)
        add(d, s.server_ms, server, c"s")
        if server == 0 and not s.up.done:
            add(d, s.client_ms, front.client, c"c")


cdef void head_rules(Session *s, bint stopping, Due *d) noexcept nogil:
    cdef Limits *front = &s.frontend.limits
    if s.got_byte or s.first:
        add(d, s.started_ms, front.request, c"c")
    else:
        add(d, s.since_ms, front.keep_alive, c"c")
        if stopping:
            add(d, s.since_ms, PARTING_MS, c"c")
    add(d, s.client_ms, front.client, c"c")


cdef int64_t deadline(Session *s, bint stopping, char *side) noexcept nogil:
    cdef Limits *front = &s.frontend.limits
    cdef Due d
    d.at, d.side = 0, c"c"
    if s.phase == PH_RELAY:
        relay_rules(s, &d)
    elif s.phase == PH_HEAD:
        head_rules(s, stopping, &d)
    elif s.phase == PH_REPLY:
        add(&d, s.client_ms, first_of(front.client, REPLY_MS), c"c")
    elif s.phase == PH_LINGER:
        add(&d, s.since_ms, LINGER_MS, c"c")
    elif s.phase == PH_RETRY:
        add(&d, s.since_ms, RETRY_MS, c"s")
        add(&d, s.since_ms, s.backend.limits.connect, c"s")
    elif s.phase == PH_QUEUE:
        add(&d, s.since_ms, s.backend.limits.queue, c"s")
    elif s.phase == PH_PROXY:
        add(&d, s.accepted_ms, front.client, c"c")
    side[0] = d.side
    return d.at


cdef void arm(Worker *w, Session *s) noexcept nogil:
    cdef char side
    if s.phase == PH_LINGER and s.readable:
        timer_set(w, &s.timer, w.now + 1)       # it goes on sending: look again soon
    elif s.phase == PH_SERVICE:
        timer_set(w, &s.timer, service_deadline(w, s))
    else:
        timer_set(w, &s.timer, deadline(s, w.stopping, &side))


# ---------------------------------------------------------------- under virtual time, for tests

cdef class Timepiece:
    """One session on a wheel of its own, whose clock is what the test says; nothing is connected anywhere.

    Fields are set by name (`set(phase=..., client_ms=...)`); `due()` is the table's answer, `run(until)` turns the wheel and
    tells when the timer went off.
    """

    cdef Worker *w
    cdef Session s
    cdef FrontendC front
    cdef BackendC back
    cdef Link link

    def __cinit__(self):
        self.w = <Worker *>calloc(1, sizeof(Worker))
        if self.w == NULL:
            raise MemoryError
        self.w.now = 1_000_000
        wheel_init(self.w)
        self.s.frontend, self.s.backend, self.s.link = &self.front, &self.back, &self.link

    def __dealloc__(self):
        free(self.w)

    def limits(self, *, int client=0, int server=0, int connect=0, int request=0, int keep_alive=0, int queue=0,
               int tunnel=0, int client_fin=0, int server_fin=0):
        """The time-outs, ms."""
        cdef Limits *one = &self.front.limits
        one.client, one.server, one.connect, one.request, one.keep_alive = client, server, connect, request, keep_alive
        one.queue, one.tunnel, one.client_fin, one.server_fin = queue, tunnel, client_fin, server_fin
        self.back.limits = self.front.limits

    def set(self, **fields):
        """What the session is doing."""
        cdef Session *s = &self.s
        for name, value in fields.items():
            if name == "phase": s.phase = value
            elif name == "first": s.first = value
            elif name == "got_byte": s.got_byte = value
            elif name == "connected": self.link.connected = value
            elif name == "link_shut": self.link.shut = value
            elif name == "tunnel": s.tunnel = value
            elif name == "eof": s.eof = value
            elif name == "server_eof": s.server_eof = value
            elif name == "shut_client": s.shut_client = value
            elif name == "head_done": s.head_done = value
            elif name == "request_done": s.up.done = value
            elif name == "response_done": s.down.done = value
            elif name == "until_close": s.down.mode = BODY_EOF if value else 0
            elif name == "owed_client": s.in_head.n = value
            elif name == "owed_server": s.out_head.n = value
            elif name == "client_ms": s.client_ms = value
            elif name == "server_ms": s.server_ms = value
            elif name == "since_ms": s.since_ms = value
            elif name == "started_ms": s.started_ms = value
            elif name == "accepted_ms": s.accepted_ms = value
            else:
                raise KeyError(name)

    def due(self):
        """(deadline in ms or 0, side)"""
        cdef char side = 0
        at = deadline(&self.s, 0, &side)
        return at, chr(side)

    def arm(self):
        """What a worker does after every step."""
        arm(self.w, &self.s)

    @property
    def now(self):
        return self.w.now

    @now.setter
    def now(self, value):
        self.w.now = value

    def run(self, int64_t until):
        """Turn the wheel as the worker's loop does it, sleeping as long as it would; the time it went off, or 0."""
        cdef int wait
        while self.w.now < until:
            wait = wheel_wait(self.w)
            self.w.now = until if wait < 0 or self.w.now + wait > until else self.w.now + (wait if wait else 1)
            if wheel_next(self.w) != NULL:
                return self.w.now
        return 0
