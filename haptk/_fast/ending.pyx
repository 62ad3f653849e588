from libc.stdint cimport int64_t

from haptk._fast.bytes.buf cimport buf_empty
from haptk._fast.gate cimport gate_leave
from haptk._fast.http1 cimport BODY_EOF
from haptk._fast.journal cimport note_end, note_link
from haptk._fast.pool cimport buf_take, session_free
from haptk._fast.queue cimport dequeue
from haptk._fast.reply cimport page_of, reply_page, settle_body
from haptk._fast.rules cimport RULES_FAILED
from haptk._fast.scan cimport hk_count
from haptk._fast.service cimport service_drop
from haptk._fast.sockets cimport IO_AGAIN, IO_EOF, close_fd, drain, fill, reset_fd, shut_write
from haptk._fast.state cimport (PAGE_500, PAGE_502, PH_DEAD, PH_LINGER, PH_QUEUE, PH_RELAY, PH_REPLY, PH_RETRY,
                                PH_SERVICE)
from haptk._fast.tally cimport tally_end, tally_request
from haptk._fast.upstream cimport detach, drop_kept
from haptk._fast.wheel cimport timer_drop


cdef void leave(Worker *w, Session *s) noexcept nogil:
    # Give everything back; the descriptor is closed already.
    tally_end(w, s)
    service_drop(s)
    dequeue(w, s)
    detach(w, s, 0)
    drop_kept(w, s)
    w.unwatched -= not s.watched
    hk_count(w.conf.workers, s.frontend.sessions, -1)
    gate_leave(w, s.frontend, s.listener_index)
    if s.frontend.door:
        hk_count(w.conf.workers, &w.conf.door_sessions[s.frontend.door + s.listener_index - w.conf.frontend_count], -1)
    if w.conf.actives != NULL:
        hk_count(w.conf.workers, w.conf.actives, -1)
    drop_buffers(w, s)
    buf_drop(w, &s.rx)
    timer_drop(w, &s.timer)
    s.fd = -1
    s.kind = 0
    s.phase = PH_DEAD
    session_free(w, s)


cdef void close_whole(Session *s) noexcept nogil:
    # option nolinger: a close alone would be a reset, and what is on its way to the client would be lost.
    if s.frontend.nolinger:
        shut_write(s.fd)
    close_fd(s.fd)


cdef void session_kill(Worker *w, Session *s, char cause, char at) noexcept nogil:
    if s.phase == PH_DEAD:
        return
    if s.phase == PH_RELAY or s.phase == PH_QUEUE or s.phase == PH_RETRY or s.phase == PH_SERVICE:
        s.cause = cause
        s.at = at
        note_end(w, s)
    if s.phase == PH_RELAY and s.head_done and not s.down.done and s.down.mode == BODY_EOF:
        reset_fd(s.fd)      # no length says that something is missing: a reset does
    else:
        drain(s.fd)         # what is unread would turn our close into a reset that overtakes the answer
        close_whole(s)
    leave(w, s)


cdef int close_client(Worker *w, Session *s) noexcept nogil:
    # Unread input would turn our close into a reset that overtakes the answer: discard it for a moment first.
    if s.eof or s.broken or (not s.readable and s.up.done and s.rx.p == s.rx.n):
        close_whole(s)
        leave(w, s)
        return 0
    drop_buffers(w, s)
    shut_write(s.fd)
    s.phase = PH_LINGER
    s.since_ms = w.now
    return 1


cdef int linger_step(Worker *w, Session *s) noexcept nogil:
    cdef int64_t got = 1
    cdef int rounds = 0
    if not s.readable:
        buf_drop(w, &s.rx)
        return 0
    if buf_take(w, &s.rx) < 0:
        got = IO_EOF
    while got > 0 and s.readable and rounds < 64:
        buf_empty(&s.rx)
        got = fill(s.fd, &s.rx)
        rounds += 1
    if got == IO_AGAIN:
        s.readable = 0
        buf_drop(w, &s.rx)
        return 0
    if got > 0:
        return 0            # it goes on sending: arm() has us look again soon
    close_fd(s.fd)
    leave(w, s)
    return 0


cdef void give_back(Worker *w, Session *s, char cause, char at) noexcept nogil:
    # Whatever was going on is over: an answer of our own comes instead.
    s.client_ms = w.now
    s.cause = cause
    s.at = at
    w.counters.responses[0] += 1
    if not s.open:
        tally_request(w, s, 0)
    dequeue(w, s)
    if s.link != NULL and s.frontend.noting:
        note_link(w, s)
    detach(w, s, 0)
    service_drop(s)
    buf_drop(w, &s.sx)


cdef int answer(Worker *w, Session *s, int page, int status, char cause, char at) noexcept nogil:
    # Replace whatever was going on by one of the pages; mode tcp has none.
    if s.frontend.tcp:
        s.down.done = 1
        session_kill(w, s, cause, at)
        return 0
    give_back(w, s, cause, at)
    if reply_page(w, s, page, status) < 0:
        session_kill(w, s, cause, at)
        return 0
    s.phase = PH_REPLY
    return 1


cdef int refuse(Worker *w, Session *s, char cause) noexcept nogil:
    return refuse_with(w, s, 400, cause, c"R")


cdef int refuse_with(Worker *w, Session *s, int status, char cause, char at) noexcept nogil:
    w.counters.bad_requests += 1
    s.keep = 0
    s.method = 0
    s.up.done = 0
    return answer(w, s, page_of(status), status, cause, at)


cdef int ruled(Worker *w, Session *s, int got) noexcept nogil:
    # What a rule answered lies in s.in_head; a rule that failed is an error of ours.
    if got == RULES_FAILED:
        settle_body(s)
        return answer(w, s, PAGE_500, 500, c"P", c"H" if s.phase == PH_RELAY else c"R")
    give_back(w, s, s.cause, s.at)
    s.phase = PH_REPLY
    return 1


cdef int bad_response(Worker *w, Session *s, char cause) noexcept nogil:
    w.counters.bad_responses += 1
    if not s.head_done:
        return answer(w, s, PAGE_502, 502, cause, c"H")
    session_kill(w, s, cause, c"D")
    return 0
