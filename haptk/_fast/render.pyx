# Every write is bounded by the buffer: put() remembers an overflow instead of checking at each call site.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, strlen

from haptk._fast.cookie cimport cookie_line, cookie_request, cookie_response, cookie_wanted
from haptk._fast.http1 cimport (Buf, Header, H_CACHE_CONTROL, H_CODING, H_CONNECTION, H_COOKIE, H_ETAG, H_EXPIRES,
                                H_KEEP_ALIVE, H_LAST_MODIFIED, H_PRAGMA, H_PROXY_CONNECTION, H_SET_COOKIE,
                                H_SET_COOKIE2, M_GET, M_HEAD, M_OPTIONS, M_TRACE)
from haptk._fast.journal cimport make_id
from haptk._fast.match cimport in_network
from haptk._fast.pool cimport buf_take
from haptk._fast.scan cimport hk_blank_at_equals, hk_find, same_word
from haptk._fast.state cimport AddHeaderC, BackendC, CK_INSERT, CK_NOCACHE, Peer, Text


cdef inline int put(Buf *o, const char *p, size_t n) noexcept nogil:
    # An overflow shows as o.n == o.size + 1 and swallows all later writes.
    if o.n + n > o.size:
        o.n = o.size + 1
        return -1
    memcpy(o.d + o.n, p, n)
    o.n += <uint32_t>n
    return 0


cdef inline int word(Buf *o, const char *p) noexcept nogil:
    return put(o, p, strlen(p))


cdef int plain_line(Buf *o, const char *d, Header *x) noexcept nogil:
    # A line with odd blanks or a bare LF, written as everybody writes it.
    put(o, d + x.line, x.name_len)
    word(o, b": ")
    put(o, d + x.value, x.value_len)
    return word(o, b"\r\n")


cdef int connection_rest(Buf *o, const char *d, Header *x) noexcept nogil:
    # What a Connection line names besides close, keep-alive and upgrade (which is decided elsewhere).
    cdef const char *v = d + x.value
    cdef uint32_t i = 0, start, end, n = x.value_len
    cdef bint any = 0
    while i < n:
        while i < n and (v[i] == 32 or v[i] == 9 or v[i] == 44):
            i += 1
        start = i
        while i < n and v[i] != 44:
            i += 1
        end = i
        while end > start and (v[end - 1] == 32 or v[end - 1] == 9):
            end -= 1
        if end == start or (end - start == 5 and same_word(v + start, b"close", 5)) or \
                (end - start == 10 and same_word(v + start, b"keep-alive", 10)) or \
                (end - start == 7 and same_word(v + start, b"upgrade", 7)):
            continue
        word(o, b", " if any else b"connection: ")
        put(o, v + start, end - start)
        any = 1
    return word(o, b"\r\n") if any else 0


# ---------------------------------------------------------------- forwardfor, originalto

cdef bint has_header(Head *h, Text *name) noexcept nogil:
    cdef int i
    for i in range(h.count):
        if h.headers[i].name_len == name.n and memcmp(h.d + h.headers[i].line, name.p, name.n) == 0:
            return 1
    return 0


cdef bint excepted(AddHeaderC *a, Peer *peer) noexcept nogil:
    cdef int i
    for i in range(a.except_count):
        if in_network(&a.except_nets[i], peer.family, peer.address):
            return 1
    return 0


cdef void address_line(Buf *o, Head *h, AddHeaderC *front, AddHeaderC *back, Peer *peer) noexcept nogil:
    # The name is the backend's where it has the option; an exception holds whoever made it, `if-none` when everybody did.
    cdef AddHeaderC *a = back if back.name.p != NULL else front
    if a.name.p == NULL or peer.text_len == 0 or excepted(front, peer) or excepted(back, peer):
        return
    if (front.name.p == NULL or front.if_none) and (back.name.p == NULL or back.if_none) and has_header(h, &a.name):
        return
    put(o, a.name.p, a.name.n)
    word(o, b": ")
    put(o, peer.text, peer.text_len)
    word(o, b"\r\n")


# ---------------------------------------------------------------- requests

cdef int edit_cookie(Worker *w, Session *s, Buf *o, const char *d, Header *x) noexcept nogil:
    # Written straight into the output; most values do not name our cookie and are copied.
    cdef BackendC *be = s.backend
    cdef const char *v = d + x.value
    cdef uint32_t n = x.value_len, kept
    # blanks beside an `=` are not passed on
    if n == 0 or ((be.cookie_name.n == 0 or hk_find(v, n, be.cookie_name.p, be.cookie_name.n) == NULL) and
                  not hk_blank_at_equals(v, n)):
        return plain_line(o, d, x)
    if o.n + n + 10 > o.size:
        o.n = o.size + 1
        return -1
    kept = cookie_request(w, s, be, v, n, o.d + o.n + 8)
    if kept == 0:
        return 0
    memcpy(o.d + o.n, b"cookie: ", 8)
    o.n += 8 + kept
    return word(o, b"\r\n")


