# gate: whether another client may come in: limits of connections at once, of one frontend and of all together, and of
# connections and sessions a second. A Gate is shared by all workers; its lock is taken only while it has a limit.

from libc.stdint cimport int64_t

from haptk._fast.state cimport FrontendC, Gate, Worker

# True when nobody may come in now.
cdef bint gate_closed(Worker *w, FrontendC *fe) noexcept nogil
# Somebody came in.
cdef void gate_pass(Worker *w) noexcept nogil
# Events that are left in the present second, INT32_MAX without a limit.
cdef int gate_left(Gate *g, int64_t now) noexcept nogil
