# cookie: HAProxy's cookie persistence on single header values. Writes edited values; owns nothing.
# Written from the recorded behaviour, independently of core/cookie.py, which it is tested against.

from libc.stdint cimport uint32_t

from haptk._fast.bytes.span cimport Room, Span
from haptk._fast.state cimport BackendC, ServerC, Session, Worker

# Walk one Cookie header value: choose a server (s.server, s.direct, s.ck_request, dates) unless `ignore`, and append
# what the server shall see to out. False means that the whole header is dropped, whatever was appended.
cdef bint cookie_request(Worker *w, Session *s, BackendC *be, Span v, Room *out) noexcept nogil
# One Set-Cookie value: append what the client shall see. False means that the header is dropped, whatever was appended.
cdef bint cookie_response(Session *s, BackendC *be, Span v, Room *out) noexcept nogil
# Whether the response needs a cookie of ours.
cdef bint cookie_wanted(Worker *w, Session *s, BackendC *be) noexcept nogil
# Append "set-cookie: NAME=value...CRLF".
cdef void cookie_line(Worker *w, Session *s, BackendC *be, Room *out) noexcept nogil
