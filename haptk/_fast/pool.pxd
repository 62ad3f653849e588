# pool: buffers, sessions and server connections without malloc in the steady state. Last in, first out, so that what
# is handed out is still in the cache. Everything belongs to one worker; nothing is shared.

from haptk._fast.bytes.buf cimport Buf, buf_held
from haptk._fast.state cimport Link, Session, Worker

cdef int buf_get(Worker *w, Buf *b) noexcept nogil
cdef void buf_release(Worker *w, Buf *b) noexcept nogil


# Give b memory of conf.bufsize when it has none. 0, or -1 when there is no memory.
cdef inline int buf_take(Worker *w, Buf *b) noexcept nogil:
    return 0 if buf_held(b) else buf_get(w, b)


# Back to the pool, if any is held.
cdef inline void buf_drop(Worker *w, Buf *b) noexcept nogil:
    if buf_held(b):
        buf_release(w, b)


# Exchange an empty buffer for one of BULK_SIZE, while there are some; it goes back by buf_drop like the others.
cdef void buf_grow(Worker *w, Buf *b) noexcept nogil
# Move the contents to a small buffer if they fit, so that the large one serves the next request while it is in the
# cache; nothing more may be appended then. Without memory nothing changes.
cdef void buf_slim(Worker *w, Buf *b) noexcept nogil
# Zeroed; NULL when there is no memory.
cdef Session *session_new(Worker *w) noexcept nogil
cdef Link *link_new(Worker *w) noexcept nogil
# Usable again only after reap(): epoll may have returned an event for it in this very turn.
cdef void session_free(Worker *w, Session *s) noexcept nogil
cdef void link_free(Worker *w, Link *l) noexcept nogil
cdef void reap(Worker *w) noexcept nogil
# Give some of the buffers that nobody needed lately back to the system; called about once a second.
cdef void pool_trim(Worker *w) noexcept nogil
# Whether nothing is left to give back.
cdef bint pool_rests(Worker *w) noexcept nogil
# Frees all that the pools hold; everything must have been given back.
cdef void pool_close(Worker *w) noexcept nogil
