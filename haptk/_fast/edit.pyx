# Content-Length and Transfer-Encoding are out of reach: the reader of the file refuses rules that name them, and
# patterns do not match them here.

from libc.string cimport memmove

from haptk._fast.authority cimport target_ok
from haptk._fast.bytes.span cimport (NOWHERE, room_char, room_close, room_cut, room_decimal, room_full, room_len,
                                     room_open, room_put, room_span, room_word, span_at, span_between, span_eq, span_find,
                                     span_first, span_from, span_is_ci, span_len, span_skip, span_trim,
                                     span_trim_end)
from haptk._fast.http1 cimport (H_CONNECTION, H_HOST, H_UPGRADE, HEADERS_ADDED, HEADERS_MAX, Header, M_CONNECT,
                                head_method, head_name, head_target, head_value, header_id, method_id,
                                note_connection, note_host)
from haptk._fast.scan cimport TOKEN

cdef enum:
    SLASH = 47, STAR = 42, COLON = 58, QUESTION = 63, HASH = 35, COMMA = 44
    EDITS = 5               # rooms are that many times as long as a buffer: the copy, and what is added
    METHOD_MAX = 64


cdef int edits_open(Worker *w) noexcept nogil:
    cdef int i
    if room_open(&w.edits, EDITS * <uint32_t>w.conf.bufsize) < 0:
        return -1
    for i in range(DRAFTS):
        if room_open(&w.drafts[i], (EDITS - 1) * <uint32_t>w.conf.bufsize) < 0:
            return -1
    return 0


cdef void edits_close(Worker *w) noexcept nogil:
    cdef int i
    room_close(&w.edits)
    for i in range(DRAFTS):
        room_close(&w.drafts[i])


cdef Room *draft(Worker *w, int which) noexcept nogil:
    room_cut(&w.drafts[which], 0)
    return &w.drafts[which]


cdef int edits_begin(Worker *w, Head *h) noexcept nogil:
    if h.edited:
        return 0
    room_cut(&w.edits, 0)
    if room_put(&w.edits, span_first(h.text, h.end)) < 0:
        return -1
    h.text = room_span(&w.edits)
    h.edited = 1
    return drop_modes(w, h) if h.conn_close or h.conn_keep else 0


cdef int drop_modes(Worker *w, Head *h) noexcept nogil:
    # `close` and `keep-alive` speak of the connection that they came on: rules see neither, and what stands there
    # afterwards is theirs.
    cdef int k = 0
    cdef Room *o
    while k < h.count:
        if h.headers[k].id == H_CONNECTION:
            o = draft(w, DRAFT_PART)
            other_words(head_value(h, &h.headers[k]), o)
            if room_len(o) == 0:
                header_drop(h, k)
                continue
            if header_change(w, h, k, room_span(o)) < 0:
                return -1
        k += 1
    return 0


cdef void other_words(Span v, Room *out) noexcept nogil:
    # The list without those two words. Behind the first of them HAProxy writes the others closely, without their blanks.
    cdef uint32_t at = 0, start, end
    cdef bint closely = 0
    cdef Span one
    while at < span_len(v):
        end = span_find(v, COMMA, at)
        if end == NOWHERE:
            end = span_len(v)
        start = span_skip(v, at)
        if start > end:
            start = end
        one = span_trim_end(span_between(v, start, end))
        if span_is_ci(one, b"close") or span_is_ci(one, b"keep-alive"):
            closely = 1
        elif not closely:
            # with the comma and the blanks in front of it
            room_put(out, span_between(v, room_len(out), start + span_len(one)))
        else:
            if room_len(out):
                room_char(out, COMMA)
            room_put(out, one)
        at = end + 1


cdef int settled(Worker *w, Head *h, uint32_t at) noexcept nogil:
    # What was added from `at` on belongs to the head, or is taken back when some of it was refused.
    cdef bint refused = room_full(&w.edits)
    if refused:
        room_cut(&w.edits, at)
    h.text = room_span(&w.edits)
    return -1 if refused else 0


cdef int write_line(Worker *w, Head *h, Header *x, Span name, Span value) noexcept nogil:
    # "name: value CR LF" behind what was added before; x points to it then.
    cdef Room *o = &w.edits
    cdef uint32_t at = room_len(o)
    value = span_trim(value)
    if span_len(name) > 0xffff:
        return -1
    room_put(o, name)
    room_word(o, b": ")
    room_put(o, value)
    room_word(o, b"\r\n")
    if settled(w, h, at) < 0:
        return -1
    x.line = at
    x.name_len = <unsigned short>span_len(name)
    x.value = at + x.name_len + 2
    x.value_len = span_len(value)
    x.line_end = x.value + x.value_len + 2
    x.canonical = 1
    x.id = header_id(name)
    return 0


