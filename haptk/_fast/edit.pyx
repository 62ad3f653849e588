# Content-Length and Transfer-Encoding are out of reach: the reader of the file refuses rules that name them, and
# patterns do not match them here.

from libc.string cimport memcmp, memcpy, memmove

from haptk._fast.http1 cimport (H_CONNECTION, H_HOST, H_UPGRADE, HEADERS_ADDED, HEADERS_MAX,
                                Header, M_CONNECT, header_id, method_id, note_connection, note_host, target_ok)
from haptk._fast.scan cimport TOKEN, same_word


cdef size_t edits_size(uint32_t bufsize) noexcept nogil:
    return 5 * <size_t>bufsize


cdef void edits_begin(Worker *w, Head *h) noexcept nogil:
    if h.d == w.edits:
        return
    memcpy(w.edits + h.start, h.d + h.start, h.end - h.start)
    h.d = w.edits
    w.edits_used = w.conf.bufsize
    if h.conn_close or h.conn_keep:
        drop_modes(h)


cdef void drop_modes(Head *h) noexcept nogil:
    # `close` and `keep-alive` speak of the connection that they came on: rules see neither, and what stands there
    # afterwards is theirs.
    cdef int k = 0
    cdef Header *x
    while k < h.count:
        x = &h.headers[k]
        if x.id == H_CONNECTION:
            x.value_len = other_words(h.d + x.value, x.value_len)
            x.canonical = 0
            if x.value_len == 0:
                header_drop(h, k)
                continue
        k += 1


cdef inline bint blank(char c) noexcept nogil:
    return c == 32 or c == 9


cdef inline bint is_mode(const char *p, uint32_t n) noexcept nogil:
    return (n == 5 and same_word(p, b"close", 5)) or (n == 10 and same_word(p, b"keep-alive", 10))


cdef uint32_t other_words(char *v, uint32_t n) noexcept nogil:
    # The list without those two words, in place; its new length. Behind the first of them HAProxy writes the others
    # closely, without their blanks.
    cdef uint32_t at = 0, start, end, kept = 0
    cdef bint closely = 0
    while at < n:
        start = at
        while at < n and v[at] != 44:
            at += 1
        end = at
        at += 1
        while start < end and blank(v[start]):
            start += 1
        while end > start and blank(v[end - 1]):
            end -= 1
        if is_mode(v + start, end - start):
            closely = 1
        elif not closely:
            kept = end
        else:
            if kept:
                v[kept] = 44
                kept += 1
            memmove(v + kept, v + start, end - start)
            kept += end - start
    return kept


cdef char *edits_room(Worker *w, uint32_t *room) noexcept nogil:
    room[0] = <uint32_t>edits_size(w.conf.bufsize) - w.edits_used
    return w.edits + w.edits_used


cdef int write_line(Worker *w, Header *x, const char *name, uint32_t name_n, const char *value, uint32_t n) noexcept nogil:
    # "name: value CR LF" behind what was added before; x points to it then. `value` may stand in the very room.
    cdef uint32_t room, at = w.edits_used
    cdef char *out = edits_room(w, &room)
    while n and (value[n - 1] == 32 or value[n - 1] == 9):
        n -= 1
    while n and (value[0] == 32 or value[0] == 9):
        value += 1
        n -= 1
    if name_n + 4 > room or n > room - name_n - 4 or name_n > 0xffff:
        return -1
    memmove(out + name_n + 2, value, n)
    memcpy(out, name, name_n)
    memcpy(out + name_n, b": ", 2)
    memcpy(out + name_n + 2 + n, b"\r\n", 2)
    x.line = at
    x.name_len = <unsigned short>name_n
    x.value = at + name_n + 2
    x.value_len = n
    x.line_end = x.value + n + 2
    x.canonical = 1
    x.id = header_id(out, name_n)
    w.edits_used = x.line_end
    return 0


cdef int header_add(Worker *w, Head *h, Text *name, const char *value, uint32_t n) noexcept nogil:
    if h.count == HEADERS_MAX + HEADERS_ADDED:
        return -1
    if write_line(w, &h.headers[h.count], name.p, name.n, value, n) < 0:
        return -1
    h.count += 1
    return 0


cdef void header_drop(Head *h, int k) noexcept nogil:
    h.count -= 1
    memmove(&h.headers[k], &h.headers[k + 1], (h.count - k) * sizeof(Header))


