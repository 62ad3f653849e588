# edit: changes to a parsed head. The first one copies the head to Worker.edits, from where on its offsets count; what
# rules add stands behind the copy, and render writes the result as it writes any head. Functions return -1 when there is no
# room, or when the result would not be a proper message.

from libc.stdint cimport uint32_t

from haptk._fast.bytes.span cimport Room, Span
from haptk._fast.http1 cimport Head
from haptk._fast.program cimport Text
from haptk._fast.state cimport Worker

cdef enum DraftId:          # rooms for what is built before it goes into a head
    DRAFT_TEXT = 0          # what a rule's format makes
    DRAFT_PART              # what is built of that
    DRAFT_TARGET            # a whole target
    DRAFTS

# Rooms for rules: 0, or -1 without memory; to be closed.
cdef int edits_open(Worker *w) noexcept nogil
cdef void edits_close(Worker *w) noexcept nogil
# One of the rooms, emptied.
cdef Room *draft(Worker *w, int which) noexcept nogil
# Copy the head unless that was done.
cdef int edits_begin(Worker *w, Head *h) noexcept nogil
# Names are lower-case. The blanks around values are left out.
cdef int header_add(Worker *w, Head *h, Span name, Span value) noexcept nogil
cdef void header_drop(Head *h, int k) noexcept nogil
cdef void header_drop_named(Head *h, Span name) noexcept nogil
cdef int header_change(Worker *w, Head *h, int k, Span value) noexcept nogil
# The request line becomes METHOD TARGET; either may be the old one.
cdef int set_request_line(Worker *w, Head *h, Span method, Span target) noexcept nogil
cdef int set_status(Worker *w, Head *h, int status, Span reason) noexcept nogil
# Where an absolute target's authority stands in it: 1, 0 for a target without one, -1 for a malformed one.
cdef int authority_in(Head *h, uint32_t *start, uint32_t *end) noexcept nogil
# After the last edit: what the headers say about the connection is read again; a request must have a proper Host.
cdef int edits_end(Worker *w, Head *h, bint request) noexcept nogil