cdef int header_add(Worker *w, Head *h, Span name, Span value) noexcept nogil:
    if h.count == HEADERS_MAX + HEADERS_ADDED or write_line(w, h, &h.headers[h.count], name, value) < 0:
        return -1
    h.count += 1
    return 0


cdef void header_drop(Head *h, int k) noexcept nogil:
    h.count -= 1
    memmove(&h.headers[k], &h.headers[k + 1], (h.count - k) * sizeof(Header))


cdef void header_drop_named(Head *h, Span name) noexcept nogil:
    cdef int k = 0
    while k < h.count:
        if span_eq(head_name(h, &h.headers[k]), name):
            header_drop(h, k)
        else:
            k += 1


cdef int header_change(Worker *w, Head *h, int k, Span value) noexcept nogil:
    return write_line(w, h, &h.headers[k], head_name(h, &h.headers[k]), value)


cdef int set_request_line(Worker *w, Head *h, Span method, Span target) noexcept nogil:
    cdef Room *o = &w.edits
    cdef uint32_t i, at = room_len(o), method_n = span_len(method), target_n = span_len(target)
    cdef unsigned char c
    if method_n == 0 or method_n > METHOD_MAX or target_n == 0:
        return -1
    for i in range(method_n):
        if TOKEN[span_at(method, i)] == 0:
            return -1
    for i in range(target_n):
        c = span_at(target, i)
        if c <= 32 or c >= 0x7f or c == HASH:
            return -1
    room_put(o, method)
    room_char(o, 32)
    room_put(o, target)
    if settled(w, h, at) < 0:
        return -1
    h.start = at
    h.first_end = 0
    h.method_len = <unsigned short>method_n
    h.target = at + method_n + 1
    h.target_len = target_n
    h.method = method_id(method)
    return 0


cdef int set_status(Worker *w, Head *h, int status, Span reason) noexcept nogil:
    cdef Room *o = &w.edits
    cdef uint32_t at = room_len(o)
    room_word(o, b"HTTP/1.1 ")
    room_decimal(o, <uint32_t>status)
    room_char(o, 32)
    room_put(o, reason)
    if settled(w, h, at) < 0:
        return -1
    h.start = at
    h.first_end = 0
    h.reason_len = span_len(reason)
    h.reason = room_len(o) - h.reason_len
    return 0


cdef int authority_in(Head *h, uint32_t *start, uint32_t *end) noexcept nogil:
    cdef Span t = head_target(h)
    cdef uint32_t i, n = span_len(t)
    if span_at(t, 0) == SLASH or span_at(t, 0) == STAR or h.method == M_CONNECT:
        return 0
    i = span_find(t, COLON, 0)
    if i == NOWHERE or i + 3 >= n:
        return -1
    start[0] = i = i + 3
    while i < n and span_at(t, i) != SLASH and span_at(t, i) != QUESTION:
        i += 1
    end[0] = i
    return 1


cdef int follow_host(Worker *w, Head *h) noexcept nogil:
    # An absolute target and Host name the same place: a rule that changed one of them changes both.
    cdef Span t = head_target(h)
    cdef uint32_t start = 0, end = 0
    cdef int k, got = authority_in(h, &start, &end)
    cdef Room *o
    if got <= 0 or target_ok(h):
        return got if got < 0 else 0
    for k in range(h.count):
        if h.headers[k].id == H_HOST:
            o = draft(w, DRAFT_TARGET)
            room_put(o, span_first(t, start))
            room_put(o, head_value(h, &h.headers[k]))
            room_put(o, span_from(t, end))
            return -1 if room_full(o) else set_request_line(w, h, head_method(h), room_span(o))
    return 0


cdef int edits_end(Worker *w, Head *h, bint request) noexcept nogil:
    cdef int k
    cdef Header *x
    if not h.edited:
        return 0
    h.conn_close = h.conn_keep = h.conn_upgrade = h.conn_other = 0
    h.upgrade = h.seen_host = 0
    for k in range(h.count):
        x = &h.headers[k]
        if x.id == H_CONNECTION:
            note_connection(h, x)
        elif x.id == H_UPGRADE:
            h.upgrade = 1
        elif x.id == H_HOST and request and note_host(h, x) < 0:
            return -1
    if not request or h.lax:
        return 0                # under accept-invalid-http-request a Host may be another than the target's
    if follow_host(w, h) < 0 or not target_ok(h):
        return -1
    return 0
