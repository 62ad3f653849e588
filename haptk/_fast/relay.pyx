# A short read means that the socket is drained, so no second read is tried until epoll speaks again; the exception is
# an announced end of stream, which only a further read can deliver.

from libc.stdint cimport int64_t, uint32_t

from haptk._fast.bytes.buf cimport buf_empty, buf_held, buf_owed, buf_put, buf_ready
from haptk._fast.bytes.span cimport span_decimal, span_is
from haptk._fast.captures cimport capture_cookie, capture_head
from haptk._fast.edit cimport edits_begin
from haptk._fast.faults cimport fault_response
from haptk._fast.http1 cimport (BODY_BAD, BODY_CHUNKED, BODY_EOF, BODY_NONE, BODY_TUNNEL, Head, HEAD_MORE,
                                M_CONNECT, M_HEAD, UP_WEBSOCKET, body_advance, head_name, head_status,
                                parse_response)
from haptk._fast.journal cimport note_response
from haptk._fast.observe cimport SAW_CONNECT, observe, sight_of
from haptk._fast.pool cimport buf_drop, buf_grow, buf_slim, buf_take
from haptk._fast.render cimport render_response
from haptk._fast.retry cimport event_of, keep_body, may_repeat
from haptk._fast.rules cimport RULES_ANSWER, RULES_GO, rules_response
from haptk._fast.sockets cimport IO_AGAIN, IO_EOF, established, fill, no_delay, put2, shut_write
from haptk._fast.state cimport BULK_SIZE, Link, MODE_CLOSE
from haptk._fast.stick cimport app_response, stick_response
from haptk._fast.tally cimport tally_answer, weight_of

cdef enum:
    SMALL_BODY = 2048


cdef void rest_tunnel(Worker *w, Session *s) noexcept nogil:
    if s.rx.r == s.rx.n:
        buf_drop(w, &s.rx)
    if s.sx.r == s.sx.n:
        buf_drop(w, &s.sx)
    if s.in_head.r == s.in_head.n:
        buf_drop(w, &s.in_head)


cdef inline void rest(Worker *w, Buf *b) noexcept nogil:
    # A buffer with nothing in it serves somebody else while it is in the cache.
    if buf_held(b) and b.p == b.n and b.r == b.f and b.size == <uint32_t>w.conf.bufsize:
        buf_drop(w, b)


# ---------------------------------------------------------------- request

cdef inline void request_sent(Worker *w, Session *s) noexcept nogil:
    # Of a request that is on its way only what would be sent again is kept, in as little memory as will do: with many
    # connections what waits for answers must not fill the cache.
    rest(w, &s.rx)
    if buf_held(&s.out_head) and not s.keeping and s.backend.head_room == 0:
        buf_slim(w, &s.out_head)


cdef int more_request(Worker *w, Session *s) noexcept nogil:
    # Read on from the client: 1 when something came, RELAY_WAIT, RELAY_CLIENT or RELAY_BAD_REQUEST.
    cdef int64_t got
    cdef uint32_t space
    if s.eof:
        return RELAY_WAIT if s.tunnel else RELAY_CLIENT
    if not s.readable:
        return RELAY_WAIT
    if buf_take(w, &s.rx) < 0:
        return RELAY_CLIENT
    compact(&s.rx)
    if s.bulk_up and (s.tunnel or s.up.left >= BULK_SIZE) and not s.keeping:
        buf_grow(w, &s.rx)
    space = s.rx.size - s.rx.n
    if space == 0:
        return RELAY_BAD_REQUEST
    got = fill(s.fd, &s.rx)
    if got > 0:
        if got < space and not s.hup:
            s.readable = 0
        s.bulk_up = got == s.rx.size
        s.client_ms = w.now
        w.counters.bytes_up += got
        return RELAY_BAD_REQUEST if body_advance(&s.up, &s.rx) == BODY_BAD else 1
    if got == IO_AGAIN:
        s.readable = 0
        return RELAY_WAIT
    if got == IO_EOF:
        s.eof = 1
        return RELAY_WAIT if s.tunnel else RELAY_CLIENT
    return RELAY_CLIENT


cdef inline void sent(Session *s, uint32_t count) noexcept nogil:
    cdef uint32_t head = s.out_head.n - s.out_head.r
    if count <= head:
        s.out_head.r += count
        return
    s.out_head.r = s.out_head.n
    s.rx.r += count - head
    s.body_started = 1


