# Every write is bounded by the buffer: a Room remembers that something was refused, which is looked at once, at the end.

from libc.stdint cimport uint8_t, uint32_t

from haptk._fast.bytes.buf cimport buf_empty, buf_room, buf_wrote
from haptk._fast.bytes.span cimport (NOWHERE, Room, Span, room_char, room_cut, room_full, room_left, room_len,
                                     room_put, room_word, span_at, span_between, span_blank_at_equals, span_eq,
                                     span_find, span_find_span, span_first, span_from, span_given, span_is_ci, span_len,
                                     span_opens_ci, span_over, span_skip, span_trim)
from haptk._fast.cookie cimport cookie_line, cookie_request, cookie_response, cookie_wanted
from haptk._fast.edit cimport edits_begin, header_add
from haptk._fast.http1 cimport (Header, H_CACHE_CONTROL, H_CODING, H_CONNECTION, H_COOKIE, H_ETAG, H_EXPIRES,
                                H_KEEP_ALIVE, H_LAST_MODIFIED, H_LENGTH, H_PRAGMA, H_PROXY_CONNECTION, H_SET_COOKIE,
                                H_SET_COOKIE2, M_GET, M_HEAD, M_OPTIONS, M_TRACE, head_asked, head_name, head_reason,
                                head_status, head_value)
from haptk._fast.journal cimport make_id
from haptk._fast.match cimport in_network
from haptk._fast.pool cimport buf_take
from haptk._fast.program cimport span_text
from haptk._fast.state cimport AddHeaderC, BackendC, CK_INSERT, CK_NOCACHE, Peer, Text

cdef enum:
    COMMA = 44, QUOTE = 34, BACKSLASH = 92


cdef void plain_line(Room *o, Head *h, Header *x) noexcept nogil:
    # A line with odd blanks or a bare LF, written as everybody writes it.
    room_put(o, head_name(h, x))
    room_word(o, b": ")
    room_put(o, head_value(h, x))
    room_word(o, b"\r\n")


cdef void connection_rest(Room *o, Span v) noexcept nogil:
    # What a Connection line names besides close, keep-alive and upgrade (which is decided elsewhere).
    cdef uint32_t comma = 0
    cdef Span one
    cdef bint any = 0
    while comma != NOWHERE:
        comma = span_find(v, COMMA, 0)
        one = span_trim(v if comma == NOWHERE else span_first(v, comma))
        if comma != NOWHERE:
            v = span_from(v, comma + 1)
        if span_len(one) == 0 or span_is_ci(one, b"close") or span_is_ci(one, b"keep-alive") or \
                span_is_ci(one, b"upgrade"):
            continue
        room_word(o, b", " if any else b"connection: ")
        room_put(o, one)
        any = 1
    if any:
        room_word(o, b"\r\n")


# ---------------------------------------------------------------- forwardfor, originalto

cdef bint has_header(Head *h, Text *name) noexcept nogil:
    cdef int i
    for i in range(h.count):
        if span_eq(head_name(h, &h.headers[i]), span_text(name)):
            return 1
    return 0


cdef bint excepted(AddHeaderC *a, Peer *peer) noexcept nogil:
    cdef int i
    for i in range(a.except_count):
        if in_network(&a.except_nets[i], peer.family, peer.address):
            return 1
    return 0


cdef Text *address_name(Head *h, AddHeaderC *front, AddHeaderC *back, Peer *peer) noexcept nogil:
    # The name is the backend's where it has the option; an exception holds whoever made it, `if-none` when everybody did.
    # NULL: nothing is added.
    cdef AddHeaderC *a = back if back.name.p != NULL else front
    if a.name.p == NULL or peer.text_len == 0 or excepted(front, peer) or excepted(back, peer):
        return NULL
    if (front.name.p == NULL or front.if_none) and (back.name.p == NULL or back.if_none) and has_header(h, &a.name):
        return NULL
    return &a.name


cdef void address_line(Room *o, Head *h, AddHeaderC *front, AddHeaderC *back, Peer *peer) noexcept nogil:
    cdef Text *name = address_name(h, front, back, peer)
    if name == NULL:
        return
    room_put(o, span_text(name))
    room_word(o, b": ")
    room_put(o, span_over(peer.text, peer.text_len))
    room_word(o, b"\r\n")


