# The Connection line is ours, so it is decided before the first byte is written: keep needs the whole request behind us.

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memchr, memcpy, memset, strlen

from haptk._fast.bytes.buf cimport buf_room, buf_wrote
from haptk._fast.bytes.span cimport (Room, Span, room_len, room_span, span_between, span_from, span_is, span_len,
                                     span_raw)
from haptk._fast.edit cimport DRAFT_TEXT, draft
from haptk._fast.facts cimport path_in, query_in
from haptk._fast.format cimport format_put
from haptk._fast.http1 cimport BODY_NONE, Buf, H_HOST, Head, M_HEAD, body_advance, head_target, head_value
from haptk._fast.pool cimport buf_take
from haptk._fast.program cimport FormatC, RD_LOCATION, RD_PREFIX, Text
from haptk._fast.scan cimport put_decimal
from haptk._fast.sockets cimport IO_AGAIN, put2
from haptk._fast.state cimport MODE_CLOSE

cdef extern from "string.h" nogil:
    void *memmem(const void *a, size_t an, const void *b, size_t bn)

cdef int[24] STATUSES


cdef void fill_statuses(object statuses):
    cdef int i
    for i, status in enumerate(statuses):
        STATUSES[i] = status


from haptk.proxy.pages import STATUSES as _statuses     # noqa: E402

memset(STATUSES, 0, sizeof(STATUSES))
fill_statuses(_statuses)


cdef int page_of(int status) noexcept nogil:
    cdef int i
    for i in range(24):
        if STATUSES[i] == status:
            return i
    return -1


cdef inline void put(Buf *o, const char *p, size_t n) noexcept nogil:
    # An overflow shows as o.n == o.size + 1 and swallows all later writes.
    if o.n + n > o.size:
        o.n = o.size + 1
        return
    memcpy(o.d + o.n, p, n)
    o.n += <uint32_t>n


cdef inline void word(Buf *o, const char *p) noexcept nogil:
    put(o, p, strlen(p))


cdef inline void put_span(Buf *o, Span s) noexcept nogil:
    put(o, span_raw(s), span_len(s))


cdef inline void decimal(Buf *o, uint32_t v) noexcept nogil:
    cdef char text[20]
    put(o, text, put_decimal(text, v))


cdef void format(Seen *x, Buf *o, FormatC *f) noexcept nogil:
    cdef Room room
    if o.n > o.size:
        return
    room = buf_room(o)
    if format_put(x, f, &room) < 0:
        o.n = o.size + 1
    else:
        buf_wrote(o, &room)


cdef void settle_body(Session *s) noexcept nogil:
    if not s.up.done and s.rx.p < s.rx.n:
        body_advance(&s.up, &s.rx)
    if s.up.done:
        s.rx.r = s.rx.f


cdef void connection_line(Session *s, Buf *o) noexcept nogil:
    if not s.keep:
        word(o, b"connection: close\r\n")
    elif s.minor == 0:
        word(o, b"connection: keep-alive\r\n")


cdef int fits(Buf *o, uint32_t start) noexcept nogil:
    if o.n <= o.size:
        return 0
    o.n = start
    return -1


cdef int begin(Worker *w, Session *s) noexcept nogil:
    # What of an interim response is not sent yet goes first.
    if buf_take(w, &s.in_head) < 0:
        return -1
    if s.in_head.r == s.in_head.n:
        s.in_head.n = s.in_head.r = 0
    if not s.up.done or w.stopping or s.frontend.connection == MODE_CLOSE:
        s.keep = 0
    return 0


cdef Text *page_text(Session *s, int page) noexcept nogil:
    if s.backend != NULL and s.backend.pages[page].p != NULL:
        return &s.backend.pages[page]
    return &s.frontend.pages[page]


cdef uint32_t page_head(Session *s, Buf *o, Text *text) noexcept nogil:
    # Its head without the empty line; returns where that stands. A page that does not say how long it is ends with the
    # connection; one of HTTP/1.0 has to say that it does not.
    cdef const char *end = <const char *>memmem(text.p, text.n, b"\r\n\r\n", 4)
    cdef uint32_t head = <uint32_t>(end - text.p) + 2 if end != NULL else text.n
    cdef bint old = text.n > 7 and text.p[7] == 48
    put(o, text.p, head)
    if memmem(text.p, head, b"\r\nconnection: close\r\n", 21) != NULL:
        s.keep = 0
        return head
    if memmem(text.p, head, b"\r\ncontent-length: ", 18) == NULL:
        s.keep = 0
    if s.keep and (old or s.minor == 0):
        word(o, b"connection: keep-alive\r\n")
    elif not s.keep and not old:
        word(o, b"connection: close\r\n")
    return head


cdef int reply_page(Worker *w, Session *s, int page, int status) noexcept nogil:
    cdef Text *text = page_text(s, page)
    cdef Buf *o = &s.in_head
    cdef uint32_t head, start
    s.status = status
    if begin(w, s) < 0 or text.p == NULL:
        return -1
    if text.n == 0:
        s.keep = 0          # an empty error file: nothing but the end
        return 0
    start = o.n
    head = page_head(s, o, text)
    put(o, text.p + head, 2 if s.method == M_HEAD else text.n - head)
    return fits(o, start)


