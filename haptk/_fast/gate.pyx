# The rate is HAProxy's: what came in this second, and the part of the second before that still lies within the last
# 1000 ms. The sum over the frontends is read anew each time: there are few, and nothing has to be written.

from libc.stdint cimport INT32_MAX, int64_t

from haptk._fast.descriptors cimport FD_WAKE, fd_ring
from haptk._fast.scan cimport hk_add, hk_count, hk_load, hk_lock, hk_store, hk_unlock
from haptk._fast.state cimport Turns


cdef void turn(Gate *g, int64_t now) noexcept nogil:
    cdef int64_t age = now - g.start
    if age >= 2000:
        g.before = g.current = 0
        g.start = now
    elif age >= 1000:
        g.before, g.current = g.current, 0
        g.start += 1000


cdef int left_of(Gate *g, int limit, int64_t now) noexcept nogil:
    cdef int64_t age
    turn(g, now)
    age = now - g.start     # below 0 where another worker's clock is ahead
    return limit - g.current - <int>(g.before * (1000 - (age if age > 0 else 0)) // 1000)


cdef int gate_left(Gate *g, int64_t now) noexcept nogil:
    cdef int limit = hk_load(&g.limit), left
    if limit == 0:
        return INT32_MAX
    hk_lock(&g.busy)
    left = left_of(g, limit, now)
    hk_unlock(&g.busy)
    return left if left > 0 else 0


cdef bint take(Gate *g, int64_t now) noexcept nogil:
    cdef int limit = hk_load(&g.limit)
    cdef bint free
    if limit == 0:
        return 1
    hk_lock(&g.busy)
    free = left_of(g, limit, now) > 0
    g.current += free
    hk_unlock(&g.busy)
    return free


cdef void untake(Gate *g) noexcept nogil:
    if hk_load(&g.limit) == 0:
        return
    hk_lock(&g.busy)
    g.current -= g.current > 0
    hk_unlock(&g.busy)


cdef bint crowded(Worker *w, FrontendC *fe, int bind, int more) noexcept nogil:
    # Whether there is no place for so many more.
    cdef int limit = hk_load(&fe.maxconn), i, total = 0
    if fe.bind_limits != NULL and fe.bind_limits[bind] and \
            hk_load(&fe.bind_admitted[bind]) + more > fe.bind_limits[bind]:
        return 1
    if limit != 0 and hk_load(fe.admitted) + more > limit:
        return 1
    limit = hk_load(&w.conf.limit)
    if limit <= 0:
        return 0
    for i in range(w.conf.frontend_count):
        total += hk_load(w.conf.frontends[i].admitted)
    return total + more > limit


cdef inline void admit(Worker *w, FrontendC *fe, int bind, int more) noexcept nogil:
    hk_count(w.conf.workers, fe.admitted, more)
    if fe.bind_admitted != NULL:
        hk_count(w.conf.workers, &fe.bind_admitted[bind], more)


# ---------------------------------------------------------------- turns of the workers

cdef int longest(Worker *w, Turns *t) noexcept nogil:
    # The worker with the oldest ticket, -1 where nobody waits.
    cdef int i, ticket, oldest = 0, found = -1
    for i in range(w.conf.workers):
        ticket = hk_load(&t.tickets[i])
        if ticket and (found < 0 or ticket - oldest < 0):
            oldest, found = ticket, i
    return found


cdef inline int ahead(Worker *w, Turns *t) noexcept nogil:
    # The worker whose turn comes before ours, -1 when it is our turn.
    cdef int first
    if hk_load(&t.waiting) == 0:
        return -1
    first = longest(w, t)
    return first if first != w.index else -1


cdef void take_ticket(Worker *w, Turns *t) noexcept nogil:
    cdef int ticket
    if hk_load(&t.tickets[w.index]):
        return
    ticket = hk_add(&t.last, 1)
    if ticket == 0:
        ticket = hk_add(&t.last, 1)
    hk_store(&t.tickets[w.index], ticket)
    hk_add(&t.waiting, 1)


cdef inline void drop_ticket(Worker *w, Turns *t) noexcept nogil:
    if hk_load(&t.tickets[w.index]):
        hk_store(&t.tickets[w.index], 0)
        hk_add(&t.waiting, -1)


cdef inline void wake_next(Worker *w, Turns *t) noexcept nogil:
    cdef int first = ahead(w, t)
    if first >= 0:
        fd_ring(w.conf.bells[first], FD_WAKE)


# ---------------------------------------------------------------- coming in

cdef bint gate_closed(Worker *w, FrontendC *fe, int bind) noexcept nogil:
    cdef bint closed = crowded(w, fe, bind, 1) or gate_left(w.conf.connections, w.now) == 0 or \
        gate_left(w.conf.sessions, w.now) == 0 or ahead(w, &fe.turns[bind]) >= 0
    if closed:
        take_ticket(w, &fe.turns[bind])
    return closed


cdef bint gate_waits(Worker *w, FrontendC *fe, int bind) noexcept nogil:
    return hk_load(&fe.turns[bind].tickets[w.index]) != 0


cdef bint gate_enter(Worker *w, FrontendC *fe, int bind) noexcept nogil:
    cdef Turns *t = &fe.turns[bind]
    # The place is taken first: other workers ask at the same moment.
    admit(w, fe, bind, 1)
    if not crowded(w, fe, bind, 0):
        if ahead(w, t) >= 0:
            wake_next(w, t)
        elif take(w.conf.connections, w.now):
            if take(w.conf.sessions, w.now):
                drop_ticket(w, t)
                return 1
            untake(w.conf.connections)
    admit(w, fe, bind, -1)
    take_ticket(w, t)
    return 0


cdef void gate_return(Worker *w, FrontendC *fe, int bind) noexcept nogil:
    untake(w.conf.connections)
    untake(w.conf.sessions)
    gate_leave(w, fe, bind)


cdef void gate_leave(Worker *w, FrontendC *fe, int bind) noexcept nogil:
    admit(w, fe, bind, -1)
    wake_next(w, &fe.turns[bind])


cdef void gate_quit(Worker *w, FrontendC *fe, int bind) noexcept nogil:
    drop_ticket(w, &fe.turns[bind])
    wake_next(w, &fe.turns[bind])
