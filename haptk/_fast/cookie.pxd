# cookie: HAProxy's cookie persistence on single header values. Writes edited values; owns nothing.
# Written from the recorded behaviour, independently of core/cookie.py, which it is tested against.

from libc.stdint cimport uint32_t

from haptk._fast.state cimport BackendC, ServerC, Session, Worker

# Walk one Cookie header value: choose a server (s.server, s.direct, s.ck_request, dates) unless `ignore`, and write
# what the server shall see to out (at most n bytes are written). Returns the new length; 0 means drop the header.
cdef uint32_t cookie_request(Worker *w, Session *s, BackendC *be, const char *v, uint32_t n, char *out) noexcept nogil
# One Set-Cookie value: what the client shall see. out has room for n + the server's id + 1.
# Returns the new length, 0 means drop the header.
cdef uint32_t cookie_response(Session *s, BackendC *be, const char *v, uint32_t n, char *out) noexcept nogil
# Whether the response needs a cookie of ours.
cdef bint cookie_wanted(Worker *w, Session *s, BackendC *be) noexcept nogil
# "set-cookie: NAME=value...CRLF" into out (room bytes); returns its length, 0 when it does not fit.
cdef uint32_t cookie_line(Worker *w, Session *s, BackendC *be, char *out, uint32_t room) noexcept nogil
