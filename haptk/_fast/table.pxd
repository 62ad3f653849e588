# table: the Python objects that own a store (see store.pxd) and the bell that its changes ring.

from libc.stdint cimport int64_t, uint32_t

from haptk._fast.store cimport BellC, Entry, Store

cdef class Bell:
    cdef BellC bell

cdef class Table:
    cdef Store store
    cdef readonly str name
    cdef readonly str type
    cdef readonly int length
    cdef readonly tuple stored      # (kind, elements, period_ms) of the entries' data
    cdef list names             # number -> name of a server, bytes; b"" for a number without one
    cdef dict numbers           # the other way round
    cdef object naming          # lock of all these
    cdef set pinned             # numbers that images keep
    cdef set unused             # numbers that no entry had at the last look
    cdef list vacant            # numbers that were taken back
    cdef size_t name_bytes      # of names that are not pinned
    cdef int64_t looked_ms      # when it was looked last
    cdef readonly unsigned int renamed  # counts how often numbers were taken back: who remembers some forgets them
    cdef Bell bell              # kept alive

    cpdef int number_of(self, bytes name, bint pin=*) except -1
    cdef bint crowded(self, size_t more)
    cdef int reclaim(self) except -1
    cdef tuple row(self, Entry *e, int64_t now)
    cdef tuple told(self, Entry *e, int64_t now)
    cdef int told_count(self, uint32_t kinds)
    cdef Entry *copy_of(self, bytes key, int64_t now) except? NULL
