# session: one client connection from accept to close, as a state machine over Phase (see state.pxd). Events only set
# flags; session_run() then moves the session as far as it goes without blocking and arms its one timer.

from haptk._fast.state cimport Session, Timer, Worker

# A new session has fd, frontend, peer and listener_index; this starts it (TCP mode connects at once).
cdef void session_begin(Worker *w, Session *s) noexcept nogil
cdef void session_run(Worker *w, Session *s) noexcept nogil
# Have epoll look at the client's connection from now on.
cdef void session_watch(Worker *w, Session *s) noexcept nogil
# Give freed slots to those that wait.
cdef void serve_queues(Worker *w) noexcept nogil
# Its timer fired.
cdef void session_expire(Worker *w, Timer *t) noexcept nogil
# An administrator ends it: with an answer where that is still possible, as HAProxy does.
cdef void session_end(Worker *w, Session *s) noexcept nogil
