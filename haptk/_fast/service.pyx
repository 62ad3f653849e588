cimport cython

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from haptk._fast.bytes.buf cimport buf_ready
from haptk._fast.bytes.span cimport (Room, Span, room_char, room_close, room_len, room_open, room_put, room_since,
                                     room_size, room_span, room_word, span_begins, span_bytes, span_first, span_from,
                                     span_len, span_none, span_of)
from haptk._fast.descriptors cimport FD_SERVICE, FD_WAKE, fd_ring
from haptk._fast.http1 cimport (M_GET, M_HEAD, M_POST, BODY_BAD, BODY_LENGTH, Header, body_advance, head_method, head_name,
                                head_target, head_value)
from haptk._fast.pool cimport buf_take
from haptk._fast.program cimport span_text
from haptk._fast.relay cimport compact
from haptk._fast.scan cimport hk_push, hk_take_all
from haptk._fast.sockets cimport IO_AGAIN, IO_EOF, fill, put2

cdef enum:
    WAIT_MS = 15000         # for the control plane
    READ_MS = 10000         # for a client where the file has no time-out
    ANSWER_MAX = 268435456  # bytes of one answer

cdef enum Stage:
    READING = 0, WAITING, WRITING


cdef bint is_stats(Text *uri, Head *h) noexcept nogil:
    # Other methods pass on, as in HAProxy.
    return uri.p != NULL and (h.method == M_GET or h.method == M_HEAD or h.method == M_POST) and \
        span_begins(head_target(h), span_text(uri))


cdef uint32_t head_size(Head *h) noexcept nogil:
    cdef uint32_t n = h.method_len + h.target_len + 13
    cdef int i
    for i in range(h.count):
        n += h.headers[i].name_len + h.headers[i].value_len + 4
    return n


cdef void write_head(Head *h, Room *o) noexcept nogil:
    # The head again, so that what rules changed is seen: head_size() bytes at most.
    cdef Header *x
    cdef int i
    room_put(o, head_method(h))
    room_char(o, 32)
    room_put(o, head_target(h))
    room_word(o, b" HTTP/1.1\r\n")
    for i in range(h.count):
        x = &h.headers[i]
        room_put(o, head_name(h, x))
        room_word(o, b": ")
        room_put(o, head_value(h, x))
        room_word(o, b"\r\n")


