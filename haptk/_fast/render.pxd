# render: the head that one side sent becomes the head that the other side gets. Runs of untouched lines are copied
# whole; only Connection, cookies, forwardfor and framing are looked at. Output goes to the session's out_head or
# in_head, which render takes from the pool.

from haptk._fast.http1 cimport Head
from haptk._fast.state cimport Session, Worker

# 0, or -1 when the result does not fit into a buffer (400) or there is no memory.
# Also reads the persistence cookie: s.server, s.direct, s.ck_request.
cdef int render_request(Worker *w, Session *s, Head *h) noexcept nogil
# 0, or -1 (502). s.keep, s.down and s.tunnel must be decided before. `interim` is a 1xx other than 101.
cdef int render_response(Worker *w, Session *s, Head *h, bint interim) noexcept nogil
