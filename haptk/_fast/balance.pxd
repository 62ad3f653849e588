# balance: which server a request without a usable cookie goes to. Positions belong to the worker; states are shared.

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
# Free what choices remember; w.conf and w.backends are still there.
cdef void balance_close(Worker *w) noexcept nogil
# A server, or NULL when none is up (or all that are have reached their maxconn); `avoid` (may be NULL) is taken only
# when there is no other, and by a hash that is map-based.
cdef ServerC *choose(Worker *w, Session *s, BackendC *be, ServerC *avoid) noexcept nogil
