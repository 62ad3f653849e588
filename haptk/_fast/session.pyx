# Each step function returns 1 when the session can go on at once (its phase may have changed), 0 when it has to wait
# or is gone. A session that was killed has phase PH_DEAD and is not touched again.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from haptk._fast.address cimport note_local
from haptk._fast.bytes.buf cimport buf_part, buf_unseen
from haptk._fast.bytes.span cimport NOWHERE, Span, outer, span_eq, span_find_span, span_from, span_opens, word
from haptk._fast.captures cimport capture_cookie, capture_head
from haptk._fast.deadlines cimport LINGER_MS, arm, deadline
from haptk._fast.dispatch cimport admitted, again, connect_failed, dispatch, link_failed
from haptk._fast.edit cimport edits_begin
from haptk._fast.ending cimport (answer, bad_response, close_client, drop_buffers, leave, linger_step, refuse, refuse_with,
                                 ruled, session_kill)
from haptk._fast.facts cimport path_in
from haptk._fast.faults cimport fault_request, fault_response
from haptk._fast.hashkey cimport hash_request
from haptk._fast.http1 cimport (BODY_LENGTH, BODY_NONE, BODY_TUNNEL, H_UPGRADE, Head, body_advance, drop_lines,
                                head_target, parse_request)
from haptk._fast.journal cimport note_end, note_refused, note_request
from haptk._fast.observe cimport SAW_BAD_BODY, SAW_BAD_HEAD, SAW_READ_TIMEOUT, observe
from haptk._fast.pool cimport buf_drop, buf_take
from haptk._fast.program cimport span_text
from haptk._fast.queue cimport WAITS_NOT, take_ready
from haptk._fast.proxyproto cimport read_proxy
from haptk._fast.relay cimport (RELAY_AGAIN, RELAY_BAD_REQUEST, RELAY_BAD_RESPONSE, RELAY_BAD_START, RELAY_CLIENT,
                                RELAY_DONE, RELAY_LINK, RELAY_RULED, RELAY_RULES_FAILED, RELAY_WAIT, compact,
                                more_request, pull, push,
                                rest_tunnel)
from haptk._fast.render cimport render_request
from haptk._fast.reply cimport REPLY_LOST, REPLY_WAIT, reply_send, settle_body
from haptk._fast.retry cimport RE_CONN, RE_JUNK, RE_TIMEOUT, may_repeat, take_early_body
from haptk._fast.rules cimport (RULES_ANSWER, RULES_FAILED, RULES_GO, RULES_SERVICE, rules_connection, rules_monitor,
                                rules_request)
from haptk._fast.scan cimport hk_count
from haptk._fast.service cimport (SERVICE_BAD, SERVICE_FAILED, SERVICE_GONE, SERVICE_SENT, service_begin,
                                  service_drop, service_expired, service_step)
from haptk._fast.sockets cimport IO_AGAIN, IO_EOF, close_fd, drained, fill, reset_fd, watch
from haptk._fast.state cimport (Link, MODE_CLOSE, MODE_KEEP, PAGE_200, PAGE_400, PAGE_408, PAGE_500, PAGE_502, PAGE_503, PAGE_504,
                                PH_DEAD, PH_HEAD, PH_LINGER, PH_PROXY, PH_QUEUE, PH_RELAY, PH_REPLY, PH_RETRY, PH_SERVICE)
from haptk._fast.stick cimport stick_request
from haptk._fast.tally cimport tally_accept, tally_backend, tally_bytes, tally_request, tally_session, weight_of
from haptk._fast.upstream cimport detach

cdef Session _shape
cdef size_t TIMER_AT = <size_t>&_shape.timer - <size_t>&_shape

cdef int reply_step(Worker *w, Session *s) noexcept nogil:
    cdef uint64_t before = s.bytes_down
    cdef int got = reply_send(s)
    if s.bytes_down != before:
        s.client_ms = w.now
    if got == REPLY_WAIT:
        return 0
    note_end(w, s)
    if got == REPLY_LOST:
        close_fd(s.fd)
        leave(w, s)
        return 0
    return next_request(w, s) if s.keep else close_client(w, s)


