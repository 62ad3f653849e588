# queue: requests that wait for a slot of a server with a maxconn. The lines belong to the backend and are shared by all
# workers: one of requests that any server may take, one for each server that a cookie or a hash chose. Whoever frees a
# slot gives it to the oldest request that may use it, of whatever worker, and wakes that worker.
#
# A waiting session is in a line (under the backend's lock) until it is given a slot; then it is in Worker.ready of its own
# worker, with the slot counted and Session.granted set. Only its own worker touches it after that.

from haptk._fast.state cimport BackendC, ServerC, Session, Worker

cdef enum Waits:            # Session.queued
    WAITS_NOT = 0
    WAITS_ANY               # for any server
    WAITS_BOUND             # for s.server
    WAITS_READY             # in Worker.ready

# Put s at the end of its line; 0 when the line of its server has reached maxqueue.
cdef bint enqueue(Worker *w, Session *s, bint bound) noexcept nogil
# Leave the line, or give a slot back that was granted meanwhile. Does nothing for a session that does not wait.
cdef void dequeue(Worker *w, Session *s) noexcept nogil
# Whether somebody may be before a request that comes now.
cdef bint must_wait(BackendC *be, ServerC *srv) noexcept nogil
# A slot of srv became free: give it to whoever waits for longest.
cdef void slot_free(Worker *w, BackendC *be, ServerC *srv) noexcept nogil
# Look whether servers have slots, or left, without anybody having said so; called a few times a second.
cdef void look_at_queues(Worker *w) noexcept nogil
# What was given a slot, or has to choose another server (`granted` is NULL), oldest first by ready_next.
cdef Session *take_ready(Worker *w) noexcept nogil
