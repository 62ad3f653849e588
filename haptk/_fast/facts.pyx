# The rules of HAProxy for occurrences, commas, quotes and cookies, as tests/diff pins them down.

from libc.stdint cimport INT64_MAX, INT64_MIN, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from haptk._fast.balance cimport eligible
from haptk._fast.captures cimport CAPTURED_REQUEST, CAPTURED_RESPONSE, captured_text
from haptk._fast.http1 cimport Header
from haptk._fast.inet cimport AF_INET, AF_INET6, inet_ntop, inet_pton
from haptk._fast.program cimport (F_BASE, F_BE_CONN, F_BE_NAME, F_BOOL, F_COOK, F_COOK_CNT, F_COOK_VAL,
                                  F_DST, F_DST_PORT, F_FE_NAME, F_FHDR, F_FHDR_CNT, F_FIRST, F_HDR, F_HDR_CNT,
                                  F_HDR_IP, F_HDR_VAL, F_INT, F_KEPT_METHOD, F_KEPT_REQUEST, F_KEPT_RES_VERSION,
                                  F_KEPT_URI, F_KEPT_VERSION, F_METHOD, F_NBSRV, F_PATH, F_PATHQ, F_QUERY, F_SO_ID,
                                  F_SO_NAME, F_SRC, F_SRC_PORT, F_SRV_NAME, F_STATUS, F_TEXT, F_URL, F_URL_PARAM,
                                  F_VERSION)
from haptk._fast.scan cimport hk_load, put_decimal
from haptk._fast.state cimport BackendC, Peer

cdef enum:
    SP = 32, HTAB = 9, SEMI = 59, COMMA = 44, EQUAL = 61, QUOTE = 34, BACKSLASH = 92, DOLLAR = 36, QUESTION = 63
    OCCURRENCES_MAX = 10    # from the end; HAProxy remembers no more


cdef inline bint blank(char c) noexcept nogil:
    return c == SP or c == HTAB


cdef char *room_take(Seen *x, uint32_t n) noexcept nogil:
    cdef char *got = x.w.room + x.used
    if n > ROOM_SIZE - x.used:
        return NULL
    x.used += n
    return got


cdef inline bint is_text(Sample *out, const char *p, uint32_t n) noexcept nogil:
    out.kind = S_STR
    out.p = p
    out.n = n
    return 1


cdef inline bint is_int(Sample *out, int64_t v) noexcept nogil:
    out.kind = S_INT
    out.v = v
    return 1


# ---------------------------------------------------------------- targets

cdef bint path_in(const char *t, uint32_t n, uint32_t *start, uint32_t *end) noexcept nogil:
    # Of an absolute form what follows the authority; nothing for `*` and the authority form.
    cdef uint32_t i = 0
    if n == 0:
        return 0
    if t[0] != 47:
        while i < n and t[i] != 58 and t[i] != 47 and t[i] != QUESTION:
            i += 1
        if n - i < 3 or memcmp(t + i, b"://", 3) != 0:
            return 0
        i += 3
        while i < n and t[i] != 47 and t[i] != QUESTION:
            i += 1
        if i == n or t[i] != 47:
            return 0
    start[0] = i
    while i < n and t[i] != QUESTION:
        i += 1
    end[0] = i
    return 1


cdef bint query_in(const char *t, uint32_t n, uint32_t *start) noexcept nogil:
    cdef const char *at = <const char *>memchr(t, QUESTION, n) if n else NULL
    if at == NULL:
        return 0
    start[0] = <uint32_t>(at - t) + 1
    return 1


cdef bint url_param(Seen *x, ExprC *e, Cursor *c, Sample *out) noexcept nogil:
    cdef const char *t = x.req.d + x.req.target
    cdef uint32_t n = x.req.target_len, i = c.at, start, equal
    cdef const char *begin
    if not c.inside:
        begin = <const char *>memchr(t, e.delimiter, n)
        if begin == NULL:
            return 0
        i = <uint32_t>(begin - t) + 1
        c.inside = 1
    while i < n:
        start = equal = i
        while i < n and t[i] != 38 and t[i] != SEMI and t[i] != e.delimiter:
            i += 1
        while equal < i and t[equal] != EQUAL:
            equal += 1
        c.at = i + 1
        if equal < i and equal - start == e.text.n and memcmp(t + start, e.text.p, e.text.n) == 0:
            return is_text(out, t + equal + 1, i - equal - 1)
        i += 1
    return 0