# ---------------------------------------------------------------- waiting for a request

cdef int next_request(Worker *w, Session *s) noexcept nogil:
    # The transaction is over and the client stays.
    drop_buffers(w, s)
    if s.rx.p == s.rx.n:
        buf_drop(w, &s.rx)
    s.rx.r = s.rx.f = s.rx.p
    s.phase = PH_HEAD
    s.first = 0
    s.got_byte = s.rx.p < s.rx.n
    s.parse_tries = 0
    s.tried_n = 0
    s.since_ms = s.client_ms = w.now
    s.started_ms = s.ready_ms = w.now
    s.handshake_ms = 0
    s.status = 0
    s.cause = s.at = c"-"
    s.log_level = 0
    s.request_ms = s.queue_ms = s.connect_ms = s.response_ms = 0
    s.server = NULL
    s.bytes_down = s.heads_out = s.down.seen = 0
    s.up.done = 1
    s.up.seen = 0
    return 1


cdef bint worth_parsing(Session *s) noexcept nogil:
    # A head that comes in small pieces is only parsed again once its end may be there: parsing every prefix anew
    # would let a slow sender cost us quadratic time.
    cdef uint32_t start
    cdef Span fresh
    if s.rx.n == s.rx.p or s.rx.n == s.tried_n:
        return 0
    if s.parse_tries < 4:
        return 1
    start = s.tried_n - 3 if s.tried_n > s.rx.p + 3 else s.rx.p
    fresh = buf_part(&s.rx, start, s.rx.n)
    return span_find_span(fresh, word(b"\n\r\n")) != NOWHERE or span_find_span(fresh, word(b"\n\n")) != NOWHERE or \
        s.rx.n == s.rx.size


cdef int head_step(Worker *w, Session *s) noexcept nogil:
    cdef uint32_t limit = w.conf.bufsize - w.conf.maxrewrite
    cdef int length
    if worth_parsing(s):
        length = parse_request(&s.rx, &w.head, s.frontend.lax)
        if length > 0 and <uint32_t>length <= limit:
            return begin(w, s, <uint32_t>length)
        s.tried_n = s.rx.n
        s.parse_tries += s.parse_tries < 250
        if length != 0 or s.rx.n - s.rx.p > limit:
            fault_request(w, s, 0)
            return refuse_with(w, s, w.head.fault if length < 0 and w.head.fault else 400, c"P", c"R")
    elif s.rx.n != s.rx.p:
        s.tried_n = s.rx.n
        if s.rx.n - s.rx.p > limit:
            fault_request(w, s, 0)
            return refuse(w, s, c"P")
    if s.eof:
        if s.rx.n != s.rx.p:
            return refuse(w, s, c"C")
        if s.first and not s.frontend.ignore_probes:
            return refuse(w, s, c"C")   # half of the connection may still want to know
        close_fd(s.fd)
        leave(w, s)
        return 0
    if not s.readable:
        if s.rx.p == s.rx.n:
            buf_drop(w, &s.rx)
        return 0
    return read_head(w, s)


cdef int proxy_step(Worker *w, Session *s) noexcept nogil:
    # accept-proxy: the header in front of everything says whom we serve. What is wrong is closed without a word.
    cdef int got = read_proxy(s, buf_unseen(&s.rx))
    if got > 0:
        if s.frontend.wants_local:
            note_local(s)       # nothing new where the header named it
        s.rx.p = s.rx.r = s.rx.f = <uint32_t>got
        s.phase = PH_HEAD
        s.got_byte = s.rx.p < s.rx.n
        s.started_ms = w.now
        tally_session(w, s)
        s.handshake_ms = <uint32_t>(w.now - s.accepted_ms)
        if s.frontend.tcp:
            begin_tcp(w, s)
        return 1
    if got < 0 or s.eof or s.rx.n == w.conf.bufsize:
        turn_away(w, s, 0)
        return 0
    return read_head(w, s) if s.readable else 0


