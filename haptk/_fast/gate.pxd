# gate: whether another client may come in: limits of connections at once, of one frontend and of all together, and of
# connections and sessions a second. All of them hold for all workers together: a place is taken before accept(2) and given
# back when nobody came. A Gate's lock is taken only while it has a limit. Workers that find no place get tickets: whoever
# holds the oldest takes the next place, one at a time, so that no worker's accept queue waits for another's to be empty.

from libc.stdint cimport int64_t

from haptk._fast.state cimport FrontendC, Gate, Worker

# `bind` is the index of the socket in its frontend, which may have a limit of its own.
# True when nobody may come in now, or another worker's clients wait longer; the worker gets a ticket then.
cdef bint gate_closed(Worker *w, FrontendC *fe, int bind) noexcept nogil
# True when this worker holds a ticket: others may wait for it.
cdef bint gate_waits(Worker *w, FrontendC *fe, int bind) noexcept nogil
# Take a place for a client of fe; 0 when there is none.
cdef bint gate_enter(Worker *w, FrontendC *fe, int bind) noexcept nogil
# Nobody came: the place was not used.
cdef void gate_return(Worker *w, FrontendC *fe, int bind) noexcept nogil
# The client has left.
cdef void gate_leave(Worker *w, FrontendC *fe, int bind) noexcept nogil
# The worker accepts no longer.
cdef void gate_quit(Worker *w, FrontendC *fe, int bind) noexcept nogil
# Events that are left in the present second, INT32_MAX without a limit.
cdef int gate_left(Gate *g, int64_t now) noexcept nogil
