# wheel: one timer per session in a hashed wheel of 1024 slots of 8 ms. Lazy: pushing a deadline back is one store; the
# slot notices when it comes round. Deadlines beyond the horizon of 8 s wait in the last slot and go round again.

from libc.stdint cimport int64_t

from haptk._fast.state cimport Timer, Worker

cdef enum:
    TICK_MS = 8

cdef void wheel_init(Worker *w) noexcept nogil
# due in ms of w.now's clock; 0 switches it off.
cdef void timer_set(Worker *w, Timer *t, int64_t due) noexcept nogil
cdef void timer_drop(Worker *w, Timer *t) noexcept nogil
# Milliseconds until the next slot that holds something, -1 for none.
cdef int wheel_wait(Worker *w) noexcept nogil
# The next timer whose deadline has passed (unlinked), or NULL. Call until NULL.
cdef Timer *wheel_next(Worker *w) noexcept nogil