cdef void link_ready(Worker *w, Session *s) noexcept nogil:
    s.link.connected = 1
    s.connect_ms = s.server_ms = w.now
    observe(s.server, SAW_CONNECT)
    if s.backend.tcp and s.frontend.noting:
        note_response(w, s)
    if buf_held(&s.stick) and s.backend.tcp:
        stick_response(w, s, NULL)


cdef int push(Worker *w, Session *s) noexcept nogil:
    cdef Link *l = s.link
    cdef uint32_t head, body
    cdef int64_t put
    cdef int got
    while True:
        if s.keeping and s.rx.f != s.rx.r:
            keep_body(s)
        head = s.out_head.n - s.out_head.r
        body = s.rx.f - s.rx.r
        if head == 0 and body == 0:
            if s.up.done:
                request_sent(w, s)
                return RELAY_DONE
            if s.backend.tcp and not l.connected and established(l.fd):
                # nobody has spoken yet: that is no reason to count the connection as failed
                link_ready(w, s)
            got = more_request(w, s)
            if got == 1:
                continue
            rest(w, &s.rx)
            if got == RELAY_WAIT and s.eof and s.tunnel:
                if not l.connected:
                    return RELAY_WAIT
                s.up.done = 1
                l.shut = 1
                if s.backend.limits.server_fin:
                    s.server_ms = w.now
                shut_write(l.fd)
                return RELAY_DONE
            return got
        if not l.writable:
            return RELAY_WAIT
        if l.connected and not l.prompt:
            # Nagle can only hold back a second write, so a connection that serves one small request never pays for
            # this call
            l.prompt = 1
            no_delay(l.fd)
        put = put2(l.fd, buf_owed(&s.out_head), buf_ready(&s.rx))
        if put == IO_AGAIN:
            l.writable = 0
            return RELAY_WAIT
        if put < 0:
            return RELAY_LINK
        if not l.connected:
            link_ready(w, s)
        s.server_ms = w.now
        sent(s, <uint32_t>put)
        if s.tunnel and s.out_head.r == s.out_head.n:
            buf_drop(w, &s.out_head)    # a PROXY header, or the request that opened the tunnel
            s.announced = 0
        if put < <int64_t>head + body:
            l.writable = 0


# ---------------------------------------------------------------- response

cdef void response_body(Session *s, Head *h) noexcept nogil:
    # RFC 9112 6.3, in its order.
    s.down.done = 0
    s.down.stage = 0
    s.down.seen = 0
    s.down.strip = 0
    s.down.left = h.length
    if h.status == 101 or (s.method == M_CONNECT and h.status < 300):
        s.tunnel = 1
        s.down.mode = BODY_TUNNEL
    elif s.method == M_HEAD or s.method_sent == M_HEAD or h.status == 204 or h.status == 304:
        s.down.mode = BODY_NONE
        if s.method != s.method_sent and h.body != BODY_NONE:
            s.server_keep = 0   # the server's body, if any, is not read
    elif h.body == BODY_NONE:
        s.down.mode = BODY_EOF
    else:
        s.down.mode = h.body
    if s.down.mode == BODY_CHUNKED and s.minor == 0:
        s.down.strip = 1
        s.keep = 0
    if s.down.mode == BODY_EOF or s.tunnel:
        s.keep = 0
        s.server_keep = 0
    if s.tunnel:
        s.up.done = 0
        s.up.mode = BODY_TUNNEL


cdef inline void drop_request(Worker *w, Session *s) noexcept nogil:
    if s.up.done and s.out_head.r == s.out_head.n:
        buf_drop(w, &s.out_head)
        s.announced = 0


cdef void edited(Session *s, Head *h) noexcept nogil:
    # What rules made of a response: their Connection may end the client's, and a status with a body where the server
    # sent none leaves the client no other end than the connection's.
    if h.conn_close:
        s.keep = 0
    if (h.status == 204 or h.status == 304) and span_decimal(head_status(h)) != h.status:
        s.keep = 0


cdef bint starts_well(Worker *w, Session *s, Head *h, uint32_t end) noexcept nogil:
    # What came of the body together with its head. Where that is malformed the client gets an answer of our own.
    cdef bint keep = s.keep
    response_body(s, h)
    s.sx.r = s.sx.f = s.sx.p = end
    if body_advance(&s.down, &s.sx) != BODY_BAD:
        return 1
    s.head_done = 1             # for the place that `show errors` tells
    fault_response(w, s)
    s.head_done = 0
    s.keep = keep
    return 0


