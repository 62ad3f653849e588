# probe: a worker without sockets, for tests: parse a head, ask conditions and formats about it, run a file's rules on it.

from haptk._fast.conf cimport Image
from haptk._fast.facts cimport Seen
from haptk._fast.program cimport Arena
from haptk._fast.state cimport Session, Worker

cdef class Probe:
    cdef Worker w
    cdef Session s
    cdef Image image        # keeps the tables alive
    cdef Arena arena        # of what is asked; grows with each question

    # Parse into s.rx (or s.sx) and w.head; raises ValueError for what is no whole head.
    cdef int parse(self, bytes data, bint response) except -1
    cdef int look(self, Seen *x, bytes data, bint response) except -1
    cdef int reset(self) except -1
