# queue: requests that wait for a slot of a server with a maxconn. One queue per backend and worker, first in, first out;
# a session waits either for one server (a cookie bound it) or for any.

from haptk._fast.state cimport BackendC, Session, Worker

cdef void enqueue(Worker *w, Session *s, bint bound) noexcept nogil
# Does nothing for a session that does not wait.
cdef void dequeue(Worker *w, Session *s) noexcept nogil
# The first session that could be served now, still in the queue, or NULL.
cdef Session *next_waiting(Worker *w, BackendC *be) noexcept nogil