cdef int special_request(Worker *w, Session *s, Buf *o, Head *h, Header *x) noexcept nogil:
    if x.id == H_COOKIE:
        return edit_cookie(w, s, o, h.d, x)
    if x.id == H_CONNECTION:
        return connection_rest(o, h.d, x) if h.conn_other else 0
    return 0    # Keep-Alive and Proxy-Connection speak of the connection they came on


cdef inline bint request_special(Session *s, uint8_t id) noexcept nogil:
    return id == H_CONNECTION or id == H_KEEP_ALIVE or id == H_PROXY_CONNECTION or \
        (id == H_COOKIE and (s.backend.cookie != 0 or s.frontend.cookie_capture.p != NULL))


cdef void our_request_lines(Session *s, Buf *o, Head *h) noexcept nogil:
    address_line(o, h, &s.frontend.forwardfor, &s.backend.forwardfor, &s.peer)
    address_line(o, h, &s.frontend.originalto, &s.backend.originalto, &s.local)


cdef void unique_line(Worker *w, Session *s, Buf *o) noexcept nogil:
    cdef uint32_t n = 0
    cdef const char *p = make_id(w, s, &n)
    if p == NULL:
        return
    put(o, s.frontend.unique_header.p, s.frontend.unique_header.n)
    word(o, b": ")
    put(o, p, n)
    word(o, b"\r\n")


