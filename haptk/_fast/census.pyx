# What a session is doing is read off its phase; nothing is kept for the census while nobody asks.

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from haptk._fast.address cimport note_own
from haptk._fast.descriptors cimport FD_WAKE, fd_ring
from haptk._fast.scan cimport hk_acquire, hk_load_ptr, hk_release, hk_store_ptr
from haptk._fast.state cimport Census, Glance, Link, Peer, PH_DEAD, Session, Worker

cdef enum:
    A_TURN = 256            # sessions looked at before traffic gets its turn again
    A_BLOCK = 512           # Glances that a list begins with


cdef Glance *more(Census *c) noexcept nogil:
    cdef Glance *grown
    cdef int room
    if c.count == c.room:
        room = 2 * c.room if c.room else A_BLOCK
        grown = <Glance *>realloc(c.found, room * sizeof(Glance))
        if grown == NULL:
            return NULL
        c.found = grown
        c.room = room
    memset(&c.found[c.count], 0, sizeof(Glance))
    c.count += 1
    return &c.found[c.count - 1]


cdef void look_at(Worker *w, Session *s, Glance *g, bint names) noexcept nogil:
    g.id = <size_t>s
    g.phase, g.frontend, g.bind = s.phase, s.frontend.index, s.listener_index
    g.backend = s.backend.index if s.in_backend else -1
    g.server = s.server.gid if s.server != NULL else -1
    g.peer = s.peer
    g.fd, g.server_fd = s.fd, -1
    g.open, g.tunnel, g.method, g.status, g.head_done = s.open, s.tunnel, s.method, s.status, s.head_done
    g.request_done, g.response_done, g.eof = s.up.done, s.down.done, s.eof
    g.age_ms = w.now - (s.started_ms if s.open and not s.tunnel else s.accepted_ms)
    g.quiet_ms = s.timer.due - w.now if s.timer.due else -1
    g.retries = s.backend.retries - s.retries_left if s.in_backend else 0
    g.bytes_in, g.bytes_out = s.head_in + s.up.seen, s.bytes_down
    g.from_client = s.rx.n - s.rx.r + s.out_head.n - s.out_head.r
    g.from_server = s.sx.n - s.sx.r + s.in_head.n - s.in_head.r
    if s.link != NULL:
        g.server_fd, g.connected, g.reused = s.link.fd, s.link.connected, s.link.reused
    elif s.kept != NULL:
        g.server_fd, g.connected, g.reused = s.kept.fd, 1, s.kept.uses > 0
    if names:
        note_own(s.fd, &g.local)
        if g.server_fd >= 0:
            note_own(g.server_fd, &g.source)


cdef void idle_links(Worker *w, Census *c) noexcept nogil:
    # Connections that belong to no session.
    cdef int i
    cdef Link *l
    cdef Glance *g
    for i in range(w.conf.server_count):
        l = w.servers[i].idle
        while l != NULL:
            g = more(c)
            if g == NULL:
                return
            g.id = <size_t>l
            g.frontend = g.backend = -1
            g.server, g.fd, g.server_fd, g.connected, g.reused = i, -1, l.fd, 1, l.uses > 0
            g.age_ms, g.quiet_ms = w.now - l.since, -1
            l = l.next


cdef void census_step(Worker *w, EndFn end) noexcept nogil:
    cdef Census *c = <Census *>hk_load_ptr(&w.census)
    cdef Session *s
    cdef Glance *g
    cdef int left = A_TURN
    if c == NULL:
        return
    if not c.begun:
        c.begun = 1
        c.cursor = w.all
    while c.cursor != NULL and left > 0:
        left -= 1
        s = c.cursor
        c.cursor = s.all_next
        if s.phase == PH_DEAD or (c.wanted and c.wanted != <size_t>s):
            continue
        g = more(c)
        if g == NULL:
            c.cursor = NULL     # what there is no memory for is left out
            break
        look_at(w, s, g, c.names)
        if c.wish == CENSUS_END:
            end(w, s)
        if c.wanted:
            c.cursor = NULL
    if c.cursor != NULL:
        fd_ring(w.wake_fd, FD_WAKE)
        return
    if not c.wanted:
        idle_links(w, c)
    hk_store_ptr(&w.census, NULL)
    hk_release(&c.done, 1)


# ---------------------------------------------------------------- the control plane's side

cdef bint census_ask(Worker *w, int wish, size_t wanted, bint names):
    cdef Census *c = w.asked
    if c != NULL:
        if not hk_acquire(&c.done):
            return False        # its answer came too late for who asked
        free_census(c)
    w.asked = NULL
    c = <Census *>malloc(sizeof(Census))
    if c == NULL:
        raise MemoryError
    memset(c, 0, sizeof(Census))
    c.wish, c.wanted, c.names = wish, wanted, names
    w.asked = c
    hk_store_ptr(&w.census, c)
    fd_ring(w.wake_fd, FD_WAKE)
    return True


cdef void free_census(Census *c) noexcept nogil:
    free(c.found)
    free(c)


cdef str text_of(Peer *p):
    return p.text[:p.text_len].decode("ascii")


cdef object census_take(Worker *w, int number):
    cdef Census *c = w.asked
    cdef Glance *g
    cdef int i
    cdef list out = []
    if c == NULL or not hk_acquire(&c.done):
        return None
    w.asked = NULL
    try:
        for i in range(c.count):
            g = &c.found[i]
            out.append((
                number, g.id, g.phase, g.frontend, g.bind, g.backend, g.server, text_of(&g.peer), g.peer.port,
                text_of(&g.local), g.local.port, text_of(&g.source), g.source.port, g.fd, g.server_fd, bool(g.open),
                bool(g.tunnel), bool(g.connected), bool(g.reused), bool(g.head_done), bool(g.request_done),
                bool(g.response_done), bool(g.eof), g.method, g.status, g.retries, g.age_ms, g.quiet_ms, g.bytes_in,
                g.bytes_out, g.from_client, g.from_server,
            ))
    finally:
        free_census(c)
    return out


cdef void census_close(Worker *w) noexcept nogil:
    if w.asked != NULL:
        free_census(w.asked)
        w.asked = NULL
    hk_store_ptr(&w.census, NULL)
