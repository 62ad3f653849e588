# dispatch: from a request to a connection with a server, and what follows when that fails: the queue, another attempt,
# another server, an answer of ours. Owns nothing; a session's place at a server (take_slot, attach) is given back by detach.
# Returns as the steps of a session do: 1 when it can go on at once, 0 when it has to wait or is gone.

from haptk._fast.state cimport Session, Worker

# Find a server and a connection to it; s.server may be set by a cookie. The request stands in s.out_head.
cdef int dispatch(Worker *w, Session *s) noexcept nogil
# The connection could not be made. No byte of the request was taken, so it may be tried again, here or elsewhere.
cdef int connect_failed(Worker *w, Session *s, bint timed_out) noexcept nogil
# The server connection broke: before it was established, before an answer, or in its middle.
cdef int link_failed(Worker *w, Session *s) noexcept nogil
# retry-on: the client does not see what this attempt came to.
cdef int again(Worker *w, Session *s) noexcept nogil
# A session left the queue, with a slot or because it has to choose another server.
cdef int admitted(Worker *w, Session *s) noexcept nogil