# ---------------------------------------------------------------- headers and cookies

cdef bint next_line(Head *h, const char *name, uint32_t n, Cursor *c) noexcept nogil:
    # c.value and c.value_len become those of the next header with that name.
    cdef Header *x
    while c.header < h.count:
        x = &h.headers[c.header]
        c.header += 1
        if x.name_len == n and memcmp(h.d + x.line, name, n) == 0:
            c.value, c.value_len = x.value, x.value_len
            c.at = 0
            return 1
    return 0


cdef bint next_value(Head *h, const char *name, uint32_t n, bint split, Cursor *c, Sample *out) noexcept nogil:
    # Whole lines, or the parts between commas that stand outside quotes; blanks around them do not count.
    cdef const char *v
    cdef uint32_t i, start, end
    cdef bint quoted = 0
    if not c.inside:
        if not next_line(h, name, n, c):
            return 0
        if not split:
            return is_text(out, h.d + c.value, c.value_len)
        c.inside = 1
    v = h.d + c.value
    i = c.at
    while i < c.value_len and blank(v[i]):
        i += 1
    start = i
    while i < c.value_len and (quoted or v[i] != COMMA):
        if quoted and v[i] == BACKSLASH:
            i += 1
        elif v[i] == QUOTE:
            quoted = not quoted
        i += 1
    end = i if i < c.value_len else c.value_len
    c.inside = i < c.value_len
    c.at = i + 1
    while end > start and blank(v[end - 1]):
        end -= 1
    return is_text(out, v + start, end - start)


cdef bint cookie_in(const char *v, uint32_t n, Text *name, bint whole_list, uint32_t *at, Sample *out) noexcept nogil:
    # The next cookie of that name in v from at[0] on. A Set-Cookie has its name in the first pair only.
    cdef uint32_t i = at[0], start, end, val, stop
    cdef bint quoted
    if i and not whole_list:
        return 0
    while i + name.n + 1 < n:
        while i < n and blank(v[i]):
            i += 1
        start = end = i
        while i < n and v[i] != EQUAL and v[i] != SEMI and not (whole_list and v[i] == COMMA):
            i += 1
            if not blank(v[i - 1]):
                end = i
        val = stop = i
        if i < n and v[i] == EQUAL:
            val = i + 1
            while val < n and blank(v[val]):
                val += 1
            i = val
            quoted = 0
            while i < n and (quoted or (v[i] != SEMI and v[i] != COMMA)):
                if quoted and v[i] == BACKSLASH:
                    i += 1
                elif v[i] == QUOTE:
                    quoted = not quoted
                i += 1
            if i > n:
                i = n
            stop = i
            while stop > val and blank(v[stop - 1]):
                stop -= 1
            at[0] = i + 1
            if v[start] != DOLLAR and end - start == name.n and memcmp(v + start, name.p, name.n) == 0:
                return is_text(out, v + val, stop - val)
        if not whole_list:
            break
        i += 1
    at[0] = n
    return 0


cdef bint next_cookie(Head *h, Text *name, bint response, Cursor *c, Sample *out) noexcept nogil:
    # A comma divides lines first, so a cookie is looked for in the parts.
    cdef Sample part
    while True:
        if not c.in_part:
            if not next_value(h, b"set-cookie" if response else b"cookie", 10 if response else 6, 1, c, &part):
                return 0
            c.in_part = 1
            c.part, c.part_len, c.part_at = <uint32_t>(part.p - h.d), part.n, 0
        if cookie_in(h.d + c.part, c.part_len, name, not response, &c.part_at, out):
            return 1
        c.in_part = 0


cdef bint next_text(Seen *x, ExprC *e, Cursor *c, Sample *out) noexcept nogil:
    # The values that hdr, fhdr and cook and their _cnt, _val and _ip forms go through.
    cdef Head *h = x.res if e.response else x.req
    if h == NULL:
        return 0
    if e.fetch == F_COOK or e.fetch == F_COOK_CNT or e.fetch == F_COOK_VAL:
        return next_cookie(h, &e.text, e.response, c, out)
    return next_value(h, e.text.p, e.text.n, e.fetch != F_FHDR and e.fetch != F_FHDR_CNT, c, out)