cdef void header_drop_named(Head *h, Text *name) noexcept nogil:
    cdef int k = 0
    while k < h.count:
        if h.headers[k].name_len == name.n and memcmp(h.d + h.headers[k].line, name.p, name.n) == 0:
            header_drop(h, k)
        else:
            k += 1


cdef int header_change(Worker *w, Head *h, int k, const char *p, uint32_t n) noexcept nogil:
    cdef Header *x = &h.headers[k]
    cdef char name[256]
    if x.name_len > sizeof(name):
        return -1
    memcpy(name, h.d + x.line, x.name_len)
    return write_line(w, x, name, x.name_len, p, n)


cdef int set_request_line(Worker *w, Head *h, const char *method, uint32_t method_n, const char *target,
                          uint32_t target_n) noexcept nogil:
    cdef uint32_t room, i, at = w.edits_used
    cdef char *out = edits_room(w, &room)
    cdef unsigned char c
    if method_n == 0 or method_n > 64 or target_n == 0 or target_n > room or method_n + 1 > room - target_n:
        return -1
    for i in range(method_n):
        if TOKEN[<unsigned char>method[i]] == 0:
            return -1
    for i in range(target_n):
        c = <unsigned char>target[i]
        if c <= 32 or c >= 0x7f or c == 35:
            return -1
    memmove(out + method_n + 1, target, target_n)
    memmove(out, method, method_n)
    out[method_n] = 32
    h.start = at
    h.method_len = <unsigned short>method_n
    h.target = at + method_n + 1
    h.target_len = target_n
    w.edits_used = h.target + target_n
    h.method = method_id(out, method_n)
    return 0


cdef int set_status(Worker *w, Head *h, int status, Text *reason) noexcept nogil:
    cdef uint32_t room
    cdef char *out = edits_room(w, &room)
    if room < reason.n + 16:
        return -1
    memcpy(out, b"HTTP/1.1 ", 9)
    out[9] = <char>(48 + status // 100)
    out[10] = <char>(48 + status // 10 % 10)
    out[11] = <char>(48 + status % 10)
    memcpy(out + 12, reason.p, reason.n)
    h.start = w.edits_used
    h.reason = w.edits_used + 12
    h.reason_len = reason.n
    w.edits_used += 12 + reason.n
    return 0


cdef int follow_host(Worker *w, Head *h) noexcept nogil:
    # An absolute target and Host name the same place: a rule that changed one of them changes both.
    cdef const char *t = h.d + h.target
    cdef uint32_t i = 0, start, k
    cdef Header *x
    cdef uint32_t room
    cdef char *out
    if t[0] == 47 or t[0] == 42 or h.method == M_CONNECT:
        return 0
    while i < h.target_len and t[i] != 58:
        i += 1
    if i + 3 >= h.target_len:
        return -1
    start = i = i + 3
    while i < h.target_len and t[i] != 47 and t[i] != 63:
        i += 1
    for k in range(<uint32_t>h.count):
        x = &h.headers[k]
        if x.id == H_HOST:
            out = edits_room(w, &room)
            if h.target_len + x.value_len > room // 2:
                return -1
            # built behind the place where set_request_line writes
            out += room // 2
            memcpy(out, t, start)
            memcpy(out + start, h.d + x.value, x.value_len)
            memcpy(out + start + x.value_len, t + i, h.target_len - i)
            return set_request_line(w, h, h.d + h.start, h.method_len, out, start + x.value_len + h.target_len - i)
    return 0


cdef int edits_end(Worker *w, Head *h, bint request) noexcept nogil:
    cdef int k
    cdef Header *x
    if h.d != w.edits:
        return 0
    h.conn_close = h.conn_keep = h.conn_upgrade = h.conn_other = 0
    h.upgrade = h.seen_host = 0
    for k in range(h.count):
        x = &h.headers[k]
        if x.id == H_CONNECTION:
            note_connection(h.d, x, h)
        elif x.id == H_UPGRADE:
            h.upgrade = 1
        elif x.id == H_HOST and request and note_host(h.d, x, h) < 0:
            return -1
    if not request:
        return 0
    if follow_host(w, h) < 0 or not target_ok(h):
        return -1
    return 0
