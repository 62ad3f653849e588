# The rate is HAProxy's: what came in this second, and the part of the second before that still lies within the last
# 1000 ms. The sum over the frontends is read anew each time: there are few, and nothing has to be written.

from libc.stdint cimport INT32_MAX, int64_t

from haptk._fast.scan cimport hk_load, hk_lock, hk_unlock


cdef void turn(Gate *g, int64_t now) noexcept nogil:
    cdef int64_t age = now - g.start
    if age >= 2000:
        g.before = g.current = 0
        g.start = now
    elif age >= 1000:
        g.before, g.current = g.current, 0
        g.start += 1000


cdef int gate_left(Gate *g, int64_t now) noexcept nogil:
    cdef int limit = hk_load(&g.limit), left
    if limit == 0:
        return INT32_MAX
    hk_lock(&g.busy)
    turn(g, now)
    left = limit - g.current - <int>(g.before * (1000 - (now - g.start)) // 1000)
    hk_unlock(&g.busy)
    return left if left > 0 else 0


cdef void count(Gate *g, int64_t now) noexcept nogil:
    if hk_load(&g.limit) == 0:
        return
    hk_lock(&g.busy)
    turn(g, now)
    g.current += 1
    hk_unlock(&g.busy)


cdef bint gate_closed(Worker *w, FrontendC *fe) noexcept nogil:
    cdef int limit = hk_load(&fe.maxconn), i, total = 0
    if limit > 0 and hk_load(fe.sessions) >= limit:
        return 1
    limit = hk_load(&w.conf.limit)
    if limit > 0:
        for i in range(w.conf.frontend_count):
            total += hk_load(w.conf.frontends[i].sessions)
        if total >= limit:
            return 1
    return gate_left(w.conf.connections, w.now) == 0 or gate_left(w.conf.sessions, w.now) == 0


cdef void gate_pass(Worker *w) noexcept nogil:
    count(w.conf.connections, w.now)
    count(w.conf.sessions, w.now)
