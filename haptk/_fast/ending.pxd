# ending: how a transaction ends before its time, by an answer of ours, and how a session ends. Owns nothing: what a
# session holds goes back to where it came from, and a session that has ended has phase PH_DEAD and is not touched again.
# `cause` and `at` are the two letters of HAProxy's termination state. Functions that return int return as the steps of a
# session do: 1 when it can go on at once, 0 when it has to wait or is gone.

from haptk._fast.pool cimport buf_drop
from haptk._fast.state cimport Session, Worker

# Give everything back; the descriptor is closed already.
cdef void leave(Worker *w, Session *s) noexcept nogil
# Close now, whatever is going on.
cdef void session_kill(Worker *w, Session *s, char cause, char at) noexcept nogil
# Close after an answer, without losing it on its way.
cdef int close_client(Worker *w, Session *s) noexcept nogil
# Discard what the client still sends after that (PH_LINGER).
cdef int linger_step(Worker *w, Session *s) noexcept nogil
# Whatever was going on is over: an answer of our own comes instead.
cdef void give_back(Worker *w, Session *s, char cause, char at) noexcept nogil
# Replace whatever was going on by the answer `page` (ErrorPage).
cdef int answer(Worker *w, Session *s, int page, int status, char cause, char at) noexcept nogil
# 400, and no further request on this connection.
cdef int refuse(Worker *w, Session *s, char cause) noexcept nogil
# The same with another page than 400's, and another place in the log.
cdef int refuse_with(Worker *w, Session *s, int status, char cause, char at) noexcept nogil
# What a rule answered lies in s.in_head; a rule that failed (RULES_FAILED) is an error of ours.
cdef int ruled(Worker *w, Session *s, int got) noexcept nogil
# 502, or the end of an answer that has begun.
cdef int bad_response(Worker *w, Session *s, char cause) noexcept nogil


# What a session holds while a transaction runs, but for what the client sent.
cdef inline void drop_buffers(Worker *w, Session *s) noexcept nogil:
    buf_drop(w, &s.out_head)
    buf_drop(w, &s.sx)
    buf_drop(w, &s.in_head)
    buf_drop(w, &s.line)
    s.announced = 0
    buf_drop(w, &s.stick)
