# service: a request that the control plane answers (the statistics page, metrics). The worker copies the request into
# an Errand, puts that on a list without waiting, and goes on; the answer comes back the same way and is written with
# the usual back-pressure. The session stands in PH_SERVICE meanwhile.
#
# An Errand belongs to the worker until it is posted, to the control plane until it is answered, and to the worker
# again after that. Only the worker looks at `session`, which is NULL once the client is gone. Both lists are pushed
# by one side and emptied whole by the other.

from libc.stdint cimport int64_t, uint32_t

from haptk._fast.http1 cimport Head
from haptk._fast.state cimport Errand, Session, Text, Worker

cdef enum ServiceId:
    SERVICE_NONE = 0, SERVICE_STATS, SERVICE_METRICS

cdef enum ServiceResult:    # of service_step()
    SERVICE_WAIT = 0
    SERVICE_SENT = 1        # the whole answer is delivered
    SERVICE_GONE = -1       # the client is lost
    SERVICE_BAD = -2        # its body is malformed or too long
    SERVICE_FAILED = -3     # nobody answered, or there is no memory

# Whether the request in `h` is for the statistics of a proxy with `stats uri` prefix `uri` (p is NULL without one).
cdef bint is_stats(Text *uri, Head *h) noexcept nogil
# Begin what s.service says: keep a copy of the head in `h`, as rules have changed it. 0, or -1 without memory.
cdef int service_begin(Worker *w, Session *s, Head *h) noexcept nogil
# Read the body, post, wait for the answer, write it: as far as it goes.
cdef int service_step(Worker *w, Session *s) noexcept nogil
# When service_expired() is due, ms; 0 for never.
cdef int64_t service_deadline(Worker *w, Session *s) noexcept nogil
# What the time-out means: 'c' the client was too slow to send, 'C' too slow to read, 's' nobody answered.
cdef char service_expired(Session *s) noexcept nogil
# The session leaves.
cdef void service_drop(Session *s) noexcept nogil
# The next session whose answer has come; NULL for none. Called after a wake-up.
cdef Session *next_answered(Worker *w) noexcept nogil
# All posted errands as Python objects; called by the control plane.
cdef list take_errands(Worker *w, object keep_alive)
cdef void service_close(Worker *w) noexcept nogil
