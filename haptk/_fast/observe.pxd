# observe: live traffic as a check (`observe layer4|layer7`). Workers count errors in a row; when a server's error-limit
# is reached, Live.tripped grows and the control plane is told. What that does to the server follows from the state of its
# checks, which the control plane keeps; it says beforehand how many times are left (Live.fuse), so that the worker takes
# the server out of service at once and the next request goes elsewhere.

from haptk._fast.state cimport ServerC

cdef enum Sight:
    SAW_CONNECT, SAW_ANSWER
    # errors, from here on
    SAW_NO_CONNECT, SAW_BAD_STATUS, SAW_BAD_HEAD, SAW_BAD_BODY, SAW_READ_ERROR, SAW_READ_TIMEOUT, SAW_CLOSE

cdef void observe_closely(ServerC *srv, int sight) noexcept nogil


cdef inline void observe(ServerC *srv, int sight) noexcept nogil:
    if srv != NULL and srv.observe:
        observe_closely(srv, sight)


# Whether a status says that the server is in trouble; 501 and 505 are the client's doing, as HAProxy has it.
cdef int sight_of(int status) noexcept nogil
