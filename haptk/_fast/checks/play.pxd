# play: one check from its beginning to its result: connections, what is sent, what is read. Never blocks.

from haptk._fast.checks.state cimport CheckC, EngineC

# Begin; the result may be there at once (a socket that is refused).
cdef void play_begin(EngineC *e, CheckC *c) noexcept nogil
# Its descriptor has something to say.
cdef void play_event(EngineC *e, CheckC *c, bint broken) noexcept nogil
# Its time-out has passed.
cdef void play_expired(EngineC *e, CheckC *c) noexcept nogil
# Give up what is under way; nothing is said of it.
cdef void play_drop(EngineC *e, CheckC *c) noexcept nogil
