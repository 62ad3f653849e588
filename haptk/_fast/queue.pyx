# Slots are shared between workers, so a slot that another worker freed is found by looking again every few ms.

from haptk._fast.balance cimport eligible, limit_of
from haptk._fast.scan cimport hk_add, hk_load
from haptk._fast.state cimport BackendW, ServerC
from haptk._fast.tally cimport tally_queued


cdef void enqueue(Worker *w, Session *s, bint bound) noexcept nogil:
    cdef BackendW *q = &w.backends[s.backend.index]
    s.queued_bound = 1 + bound
    s.qnext = NULL
    s.qprev = q.queue_tail
    if q.queue_tail != NULL:
        q.queue_tail.qnext = s
    else:
        q.queue = s
    q.queue_tail = s
    q.queued += 1
    w.queued += 1
    # for the log: how many were served before this one, which is those that wait, and the one it waits for
    if bound:
        s.behind_server += hk_add(&s.server.live.queued, 1)
    else:
        q.unbound += 1
        s.behind_backend += q.unbound
    tally_queued(w, s, bound)


cdef void dequeue(Worker *w, Session *s) noexcept nogil:
    cdef BackendW *q
    if s.queued_bound == 0:
        return
    q = &w.backends[s.backend.index]
    if s.qprev != NULL:
        s.qprev.qnext = s.qnext
    else:
        q.queue = s.qnext
    if s.qnext != NULL:
        s.qnext.qprev = s.qprev
    else:
        q.queue_tail = s.qprev
    s.qprev = s.qnext = NULL
    if s.queued_bound == 2:
        hk_add(&s.server.live.queued, -1)
    else:
        q.unbound -= 1
    s.queued_bound = 0
    q.queued -= 1
    w.queued -= 1


cdef inline bint has_slot(BackendC *be, ServerC *srv) noexcept nogil:
    return srv.maxconn == 0 or hk_load(&srv.live.sessions) < limit_of(be, srv)


cdef bint some_slot(BackendC *be) noexcept nogil:
    cdef int i
    for i in range(be.count):
        if eligible(&be.servers[i]) and has_slot(be, &be.servers[i]):
            return 1
    return 0


cdef Session *next_waiting(Worker *w, BackendC *be) noexcept nogil:
    cdef Session *s = w.backends[be.index].queue
    cdef bint any_slot
    if s == NULL:
        return NULL
    any_slot = some_slot(be)
    while s != NULL:
        if has_slot(be, s.server) if s.queued_bound == 2 else any_slot:
            return s
        s = s.qnext
    return NULL
