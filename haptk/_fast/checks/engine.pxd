# engine: the loop of all checks of one process, and the Python object that a thread runs it with. Everything but `wake`,
# `found` and `busy` belongs to the thread that calls `turn`.

from haptk._fast.checks.plan cimport Steps
from haptk._fast.checks.state cimport CheckC, EngineC

cdef class CheckEngine:
    cdef EngineC e
    cdef list checks            # Steps by index, None for one that was removed; keeps them alive
    cdef list own               # bytes that are sent instead of a step's
    cdef CheckC **all
    cdef int count
    cdef int room

    cdef CheckC *one(self, int index) except NULL
    cdef int grow(self) except -1