cdef int render_request(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef Buf *o = &s.out_head
    cdef char *d = h.d
    cdef uint32_t run = 0, run_end = 0
    cdef int i
    cdef Header *x
    if buf_take(w, o) < 0:
        return -1
    o.n = o.r = 0
    if h.first_end == h.target + h.target_len + 11 and d[h.first_end - 3] == 49:
        run, run_end = h.start, h.first_end     # it ends in " HTTP/1.1" CR LF as it came: one run with what follows
    else:
        put(o, d + h.start, h.target + h.target_len - h.start)
        word(o, b" HTTP/1.1\r\n" if h.minor else b" HTTP/1.0\r\n")
    for i in range(h.count):
        x = &h.headers[i]
        if x.canonical and (x.id == 0 or not request_special(s, x.id)):
            if run_end != x.line:
                put(o, d + run, run_end - run)
                run = x.line
            run_end = x.line_end
            continue
        put(o, d + run, run_end - run)
        run = run_end = x.line_end
        if x.id and request_special(s, x.id):
            special_request(w, s, o, h, x)
        else:
            plain_line(o, d, x)
    put(o, d + run, run_end - run)
    if s.frontend.unique_header.p != NULL:
        unique_line(w, s, o)
    our_request_lines(s, o, h)
    if s.upgrade_asked:
        word(o, b"connection: upgrade\r\n")
    elif s.server_close and h.minor:
        if not s.backend.pretend_ka:
            word(o, b"connection: close\r\n")
    elif h.minor == 0 and (s.backend.pretend_ka or not s.server_close):
        word(o, b"connection: keep-alive\r\n")
    word(o, b"\r\n")
    return 0 if o.n + s.backend.head_room <= o.size else -1


# ---------------------------------------------------------------- responses

cdef bint status_caches(int status) noexcept nogil:
    return status == 200 or status == 203 or status == 204 or status == 206 or status == 300 or status == 301 or \
        status == 404 or status == 405 or status == 410 or status == 414 or status == 501


cdef void cache_words(const char *v, uint32_t n, bint *allowed, bint *useful) noexcept nogil:
    # The words of one Cache-Control line in order: of `public` and the words against storing the last one counts.
    cdef uint32_t i = 0, start, end
    cdef bint quoted
    while i < n:
        while i < n and (v[i] == 32 or v[i] == 9 or v[i] == 44):
            i += 1
        start = i
        quoted = 0
        while i < n and (quoted or v[i] != 44):
            if v[i] == 34:
                quoted = not quoted
            elif quoted and v[i] == 92:
                i += 1
            i += 1
        end = i if i < n else n
        while end > start and (v[end - 1] == 32 or v[end - 1] == 9):
            end -= 1
        if end - start == 6 and same_word(v + start, b"public", 6):
            allowed[0] = 1
        elif against(v + start, end - start):
            allowed[0] = 0
        elif (end - start >= 7 and same_word(v + start, b"max-age", 7)) or \
                (end - start >= 8 and same_word(v + start, b"s-maxage", 8)):
            useful[0] = 1


cdef bint against(const char *p, uint32_t n) noexcept nogil:
    return (n == 8 and same_word(p, b"no-cache", 8)) or (n == 8 and same_word(p, b"no-store", 8)) or \
        (n == 7 and same_word(p, b"private", 7)) or \
        (n == 9 and same_word(p, b"max-age", 7) and memcmp(p + 7, b"=0", 2) == 0) or \
        (n == 10 and same_word(p, b"s-maxage", 8) and memcmp(p + 8, b"=0", 2) == 0)


cdef bint cacheable(Session *s, const char *d, Head *h) noexcept nogil:
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
            if x.value_len == 8 and same_word(d + x.value, b"no-cache", 8):
                return 0
        elif x.id == H_CACHE_CONTROL:
            cache_words(d + x.value, x.value_len, &allowed, &useful)
    return allowed and useful


cdef int edit_set_cookie(Session *s, Buf *o, const char *d, Header *x) noexcept nogil:
    cdef BackendC *be = s.backend
    cdef uint32_t kept, id_n = s.server.cookie.n if s.server != NULL else 0
    if x.value_len == 0:
        return plain_line(o, d, x)
    if o.n + x.name_len + x.value_len + id_n + 8 > o.size:
        o.n = o.size + 1
        return -1
    kept = cookie_response(s, be, d + x.value, x.value_len, o.d + o.n + x.name_len + 2)
    if kept == 0:
        return 0
    memcpy(o.d + o.n, d + x.line, x.name_len)
    o.d[o.n + x.name_len] = 58
    o.d[o.n + x.name_len + 1] = 32
    o.n += x.name_len + 2 + kept
    return word(o, b"\r\n")


cdef int special_response(Session *s, Buf *o, Head *h, Header *x, bint interim) noexcept nogil:
    if x.id == H_SET_COOKIE or x.id == H_SET_COOKIE2:
        return edit_set_cookie(s, o, h.d, x)
    if x.id == H_CONNECTION:
        return connection_rest(o, h.d, x) if h.conn_other else 0
    if x.id == H_CODING and not (interim or h.status == 204 or s.down.strip):
        return plain_line(o, h.d, x)
    return 0


cdef inline bint response_special(Session *s, uint8_t id, bint interim) noexcept nogil:
    if id == H_CONNECTION or id == H_KEEP_ALIVE or id == H_PROXY_CONNECTION or id == H_CODING:
        return 1
    return (id == H_SET_COOKIE or id == H_SET_COOKIE2) and not interim and \
        (s.backend.cookie != 0 or s.frontend.cookie_capture.p != NULL)


cdef void our_lines(Worker *w, Session *s, Buf *o, Head *h) noexcept nogil:
    # The cookie that we add, and the Cache-Control that protects it.
    cdef uint32_t n
    if not cookie_wanted(w, s, s.backend):
        return
    n = cookie_line(w, s, s.backend, o.d + o.n, o.size - o.n) if o.n < o.size else 0
    o.n = o.n + n if n else o.size + 1
    if s.backend.cookie & CK_NOCACHE and cacheable(s, h.d, h):
        word(o, b"cache-control: private\r\n")


cdef int render_response(Worker *w, Session *s, Head *h, bint interim) noexcept nogil:
    cdef Buf *o = &s.in_head
    cdef char *d = h.d
    cdef uint32_t run, run_end
    cdef int i
    cdef Header *x
    if buf_take(w, o) < 0:
        return -1
    run = run_end = h.first_end
    if h.reason == h.start + 13 and h.first_end == h.reason + h.reason_len + 2 and d[h.start + 7] == 49:
        run = h.start       # "HTTP/1.1 NNN reason" CR LF as it came: one run with what follows
    else:
        word(o, b"HTTP/1.1 ")
        put(o, d + h.start + 9, 3)
        word(o, b" ")
        put(o, d + h.reason, h.reason_len)
        word(o, b"\r\n")
    for i in range(h.count):
        x = &h.headers[i]
        if x.canonical and (x.id == 0 or not response_special(s, x.id, interim)):
            if run_end != x.line:
                put(o, d + run, run_end - run)
                run = x.line
            run_end = x.line_end
            continue
        put(o, d + run, run_end - run)
        run = run_end = x.line_end
        if x.id and response_special(s, x.id, interim):
            special_response(s, o, h, x, interim)
        else:
            plain_line(o, d, x)
    put(o, d + run, run_end - run)
    if not interim:
        if s.backend.cookie & CK_INSERT:
            our_lines(w, s, o, h)
        if s.tunnel:
            word(o, b"connection: upgrade\r\n" if h.status == 101 else b"")
        elif not s.keep:
            word(o, b"connection: close\r\n")
        elif s.minor == 0:
            word(o, b"connection: keep-alive\r\n")
    word(o, b"\r\n")
    return 0 if o.n <= o.size else -1
