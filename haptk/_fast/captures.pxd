# captures: what is kept of a transaction for its log line and for later rules. Owns nothing: the texts lie in s.line,
# behind the request line, each as slot (8 bits), length (16), bytes. The reader of the file sees to it that all fit.

from haptk._fast.bytes.span cimport Span
from haptk._fast.http1 cimport Head
from haptk._fast.state cimport Session

cdef enum CapturedId:
    CAPTURED_REQUEST = 0, CAPTURED_RESPONSE, CAPTURED_CLIENT_COOKIE, CAPTURED_SERVER_COOKIE

cdef enum:
    ID_SLOT = 255           # of the request's unique id, among the request's captures
    OUR_END_SLOT = 252      # and of the two ends of a connection to a server that was closed before the line
    SERVER_END_SLOT = 251

# What was kept for slot `i` (0 for cookies); none when nothing was captured.
cdef Span captured_text(Session *s, int which, int i) noexcept nogil
# Keep a text under a number of the caller's (ID_SLOT); dropped where there is no room.
cdef void keep_item(Session *s, int slot, Span text) noexcept nogil
# Keep a text for a slot as far as its length and a NUL allow, in place of what it held; a slot that the frontend does
# not have keeps nothing.
cdef void capture(Session *s, int which, int i, Span text) noexcept nogil
# The headers of a head that was just received, before any rule; of several with one name the last counts.
cdef void capture_head(Session *s, Head *h, bint response) noexcept nogil
# The first cookie whose NAME=VALUE begins as the file says; behind the rules.
cdef void capture_cookie(Session *s, Head *h, bint response) noexcept nogil
