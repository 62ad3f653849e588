# The idle list is last in, first out: the connection used most recently is the least likely to have been closed by
# its server, and its memory is still in the cache.


from haptk._fast.pool cimport link_free, link_new
from haptk._fast.scan cimport hk_add, hk_add64
from haptk._fast.sockets cimport CONNECT_DONE, CONNECT_FDS, close_fd, connect_to, watch
from haptk._fast.state cimport KIND_SERVER, REUSE_NEVER, REUSE_SAFE, ServerC, ServerW, sockaddr_storage

cdef enum:
    IDLE_FLOOR = 4          # so many idle connections per server are always kept


cdef void unlink_idle(Worker *w, Link *l) noexcept nogil:
    cdef ServerW *sw = &w.servers[l.server.gid]
    if l.prev != NULL:
        l.prev.next = l.next
    else:
        sw.idle = l.next
    if l.next != NULL:
        l.next.prev = l.prev
    else:
        sw.idle_tail = l.prev
    l.prev = l.next = NULL
    l.idle = 0
    sw.idle_count -= 1
    w.idle_total -= 1


cdef void push_idle(Worker *w, Link *l) noexcept nogil:
    cdef ServerW *sw = &w.servers[l.server.gid]
    l.session = NULL
    l.idle = 1
    l.since = w.now
    l.prev = NULL
    l.next = sw.idle
    if sw.idle != NULL:
        sw.idle.prev = l
    else:
        sw.idle_tail = l
    sw.idle = l
    sw.idle_count += 1
    w.idle_total += 1


cdef void close_link(Worker *w, Link *l) noexcept nogil:
    close_fd(l.fd)
    l.fd = -1
    l.kind = 0
    l.session = NULL
    link_free(w, l)


cdef bint may_reuse(Session *s) noexcept nogil:
    if s.want_fresh or s.tunnel or s.backend.reuse == REUSE_NEVER:
        return 0
    return not (s.first and s.backend.reuse == REUSE_SAFE)


cdef int open_link(Worker *w, Session *s) noexcept nogil:
    cdef ServerC *srv = s.server
    cdef Link *l
    cdef int fd, got
    cdef sockaddr_storage addr = srv.addr
    got = connect_to(&addr, srv.addr_len, srv.family, &fd)
    if got == CONNECT_FDS and give_up_idle(w):
        got = connect_to(&addr, srv.addr_len, srv.family, &fd)
    if got != CONNECT_DONE:
        return ATTACH_FDS if got == CONNECT_FDS else ATTACH_FAILED
    l = link_new(w)
    if l == NULL:
        close_fd(fd)
        return ATTACH_FDS
    l.kind = KIND_SERVER
    l.fd = fd
    l.server = srv
    l.session = s
    l.writable = 1      # tried at once: a local server has accepted by now
    if watch(w.epfd, fd, l) < 0:
        close_link(w, l)
        return ATTACH_FDS
    s.link = l
    w.counters.server_connections += 1
    return ATTACH_OK


cdef int attach(Worker *w, Session *s) noexcept nogil:
    cdef ServerW *sw = &w.servers[s.server.gid]
    cdef Link *l
    cdef int got
    if sw.idle != NULL and may_reuse(s):
        l = sw.idle
        unlink_idle(w, l)
        l.session = s
        l.reused = 1
        s.link = l
        s.connect_ms = w.now
        w.counters.reused += 1
    else:
        got = open_link(w, s)
        if got != ATTACH_OK:
            return got
    sw.used += 1
    if sw.used > sw.peak:
        sw.peak = sw.used
    hk_add64(&s.server.live.total, 1)
    return ATTACH_OK


cdef bint take_slot(Session *s) noexcept nogil:
    cdef int n = hk_add(&s.server.live.sessions, 1)
    if s.server.maxconn and n > s.server.maxconn:
        hk_add(&s.server.live.sessions, -1)
        return 0
    s.counted = 1
    return 1


cdef inline bint worth_keeping(Worker *w, ServerW *sw) noexcept nogil:
    # No more than were in use at once lately: with http-reuse safe a first request takes none, and clients that come
    # for one request would otherwise leave one behind each.
    if w.now - sw.peak_at > 1000:
        sw.peak_at = w.now
        sw.peak = sw.used if sw.used > sw.peak // 2 else sw.peak // 2
    return sw.idle_count < IDLE_FLOOR or sw.idle_count + sw.used <= sw.peak


cdef void detach(Worker *w, Session *s, bint keep) noexcept nogil:
    cdef Link *l = s.link
    cdef ServerW *sw
    if s.counted:
        hk_add(&s.server.live.sessions, -1)
        s.counted = 0
        w.slots_freed |= s.backend.limited
    if l == NULL:
        return
    s.link = NULL
    sw = &w.servers[l.server.gid]
    sw.used -= 1
    if keep and worth_keeping(w, sw):
        push_idle(w, l)
    else:
        close_link(w, l)


cdef void idle_event(Worker *w, Link *l) noexcept nogil:
    unlink_idle(w, l)
    close_link(w, l)


cdef bint give_up_idle(Worker *w) noexcept nogil:
    cdef int i
    cdef Link *l
    if w.idle_total == 0:
        return 0
    for i in range(w.conf.server_count):
        l = w.servers[i].idle_tail
        if l != NULL:
            unlink_idle(w, l)
            close_link(w, l)
            return 1
    return 0


cdef void purge_idle(Worker *w, int max_ms) noexcept nogil:
    cdef int i
    cdef Link *l
    for i in range(w.conf.server_count):
        while True:
            l = w.servers[i].idle_tail
            if l == NULL or (max_ms and w.now - l.since < max_ms):
                break
            unlink_idle(w, l)
            close_link(w, l)
