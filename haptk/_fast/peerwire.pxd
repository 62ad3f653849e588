# peerwire: updates of one stick table on one peers connection, to bytes and from bytes. The twin of
# core/peers/updates.py, against which it is tested. Used by one thread; the table may be used by all.

from libc.stdint cimport int64_t, uint32_t

from haptk._fast.bytes.span cimport Room, Span
from haptk._fast.store cimport Entry
from haptk._fast.table cimport Table

cdef enum:
    SLOTS = 129             # names are sent under the numbers 1 to 128

cdef class Names:
    cdef int turn
    cdef uint32_t owner[SLOTS]      # number of the stream that has a slot
    cdef int named[SLOTS]           # number of the name in that stream's table
    cdef uint32_t streams           # how many streams were made
    cdef list received              # slot -> bytes or None
    cdef uint32_t changed[SLOTS]    # counts how often a slot was received anew

cdef class Stream:
    cdef Table table
    cdef Names names
    cdef uint32_t me
    cdef public uint32_t at
    cdef public uint32_t last_id
    cdef public bint fresh
    cdef public uint32_t acked
    cdef public bint kin            # the other side tells and takes versions
    cdef public bint quiet          # we asked for what comes now
    cdef object described           # the definition that the next three belong to
    cdef tuple theirs               # kinds of data that it sends, in order
    cdef list counts                # how many numbers of each
    cdef uint32_t common            # bits of those that mean the same here
    cdef bint sent
    cdef uint32_t sent_id
    cdef uint32_t place
    cdef bint more
    cdef bytearray slots            # number of a name in the table -> its slot, 0 for none
    cdef int numbers[SLOTS]         # slot -> number of the received name in the table
    cdef uint32_t seen[SLOTS]
    cdef unsigned int renamed       # Table.renamed when `slots` and `numbers` were true

    cdef int remember(self) except -1
    cdef size_t names_of(self, void *rows, int count)
    cdef int describe(self, object definition) except -1
    cdef int slot_of(self, int number, bint *fresh)
    cdef int put_name(self, Room *o, Entry *e) except -1
    cdef int message(self, Room *out, Room *body, Entry *e, uint32_t number, bint timed, uint32_t now) except -1
    cdef int number_in(self, Span t) except -1
    cdef int learn(self, int what, Span p, object definition, int64_t now) except -1
