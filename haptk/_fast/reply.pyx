# The Connection line is ours, so it is decided before the first byte is written: keep needs the whole request behind us.

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset

from haptk._fast.bytes.buf cimport buf_empty, buf_owed, buf_part, buf_room, buf_wrote
from haptk._fast.bytes.span cimport (NOWHERE, Room, Span, room_char, room_cut, room_decimal, room_full, room_last, room_len,
                                     room_put, room_span, room_word, span_at, span_between, span_find,
                                     span_find_span, span_first, span_from, span_len, span_none, word)
from haptk._fast.edit cimport DRAFT_TEXT, draft
from haptk._fast.facts cimport path_in, query_in
from haptk._fast.format cimport format_put
from haptk._fast.http1 cimport BODY_LENGTH, BODY_NONE, H_HOST, Head, M_HEAD, body_advance, head_target, head_value
from haptk._fast.pool cimport buf_take
from haptk._fast.program cimport RD_LOCATION, RD_PREFIX, Text, span_text
from haptk._fast.sockets cimport IO_AGAIN, put2
from haptk._fast.state cimport MODE_CLOSE
from haptk._fast.tally cimport weight_of_text

cdef enum:
    SLASH = 47, ZERO = 48
    NAMED_CLOSE = 15        # "connection" and "close", which HAProxy's log counts where the redirect itself says it

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


cdef void settle_body(Session *s) noexcept nogil:
    if not s.up.done and s.rx.p < s.rx.n:
        body_advance(&s.up, &s.rx)
    if s.up.done:
        s.rx.r = s.rx.f


cdef void connection_line(Session *s, Room *o) noexcept nogil:
    if not s.keep:
        room_word(o, b"connection: close\r\n")
    elif s.minor == 0:
        room_word(o, b"connection: keep-alive\r\n")


cdef int done(Session *s, Room *o) noexcept nogil:
    # The answer is there as a whole or not at all.
    if room_full(o):
        return -1
    s.heads_out += weight_of_text(room_span(o))
    buf_wrote(&s.in_head, o)
    return 0


cdef int begin(Worker *w, Session *s) noexcept nogil:
    # What of an interim response is not sent yet goes first.
    if buf_take(w, &s.in_head) < 0:
        return -1
    if s.in_head.r == s.in_head.n:
        buf_empty(&s.in_head)
    if not s.up.done or w.stopping or s.frontend.connection == MODE_CLOSE:
        s.keep = 0
    return 0


cdef Text *page_text(Session *s, int page) noexcept nogil:
    if s.backend != NULL and s.backend.pages[page].p != NULL:
        return &s.backend.pages[page]
    return &s.frontend.pages[page]


cdef uint32_t page_head(Session *s, Room *o, Span page) noexcept nogil:
    # Its head without the empty line; returns where that stands. A page that does not say how long it is ends with the
    # connection; one of HTTP/1.0 has to say that it does not.
    cdef uint32_t end = span_find_span(page, word(b"\r\n\r\n"))
    cdef Span head = page if end == NOWHERE else span_first(page, end + 2)
    cdef bint old = span_len(page) > 7 and span_at(page, 7) == ZERO
    room_put(o, head)
    if span_find_span(head, word(b"\r\nconnection: close\r\n")) != NOWHERE:
        s.keep = 0
        return span_len(head)
    if span_find_span(head, word(b"\r\ncontent-length: ")) == NOWHERE:
        s.keep = 0
    if s.keep and (old or s.minor == 0):
        room_word(o, b"connection: keep-alive\r\n")
    elif not s.keep and not old:
        room_word(o, b"connection: close\r\n")
    return span_len(head)


cdef int reply_page(Worker *w, Session *s, int page, int status) noexcept nogil:
    cdef Text *chosen = page_text(s, page)
    cdef Span text
    cdef Room o
    s.status = status
    if begin(w, s) < 0 or chosen.p == NULL:
        return -1
    text = span_text(chosen)
    if span_len(text) == 0:
        s.keep = 0          # an empty error file: nothing but the end
        return 0
    o = buf_room(&s.in_head)
    text = span_from(text, page_head(s, &o, text))
    room_put(&o, span_first(text, 2) if s.method == M_HEAD and span_len(text) > 2 else text)
    return done(s, &o)


cdef void more_headers(Seen *x, Room *o, ReplyC *r) noexcept nogil:
    # As in HAProxy one without a value is left out.
    cdef int i
    cdef uint32_t line, value
    for i in range(r.header_count):
        line = room_len(o)
        room_put(o, span_text(&r.headers[i].name))
        room_word(o, b": ")
        value = room_len(o)
        format_put(x, &r.headers[i].format, o)
        if room_len(o) == value and not room_full(o):
            room_cut(o, line)
            continue
        room_word(o, b"\r\n")


cdef void status_line(Room *o, int status, Text *reason) noexcept nogil:
    room_word(o, b"HTTP/1.1 ")
    room_decimal(o, <uint32_t>status)
    room_char(o, 32)
    room_put(o, span_text(reason))
    room_word(o, b"\r\n")


