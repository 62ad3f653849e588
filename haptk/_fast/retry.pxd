# retry: `retry-on`: which answers (or failures to answer) a client shall not see while another attempt is possible, and
# keeping the request whole for it. A request is kept in s.out_head as long as it fits there.

from haptk._fast.state cimport Session

cdef enum RetryOn:          # BackendC.retry_on
    RE_CONN = 1, RE_EMPTY = 2, RE_JUNK = 4, RE_TIMEOUT = 8
    RE_401 = 16, RE_403 = 32, RE_404 = 64, RE_408 = 128, RE_425 = 256
    RE_500 = 512, RE_501 = 1024, RE_502 = 2048, RE_503 = 4096, RE_504 = 8192

# Whether this is to be tried again: `event` is named, an attempt is left, and the whole request is still here.
cdef bint may_repeat(Session *s, int event) noexcept nogil
# The event that a status is, 0 for none.
cdef int event_of(int status) noexcept nogil
# Move body bytes that are ready behind the head, so that they can be sent again; without room the request is no longer
# kept.
cdef void keep_body(Session *s) noexcept nogil
# After a failed attempt, with s.retries_left already counted down: whether the next one goes to another server.
cdef bint redispatch_now(Session *s) noexcept nogil
# Forget what came as an answer.
cdef void forget_answer(Session *s) noexcept nogil
# RFC 9110 9.2.2: whether the request may be sent twice without asking the client.
cdef bint repeatable(Session *s) noexcept nogil
# A small body that is here as a whole joins the rendered head: one write, and the request can be repeated. False for a
# malformed one.
cdef bint take_early_body(Session *s) noexcept nogil
