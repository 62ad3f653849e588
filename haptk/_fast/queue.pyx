# A ticket says who came first where two lines meet at one server. Locks are held for a few instructions: eventfds are
# rung after them.

from haptk._fast.balance cimport limit_of, serves_anybody
from haptk._fast.descriptors cimport FD_WAKE, fd_ring
from haptk._fast.scan cimport hk_add, hk_count, hk_fence, hk_load, hk_lock, hk_push, hk_take_all, hk_unlock
from haptk._fast.state cimport LIVE_UP, SharedC, WaitLine
from haptk._fast.tally cimport tally_queued


cdef void append(WaitLine *line, Session *s) noexcept nogil:
    s.qnext = NULL
    s.qprev = line.last
    if line.last != NULL:
        line.last.qnext = s
    else:
        line.first = s
    line.last = s
    hk_add(&line.count, 1)


cdef void unlink(BackendC *be, Session *s) noexcept nogil:
    # Out of its line; the lock is held.
    cdef WaitLine *line = &be.shared.bound[s.server.index] if s.queued == WAITS_BOUND else &be.shared.any
    if s.qprev != NULL:
        s.qprev.qnext = s.qnext
    else:
        line.first = s.qnext
    if s.qnext != NULL:
        s.qnext.qprev = s.qprev
    else:
        line.last = s.qprev
    s.qprev = s.qnext = NULL
    hk_add(&line.count, -1)
    hk_add(&be.shared.waiting, -1)
    if s.queued == WAITS_BOUND:
        hk_add(&s.server.live.queued, -1)


cdef bint enqueue(Worker *w, Session *s, bint bound) noexcept nogil:
    cdef BackendC *be = s.backend
    cdef SharedC *shared = be.shared
    cdef int i
    hk_lock(&shared.lock)
    if bound and s.server.maxqueue and shared.bound[s.server.index].count >= s.server.maxqueue:
        hk_unlock(&shared.lock)
        return 0
    s.home = w
    s.granted = NULL
    s.ticket = shared.tickets
    shared.tickets += 1
    s.queued = WAITS_BOUND if bound else WAITS_ANY
    append(&shared.bound[s.server.index] if bound else &shared.any, s)
    hk_add(&shared.waiting, 1)
    # for the log: how many were served before this one, which is those that wait, and the one it waits for
    if bound:
        s.behind_server += hk_add(&s.server.live.queued, 1)
    else:
        s.behind_backend += shared.any.count
    w.queued += 1
    tally_queued(w, s, bound)
    hk_unlock(&shared.lock)
    # a slot may have become free between the look at it and now
    if bound:
        slot_free(w, be, s.server)
    else:
        for i in range(be.count):
            slot_free(w, be, &be.servers[i])
    return 1


cdef void not_ready(Worker *w, Session *s) noexcept nogil:
    # Take s out of the list of those that are ready.
    cdef Session *each = <Session *>hk_take_all(<void **>&w.ready)
    cdef Session *following
    while each != NULL:
        following = each.ready_next
        if each != s:
            hk_push(<void **>&w.ready, <void **>&each.ready_next, each)
        each = following


cdef void dequeue(Worker *w, Session *s) noexcept nogil:
    cdef BackendC *be = s.backend
    cdef bint ready
    if s.queued == WAITS_NOT:
        return
    hk_lock(&be.shared.lock)
    ready = s.queued == WAITS_READY
    if not ready:
        unlink(be, s)
    hk_unlock(&be.shared.lock)
    s.queued = WAITS_NOT
    w.queued -= 1
    if not ready:
        return
    not_ready(w, s)
    if s.granted != NULL:
        hk_count(w.conf.workers, &s.granted.live.sessions, -1)
        slot_free(w, be, s.granted)
        s.granted = NULL


cdef bint must_wait(BackendC *be, ServerC *srv) noexcept nogil:
    return srv.maxconn and hk_load(&be.shared.waiting) and (
        hk_load(&be.shared.any.count) or hk_load(&be.shared.bound[srv.index].count))


cdef Worker *make_ready(Session *s, ServerC *granted) noexcept nogil:
    # The lock is held; returns whom to wake.
    cdef Worker *home = s.home
    s.granted = granted
    s.queued = WAITS_READY
    hk_push(<void **>&home.ready, <void **>&s.ready_next, s)
    return home


cdef Worker *serve_one(Worker *w, BackendC *be, ServerC *srv) noexcept nogil:
    # The lock is held. The worker of the session that was served, or NULL.
    cdef SharedC *shared = be.shared
    cdef Session *s = shared.bound[srv.index].first
    cdef Session *other = shared.any.first
    if other != NULL and (s == NULL or other.ticket < s.ticket) and serves_anybody(be, srv):
        s = other
    if s == NULL:
        return NULL
    # the slot is taken before the limit is asked: a request that does not have to wait may take it at the same moment
    s.open_now = hk_count(w.conf.workers, &srv.live.sessions, 1)
    if srv.maxconn and s.open_now > limit_of(be, srv):
        hk_count(w.conf.workers, &srv.live.sessions, -1)
        return NULL
    unlink(be, s)
    return make_ready(s, srv)


cdef void slot_free(Worker *w, BackendC *be, ServerC *srv) noexcept nogil:
    cdef Worker *home
    hk_fence()      # who enqueues looks for slots afterwards, who frees a slot looks for waiters: one sees the other
    while hk_load(&be.shared.waiting):
        hk_lock(&be.shared.lock)
        home = serve_one(w, be, srv)
        hk_unlock(&be.shared.lock)
        if home == NULL:
            return
        if home != w:
            fd_ring(home.wake_fd, FD_WAKE)


cdef void send_away(Worker *w, BackendC *be, ServerC *srv) noexcept nogil:
    # The server takes no more requests: who waits for it chooses again, as HAProxy has it.
    cdef Session *s
    cdef Session *following
    cdef Worker *home
    hk_lock(&be.shared.lock)
    s = be.shared.bound[srv.index].first
    while s != NULL:
        following = s.qnext
        if not s.force_persist:
            unlink(be, s)
            home = make_ready(s, NULL)
            if home != w:
                fd_ring(home.wake_fd, FD_WAKE)
        s = following
    hk_unlock(&be.shared.lock)


cdef void look_at_queues(Worker *w) noexcept nogil:
    cdef int i, k
    cdef BackendC *be
    cdef ServerC *srv
    for i in range(w.conf.backend_count):
        be = &w.conf.backends[i]
        if not hk_load(&be.shared.waiting):
            continue
        for k in range(be.count):
            srv = &be.servers[k]
            if hk_load(&srv.live.state) == LIVE_UP:
                slot_free(w, be, srv)
            elif be.redispatch and not be.persist and hk_load(&be.shared.bound[k].count):
                send_away(w, be, srv)


cdef Session *take_ready(Worker *w) noexcept nogil:
    cdef Session *s = <Session *>hk_take_all(<void **>&w.ready)
    cdef Session *following
    cdef Session *oldest = NULL
    while s != NULL:
        following = s.ready_next
        s.ready_next = oldest
        oldest = s
        s = following
    return oldest
