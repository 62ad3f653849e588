from haptk._fast.bytes.buf cimport buf_held
from haptk._fast.balance cimport active_servers, any_eligible, choose, turn_begin, turn_end
from haptk._fast.ending cimport answer, bad_response, give_back, leave, session_kill
from haptk._fast.http1 cimport M_GET, M_HEAD
from haptk._fast.journal cimport note_link
from haptk._fast.observe cimport SAW_CLOSE, SAW_NO_CONNECT, SAW_READ_ERROR, observe
from haptk._fast.queue cimport enqueue, must_wait
from haptk._fast.reply cimport reply_server
from haptk._fast.retry cimport RE_CONN, RE_EMPTY, forget_answer, may_repeat, redispatch_now, repeatable
from haptk._fast.sockets cimport close_fd
from haptk._fast.state cimport Link, PAGE_500, PAGE_502, PAGE_503, PH_QUEUE, PH_RELAY, PH_REPLY, PH_RETRY
from haptk._fast.tally cimport tally_balanced, tally_redispatch, tally_retry
from haptk._fast.upstream cimport ATTACH_FDS, ATTACH_OK, attach, detach, last_server, take_granted, take_slot


cdef int dispatch(Worker *w, Session *s) noexcept nogil:
    # Find a server and a connection to it. s.server may be set by a cookie.
    cdef bint bound = s.server != NULL, taken = 0
    if not bound and s.backend.prefer_last:
        s.server = last_server(s)
    if not bound and s.server == NULL:
        turn_begin(w, s.backend)
        s.server = choose(w, s, s.backend, s.avoid)
        taken = s.server != NULL and not sent_there(s) and enter(w, s)
        turn_end(w, s.backend)
        if s.server != NULL and not (s.moving and s.server == s.avoid):
            tally_balanced(w, s)
    if s.moving:
        moved(w, s)
    if s.server == NULL and not any_eligible(s.backend):
        return no_server(w, s)
    if s.server != NULL and sent_there(s):
        return send_there(w, s)
    if s.server == NULL or not (taken or enter(w, s)):
        return wait_in_queue(w, s, bound)
    return go_on(w, s)


cdef inline bint enter(Worker *w, Session *s) noexcept nogil:
    # A slot of the server, if nobody waits for it.
    return not must_wait(s.backend, s.server) and take_slot(w, s)


cdef inline bint sent_there(Session *s) noexcept nogil:
    return s.server.redir.p != NULL and (s.method == M_GET or s.method == M_HEAD)


cdef int admitted(Worker *w, Session *s) noexcept nogil:
    # The wait in the queue is over: there is a slot, or the server is gone.
    s.phase = PH_RELAY
    if s.granted == NULL:
        return redispatch(w, s, 0)
    take_granted(w, s)
    return go_on(w, s)


cdef int go_on(Worker *w, Session *s) noexcept nogil:
    # There is a slot: find a connection.
    cdef int got
    s.since_ms = w.now
    if s.queue_ms == 0:
        s.queue_ms = w.now
    s.server_eof = s.up_failed = 0
    got = attach(w, s)
    if got == ATTACH_OK:
        return 1
    if got == ATTACH_FDS:
        w.counters.fd_exhausted += 1
        return answer(w, s, PAGE_503, 503, c"R", c"C")
    return connect_failed(w, s, 0)


cdef int send_there(Worker *w, Session *s) noexcept nogil:
    # `redir`: the client goes to the server itself.
    s.queue_ms = w.now
    give_back(w, s, c"L", c"C")
    if reply_server(w, s) < 0:
        return answer(w, s, PAGE_500, 500, c"P", c"R")
    s.phase = PH_REPLY
    return 1


cdef int wait_in_queue(Worker *w, Session *s, bint bound) noexcept nogil:
    # A hash binds as a cookie does, as long as its server is up.
    if s.server != NULL and not bound:
        bound = s.hashed
        if not bound:
            s.server = NULL
    s.phase = PH_QUEUE
    s.since_ms = w.now
    if enqueue(w, s, bound):
        return 0
    s.phase = PH_RELAY
    # maxqueue: another server may have more room, where the client may go elsewhere
    if s.direct and s.backend.redispatch and not s.force_persist:
        return redispatch(w, s, 0)
    return answer(w, s, PAGE_503, 503, c"S", c"Q")


