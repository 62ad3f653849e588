# As in HAProxy the number of attempts is shared with failed connections, and there is no pause before the next one.

from libc.stdint cimport uint64_t

from haptk._fast.balance cimport takes_turns
from haptk._fast.bytes.buf cimport buf_empty, buf_held, buf_put, buf_ready
from haptk._fast.bytes.span cimport Span, span_len
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


cdef bint joins(Session *s) noexcept nogil:
    # What is ready of the body moves behind the head, if the room for a PROXY header stays free.
    cdef Span body = buf_ready(&s.rx)
    if <uint64_t>s.out_head.n + span_len(body) + s.backend.head_room > s.out_head.size or \
            buf_put(&s.out_head, body) < 0:
        return 0
    s.rx.r = s.rx.f
    return 1


cdef void keep_body(Session *s) noexcept nogil:
    if not joins(s):
        s.keeping = 0


cdef void forget_answer(Session *s) noexcept nogil:
    buf_empty(&s.sx)
    s.response_any = s.head_done = s.server_eof = 0
    s.status = 0
    s.connect_ms = s.response_ms = 0


cdef bint repeatable(Session *s) noexcept nogil:
    if s.body_started or s.response_any or not s.up.done or not buf_held(&s.out_head):
        return 0
    return s.method == M_GET or s.method == M_HEAD or s.method == M_OPTIONS or s.method == M_PUT or \
        s.method == M_DELETE or s.method == M_TRACE


cdef bint take_early_body(Session *s) noexcept nogil:
    if s.up.done or s.rx.p == s.rx.n:
        return 1
    if body_advance(&s.up, &s.rx) == BODY_BAD:
        return 0
    if s.up.done:
        joins(s)
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
