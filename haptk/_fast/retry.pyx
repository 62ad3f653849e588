# As in HAProxy the number of attempts is shared with failed connections, and there is no pause before the next one.

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from haptk._fast.balance cimport takes_turns
from haptk._fast.http1 cimport (BODY_BAD, M_DELETE, M_GET, M_HEAD, M_OPTIONS, M_PUT, M_TRACE,
                                body_advance)
from haptk._fast.scan cimport hk_load
from haptk._fast.state cimport BackendC, LIVE_DOWN, LIVE_MAINT


cdef int event_of(int status) noexcept nogil:
    if status < 500:
        if status == 401:
            return RE_401
        if status == 403:
            return RE_403
        if status == 404:
            return RE_404
        if status == 408:
            return RE_408
        return RE_425 if status == 425 else 0
    if status > 504:
        return 0
    return RE_500 << (status - 500)


cdef bint may_repeat(Session *s, int event) noexcept nogil:
    return s.keeping and s.backend.retry_on & event and s.retries_left > 0 and s.up.done and not s.body_started and \
        s.rx.r == s.rx.f


cdef void keep_body(Session *s) noexcept nogil:
    cdef uint32_t n = s.rx.f - s.rx.r
    if s.out_head.n + n + s.backend.head_room > s.out_head.size:
        s.keeping = 0
        return
    memcpy(s.out_head.d + s.out_head.n, s.rx.d + s.rx.r, n)
    s.out_head.n += n
    s.rx.r = s.rx.f


cdef void forget_answer(Session *s) noexcept nogil:
    s.sx.r = s.sx.f = s.sx.p = s.sx.n = 0
    s.response_any = s.head_done = s.server_eof = 0
    s.status = 0
    s.connect_ms = s.response_ms = 0


cdef bint repeatable(Session *s) noexcept nogil:
    if s.body_started or s.response_any or not s.up.done or s.out_head.d == NULL:
        return 0
    return s.method == M_GET or s.method == M_HEAD or s.method == M_OPTIONS or s.method == M_PUT or \
        s.method == M_DELETE or s.method == M_TRACE


cdef bint take_early_body(Session *s) noexcept nogil:
    cdef uint32_t n
    if s.up.done or s.rx.p == s.rx.n:
        return 1
    if body_advance(&s.up, &s.rx) == BODY_BAD:
        return 0
    n = s.rx.f - s.rx.r
    if s.up.done and s.out_head.n + n + s.backend.head_room <= s.out_head.size:
        memcpy(s.out_head.d + s.out_head.n, s.rx.d + s.rx.r, n)
        s.out_head.n += n
        s.rx.r = s.rx.f
    return 1


cdef bint redispatch_now(Session *s) noexcept nogil:
    # After a failed attempt, with s.retries_left already counted down.
    cdef BackendC *be = s.backend
    cdef int step
    if be.redispatch == 0 or be.strict or s.force_persist:
        return 0
    # one that checks, an administrator or its name took out meanwhile, or that is warming up, is not waited for
    if s.server != NULL and (hk_load(&s.server.live.state) in (LIVE_DOWN, LIVE_MAINT) or hk_load(&s.server.live.eased)):
        return 1
    if not s.direct and takes_turns(be):
        return 1
    # every step-th attempt; a negative interval counts from the last one
    step = be.redispatch if be.redispatch > 0 else be.retries + 1 + be.redispatch
    return (be.retries - s.retries_left) % (step if step > 0 else 1) == 0