cdef int final_head(Worker *w, Session *s, Head *h, uint32_t end) noexcept nogil:
    # A head that ends at `end` in s.sx.
    cdef int got
    cdef bint rule_keep = 0, keep = s.keep, framed
    s.status = h.status
    s.server_keep = not s.server_close and not h.conn_close and (h.minor == 1 or h.conn_keep)
    if not starts_well(w, s, h, end):
        return RELAY_BAD_START
    observe(s.server, sight_of(h.status))
    if s.keeping:
        if may_repeat(s, event_of(h.status)):
            return RELAY_AGAIN
        s.keeping = 0
        drop_request(w, s)
    if not s.backend.tcp:
        tally_answer(w, s, h.status)
    s.response_ms = w.now
    s.heads_out += weight_of(h)
    s.response_minor = 1 + h.minor
    if w.conf.connection_seen and (h.conn_close or h.conn_keep):
        edits_begin(w, h)
    if s.frontend.capturing:
        capture_head(s, h, 1)
    if s.backend.stick != NULL:
        stick_response(w, s, h)
    if w.stopping:
        s.keep = 0
    if s.backend.ruled_response or s.frontend.ruled_response:
        framed = s.keep
        s.keep = keep and not w.stopping    # an answer of ours has an end of its own, whatever ends the server's
        got = rules_response(w, s, h)
        if got != RULES_GO:
            return RELAY_RULED if got == RULES_ANSWER else RELAY_RULES_FAILED
        s.keep = s.keep and framed
        if h.edited:
            edited(s, h)
            rule_keep = h.conn_keep
    if s.backend.stick != NULL:
        app_response(w, s, h)
    if s.frontend.connection == MODE_CLOSE and not rule_keep:
        s.keep = 0
    if s.frontend.capturing:
        capture_cookie(s, h, 1)
    if render_response(w, s, h, 0) < 0:
        return RELAY_RULES_FAILED if h.edited else RELAY_BAD_RESPONSE
    s.head_done = 1
    if s.frontend.noting:
        note_response(w, s)
    if s.tunnel and s.rx.p < s.rx.n:
        # what the client sent behind its request belongs to the tunnel
        body_advance(&s.up, &s.rx)
    return 1


cdef bint switches(Session *s, Head *h) noexcept nogil:
    # Whether a 101 may open a tunnel: it was asked for, and WebSocket's shows that it understood (RFC 6455 4.2.2).
    cdef int i
    if not s.upgrade_asked or not h.conn_upgrade:
        return 0
    if h.upgrade != UP_WEBSOCKET:
        return 1
    for i in range(h.count):
        if span_is(head_name(h, &h.headers[i]), b"sec-websocket-accept"):
            return 1
    return 0


cdef inline bint crowded(Session *s, uint32_t length) noexcept nogil:
    # Whether a head of `length` bytes, which at worst are all bare line ends, may find no room behind what is not sent.
    cdef uint32_t owed = s.in_head.n - s.in_head.r
    return owed and owed + 2 * length > s.in_head.size


cdef int response_heads(Worker *w, Session *s) noexcept nogil:
    # As many heads as are complete, up to the final one. 1 when that went through, or when what is there already has to
    # be sent first: a final head has all the room, because rules may add to it.
    cdef Head *h = &w.head
    cdef int got
    while not s.head_done:
        if s.sx.p == s.sx.n:
            return RELAY_WAIT
        got = parse_response(&s.sx, h, s.backend.lax)
        if got == HEAD_MORE:
            return RELAY_WAIT if s.sx.n - s.sx.p < <uint32_t>w.conf.bufsize else RELAY_BAD_RESPONSE
        if got < 0 or got > w.conf.bufsize:     # one that is too long is so in a large buffer as well
            return RELAY_BAD_RESPONSE
        if h.status == 101 and not switches(s, h):
            return RELAY_BAD_RESPONSE
        if h.status >= 200 or h.status == 101:
            if s.in_head.r < s.in_head.n:
                return 1
            return final_head(w, s, h, s.sx.p + <uint32_t>got)
        if crowded(s, <uint32_t>got):
            return 1
        if not s.backend.tcp:
            tally_answer(w, s, h.status)        # the server's: each interim response counts, as in HAProxy
        s.heads_out += weight_of(h)
        if s.minor and render_response(w, s, h, 1) < 0:
            return RELAY_BAD_RESPONSE
        s.sx.p += <uint32_t>got
        s.sx.r = s.sx.f = s.sx.p
    return 1


