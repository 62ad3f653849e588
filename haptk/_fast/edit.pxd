# edit: changes to a parsed head. The first one copies the head to the worker's scratch (at the same offsets); what rules
# add stands behind the copy, and render writes the result as it writes any head. Functions return -1 when there is no
# room, or when the result would not be a proper message.

from libc.stdint cimport uint32_t

from haptk._fast.http1 cimport Head
from haptk._fast.program cimport MatchId, RuleC, Text
from haptk._fast.state cimport Worker

# Length of Worker.edits for a buffer size.
cdef size_t edits_size(uint32_t bufsize) noexcept nogil
# Copy the head unless that was done; -1 never happens.
cdef void edits_begin(Worker *w, Head *h) noexcept nogil
# Where the next added text may be written, and how much of it.
cdef char *edits_room(Worker *w, uint32_t *room) noexcept nogil
# Names are lower-case. The value lies at edits_room() already or anywhere else outside of it.
cdef int header_add(Worker *w, Head *h, Text *name, const char *value, uint32_t n) noexcept nogil
cdef void header_drop(Head *h, int k) noexcept nogil
cdef void header_drop_named(Head *h, Text *name) noexcept nogil
# The value of header k becomes p[0..n).
cdef int header_change(Worker *w, Head *h, int k, const char *p, uint32_t n) noexcept nogil
# The request line becomes METHOD TARGET; either may be the old one.
cdef int set_request_line(Worker *w, Head *h, const char *method, uint32_t method_n, const char *target,
                          uint32_t target_n) noexcept nogil
cdef int set_status(Worker *w, Head *h, int status, Text *reason) noexcept nogil
# After the last edit: what the headers say about the connection is read again; a request must have a proper Host.
cdef int edits_end(Worker *w, Head *h, bint request) noexcept nogil