cdef void turn_away(Worker *w, Session *s, bint late) noexcept nogil:
    # Without a PROXY header. HAProxy leaves unread what is none, so that its close is a reset.
    note_refused(w, s, late)
    if s.rx.n:
        reset_fd(s.fd)
    else:
        close_fd(s.fd)
    leave(w, s)


cdef int read_head(Worker *w, Session *s) noexcept nogil:
    cdef int64_t got
    cdef uint32_t space
    if buf_take(w, &s.rx) < 0:
        session_kill(w, s, c"R", c"R")
        return 0
    if s.rx.p:
        compact(&s.rx)
        s.tried_n = 0
    space = s.rx.size - s.rx.n
    got = fill(s.fd, &s.rx)
    if got > 0:
        if got < space and not s.hup:
            s.readable = 0
        if not s.got_byte:
            s.got_byte = 1
            s.started_ms = w.now
        s.client_ms = w.now
        w.counters.bytes_up += got
        return 1
    if got == IO_AGAIN:
        s.readable = 0
        if s.rx.n == s.rx.p:
            buf_drop(w, &s.rx)
        return 0
    s.readable = 0
    if got == IO_EOF or s.rx.n != s.rx.p or s.phase == PH_HEAD:
        s.eof = 1
        return 1
    close_fd(s.fd)
    leave(w, s)
    return 0


# ---------------------------------------------------------------- a request

cdef void reset_transaction(Session *s, Head *h) noexcept nogil:
    s.force_persist = s.ignore_persist = s.direct = 0
    s.head_done = s.response_any = s.server_eof = s.server_keep = s.up_failed = 0
    s.keeping = s.moving = s.redispatched = s.dead_retry = s.body_started = s.want_fresh = s.tunnel = 0
    s.service = s.hashed = s.unlogged = s.response_minor = s.no_retry = s.log_level = 0
    s.rule_close = s.rule_keep = 0
    s.ck_request = s.ck_response = c"N"
    s.cause = s.at = c"-"
    s.method = s.method_sent = h.method
    s.minor = h.minor
    s.status = 0
    s.retries_left = -1
    s.server = NULL
    s.avoid = NULL
    s.last_date = s.first_date = 0
    s.bytes_down = s.heads_out = s.down.seen = 0
    s.down.done = 0
    s.connect_ms = s.response_ms = s.queue_ms = 0


cdef void request_body(Session *s, Head *h) noexcept nogil:
    s.up.mode = h.body
    s.up.stage = 0
    s.up.strip = 0
    s.up.left = h.length
    s.up.seen = 0
    s.up.done = h.body == BODY_NONE or (h.body == BODY_LENGTH and h.length == 0)


cdef bint monitored(Session *s, Head *h) noexcept nogil:
    # Whether the target, or of an absolute form what follows the authority, is the monitor-uri.
    cdef Span t = head_target(h), uri = span_text(&s.frontend.monitor_uri)
    cdef uint32_t start = 0, end = 0
    if span_opens(uri, b"/") and not path_in(t, &start, &end):
        return 0
    return span_eq(span_from(t, start), uri)


