# hashkey: which bytes of a request `balance source|uri|url_param|hdr` looks at. The hash is put into the session while the
# head is at hand; s.hashed stays 0 where the request has no such thing, and turns are taken.

from haptk._fast.http1 cimport Head
from haptk._fast.state cimport BackendC, Session

# Called for be.by_hash only, with s.hashed at 0. h is NULL in TCP mode.
cdef void hash_request(Session *s, BackendC *be, Head *h) noexcept nogil