cdef int add_line(Worker *w, Head *h, Text *name, Span value) noexcept nogil:
    if name == NULL or not span_given(value):
        return 0
    return -1 if edits_begin(w, h) < 0 else header_add(w, h, span_text(name), value)


cdef int add_lines(Worker *w, Session *s, Head *h) noexcept nogil:
    # What is chosen by a header is chosen by these as well: they become headers like those that the client sent.
    cdef Text *name
    if s.frontend.unique_header.p != NULL and add_line(w, h, &s.frontend.unique_header, make_id(w, s)) < 0:
        return -1
    name = address_name(h, &s.frontend.forwardfor, &s.backend.forwardfor, &s.peer)
    if add_line(w, h, name, span_over(s.peer.text, s.peer.text_len)) < 0:
        return -1
    name = address_name(h, &s.frontend.originalto, &s.backend.originalto, &s.local)
    return add_line(w, h, name, span_over(s.local.text, s.local.text_len))


# ---------------------------------------------------------------- requests

cdef void edit_cookie(Worker *w, Session *s, Room *o, Head *h, Header *x) noexcept nogil:
    # Written straight into the output; most values do not name our cookie and are copied.
    cdef BackendC *be = s.backend
    cdef Span v = head_value(h, x)
    cdef uint32_t at = room_len(o)
    # blanks beside an `=` are not passed on
    if span_len(v) == 0 or ((be.cookie_name.n == 0 or span_find_span(v, span_text(&be.cookie_name)) == NOWHERE) and
                            not span_blank_at_equals(v)):
        plain_line(o, h, x)
        return
    room_word(o, b"cookie: ")
    if cookie_request(w, s, be, v, o):
        room_word(o, b"\r\n")
    elif not room_full(o):
        room_cut(o, at)


cdef void special_request(Worker *w, Session *s, Room *o, Head *h, Header *x) noexcept nogil:
    # Keep-Alive and Proxy-Connection speak of the connection they came on, so they are left out.
    if x.id == H_COOKIE:
        edit_cookie(w, s, o, h, x)
    elif x.id == H_CONNECTION and h.conn_other:
        connection_rest(o, head_value(h, x))


cdef inline bint request_special(Session *s, uint8_t id) noexcept nogil:
    return id == H_CONNECTION or id == H_KEEP_ALIVE or id == H_PROXY_CONNECTION or \
        (id == H_COOKIE and (s.backend.cookie != 0 or s.frontend.cookie_capture.p != NULL))


cdef void our_request_lines(Session *s, Room *o, Head *h) noexcept nogil:
    address_line(o, h, &s.frontend.forwardfor, &s.backend.forwardfor, &s.peer)
    address_line(o, h, &s.frontend.originalto, &s.backend.originalto, &s.local)


cdef void unique_line(Worker *w, Session *s, Room *o) noexcept nogil:
    cdef Span id = make_id(w, s)
    if not span_given(id):
        return
    room_put(o, span_text(&s.frontend.unique_header))
    room_word(o, b": ")
    room_put(o, id)
    room_word(o, b"\r\n")


cdef void connection_to_server(Session *s, Room *o, Head *h) noexcept nogil:
    if s.upgrade_asked:
        room_word(o, b"connection: upgrade\r\n")
    elif s.server_close and h.minor:
        if not s.backend.pretend_ka:
            room_word(o, b"connection: close\r\n")
    elif h.minor == 0 and (s.backend.pretend_ka or not s.server_close):
        room_word(o, b"connection: keep-alive\r\n")