cdef int begin(Worker *w, Session *s, uint32_t length) noexcept nogil:
    # A complete request head lies at s.rx.p and is parsed in w.head; its bytes stay where they are until more is read.
    cdef Head *h = &w.head
    cdef int got
    reset_transaction(s, h)
    request_body(s, h)
    s.request_ms = w.now
    s.backend = s.frontend.backend
    note_request(w, s, h)
    if w.conf.connection_seen and (h.conn_close or h.conn_keep):
        edits_begin(w, h)
    if s.frontend.capturing:
        capture_head(s, h, 0)
    consume_head(s, length)
    w.counters.requests += 1
    tally_request(w, s, weight_of(h))
    s.keep = (h.minor == 1 or h.conn_keep) and not h.conn_close and not w.stopping
    if s.frontend.monitor_uri.n and monitored(s, h):
        s.unlogged = 1
        settle_body(s)
        if s.frontend.program.monitor_count and rules_monitor(w, s, h):
            return answer(w, s, PAGE_503, 503, c"L", c"R")
        return answer(w, s, PAGE_200, 200, c"L", c"R")
    if s.frontend.ruled:
        got = rules_request(w, s, h)
        if got == RULES_SERVICE:
            return serve(w, s, h)
        if got != RULES_GO:
            return ruled(w, s, got)
    if s.backend == NULL:
        settle_body(s)
        return answer(w, s, PAGE_503, 503, c"S", c"C")
    tally_backend(w, s)
    if s.frontend.capturing:
        capture_cookie(s, h, 0)
    s.server_close = s.rule_close or not s.rule_keep and (
        s.backend.connection != MODE_KEEP or s.frontend.connection != MODE_KEEP)
    s.upgrade_asked = h.upgrade and h.conn_upgrade and h.minor and s.up.done
    if h.conn_upgrade and not s.up.done:
        drop_lines(h, H_UPGRADE)    # no tunnel begins behind a body: it is an ordinary request
    if render_request(w, s, h) < 0:
        # too long as it came, or as rules made it
        return ruled(w, s, RULES_FAILED) if h.edited else refuse(w, s, c"P")
    if s.backend.by_hash:
        hash_request(s, s.backend, h)
    if s.backend.stick != NULL:
        stick_request(w, s, h, s.force_persist, s.ignore_persist)
    if not take_early_body(s):
        fault_request(w, s, 1)
        return refuse(w, s, c"P")
    s.retries_left = s.backend.retries
    s.keeping = (s.backend.retry_on & ~RE_CONN) != 0 and not s.no_retry
    s.phase = PH_RELAY
    return dispatch(w, s)


cdef int serve(Worker *w, Session *s, Head *h) noexcept nogil:
    # The control plane answers.
    if s.frontend.connection == MODE_CLOSE:
        s.keep = 0
    if service_begin(w, s, h) < 0:
        return answer(w, s, PAGE_500, 500, c"R", c"R")
    s.phase = PH_SERVICE
    return 1


cdef int serve_step(Worker *w, Session *s) noexcept nogil:
    cdef int got = service_step(w, s)
    if got == SERVICE_SENT:
        note_end(w, s)
        service_drop(s)
        return next_request(w, s) if s.keep else close_client(w, s)
    if got == SERVICE_GONE:
        session_kill(w, s, c"C", c"D" if s.bytes_down else c"H")
    elif got == SERVICE_BAD:
        return refuse(w, s, c"P")
    elif got == SERVICE_FAILED:
        return answer(w, s, PAGE_500, 500, c"R", c"R")
    return 0


cdef void consume_head(Session *s, uint32_t length) noexcept nogil:
    s.rx.p += length
    s.rx.r = s.rx.f = s.rx.p


# ---------------------------------------------------------------- servers

cdef void serve_queues(Worker *w) noexcept nogil:
    # Those that were given a slot.
    cdef Session *s = take_ready(w)
    cdef Session *following
    while s != NULL:
        following = s.ready_next
        s.ready_next = NULL
        s.queued = WAITS_NOT
        w.queued -= 1
        if admitted(w, s):
            session_run(w, s)
        elif s.phase != PH_DEAD:
            arm(w, s)
        s = following


cdef int bad_body(Worker *w, Session *s) noexcept nogil:
    fault_request(w, s, 1)
    if s.head_done:
        session_kill(w, s, c"P", c"D")
        return 0
    return refuse_with(w, s, 400, c"P", c"H")


# ---------------------------------------------------------------- moving bytes

