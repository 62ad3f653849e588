# faults: the last invalid request of each frontend and response of each backend, for `show errors`. One lock guards all:
# such messages are rare, and each is as long as a buffer at most.

from haptk._fast.state cimport Conf, Session, Worker

# What lies in the client's buffer is no request; `body` when that was begun already.
cdef void fault_request(Worker *w, Session *s, bint body) noexcept nogil
# What lies in the server's buffer is no response.
cdef void fault_response(Worker *w, Session *s) noexcept nogil
# (how many were seen, [fields of proxy.faults.Fault]); under the GIL.
cdef tuple faults_of(Conf *conf)
cdef void faults_free(Conf *conf) noexcept nogil