cdef void more_headers(Seen *x, Buf *o, ReplyC *r) noexcept nogil:
    cdef int i
    for i in range(r.header_count):
        put(o, r.headers[i].name.p, r.headers[i].name.n)
        word(o, b": ")
        format(x, o, &r.headers[i].format)
        word(o, b"\r\n")


cdef void status_line(Buf *o, int status, Text *reason) noexcept nogil:
    word(o, b"HTTP/1.1 ")
    decimal(o, <uint32_t>status)
    word(o, b" ")
    put(o, reason.p, reason.n)
    word(o, b"\r\n")


cdef int reply_rule(Seen *x, ReplyC *r) noexcept nogil:
    cdef Session *s = x.s
    cdef Buf *o = &s.in_head
    cdef uint32_t start
    cdef Room *body
    if r.page:
        return reply_page(x.w, s, page_of(r.status), r.status)
    s.status = r.status
    if begin(x.w, s) < 0:
        return -1
    body = draft(x.w, DRAFT_TEXT)
    if format_put(x, &r.body, body) < 0:
        return -1
    start = o.n
    status_line(o, r.status, &r.reason)
    more_headers(x, o, r)
    if r.status != 204 and r.status != 304 and r.status >= 200:
        word(o, b"content-length: ")
        decimal(o, room_len(body))
        word(o, b"\r\n")
    if r.content_type.p != NULL:
        word(o, b"content-type: ")
        put(o, r.content_type.p, r.content_type.n)
        word(o, b"\r\n")
    connection_line(s, o)
    word(o, b"\r\n")
    if s.method != M_HEAD:
        put_span(o, room_span(body))
    return fits(o, start)


cdef void kept_path(Buf *o, Head *h, RedirectC *r) noexcept nogil:
    # The path of the request, with what the rule makes of its slash and query.
    cdef Span t = head_target(h)
    cdef uint32_t start = 0, end = 0, query = 0
    if path_in(t, &start, &end):
        put_span(o, span_between(t, start, end))
    else:
        word(o, b"/")
    if not r.drop_query and query_in(t, &query):
        put_span(o, span_from(t, query - 1))


cdef void host_value(Buf *o, Head *h) noexcept nogil:
    cdef int i
    for i in range(h.count):
        if h.headers[i].id == H_HOST:
            put_span(o, head_value(h, &h.headers[i]))
            return


cdef int reply_redirect(Seen *x, RuleC *rule) noexcept nogil:
    cdef RedirectC *r = rule.redirect
    cdef Session *s = x.s
    cdef Buf *o = &s.in_head
    cdef uint32_t start
    cdef Room *text = draft(x.w, DRAFT_TEXT)
    if format_put(x, &rule.format, text) < 0:
        return -1
    if room_len(text) == 0 and r.ignore_empty and r.kind == RD_LOCATION:
        return 0
    s.status = r.code
    if s.up.mode != BODY_NONE:
        s.keep = 0          # HAProxy does not go on behind a request that had a body
    if begin(x.w, s) < 0:
        return -1
    start = o.n
    status_line(o, r.code, &r.reason)
    word(o, b"content-length: 0\r\nlocation: ")
    put_span(o, room_span(text))
    if r.kind != RD_LOCATION:
        if r.kind != RD_PREFIX:
            word(o, b"://")
            host_value(o, x.req if x.req != NULL else x.res)
        if x.req != NULL:
            kept_path(o, x.req, r)
        if r.append_slash and o.n <= o.size and o.d[o.n - 1] != 47:
            word(o, b"/")
    word(o, b"\r\n")
    if r.code == 302 or r.code == 303 or r.code == 307:
        word(o, b"cache-control: no-cache\r\n")
    put(o, r.cookies.p, r.cookies.n)
    connection_line(s, o)
    word(o, b"\r\n")
    return 1 if fits(o, start) == 0 else -1


cdef int reply_server(Worker *w, Session *s) noexcept nogil:
    # The target stands in the head that was rendered for a server; an authority in front of its path goes.
    cdef Buf *o = &s.in_head
    cdef char *target = <char *>memchr(s.out_head.d + s.announced, 32, s.out_head.n - s.announced) + 1
    cdef char *end = <char *>memchr(target, 32, s.out_head.d + s.out_head.n - target)
    cdef char *path = target
    cdef uint32_t start
    if target[0] != 47:
        path = <char *>memmem(target, end - target, b"://", 3)
        path = <char *>memchr(path + 3, 47, end - path - 3) if path != NULL else NULL
    s.status = 302
    s.keep = 0
    if begin(w, s) < 0:
        return -1
    start = o.n
    word(o, b"HTTP/1.1 302 Found\r\ncache-control: no-cache\r\ncontent-length: 0\r\nlocation: ")
    put(o, s.server.redir.p, s.server.redir.n)
    if path != NULL:
        put(o, path, end - path)
    word(o, b"\r\n")
    connection_line(s, o)
    word(o, b"\r\n")
    return fits(o, start)


cdef int reply_send(Session *s) noexcept nogil:
    cdef int64_t sent
    while s.in_head.r < s.in_head.n:
        if not s.writable:
            return REPLY_WAIT
        sent = put2(s.fd, s.in_head.d + s.in_head.r, s.in_head.n - s.in_head.r, NULL, 0)
        if sent == IO_AGAIN:
            s.writable = 0
            return REPLY_WAIT
        if sent < 0:
            return REPLY_LOST
        s.in_head.r += <uint32_t>sent
        s.bytes_down += sent
    return REPLY_SENT