cdef int relay_step(Worker *w, Session *s) noexcept nogil:
    cdef Link *l = s.link
    cdef int up = RELAY_DONE, down
    cdef bint tunnel = s.tunnel
    if s.broken and not s.readable:
        session_kill(w, s, c"C", c"D" if s.head_done else c"H")
        return 0
    if l.broken and not l.connected and not l.readable:
        return connect_failed(w, s, 0)
    if not s.up_failed:
        up = push(w, s)
        if up == RELAY_CLIENT:
            session_kill(w, s, c"C", c"D" if l.connected else c"C")
            return 0
        if up == RELAY_BAD_REQUEST:
            return bad_body(w, s)
        if up == RELAY_LINK:
            if not l.connected or s.tunnel:
                return link_failed(w, s)
            # the server may have answered before it stopped listening
            s.up_failed = 1
            l.readable = 1
    down = pull(w, s)
    if s.tunnel != tunnel and (down == RELAY_WAIT or down == RELAY_DONE):
        return 1        # it began just now: what the client sent behind its request waits for nobody's event
    if down == RELAY_WAIT:
        if s.head_done:
            tally_bytes(w, s)
        if s.tunnel:
            rest_tunnel(w, s)
        return 0
    if down == RELAY_DONE:
        if s.tunnel and not s.up.done:
            rest_tunnel(w, s)
            return 0
        if up == RELAY_WAIT and not l.hup and (s.server_keep or s.keep):
            l.early = 1
            return 0        # answered early, but the server goes on reading: so does everybody
        return drain(w, s) if s.keep else finish(w, s)
    if down == RELAY_LINK:
        return link_failed(w, s)
    if down == RELAY_RULED:
        return ruled(w, s, RULES_ANSWER)
    if down == RELAY_RULES_FAILED:
        return ruled(w, s, RULES_FAILED)
    if down == RELAY_CLIENT:
        session_kill(w, s, c"C", c"D")
        return 0
    if down == RELAY_BAD_RESPONSE or down == RELAY_BAD_START:
        if down == RELAY_BAD_RESPONSE:
            fault_response(w, s)
        observe(s.server, SAW_BAD_BODY if s.head_done else SAW_BAD_HEAD)
    if down == RELAY_AGAIN or (not s.head_done and may_repeat(s, RE_JUNK)):
        return again(w, s)
    return bad_response(w, s, c"P")


cdef int drain(Worker *w, Session *s) noexcept nogil:
    # The response is delivered and the server takes no more: the client was promised that its connection lasts, so the
    # rest of its request is read for nobody.
    cdef int got = 1
    s.up_failed |= s.out_head.r < s.out_head.n or s.rx.r < s.rx.f or not s.up.done
    s.out_head.r = s.out_head.n
    s.rx.r = s.rx.f
    while got == 1 and not s.up.done:
        got = more_request(w, s)
        s.rx.r = s.rx.f
    if s.up.done:
        return finish(w, s)
    if got == RELAY_BAD_REQUEST:
        return bad_body(w, s)
    if got == RELAY_CLIENT:
        session_kill(w, s, c"C", c"D")
    return 0


cdef bint at_rest(Link *l) noexcept nogil:
    # Whether the server has nothing more to say: bytes beyond its answer would be read as that of the next client.
    # Events are edges, so what is unread now will not be announced again.
    if l.early:
        return 0
    if l.readable:
        if not drained(l.fd):
            return 0
        l.readable = 0
    return 1


cdef int finish(Worker *w, Session *s) noexcept nogil:
    # The response is delivered.
    cdef Link *l = s.link
    cdef bint whole = s.up.done and s.out_head.r == s.out_head.n and s.rx.r == s.rx.f
    cdef bint clean = whole and not s.up_failed
    cdef int cls = s.status // 100
    if not whole:
        s.keep = 0
        s.up.done = 0
    w.counters.responses[cls if cls <= 5 else 0] += 1
    w.counters.bytes_down += s.bytes_down
    note_end(w, s)
    detach(w, s, s.server_keep and clean and not l.hup and not s.server_eof and s.sx.p == s.sx.n
           and at_rest(l))
    if s.keep:
        return next_request(w, s)
    return close_client(w, s)


# ---------------------------------------------------------------- timers

