from libc.stdint cimport uint8_t, uint32_t

from haptk._fast.bytes.buf cimport buf_cut, buf_held, buf_part, buf_put
from haptk._fast.bytes.span cimport (NOWHERE, Room, room_char, room_left, room_over, room_put, room_span, span_at,
                                     span_begins, span_between, span_cut, span_eq, span_find, span_first,
                                     span_len, span_none, span_over, span_skip, span_sub, span_trim_end)
from haptk._fast.http1 cimport (H_COOKIE, H_SET_COOKIE, H_SET_COOKIE2, Header, head_name, head_value)
from haptk._fast.program cimport span_text
from haptk._fast.state cimport CaptureC

cdef enum:
    RESPONSE_SLOT = 120, CLIENT_SLOT = 253, SERVER_SLOT = 254
    SP = 32, HTAB = 9, SEMI = 59, COMMA = 44, EQUAL = 61, QUOTE = 34, BACKSLASH = 92, DOLLAR = 36
    ITEM_HEAD = 3           # bytes of slot and length
    PAIR_MAX = 320          # of a cookie's pair looked at: longer than any name and any length of the file


cdef inline int slot_of(int which, int i) noexcept nogil:
    if which == CAPTURED_REQUEST:
        return i
    if which == CAPTURED_RESPONSE:
        return RESPONSE_SLOT + i
    return CLIENT_SLOT if which == CAPTURED_CLIENT_COOKIE else SERVER_SLOT


cdef inline uint32_t size_at(Span items, uint32_t at) noexcept nogil:
    return span_at(items, at + 1) | <uint32_t>span_at(items, at + 2) << 8


cdef uint32_t item_at(Session *s, Span items, int slot) noexcept nogil:
    # Where the item of a slot begins, or NOWHERE.
    cdef uint32_t at = s.line_len
    while at + ITEM_HEAD <= span_len(items):
        if span_at(items, at) == slot:
            return at
        at += ITEM_HEAD + size_at(items, at)
    return NOWHERE


cdef Span captured_text(Session *s, int which, int i) noexcept nogil:
    cdef Span items
    cdef uint32_t at
    if not buf_held(&s.line):
        return span_none()
    items = buf_part(&s.line, 0, s.line.n)
    at = item_at(s, items, slot_of(which, i))
    return span_none() if at == NOWHERE else span_sub(items, at + ITEM_HEAD, size_at(items, at))


cdef void keep_item(Session *s, int slot, Span text) noexcept nogil:
    cdef Span items
    cdef uint32_t at, size = span_len(text)
    cdef uint8_t head[ITEM_HEAD]
    if not buf_held(&s.line) or size > 0xffff:
        return
    items = buf_part(&s.line, 0, s.line.n)
    at = item_at(s, items, slot)
    if at != NOWHERE:
        buf_cut(&s.line, at, at + ITEM_HEAD + size_at(items, at))
    if s.line.size - s.line.n < ITEM_HEAD + size:
        return
    head[0], head[1], head[2] = <uint8_t>slot, <uint8_t>(size & 255), <uint8_t>(size >> 8)
    buf_put(&s.line, span_over(head, ITEM_HEAD))
    buf_put(&s.line, text)


cdef void capture(Session *s, int which, int i, Span text) noexcept nogil:
    cdef uint32_t most = s.frontend.cookie_length, end
    if which == CAPTURED_REQUEST:
        if i < 0 or i >= s.frontend.request_slots:
            return
        most = s.frontend.request_captures[i].length
    elif which == CAPTURED_RESPONSE:
        if i < 0 or i >= s.frontend.response_slots:
            return
        most = s.frontend.response_captures[i].length
    text = span_cut(text, most)
    end = span_find(text, 0, 0)
    keep_item(s, slot_of(which, i), text if end == NOWHERE else span_first(text, end))


cdef void capture_head(Session *s, Head *h, bint response) noexcept nogil:
    cdef CaptureC *slots = s.frontend.response_captures if response else s.frontend.request_captures
    cdef int count = s.frontend.response_slots if response else s.frontend.request_slots
    cdef int which = CAPTURED_RESPONSE if response else CAPTURED_REQUEST
    cdef int i, k
    cdef Header *x
    for i in range(count):
        if slots[i].name.n == 0:
            continue
        for k in range(h.count - 1, -1, -1):
            x = &h.headers[k]
            if span_eq(head_name(h, x), span_text(&slots[i].name)):
                capture(s, which, i, head_value(h, x))
                break


cdef uint32_t value_end(Span v, uint32_t i) noexcept nogil:
    # At ; or , outside quotes. A quote that never closes hides the rest.
    cdef uint32_t n = span_len(v)
    cdef bint quoted = 0
    while i < n and (quoted or (span_at(v, i) != SEMI and span_at(v, i) != COMMA)):
        if quoted and span_at(v, i) == BACKSLASH:
            i += 1
        elif span_at(v, i) == QUOTE:
            quoted = not quoted
        i += 1
    return i if i < n else n


cdef bint keep_pair(Session *s, int which, Span name, Span value) noexcept nogil:
    # The pair without the blanks around its `=`, when it is the one that is looked for.
    cdef char made[PAIR_MAX]
    cdef Room both = room_over(made, PAIR_MAX)
    room_put(&both, span_cut(name, PAIR_MAX - 1))
    room_char(&both, EQUAL)
    room_put(&both, span_cut(value, room_left(&both)))
    if not span_begins(room_span(&both), span_text(&s.frontend.cookie_capture)):
        return 0
    capture(s, which, 0, room_span(&both))
    return 1


cdef bint keep_cookie(Session *s, Span v, bint response) noexcept nogil:
    # Of a Set-Cookie only the first pair counts; an attribute ($Path) is no cookie.
    cdef int which = CAPTURED_SERVER_COOKIE if response else CAPTURED_CLIENT_COOKIE
    cdef uint32_t i = 0, start, end, val, n = span_len(v)
    while i < n:
        start = i = span_skip(v, i)
        while i < n and span_at(v, i) != EQUAL and span_at(v, i) != SEMI and span_at(v, i) != COMMA:
            i += 1
        if i < n and span_at(v, i) == EQUAL:
            end = i
            val = span_skip(v, i + 1)
            i = value_end(v, val)
            if span_at(v, start) != DOLLAR and keep_pair(s, which, span_trim_end(span_between(v, start, end)),
                                                         span_trim_end(span_between(v, val, i))):
                return 1
        if response:
            return 0
        i += 1
    return 0


cdef bint cookies_named(Session *s, Head *h, int id, bint response) noexcept nogil:
    cdef int k
    cdef Header *x
    for k in range(h.count):
        x = &h.headers[k]
        if x.id == id and keep_cookie(s, head_value(h, x), response):
            return 1
    return 0


cdef void capture_cookie(Session *s, Head *h, bint response) noexcept nogil:
    if s.frontend.cookie_capture.p == NULL or cookies_named(s, h, H_SET_COOKIE if response else H_COOKIE, response):
        return
    if response:
        cookies_named(s, h, H_SET_COOKIE2, 1)
