# timers: a binary heap of checks by the time at which something is due. One thread.

from libc.stdint cimport int64_t

from haptk._fast.checks.state cimport CheckC, EngineC

# due in ms of the engine's clock; 0 takes it out.
cdef void timer_set(EngineC *e, CheckC *c, int64_t due) noexcept nogil
# The check whose time has come (taken out), NULL for none.
cdef CheckC *timer_next(EngineC *e) noexcept nogil
