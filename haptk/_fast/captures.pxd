# captures: what was kept of a transaction for its log line. Owns nothing: the texts lie in s.line, behind the request line.

from libc.stdint cimport uint32_t

from haptk._fast.state cimport Session

cdef enum CapturedId:
    CAPTURED_REQUEST = 0, CAPTURED_RESPONSE, CAPTURED_CLIENT_COOKIE, CAPTURED_SERVER_COOKIE

cdef enum:
    ID_SLOT = 255           # of the request's unique id, among the request's captures

# What was kept for slot `i` (0 for cookies); n[0] is its length. NULL when nothing was captured.
cdef const char *captured_text(Session *s, int which, int i, uint32_t *n) noexcept nogil
