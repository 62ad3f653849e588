# upstream: connections to servers. An idle one belongs to its server's list in the worker, a busy one to exactly one
# session; closing is immediate, the memory returns to the pool at the end of the turn.

from haptk._fast.state cimport Link, ServerC, Session, Worker

cdef enum AttachResult:
    ATTACH_OK = 0
    ATTACH_FAILED = -1      # the connection could not even be started
    ATTACH_FDS = -2         # no descriptor left, even after idle connections were given up

# Count s at s.server; 0 when that has reached its maxconn. detach() gives the slot back.
cdef bint take_slot(Worker *w, Session *s) noexcept nogil
# The same for a slot that s was given while it waited in a queue.
cdef void take_granted(Worker *w, Session *s) noexcept nogil
# Give s a connection to s.server: the newest idle one if the reuse rules allow it, else a new one.
cdef int attach(Worker *w, Session *s) noexcept nogil
# Take the connection away from s: into the idle list when `keep`, else closed. Does nothing without one.
cdef void detach(Worker *w, Session *s, bint keep) noexcept nogil
# An event on an idle connection: the server closed it or spoke out of turn.
cdef void idle_event(Worker *w, Link *l) noexcept nogil
# Close the oldest idle connection of any server; 0 when there is none.
cdef bint give_up_idle(Worker *w) noexcept nogil
# Close those idle for longer than their server's pool-purge-delay and those of servers in maintenance, or all.
cdef void purge_idle(Worker *w, bint everything) noexcept nogil
# For `option prefer-last-server`: the server that this client's kept connection leads to, or NULL.
cdef ServerC *last_server(Session *s) noexcept nogil
# Close what is kept for this client alone.
cdef void drop_kept(Worker *w, Session *s) noexcept nogil
