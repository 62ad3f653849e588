# worker: one thread, one epoll loop, and the Python object that starts, stops and reads it. The GIL is released for
# the whole of run().

from haptk._fast.conf cimport Image
from haptk._fast.state cimport Worker

cdef class DataWorker:
    cdef Worker w
    cdef Image image            # keeps the tables alive
    cdef list sockets           # keeps the listening sockets alive
    cdef bint running

    cdef int rules_rooms(self) except -1
    cdef int carry(self, int fd, int owner) except -1
    cdef int log_lane(self) except -1