cdef int flush(Worker *w, Session *s) noexcept nogil:
    # Write what the client is owed: RELAY_DONE when nothing is left.
    cdef uint32_t head = s.in_head.n - s.in_head.r, body = s.sx.f - s.sx.r
    cdef int64_t put
    if not s.writable:
        return RELAY_WAIT
    if head and 0 < body <= SMALL_BODY and s.in_head.n + body <= s.in_head.size:
        # copying a small body behind its head is cheaper than a call that gathers two pieces
        buf_put(&s.in_head, buf_ready(&s.sx))
        s.sx.r = s.sx.f
        head += body
        body = 0
    put = put2(s.fd, buf_owed(&s.in_head), buf_ready(&s.sx))
    if put == IO_AGAIN:
        s.writable = 0
        return RELAY_WAIT
    if put < 0:
        return RELAY_CLIENT
    s.client_ms = w.now
    s.bytes_down += put
    if put < head:
        s.in_head.r += <uint32_t>put
    else:
        s.in_head.r = s.in_head.n
        s.sx.r += <uint32_t>put - head
    if put < <int64_t>head + body:
        s.writable = 0
        return RELAY_WAIT
    return RELAY_DONE


cdef int ended(Worker *w, Session *s) noexcept nogil:
    # The server's end of stream, with everything before it delivered.
    if not s.head_done:
        return RELAY_LINK
    if s.down.mode == BODY_EOF:
        s.down.done = 1
        return RELAY_DONE
    if s.down.mode == BODY_TUNNEL:
        s.down.done = 1
        if not s.shut_client:
            s.shut_client = 1
            if s.frontend.limits.client_fin:
                s.client_ms = w.now
            shut_write(s.fd)
        return RELAY_DONE
    return RELAY_LINK


cdef int more_response(Worker *w, Session *s) noexcept nogil:
    # 1 when something came or the stream ended.
    cdef Link *l = s.link
    cdef int64_t got
    cdef uint32_t space, head
    if buf_take(w, &s.sx) < 0:
        return RELAY_LINK
    compact(&s.sx)
    if s.bulk_down:
        buf_grow(w, &s.sx)
    space = s.sx.size - s.sx.n
    if space == 0:
        return RELAY_BAD_RESPONSE
    got = fill(l.fd, &s.sx)
    if got == IO_AGAIN:
        l.readable = 0
        return RELAY_WAIT
    if got == IO_EOF:
        s.server_eof = 1
        l.readable = 0
        return 1
    if got < 0:
        return RELAY_LINK
    if got < space and not l.hup:
        l.readable = 0
    s.bulk_down = s.head_done and got == s.sx.size
    if not l.connected:
        link_ready(w, s)    # the server spoke before anything was sent to it
    if not s.response_any:
        s.response_any = 1
        if buf_held(&s.stick) and s.backend.tcp:
            stick_response(w, s, NULL)
        if not s.keeping:
            drop_request(w, s)
    if not s.head_done:
        head = s.sx.p
        got = response_heads(w, s)
        if s.sx.p != head:
            s.server_ms = w.now     # a whole head; a part of one is no progress
        return <int>got if got < 0 else 1
    s.server_ms = w.now
    return RELAY_BAD_RESPONSE if body_advance(&s.down, &s.sx) == BODY_BAD else 1


cdef int pull(Worker *w, Session *s) noexcept nogil:
    cdef int got
    while True:
        if owes_client(s):
            got = flush(w, s)
            if got != RELAY_DONE:
                return got
            buf_empty(&s.in_head)
            if not s.head_done and s.sx.p < s.sx.n:
                got = response_heads(w, s)      # those that waited for room
                if got < 0:
                    return got
                continue
        if s.head_done and s.down.done:
            return RELAY_DONE
        if s.server_eof:
            return ended(w, s)
        if not s.link.readable:
            got = RELAY_WAIT
        else:
            got = more_response(w, s)
        if got <= 0:
            if got == RELAY_WAIT:
                rest(w, &s.sx)
            return got