cdef int no_server(Worker *w, Session *s) noexcept nogil:
    return answer(w, s, PAGE_503, 503, c"S", c"C")


cdef int connect_failed(Worker *w, Session *s, bint timed_out) noexcept nogil:
    # No byte of the request was taken by a server: it may be tried again, here or elsewhere.
    w.counters.connect_failures += 1
    observe(s.server, SAW_NO_CONNECT)
    if s.frontend.noting:
        note_link(w, s)
    detach(w, s, 0)
    if s.retries_left <= 0 or not s.backend.retry_on & RE_CONN:
        return answer(w, s, PAGE_503, 503, c"s" if timed_out else c"S", c"C")
    s.retries_left -= 1
    w.counters.retries += 1
    if redispatch_now(s):
        return redispatch(w, s, not timed_out)
    tally_retry(w, s)
    if timed_out:
        return dispatch(w, s)
    s.phase = PH_RETRY
    s.since_ms = w.now
    return 0


cdef void moved(Worker *w, Session *s) noexcept nogil:
    # A balance may have chosen the same server again: that is one more attempt, not a redispatch.
    s.moving = 0
    if s.server == s.avoid:
        tally_retry(w, s)
        return
    w.counters.redispatches += 1
    tally_redispatch(w, s, s.avoid)
    s.redispatched = 1
    if s.ck_request == c"V":
        s.ck_request = c"D"


cdef int redispatch(Worker *w, Session *s, bint pause) noexcept nogil:
    s.avoid = s.server
    s.server = NULL
    s.moving = 1
    s.direct = 0
    if pause and active_servers(s.backend) <= 1:
        s.phase = PH_RETRY
        s.since_ms = w.now
        return 0
    s.phase = PH_RELAY
    return dispatch(w, s)


cdef int again(Worker *w, Session *s) noexcept nogil:
    # retry-on: the client does not see what this attempt came to.
    tally_retry(w, s)
    detach(w, s, 0)
    forget_answer(s)
    s.retries_left -= 1
    w.counters.retries += 1
    if redispatch_now(s):
        return redispatch(w, s, 0)
    tally_retry(w, s)       # as HAProxy counts them: once for the answer, once for the connection
    return dispatch(w, s)


cdef int link_failed(Worker *w, Session *s) noexcept nogil:
    # The server connection broke: before it was established, before an answer, or in its middle.
    cdef Link *l = s.link
    if not l.connected:
        return connect_failed(w, s, 0)
    if s.tunnel:
        s.down.done = 1
        session_kill(w, s, c"S", c"D")
        return 0
    if not s.response_any:
        if l.reused and not s.dead_retry and not (s.keeping and s.backend.retry_on & RE_EMPTY):
            # the server closed an idle connection while we were using it: an everyday race
            if repeatable(s) or (buf_held(&s.out_head) and s.out_head.r == s.announced and not s.body_started):
                s.dead_retry = 1
                s.want_fresh = 1
                detach(w, s, 0)
                return dispatch(w, s)
            if not s.first:
                # the client shall try again by itself; as in HAProxy no line tells of it
                s.cause = c"S"
                s.at = c"H"
                close_fd(s.fd)
                leave(w, s)
                return 0
    if not s.head_done:
        observe(s.server, SAW_CLOSE if s.server_eof else SAW_READ_ERROR)
    if not s.head_done and may_repeat(s, RE_EMPTY):
        return again(w, s)
    if not s.head_done and not s.up.done and (s.up_failed or not s.server_eof):
        # reset while the request was on its way: HAProxy closes without a word
        session_kill(w, s, c"S", c"D")
        return 0
    if not s.response_any:
        w.counters.bad_responses += 1
        return answer(w, s, PAGE_502, 502, c"S", c"H")
    return bad_response(w, s, c"S")