cdef int head_expired(Worker *w, Session *s) noexcept nogil:
    if not s.got_byte and (not s.first or s.frontend.ignore_probes or w.stopping):
        close_fd(s.fd)
        leave(w, s)
        return 0
    s.keep = 0
    s.method = 0
    s.up.done = 0
    return answer(w, s, PAGE_408, 408, c"c", c"R")


cdef int relay_expired(Worker *w, Session *s) noexcept nogil:
    cdef char side = c"s"
    deadline(s, w.stopping, &side)
    if not s.link.connected:
        return connect_failed(w, s, 1)
    if s.head_done or side == c"c" or not (s.link.writable or s.up.done):
        session_kill(w, s, side, c"D")
        return 0
    observe(s.server, SAW_READ_TIMEOUT)
    if may_repeat(s, RE_TIMEOUT):
        return again(w, s)
    return answer(w, s, PAGE_504, 504, c"s", c"H")


cdef int serve_expired(Worker *w, Session *s) noexcept nogil:
    cdef char late = service_expired(s)
    s.keep = 0
    if late == c"c":
        return answer(w, s, PAGE_408, 408, c"c", c"D")
    if late == c"s":
        return answer(w, s, PAGE_504, 504, c"s", c"H")
    session_kill(w, s, c"c", c"D")
    return 0


cdef void session_expire(Worker *w, Timer *t) noexcept nogil:
    cdef Session *s = <Session *>outer(t, TIMER_AT)
    cdef int more = 0
    if s.phase == PH_HEAD:
        w.counters.timeouts += 1
        more = head_expired(w, s)
    elif s.phase == PH_RELAY:
        w.counters.timeouts += 1
        more = relay_expired(w, s)
    elif s.phase == PH_RETRY:
        s.phase = PH_RELAY
        more = dispatch(w, s)
    elif s.phase == PH_LINGER and w.now < s.since_ms + LINGER_MS:
        more = 1
    elif s.phase == PH_QUEUE:
        more = answer(w, s, PAGE_503, 503, c"s", c"Q")
    elif s.phase == PH_SERVICE:
        more = serve_expired(w, s)
    else:
        if s.phase == PH_PROXY:
            turn_away(w, s, 1)
        else:
            close_fd(s.fd)
            leave(w, s)
    if more:
        session_run(w, s)
    elif s.phase != PH_DEAD:
        arm(w, s)


# ---------------------------------------------------------------- a client that leaves

cdef bint read_on(Worker *w, Session *s) noexcept nogil:
    # What came before the end of the client's stream, as far as there is room. False when the end was in the middle of a
    # request, or (mode tcp) when nothing waits to be sent.
    cdef int got = 1
    while got == 1 and s.rx.n - s.rx.r < w.conf.bufsize:
        got = more_request(w, s)
    if s.tunnel:
        return not s.eof or s.rx.r < s.rx.f or s.out_head.r < s.out_head.n
    return got != RELAY_CLIENT


cdef bint client_left(Worker *w, Session *s) noexcept nogil:
    # The end of the client's stream was announced; true when that ends the session now (an answer may still be sent).
    # HAProxy's table: with option abortonclose always; without it when the request is not whole, or mode tcp has nothing
    # to send. A server that has the request already is told with abortonclose only.
    cdef bint asked = s.backend.abortonclose
    if s.phase == PH_RELAY and s.link.connected:
        if not asked or s.tunnel or not s.up.done or (s.head_done and s.down.done):
            return 0
        if not (s.broken or s.head_done):
            s.keep = 0
            answer(w, s, PAGE_400, 400, c"C", c"H")
            return 1
        session_kill(w, s, c"C", c"D")
        return 1
    if not asked and not (s.tunnel and s.broken) and (s.up.done or read_on(w, s)):
        return 0
    if s.tunnel and not s.broken:
        read_on(w, s)       # what is not read would make a reset of our close
    session_kill(w, s, c"C", c"D" if s.tunnel and s.broken else c"Q" if s.phase == PH_QUEUE else c"C")
    return 1


# ---------------------------------------------------------------- driving

