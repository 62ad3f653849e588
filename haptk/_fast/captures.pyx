from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memchr, memcmp, memcpy, memmove

from haptk._fast.http1 cimport H_COOKIE, H_SET_COOKIE, H_SET_COOKIE2, Header
from haptk._fast.program cimport Text
from haptk._fast.state cimport CaptureC

cdef enum:
    RESPONSE_SLOT = 120, CLIENT_SLOT = 253, SERVER_SLOT = 254
    SP = 32, HTAB = 9, SEMI = 59, COMMA = 44, EQUAL = 61, QUOTE = 34, BACKSLASH = 92, DOLLAR = 36
    PAIR_MAX = 320          # of a cookie's pair looked at: longer than any name and any length of the file


cdef inline int slot_of(int which, int i) noexcept nogil:
    if which == CAPTURED_REQUEST:
        return i
    if which == CAPTURED_RESPONSE:
        return RESPONSE_SLOT + i
    return CLIENT_SLOT if which == CAPTURED_CLIENT_COOKIE else SERVER_SLOT


cdef uint32_t item_at(Session *s, int slot, uint16_t *size) noexcept nogil:
    # Where the item of a slot begins; 0 when there is none (a request line stands in front of all).
    cdef uint32_t at = s.line_len
    if s.line.d == NULL:
        return 0
    while at + 3 <= s.line.n:
        memcpy(size, s.line.d + at + 1, 2)
        if <uint8_t>s.line.d[at] == slot:
            return at
        at += 3 + size[0]
    return 0


cdef const char *captured_text(Session *s, int which, int i, uint32_t *n) noexcept nogil:
    cdef uint16_t size = 0
    cdef uint32_t at = item_at(s, slot_of(which, i), &size)
    n[0] = 0
    if at == 0:
        return NULL
    n[0] = size
    return s.line.d + at + 3


cdef void keep_item(Session *s, int slot, const char *p, uint32_t n) noexcept nogil:
    cdef uint16_t size = 0
    cdef uint32_t at = item_at(s, slot, &size)
    if s.line.d == NULL or n > 0xffff:
        return
    if at:
        memmove(s.line.d + at, s.line.d + at + 3 + size, s.line.n - at - 3 - size)
        s.line.n -= 3 + size
    at = s.line.n
    if s.line.size - at < 3 or s.line.size - at - 3 < n:
        return
    size = <uint16_t>n
    s.line.d[at] = <char>slot
    memcpy(s.line.d + at + 1, &size, 2)
    memcpy(s.line.d + at + 3, p, n)
    s.line.n = at + 3 + n


cdef void capture(Session *s, int which, int i, const char *p, uint32_t n) noexcept nogil:
    cdef uint32_t most = s.frontend.cookie_length
    cdef const char *end
    if which == CAPTURED_REQUEST:
        if i < 0 or i >= s.frontend.request_slots:
            return
        most = s.frontend.request_captures[i].length
    elif which == CAPTURED_RESPONSE:
        if i < 0 or i >= s.frontend.response_slots:
            return
        most = s.frontend.response_captures[i].length
    if n > most:
        n = most
    end = <const char *>memchr(p, 0, n) if n else NULL
    keep_item(s, slot_of(which, i), p, n if end == NULL else <uint32_t>(end - p))


cdef inline bint blank(char c) noexcept nogil:
    return c == SP or c == HTAB


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
            if x.name_len == slots[i].name.n and memcmp(h.d + x.line, slots[i].name.p, x.name_len) == 0:
                capture(s, which, i, h.d + x.value, x.value_len)
                break


cdef uint32_t value_end(const char *v, uint32_t i, uint32_t n) noexcept nogil:
    # At ; or , outside quotes. A quote that never closes hides the rest.
    cdef bint quoted = 0
    while i < n and (quoted or (v[i] != SEMI and v[i] != COMMA)):
        if quoted and v[i] == BACKSLASH:
            i += 1
        elif v[i] == QUOTE:
            quoted = not quoted
        i += 1
    return i if i < n else n


cdef bint keep_pair(Session *s, int which, const char *name, uint32_t name_n, const char *value, uint32_t value_n) noexcept nogil:
    # The pair without the blanks around its `=`, when it is the one that is looked for.
    cdef char both[PAIR_MAX]
    cdef uint32_t n
    cdef Text *begin = &s.frontend.cookie_capture
    if name_n > PAIR_MAX - 1:
        name_n = PAIR_MAX - 1
    memcpy(both, name, name_n)
    both[name_n] = EQUAL
    n = name_n + 1
    if value_n > PAIR_MAX - n:
        value_n = PAIR_MAX - n
    memcpy(both + n, value, value_n)
    n += value_n
    if n < begin.n or memcmp(both, begin.p, begin.n) != 0:
        return 0
    capture(s, which, 0, both, n)
    return 1


cdef bint keep_cookie(Session *s, const char *v, uint32_t n, bint response) noexcept nogil:
    # Of a Set-Cookie only the first pair counts; an attribute ($Path) is no cookie.
    cdef int which = CAPTURED_SERVER_COOKIE if response else CAPTURED_CLIENT_COOKIE
    cdef uint32_t i = 0, start, name_end, val, end
    while i < n:
        while i < n and blank(v[i]):
            i += 1
        start = i
        while i < n and v[i] != EQUAL and v[i] != SEMI and v[i] != COMMA:
            i += 1
        name_end = i
        while name_end > start and blank(v[name_end - 1]):
            name_end -= 1
        if i < n and v[i] == EQUAL:
            val = i + 1
            while val < n and blank(v[val]):
                val += 1
            i = end = value_end(v, val, n)
            while end > val and blank(v[end - 1]):
                end -= 1
            if v[start] != DOLLAR and keep_pair(s, which, v + start, name_end - start, v + val, end - val):
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
        if x.id == id and keep_cookie(s, h.d + x.value, x.value_len, response):
            return 1
    return 0


cdef void capture_cookie(Session *s, Head *h, bint response) noexcept nogil:
    if s.frontend.cookie_capture.p == NULL or cookies_named(s, h, H_SET_COOKIE if response else H_COOKIE, response):
        return
    if response:
        cookies_named(s, h, H_SET_COOKIE2, 1)
