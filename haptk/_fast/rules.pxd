# rules: carrying out a file's rules on one exchange, in HAProxy's order. They run while the head that they look at is
# parsed in w.head; answers are written by reply, changes made by edit.

from haptk._fast.http1 cimport Head
from haptk._fast.state cimport Session, Worker

cdef enum RulesResult:
    RULES_GO = 0            # on to a server (s.backend says where; NULL: nowhere), or on to the client
    RULES_ANSWER = 1        # an answer of our own lies in s.in_head; s.status, s.cause and s.at are set
    RULES_SERVICE = 2       # the control plane is to answer; s.service says what
    RULES_FAILED = -1       # a rule asked for what is no message, or what has no room: 500

# Whether one of the frontend's `monitor fail` conditions holds.
cdef int rules_monitor(Worker *w, Session *s, Head *h) noexcept nogil
# Frontend, choice of the backend (s.backend), its persistence rules, then its own. The body is settled when they answer.
cdef int rules_request(Worker *w, Session *s, Head *h) noexcept nogil
cdef void rules_connection(Worker *w, Session *s) noexcept nogil
# Backend, then frontend. An answer replaces the server's.
cdef int rules_response(Worker *w, Session *s, Head *h) noexcept nogil
