# balance: which server a request without a usable cookie goes to. Positions belong to the backend, so that the workers
# take turns together: choose() is called between turn_begin() and turn_end(), and so is what makes the choice count.

from haptk._fast.scan cimport hk_lock, hk_unlock
from haptk._fast.state cimport BackendC, ServerC, ServerW, Session, Worker

# Whether new requests may go there now.
cdef bint eligible(ServerC *srv) noexcept nogil
# How many sessions it may have now, 0 for no limit: between minconn and maxconn by how full its backend is,
# and less while slowstart lasts.
cdef int limit_of(BackendC *be, ServerC *srv) noexcept nogil
# Whether some server may take new requests, full or not.
cdef bint any_eligible(BackendC *be) noexcept nogil
# Whether choosing again at once makes sense after a failure; HAProxy pauses first where this does not hold.
cdef bint takes_turns(BackendC *be) noexcept nogil
# How many active servers are up.
cdef int active_servers(BackendC *be) noexcept nogil
# Whether srv takes requests that any server may take: a backup does not while others are up.
cdef bint serves_anybody(BackendC *be, ServerC *srv) noexcept nogil
# How many places a server has in the map of a map-based balance.
cdef int map_places(BackendC *be, int i) noexcept nogil
# A server, or NULL when none is up (or all that are have reached their maxconn); `avoid` (may be NULL) is taken only
# when there is no other, and by a hash that is map-based.
cdef ServerC *choose(Worker *w, Session *s, BackendC *be, ServerC *avoid) noexcept nogil


cdef inline void turn_begin(Worker *w, BackendC *be) noexcept nogil:
    if w.conf.workers > 1:
        hk_lock(&be.shared.turn_lock)


cdef inline void turn_end(Worker *w, BackendC *be) noexcept nogil:
    if w.conf.workers > 1:
        hk_unlock(&be.shared.turn_lock)
