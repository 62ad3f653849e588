# relay: moving bytes between the two connections of a session, both ways, with one buffer each. Reads only when there
# is room, so a slow reader slows the writer; never more than conf.bufsize per direction is held.

from libc.stdint cimport int64_t, uint32_t

from haptk._fast.bytes.buf cimport Buf, buf_compact
from haptk._fast.state cimport Session, Worker

cdef enum RelayResult:
    RELAY_WAIT = 0          # blocked: nothing to do until the next event
    RELAY_DONE = 1          # this direction is complete
    RELAY_LINK = -1         # the server connection failed or ended early
    RELAY_CLIENT = -2       # the client went away
    RELAY_BAD_REQUEST = -3  # the request body is malformed
    RELAY_BAD_RESPONSE = -4  # the response head or body is malformed
    RELAY_AGAIN = -5        # the response is one that `retry-on` does not let pass
    RELAY_RULED = -6        # a rule answers instead: see rules.rules_response
    RELAY_RULES_FAILED = -7
    RELAY_BAD_START = -8    # the response's body is malformed where it came with the head: nothing of either has passed

# The connection to the server is established.
cdef void link_ready(Worker *w, Session *s) noexcept nogil
# Request: what is rendered, then body bytes as they come.
cdef int push(Worker *w, Session *s) noexcept nogil
# Response: heads (1xx included) are parsed and rendered, then body bytes.
cdef int pull(Worker *w, Session *s) noexcept nogil
# A tunnel that has nothing to move holds no buffer: connections that last are silent most of the time.
cdef void rest_tunnel(Worker *w, Session *s) noexcept nogil


# Read on from the client: 1 when something came, else RELAY_WAIT, RELAY_CLIENT or RELAY_BAD_REQUEST.
cdef int more_request(Worker *w, Session *s) noexcept nogil
# Bytes still to be written to the client.
cdef inline bint owes_client(Session *s) noexcept nogil:
    return s.in_head.r != s.in_head.n or s.sx.r != s.sx.f


# Moves the unread rest of b to its beginning.
cdef inline void compact(Buf *b) noexcept nogil:
    cdef uint32_t start = b.p if b.r == b.f else b.r
    if start:
        buf_compact(b, start)
