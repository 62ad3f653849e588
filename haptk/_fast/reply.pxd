# reply: answers of our own, written into the session's in_head and sent from there. What ends with them is the session's
# business: it has given its server back before.

from haptk._fast.facts cimport Seen
from haptk._fast.program cimport RedirectC, ReplyC, RuleC
from haptk._fast.state cimport ErrorPage, Session, Worker

cdef enum ReplyResult:
    REPLY_SENT = 1, REPLY_WAIT = 0, REPLY_LOST = -1

# The rest of the request, as far as it is here already: an answer keeps the client's connection only behind the whole.
cdef void settle_body(Session *s) noexcept nogil
# An error file or built-in page: the backend's own, else the frontend's. -1 when there is no memory.
cdef int reply_page(Worker *w, Session *s, int page, int status) noexcept nogil
# What `deny` and `return` answer; -1 when it does not fit into a buffer.
cdef int reply_rule(Seen *x, ReplyC *r) noexcept nogil
# `redirect`: -1 when it does not fit, 0 when it has nothing to say (ignore-empty), 1 when the answer is there.
cdef int reply_redirect(Seen *x, RuleC *r) noexcept nogil
# A server with `redir`: its clients go there themselves. -1 when it does not fit.
cdef int reply_server(Worker *w, Session *s) noexcept nogil
# Send on; s.bytes_down counts.
cdef int reply_send(Session *s) noexcept nogil
# Index of the page of a status, or -1.
cdef int page_of(int status) noexcept nogil