cdef int render_request(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef Room o
    cdef Span t
    cdef uint32_t run = 0, run_end = 0
    cdef int i
    cdef Header *x
    if (s.backend.sees_added and add_lines(w, s, h) < 0) or buf_take(w, &s.out_head) < 0:
        return -1
    t = h.text
    buf_empty(&s.out_head)
    o = buf_room(&s.out_head)
    if h.first_end and h.first_end == h.target + h.target_len + 11 and span_at(t, h.first_end - 3) == 49:
        run, run_end = h.start, h.first_end  # it ends in " HTTP/1.1" CR LF as it came: one run with what follows
    else:
        room_put(&o, head_asked(h))
        room_word(&o, b" HTTP/1.1\r\n" if h.minor else b" HTTP/1.0\r\n")
    for i in range(h.count):
        x = &h.headers[i]
        if x.canonical and (x.id == 0 or not request_special(s, x.id)):
            if run_end != x.line:
                room_put(&o, span_between(t, run, run_end))
                run = x.line
            run_end = x.line_end
            continue
        room_put(&o, span_between(t, run, run_end))
        run = run_end = x.line_end
        if x.id and request_special(s, x.id):
            special_request(w, s, &o, h, x)
        else:
            plain_line(&o, h, x)
    room_put(&o, span_between(t, run, run_end))
    if not s.backend.sees_added:
        if s.frontend.unique_header.p != NULL:
            unique_line(w, s, &o)
        our_request_lines(s, &o, h)
    connection_to_server(s, &o, h)
    room_word(&o, b"\r\n")
    if room_left(&o) < <uint32_t>s.backend.head_room or room_full(&o):
        return -1
    buf_wrote(&s.out_head, &o)
    return 0


# ---------------------------------------------------------------- responses

cdef bint status_caches(int status) noexcept nogil:
    return status == 200 or status == 203 or status == 204 or status == 206 or status == 300 or status == 301 or \
        status == 404 or status == 405 or status == 410 or status == 414 or status == 501


cdef void cache_words(Span v, bint *allowed, bint *useful) noexcept nogil:
    # The words of one Cache-Control line in order: of `public` and the words against storing the last one counts.
    cdef uint32_t i = 0, start, n = span_len(v)
    cdef bint quoted
    cdef Span one
    while i < n:
        while i < n and (span_at(v, i) == 32 or span_at(v, i) == 9 or span_at(v, i) == COMMA):
            i += 1
        start = i
        quoted = 0
        while i < n and (quoted or span_at(v, i) != COMMA):
            if span_at(v, i) == QUOTE:
                quoted = not quoted
            elif quoted and span_at(v, i) == BACKSLASH:
                i += 1
            i += 1
        one = span_trim(span_between(v, start, i if i < n else n))
        if span_is_ci(one, b"public"):
            allowed[0] = 1
        elif against(one):
            allowed[0] = 0
        elif span_opens_ci(one, b"max-age") or span_opens_ci(one, b"s-maxage"):
            useful[0] = 1


cdef bint against(Span p) noexcept nogil:
    return span_is_ci(p, b"no-cache") or span_is_ci(p, b"no-store") or span_is_ci(p, b"private") or \
        span_is_ci(p, b"max-age=0") or span_is_ci(p, b"s-maxage=0")


cdef bint cacheable(Session *s, Head *h) noexcept nogil:
    # Whether a cache might store the answer with our cookie in it, by the rule of core/cookie.py: is_cacheable.
    cdef bint useful = 0
    cdef bint allowed = status_caches(h.status) and \
        (s.method == M_GET or s.method == M_HEAD or s.method == M_OPTIONS or s.method == M_TRACE)
    cdef int i
    cdef Header *x
    for i in range(h.count):
        x = &h.headers[i]
        if x.id == H_EXPIRES or x.id == H_ETAG or x.id == H_LAST_MODIFIED:
            useful = 1
        elif x.id == H_PRAGMA:
            if span_is_ci(head_value(h, x), b"no-cache"):
                return 0
        elif x.id == H_CACHE_CONTROL:
            cache_words(head_value(h, x), &allowed, &useful)
    return allowed and useful


cdef bint cookie_list(Session *s, Span v, Room *o) noexcept nogil:
    # Set-Cookie2 holds several cookies behind each other (RFC 2965 3.2.2); those that are ours go by themselves.
    cdef uint32_t i, start = 0, at
    cdef bint quoted, any = 0
    while start < span_len(v):
        i = start
        quoted = 0
        while i < span_len(v) and (quoted or span_at(v, i) != 44):
            if span_at(v, i) == 34:
                quoted = not quoted
            elif quoted and span_at(v, i) == 92 and i + 1 < span_len(v):
                i += 1
            i += 1
        at = room_len(o)
        if any:
            room_char(o, 44)
        else:
            start = span_skip(v, start)     # the first that stays has no blanks before it
        if start < i and cookie_response(s, s.backend, span_between(v, start, i), o):
            any = 1
        elif not room_full(o):
            room_cut(o, at)
        start = i + 1
    return any


cdef void edit_set_cookie(Session *s, Room *o, Head *h, Header *x) noexcept nogil:
    cdef uint32_t at = room_len(o)
    cdef bint kept
    if x.value_len == 0:
        plain_line(o, h, x)
        return
    room_put(o, head_name(h, x))
    room_word(o, b": ")
    if x.id == H_SET_COOKIE2:
        kept = cookie_list(s, head_value(h, x), o)
    else:
        kept = cookie_response(s, s.backend, head_value(h, x), o)
    if kept:
        room_word(o, b"\r\n")
    elif not room_full(o):
        room_cut(o, at)


cdef void special_response(Session *s, Room *o, Head *h, Header *x, bint interim) noexcept nogil:
    if x.id == H_SET_COOKIE or x.id == H_SET_COOKIE2:
        edit_set_cookie(s, o, h, x)
    elif x.id == H_CONNECTION:
        if h.conn_other:
            connection_rest(o, head_value(h, x))
    elif x.id == H_CODING and not (interim or h.status == 204 or s.down.strip):
        plain_line(o, h, x)
    # nor may a Content-Length stand in what has no body whatever it says (RFC 9110 8.6)


cdef inline bint response_special(Session *s, uint8_t id, bint interim) noexcept nogil:
    if id == H_CONNECTION or id == H_KEEP_ALIVE or id == H_PROXY_CONNECTION or id == H_CODING:
        return 1
    if id == H_LENGTH:
        return interim or s.status == 204 or s.status == 101
    return (id == H_SET_COOKIE or id == H_SET_COOKIE2) and not interim and \
        (s.backend.cookie != 0 or s.frontend.cookie_capture.p != NULL)


cdef void our_lines(Worker *w, Session *s, Room *o, Head *h) noexcept nogil:
    # The cookie that we add, and the Cache-Control that protects it.
    if not cookie_wanted(w, s, s.backend):
        return
    cookie_line(w, s, s.backend, o)
    if s.backend.cookie & CK_NOCACHE and cacheable(s, h):
        room_word(o, b"cache-control: private\r\n")


cdef void status_line(Room *o, Head *h) noexcept nogil:
    room_word(o, b"HTTP/1.1 ")
    room_put(o, head_status(h))
    room_char(o, 32)
    room_put(o, head_reason(h))
    room_word(o, b"\r\n")


cdef void connection_to_client(Session *s, Room *o, Head *h) noexcept nogil:
    if s.tunnel:
        if h.status == 101:
            room_word(o, b"connection: upgrade\r\n")
    elif not s.keep:
        room_word(o, b"connection: close\r\n")
    elif s.minor == 0:
        room_word(o, b"connection: keep-alive\r\n")


cdef int render_response(Worker *w, Session *s, Head *h, bint interim) noexcept nogil:
    cdef Room o
    cdef Span t = h.text
    cdef uint32_t run = h.first_end, run_end = h.first_end
    cdef int i
    cdef Header *x
    if buf_take(w, &s.in_head) < 0:
        return -1
    o = buf_room(&s.in_head)
    if h.first_end and h.reason == h.start + 13 and h.first_end == h.reason + h.reason_len + 2 and \
            span_at(t, h.start + 7) == 49:
        run = h.start       # "HTTP/1.1 NNN reason" CR LF as it came: one run with what follows
    else:
        status_line(&o, h)
    for i in range(h.count):
        x = &h.headers[i]
        if x.canonical and (x.id == 0 or not response_special(s, x.id, interim)):
            if run_end != x.line:
                room_put(&o, span_between(t, run, run_end))
                run = x.line
            run_end = x.line_end
            continue
        room_put(&o, span_between(t, run, run_end))
        run = run_end = x.line_end
        if x.id and response_special(s, x.id, interim):
            special_response(s, &o, h, x, interim)
        else:
            plain_line(&o, h, x)
    room_put(&o, span_between(t, run, run_end))
    if not interim:
        if s.backend.cookie & CK_INSERT:
            our_lines(w, s, &o, h)
        connection_to_client(s, &o, h)
    room_word(&o, b"\r\n")
    if room_full(&o):
        return -1
    buf_wrote(&s.in_head, &o)
    return 0