cdef void session_run(Worker *w, Session *s) noexcept nogil:
    cdef int more = 1
    while more:
        if s.hup and (s.phase == PH_RELAY or s.phase == PH_QUEUE or s.phase == PH_RETRY) and client_left(w, s):
            continue
        if s.phase == PH_RELAY:
            more = relay_step(w, s)
        elif s.phase == PH_HEAD:
            more = head_step(w, s)
        elif s.phase == PH_REPLY:
            more = reply_step(w, s)
        elif s.phase == PH_LINGER:
            more = linger_step(w, s)
        elif s.phase == PH_PROXY:
            more = proxy_step(w, s)
        elif s.phase == PH_SERVICE:
            more = serve_step(w, s)
        else:
            more = 0
    if s.phase == PH_DEAD:
        return
    if not s.watched and (s.phase != PH_RELAY or s.tunnel or not s.up.done or not s.writable or
                          s.backend.abortonclose):
        session_watch(w, s)
        if s.phase == PH_DEAD:
            return
    arm(w, s)


cdef void session_end(Worker *w, Session *s) noexcept nogil:
    # The letters are HAProxy's. It leaves one that queues in the queue until its turn; here that one is answered too.
    cdef bint queued = s.phase == PH_QUEUE
    cdef int more = 0
    if s.phase == PH_DEAD:
        return
    if s.in_backend and not s.backend.tcp and (queued or s.phase == PH_RETRY or (
            s.phase == PH_RELAY and not s.head_done and s.up.done)):
        s.keep = 0
        if s.link != NULL and s.link.connected:
            more = answer(w, s, PAGE_502, 502, c"K", c"H")
        else:
            more = answer(w, s, PAGE_503, 503, c"K", c"Q" if queued else c"C")
        if more:
            session_run(w, s)
        return
    session_kill(w, s, c"K", c"D" if s.head_done and not s.tunnel else c"-")


cdef void session_watch(Worker *w, Session *s) noexcept nogil:
    s.watched = 1
    w.unwatched -= 1
    if watch(w.epfd, s.fd, s) < 0:
        session_kill(w, s, c"R", c"R")


cdef void session_begin(Worker *w, Session *s) noexcept nogil:
    s.accepted_ms = s.ready_ms = s.started_ms = s.since_ms = s.client_ms = w.now
    s.first = 1
    s.readable = s.writable = 1
    s.up.done = 1
    w.counters.connections += 1
    tally_accept(w, s, hk_count(w.conf.workers, s.frontend.sessions, 1))
    if w.conf.actives != NULL:
        hk_count(w.conf.workers, w.conf.actives, 1)
    if s.phase != PH_PROXY:
        tally_session(w, s)
        s.phase = PH_HEAD
        if s.frontend.tcp:
            begin_tcp(w, s)
    session_run(w, s)


cdef void begin_tcp(Worker *w, Session *s) noexcept nogil:
    # A relay without heads: both directions are tunnels from the start.
    s.backend = s.frontend.backend
    s.ck_request = s.ck_response = c"-"
    s.cause = s.at = c"-"
    s.tunnel = 1
    s.head_done = 1
    s.up.mode = s.down.mode = BODY_TUNNEL
    s.up.done = s.down.done = 0
    s.first = 0
    s.phase = PH_RELAY
    if s.frontend.ruled:
        rules_connection(w, s)
    if s.backend == NULL:
        s.phase = PH_HEAD
        s.eof = 1
        s.rx.p = s.rx.n
        return
    tally_request(w, s, 0)
    tally_backend(w, s)
    note_request(w, s, NULL)
    if s.rx.p < s.rx.n:
        body_advance(&s.up, &s.rx)      # what came behind a PROXY header
    s.retries_left = s.backend.retries
    s.hashed = 0
    if s.backend.by_hash:
        hash_request(s, s.backend, NULL)
    if s.backend.stick != NULL:
        stick_request(w, s, NULL, s.force_persist, s.ignore_persist)
    dispatch(w, s)
