# The rate is HAProxy's: what came in this second, and the part of the second before that still lies within the last
# 1000 ms. The sum over the frontends is read anew each time: there are few, and nothing has to be written.

from libc.stdint cimport INT32_MAX, int64_t

from haptk._fast.scan cimport hk_count, hk_load, hk_lock, hk_unlock


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
    if limit > 0 and hk_load(fe.admitted) + more > limit:
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


cdef bint gate_closed(Worker *w, FrontendC *fe, int bind) noexcept nogil:
    return crowded(w, fe, bind, 1) or gate_left(w.conf.connections, w.now) == 0 or gate_left(w.conf.sessions, w.now) == 0


cdef bint gate_enter(Worker *w, FrontendC *fe, int bind) noexcept nogil:
    # The place is taken first: other workers ask at the same moment.
    admit(w, fe, bind, 1)
    if not crowded(w, fe, bind, 0):
        if take(w.conf.connections, w.now):
            if take(w.conf.sessions, w.now):
                return 1
            untake(w.conf.connections)
    admit(w, fe, bind, -1)
    return 0


cdef void gate_return(Worker *w, FrontendC *fe, int bind) noexcept nogil:
    untake(w.conf.connections)
    untake(w.conf.sessions)
    admit(w, fe, bind, -1)


cdef void gate_leave(Worker *w, FrontendC *fe, int bind) noexcept nogil:
    admit(w, fe, bind, -1)