cdef int reply_rule(Seen *x, ReplyC *r) noexcept nogil:
    cdef Session *s = x.s
    cdef Room o
    cdef Room *body
    if r.page:
        return reply_page(x.w, s, page_of(r.status), r.status)
    s.status = r.status
    body = draft(x.w, DRAFT_TEXT)
    x.replaced = x.res != NULL
    if begin(x.w, s) < 0 or format_put(x, &r.body, body) < 0:
        return -1
    x.replaced = 0
    o = buf_room(&s.in_head)
    status_line(&o, r.status, &r.reason)
    more_headers(x, &o, r)
    if r.status != 204 and r.status != 304 and r.status >= 200:
        room_word(&o, b"content-length: ")
        room_decimal(&o, room_len(body))
        room_word(&o, b"\r\n")
    if r.content_type.p != NULL:
        room_word(&o, b"content-type: ")
        room_put(&o, span_text(&r.content_type))
        room_word(&o, b"\r\n")
    connection_line(s, &o)
    room_word(&o, b"\r\n")
    if s.method != M_HEAD:
        room_put(&o, room_span(body))
    return done(s, &o)


cdef void kept_path(Room *o, Head *h, RedirectC *r) noexcept nogil:
    # The path of the request, with what the rule makes of its slash and query.
    cdef Span t = head_target(h)
    cdef uint32_t start = 0, end = 0, query = 0
    if path_in(t, &start, &end):
        room_put(o, span_between(t, start, end))
    else:
        room_char(o, SLASH)
    if not r.drop_query and query_in(t, &query):
        room_put(o, span_from(t, query - 1))


cdef void host_value(Room *o, Head *h) noexcept nogil:
    cdef int i
    for i in range(h.count):
        if h.headers[i].id == H_HOST:
            room_put(o, head_value(h, &h.headers[i]))
            return


cdef int reply_redirect(Seen *x, RuleC *rule) noexcept nogil:
    cdef RedirectC *r = rule.redirect
    cdef Session *s = x.s
    cdef Room o
    cdef Room *text = draft(x.w, DRAFT_TEXT)
    # HAProxy does not go on behind a request that had a body, unless a server has answered it
    cdef bint behind_body = x.req != NULL and s.up.mode != BODY_NONE and not (
        s.up.mode == BODY_LENGTH and s.up.done and s.up.seen == 0)
    if format_put(x, &rule.format, text) < 0:
        return -1
    if room_len(text) == 0 and r.ignore_empty and r.kind == RD_LOCATION:
        return 0
    s.status = r.code
    if behind_body:
        s.keep = 0
    if begin(x.w, s) < 0:
        return -1
    o = buf_room(&s.in_head)
    status_line(&o, r.code, &r.reason)
    room_word(&o, b"content-length: 0\r\nlocation: ")
    room_put(&o, room_span(text))
    if r.kind != RD_LOCATION:
        if r.kind != RD_PREFIX:
            room_word(&o, b"://")
            host_value(&o, x.req if x.req != NULL else x.res)
        if x.req != NULL:
            kept_path(&o, x.req, r)
        if r.append_slash and room_last(&o) != SLASH:
            room_char(&o, SLASH)
    room_word(&o, b"\r\n")
    if r.code == 302 or r.code == 303 or r.code == 307:
        room_word(&o, b"cache-control: no-cache\r\n")
    room_put(&o, span_text(&r.cookies))
    connection_line(s, &o)
    room_word(&o, b"\r\n")
    if done(s, &o) < 0:
        return -1
    if behind_body:
        s.heads_out += NAMED_CLOSE
    return 1


cdef Span rendered_path(Session *s) noexcept nogil:
    # The target stands in the head that was rendered for a server; an authority in front of its path goes.
    cdef Span line = buf_part(&s.out_head, s.announced, s.out_head.n)
    cdef uint32_t at = span_find(line, 32, 0)
    if at == NOWHERE:
        return span_none()
    line = span_from(line, at + 1)
    at = span_find(line, 32, 0)
    if at != NOWHERE:
        line = span_first(line, at)
    if span_len(line) and span_at(line, 0) == SLASH:
        return line
    at = span_find_span(line, word(b"://"))
    if at != NOWHERE:
        at = span_find(line, SLASH, at + 3)
    return span_none() if at == NOWHERE else span_from(line, at)


cdef int reply_server(Worker *w, Session *s) noexcept nogil:
    cdef Span path = rendered_path(s)
    cdef Room o
    s.status = 302
    s.keep = 0
    if begin(w, s) < 0:
        return -1
    o = buf_room(&s.in_head)
    room_word(&o, b"HTTP/1.1 302 Found\r\ncache-control: no-cache\r\ncontent-length: 0\r\nlocation: ")
    room_put(&o, span_text(&s.server.redir))
    room_put(&o, path)
    room_word(&o, b"\r\n")
    connection_line(s, &o)
    room_word(&o, b"\r\n")
    return done(s, &o)


cdef int reply_send(Session *s) noexcept nogil:
    cdef int64_t sent
    while s.in_head.r < s.in_head.n:
        if not s.writable:
            return REPLY_WAIT
        sent = put2(s.fd, buf_owed(&s.in_head), span_none())
        if sent == IO_AGAIN:
            s.writable = 0
            return REPLY_WAIT
        if sent < 0:
            return REPLY_LOST
        s.in_head.r += <uint32_t>sent
        s.bytes_down += sent
    return REPLY_SENT