cdef int64_t leading_int(const char *p, uint32_t n) noexcept nogil:
    # A sign and digits up to the first other byte, held at the ends of the range; nothing is 0.
    cdef uint64_t v = 0, limit = <uint64_t>INT64_MAX
    cdef uint32_t i = 0
    cdef bint negative = n > 0 and p[0] == 45
    if n and (p[0] == 45 or p[0] == 43):
        i = 1
    while i < n and 48 <= p[i] <= 57:
        if v > (limit - <uint64_t>(p[i] - 48)) // 10:
            return INT64_MIN if negative else INT64_MAX
        v = v * 10 + <uint64_t>(p[i] - 48)
        i += 1
    return -<int64_t>v if negative else <int64_t>v


cdef bint address_of(Sample *v) noexcept nogil:
    # Text that is an address becomes one.
    cdef char text[46]
    if v.n == 0 or v.n > 45:
        return 0
    memcpy(text, v.p, v.n)
    text[v.n] = 0
    if memchr(text, 0, v.n) != NULL:
        return 0
    v.family = AF_INET
    if inet_pton(AF_INET, text, v.address) != 1:
        v.family = AF_INET6
        if inet_pton(AF_INET6, text, v.address) != 1:
            return 0
    v.kind = S_ADDR
    return 1


cdef bint header_address(Sample *v) noexcept nogil:
    # An IPv4 address may have a port behind it, as proxies write it, and zeros in front of its numbers.
    cdef uint32_t i = 0, k, start, octet
    for k in range(4):
        start = i
        octet = 0
        while i < v.n and 48 <= v.p[i] <= 57 and i - start < 3:
            octet = octet * 10 + <uint32_t>(v.p[i] - 48)
            i += 1
        if i == start or octet > 255 or (k < 3 and (i == v.n or v.p[i] != 46)):
            return address_of(v)
        v.address[k] = <uint8_t>octet
        i += k < 3
    if i < v.n:
        if v.p[i] != 58 or i + 1 == v.n:
            return address_of(v)
        for k in range(i + 1, v.n):
            if v.p[k] < 48 or v.p[k] > 57:
                return address_of(v)
    v.family = AF_INET
    v.kind = S_ADDR
    return 1


cdef bint shaped(ExprC *e, Sample *out) noexcept nogil:
    # The value in the fetch's own type; 0 for what is none of it.
    if e.fetch == F_HDR_VAL or e.fetch == F_COOK_VAL:
        return is_int(out, leading_int(out.p, out.n))
    if e.fetch == F_HDR_IP:
        return header_address(out)
    return 1