cdef int service_begin(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef Errand *e
    cdef uint32_t size = head_size(h)
    if w.service_fd < 0:
        return -1
    e = <Errand *>malloc(sizeof(Errand))
    if e == NULL:
        return -1
    memset(e, 0, sizeof(Errand))
    # the body may be as long as one buffer, as with HAProxy
    if room_open(&e.ask, size + <uint32_t>w.conf.bufsize) < 0:
        free(e)
        return -1
    write_head(h, &e.ask)
    e.head_n = room_len(&e.ask)
    e.kind, e.frontend, e.keep, e.minor, e.peer = s.service, s.frontend.index, s.keep, h.minor, s.peer
    e.backend = s.backend.index if s.in_backend else -1
    e.session = s
    s.up.strip = 1
    s.errand = e
    s.since_ms = w.now
    return 0


cdef int keep_body(Session *s) noexcept nogil:
    # What has been received of the body moves behind the head.
    if room_put(&s.errand.ask, buf_ready(&s.rx)) < 0:
        return SERVICE_BAD
    s.rx.r = s.rx.f
    return 0


cdef int read_body(Worker *w, Session *s) noexcept nogil:
    # 1 when the body is complete.
    cdef int64_t got
    cdef uint32_t space
    cdef int kept
    while True:
        if body_advance(&s.up, &s.rx) == BODY_BAD:
            return SERVICE_BAD
        kept = keep_body(s)
        if kept < 0:
            return kept
        if s.up.done:
            return 1
        if s.up.mode == BODY_LENGTH and s.up.left > room_size(&s.errand.ask):
            return SERVICE_BAD
        if s.eof:
            return SERVICE_GONE
        if not s.readable:
            return SERVICE_WAIT
        if buf_take(w, &s.rx) < 0:
            return SERVICE_FAILED
        compact(&s.rx)
        space = s.rx.size - s.rx.n
        if space == 0:
            return SERVICE_BAD
        got = fill(s.fd, &s.rx)
        if got > 0:
            if got < space and not s.hup:
                s.readable = 0
            w.counters.bytes_up += got
        elif got == IO_AGAIN:
            s.readable = 0
            return SERVICE_WAIT
        elif got == IO_EOF:
            s.eof = 1
        else:
            return SERVICE_GONE


cdef int write_answer(Session *s) noexcept nogil:
    cdef Errand *e = s.errand
    cdef Span out = room_span(&e.out)
    cdef int64_t put
    while e.sent < span_len(out):
        if not s.writable:
            return SERVICE_WAIT
        put = put2(s.fd, span_from(out, <uint32_t>e.sent), span_none())
        if put == IO_AGAIN:
            s.writable = 0
            return SERVICE_WAIT
        if put < 0:
            return SERVICE_GONE
        e.sent += put
        s.bytes_down += put
    return SERVICE_SENT


cdef int service_step(Worker *w, Session *s) noexcept nogil:
    cdef Errand *e = s.errand
    cdef int got
    if s.broken and not s.readable:
        return SERVICE_GONE
    if e.stage == READING:
        got = read_body(w, s)
        if got != 1:
            return got
        e.stage = WAITING
        s.since_ms = s.queue_ms = s.connect_ms = w.now
        hk_push(&w.posted, <void **>&e.next, e)
        fd_ring(w.service_fd, FD_SERVICE)
    if e.stage == WAITING:
        return SERVICE_GONE if s.broken else SERVICE_WAIT
    if e.status == 0:
        return SERVICE_FAILED
    s.status = e.status
    return write_answer(s)


cdef int64_t service_deadline(Worker *w, Session *s) noexcept nogil:
    cdef int limit = s.frontend.limits.client
    if s.errand.stage == WAITING:
        return s.since_ms + WAIT_MS
    if s.errand.stage == READING:
        limit = s.frontend.limits.request or limit
        return s.request_ms + (limit if limit else READ_MS)
    return w.now + (limit if limit else READ_MS)


cdef char service_expired(Session *s) noexcept nogil:
    if s.errand.stage == WAITING:
        return c"s"
    return c"c" if s.errand.stage == READING else c"C"


cdef void free_errand(Errand *e) noexcept nogil:
    room_close(&e.ask)
    room_close(&e.out)
    free(e)


cdef void service_drop(Session *s) noexcept nogil:
    cdef Errand *e = s.errand
    if e == NULL:
        return
    s.errand = NULL
    e.session = NULL
    if e.stage != WAITING:
        free_errand(e)      # otherwise it comes back and is freed then


cdef void arrive(Worker *w) noexcept nogil:
    # Behind those that arrived before, oldest first.
    cdef Errand *e = <Errand *>hk_take_all(&w.answered)
    cdef Errand *following
    cdef Errand *oldest = NULL
    cdef Errand **tail = &w.arrived
    while e != NULL:
        following = e.next
        e.next = oldest
        oldest = e
        e = following
    while tail[0] != NULL:
        tail = &tail[0].next
    tail[0] = oldest


cdef Session *next_answered(Worker *w) noexcept nogil:
    cdef Errand *e
    if w.service_fd < 0:
        return NULL
    if w.arrived == NULL:
        arrive(w)
    while w.arrived != NULL:
        e = w.arrived
        w.arrived = e.next
        if e.session != NULL:
            e.stage = WRITING
            e.session.response_ms = w.now
            return e.session
        free_errand(e)
    return NULL


cdef void free_all(Errand *e) noexcept nogil:
    cdef Errand *following
    while e != NULL:
        following = e.next
        free_errand(e)
        e = following


cdef void service_close(Worker *w) noexcept nogil:
    free_all(<Errand *>hk_take_all(&w.posted))
    free_all(<Errand *>hk_take_all(&w.answered))
    free_all(w.arrived)
    w.arrived = NULL


# ---------------------------------------------------------------- the control plane's side

@cython.no_gc               # it holds its worker, which never holds it; __dealloc__ needs the worker's lists
cdef class Request:
    """One request to answer; `answer` once. One that is dropped without an answer becomes a 500."""

    cdef Worker *w
    cdef Errand *e
    cdef object alive           # the worker, whose lists the errand comes from and goes back to
    cdef readonly int service
    cdef readonly int frontend
    cdef readonly int backend
    cdef readonly bint keep
    cdef readonly int minor
    cdef readonly str peer
    cdef readonly bytes head
    cdef readonly bytes body

    def answer(self, int status, bytes data):
        """Send `data`, a whole response with its head, whose status is `status`. True unless it was answered before."""
        cdef Errand *e = self.e
        if e == NULL or not 200 <= status <= 599:
            return False
        if len(data) <= ANSWER_MAX and room_open(&e.out, <uint32_t>len(data)) == 0:
            room_put(&e.out, span_of(data))
            e.status = status
        self.give_back()
        return True

    @property
    def abandoned(self):
        """True when the client is gone; the answer would be thrown away."""
        return self.e == NULL or self.e.session == NULL

    cdef void give_back(self):
        cdef Errand *e = self.e
        self.e = NULL
        if e != NULL:
            hk_push(&self.w.answered, <void **>&e.next, e)
            fd_ring(self.w.wake_fd, FD_WAKE)

    def __dealloc__(self):
        self.give_back()


cdef list take_errands(Worker *w, object keep_alive):
    cdef list out = []
    cdef Errand *e = <Errand *>hk_take_all(&w.posted)
    cdef Errand *following
    cdef Request one
    while e != NULL:
        following = e.next
        one = Request()
        one.w, one.e, one.alive = w, e, keep_alive
        one.service, one.frontend, one.backend, one.keep, one.minor = e.kind, e.frontend, e.backend, e.keep, e.minor
        one.peer = e.peer.text[:e.peer.text_len].decode("ascii")
        one.head = span_bytes(span_first(room_span(&e.ask), e.head_n))
        one.body = span_bytes(room_since(&e.ask, e.head_n))
        out.append(one)
        e = following
    out.reverse()
    return out
