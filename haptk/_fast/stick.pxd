# stick: the `stick` rules and `appsession` of a backend: which server an exchange belongs to by what the tables have
# learned, and what they learn from it. Reads heads, touches only s.server, s.direct and s.stick.

from haptk._fast.http1 cimport Head
from haptk._fast.state cimport Session, Worker

# After the cookie was read and before a server is chosen; h is NULL in TCP mode. A server that is set stays.
# `force` lets a session stick to a server that is down, `ignore` keeps appsession (but not the stick rules, as with
# HAProxy) from being asked.
cdef void stick_request(Worker *w, Session *s, Head *h, bint force, bint ignore) noexcept nogil
# The final response head is at s.sx; h is NULL in TCP mode, where a connection is the answer.
cdef void stick_response(Worker *w, Session *s, Head *h) noexcept nogil
# After rules have let the response through (or changed it): what appsession learns.
cdef void app_response(Worker *w, Session *s, Head *h) noexcept nogil