cdef bint chosen(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    # The occurrence that the expression names: N from the front, -N from the end.
    cdef Cursor c
    cdef int i = 0, total = 0, wanted = e.occurrence
    memset(&c, 0, sizeof(Cursor))
    if wanted < 0:
        if wanted < -OCCURRENCES_MAX:
            return 0
        while next_text(x, e, &c, out):
            total += 1
        wanted = total + 1 + wanted
        memset(&c, 0, sizeof(Cursor))
    if wanted <= 0:
        return 0
    while next_text(x, e, &c, out):
        i += 1
        if i == wanted:
            return shaped(e, out)
    return 0


cdef bint counted(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    cdef Cursor c
    cdef int64_t total = 0
    memset(&c, 0, sizeof(Cursor))
    if (x.res if e.response else x.req) == NULL:
        return 0
    while next_text(x, e, &c, out):
        total += 1
    return is_int(out, total)


# ---------------------------------------------------------------- everything else

cdef bint is_peer(Sample *out, Peer *peer) noexcept nogil:
    if peer.text_len == 0:
        return 0
    out.kind = S_ADDR
    out.family = peer.family
    memcpy(out.address, peer.address, 16)
    return 1


cdef int64_t usable(BackendC *be) noexcept nogil:
    # Active servers that may be used; without any the backups count: one of them, or all with `option allbackups`.
    cdef int i
    cdef int64_t active = 0, backup = 0
    for i in range(be.count):
        if eligible(&be.servers[i]):
            if be.servers[i].backup:
                backup += 1
            else:
                active += 1
    return active if active else backup if be.allbackups or backup == 0 else 1


cdef int64_t connections(BackendC *be) noexcept nogil:
    cdef int i
    cdef int64_t total = 0
    for i in range(be.count):
        total += hk_load(&be.servers[i].live.sessions) + hk_load(&be.servers[i].live.queued)
    return total


cdef bint of_backend(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    cdef BackendC *be = x.s.backend
    if e.backend >= 0:
        be = &x.w.conf.backends[e.backend]
    if be == NULL:
        return 0
    return is_int(out, usable(be) if e.fetch == F_NBSRV else connections(be))


cdef bint of_target(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    cdef Head *h = x.req
    cdef const char *t
    cdef uint32_t start = 0, end = 0
    if h == NULL:
        return 0
    t = h.d + h.target
    if e.fetch == F_URL:
        return is_text(out, t, h.target_len)
    if e.fetch == F_QUERY:
        return query_in(t, h.target_len, &start) and is_text(out, t + start, h.target_len - start)
    if e.fetch == F_BASE:
        return base(x, out)
    if not path_in(t, h.target_len, &start, &end):
        return 0
    return is_text(out, t + start, (h.target_len if e.fetch == F_PATHQ else end) - start)


cdef bint base(Seen *x, Sample *out) noexcept nogil:
    # Host and path in one text.
    cdef Head *h = x.req
    cdef Cursor c
    cdef uint32_t start = 0, end = 0
    cdef bint path = path_in(h.d + h.target, h.target_len, &start, &end)
    cdef char *both
    memset(&c, 0, sizeof(Cursor))
    if not next_line(h, b"host", 4, &c) or c.value_len == 0:
        return path and is_text(out, h.d + h.target + start, end - start)
    both = room_take(x, c.value_len + end - start)
    if both == NULL:
        return 0
    memcpy(both, h.d + c.value, c.value_len)
    memcpy(both + c.value_len, h.d + h.target + start, end - start)
    return is_text(out, both, c.value_len + end - start)


cdef bint of_method(Seen *x, Sample *out) noexcept nogil:
    # What the client asked with, whatever rules made of it, as long as it is one of the known ones.
    cdef const char *name = NULL
    if x.s.method == 1: name = b"GET"
    elif x.s.method == 2: name = b"HEAD"
    elif x.s.method == 3: name = b"POST"
    elif x.s.method == 4: name = b"PUT"
    elif x.s.method == 5: name = b"DELETE"
    elif x.s.method == 6: name = b"OPTIONS"
    elif x.s.method == 7: name = b"TRACE"
    elif x.s.method == 8: name = b"CONNECT"
    if name == NULL:
        return x.req != NULL and is_text(out, x.req.d + x.req.start, x.req.method_len)
    out.n = 0
    while name[out.n]:
        out.n += 1
    return is_text(out, name, out.n)


cdef bint of_kept_line(Session *s, bint method, Sample *out) noexcept nogil:
    # Method, or path and query, of the request line as it was kept.
    cdef const char *p = s.line.d
    cdef const char *target
    cdef const char *end
    cdef uint32_t n = s.line_len, start = 0, stop = 0
    if p == NULL or n == 0:
        return 0
    target = <const char *>memchr(p, SP, n)
    if target == NULL:
        return 0
    if method:
        return is_text(out, p, <uint32_t>(target - p))
    target += 1
    n -= <uint32_t>(target - p)
    end = <const char *>memchr(target, SP, n)
    if end != NULL:
        n = <uint32_t>(end - target)
    return path_in(target, n, &start, &stop) and is_text(out, target + start, n - start)


cdef bint of_kept(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    cdef Session *s = x.s
    cdef int which = CAPTURED_REQUEST if e.fetch == F_KEPT_REQUEST else CAPTURED_RESPONSE
    cdef int slots = s.frontend.request_slots if e.fetch == F_KEPT_REQUEST else s.frontend.response_slots
    cdef const char *p
    cdef uint32_t n
    if e.fetch == F_KEPT_METHOD or e.fetch == F_KEPT_URI:
        return of_kept_line(s, e.fetch == F_KEPT_METHOD, out)
    if e.fetch == F_KEPT_VERSION:
        return s.request_ms and is_text(out, b"HTTP/1.1" if s.minor else b"HTTP/1.0", 8)
    if e.fetch == F_KEPT_RES_VERSION:
        return s.response_minor and is_text(out, b"HTTP/1.1" if s.response_minor == 2 else b"HTTP/1.0", 8)
    if e.number < 0 or e.number >= slots:
        return 0
    p = captured_text(s, which, <int>e.number, &n)
    return p != NULL and is_text(out, p, n)


cdef bint of_session(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    cdef Session *s = x.s
    cdef Text *name
    if e.fetch == F_SRC:
        return is_peer(out, &s.peer)
    if e.fetch == F_DST:
        return is_peer(out, &s.local)
    if e.fetch == F_SRC_PORT or e.fetch == F_DST_PORT:
        return is_int(out, s.peer.port if e.fetch == F_SRC_PORT else s.local.port)
    if e.fetch == F_FE_NAME:
        return is_text(out, s.frontend.name.p, s.frontend.name.n)
    if e.fetch == F_BE_NAME:
        name = &s.backend.name if s.backend != NULL else &s.frontend.name
        return is_text(out, name.p, name.n)
    if e.fetch == F_SRV_NAME:
        return s.server != NULL and is_text(out, s.server.name.p, s.server.name.n)
    if e.fetch == F_SO_ID:
        return is_int(out, s.listener_index + 1)
    if e.fetch == F_SO_NAME:
        name = &s.frontend.bind_names[s.listener_index]
        return name.n and is_text(out, name.p, name.n)
    if e.fetch == F_FIRST:
        out.kind = S_BOOL
        out.v = s.first
        return 1
    return of_kept(x, e, out)


cdef bint single(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    # Fetches with one sample at most.
    if e.fetch == F_TEXT:
        return is_text(out, e.text.p, e.text.n)
    if e.fetch == F_BOOL or e.fetch == F_INT:
        out.kind = S_INT if e.fetch == F_INT else S_BOOL
        out.v = e.number
        return 1
    if e.fetch == F_METHOD:
        return of_method(x, out)
    if e.fetch == F_VERSION:
        if (x.res if e.response else x.req) == NULL:
            return 0
        return is_text(out, b"1.1" if (x.res if e.response else x.req).minor else b"1.0", 3)
    if e.fetch == F_STATUS and x.res == NULL and x.req == NULL:
        # a log line: what the server said, if it said anything
        return x.s.response_ms != 0 and is_int(out, x.s.status)
    if e.fetch == F_STATUS:
        # as the line says it now: a rule may have changed it
        return x.res != NULL and is_int(out, leading_int(x.res.d + x.res.start + 9, 3))
    if e.fetch == F_NBSRV or e.fetch == F_BE_CONN:
        return of_backend(x, e, out)
    if e.fetch == F_HDR_CNT or e.fetch == F_FHDR_CNT or e.fetch == F_COOK_CNT:
        return counted(x, e, out)
    if e.fetch == F_URL or e.fetch == F_PATH or e.fetch == F_PATHQ or e.fetch == F_QUERY or e.fetch == F_BASE:
        return of_target(x, e, out)
    return of_session(x, e, out)


cdef inline bint walks(ExprC *e) noexcept nogil:
    return e.fetch == F_HDR or e.fetch == F_FHDR or e.fetch == F_HDR_VAL or e.fetch == F_HDR_IP or \
        e.fetch == F_COOK or e.fetch == F_COOK_VAL


cdef bint fetch_next(Seen *x, ExprC *e, Cursor *c, Sample *out) noexcept nogil:
    if e.fetch == F_URL_PARAM:
        return x.req != NULL and url_param(x, e, c, out)
    if walks(e) and e.occurrence == 0:
        while next_text(x, e, c, out):
            if shaped(e, out):
                return 1
        return 0
    if c.last:
        return 0
    c.last = 1
    return chosen(x, e, out) if e.occurrence else single(x, e, out)


cdef bint fetch_last(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    cdef Cursor c
    cdef Sample v
    cdef bint found = 0
    memset(&c, 0, sizeof(Cursor))
    if not walks(e) or e.occurrence:
        return fetch_next(x, e, &c, out)
    while next_text(x, e, &c, &v):
        out[0] = v
        found = 1
    return found and shaped(e, out)


# ---------------------------------------------------------------- types

cdef bint as_text(Seen *x, Sample *v) noexcept nogil:
    cdef char *out
    cdef uint32_t n
    if v.kind == S_STR:
        return 1
    out = room_take(x, 48)
    if out == NULL:
        return 0
    if v.kind == S_ADDR:
        if inet_ntop(v.family, v.address, out, 46) == NULL:
            return 0
        n = 0
        while out[n]:
            n += 1
        return is_text(v, out, n)
    if v.v < 0:
        out[0] = 45
        n = 1 + <uint32_t>put_decimal(out + 1, <unsigned long long>0 - <unsigned long long>v.v)
    else:
        n = <uint32_t>put_decimal(out, <unsigned long long>v.v)
    return is_text(v, out, n)


cdef bint as_int(Sample *v) noexcept nogil:
    # What a text begins with; only an empty one is no number.
    if v.kind == S_INT or v.kind == S_BOOL:
        return 1
    if v.kind == S_ADDR or v.n == 0:
        return 0
    return is_int(v, leading_int(v.p, v.n))
