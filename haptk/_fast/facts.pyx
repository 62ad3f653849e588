# The rules of HAProxy for occurrences, commas, quotes and cookies, as tests/diff pins them down.

from libc.stdint cimport INT64_MAX, INT64_MIN, uint64_t
from libc.string cimport memset

from haptk._fast.balance cimport eligible
from haptk._fast.bytes.address cimport room_address, span_address
from haptk._fast.bytes.buf cimport buf_held, buf_part
from haptk._fast.bytes.span cimport (NOWHERE, Room, room_char, room_decimal, room_full, room_len, room_put, room_since,
                                     span_at, span_between, span_eq, span_find, span_first, span_from, span_given,
                                     span_len, span_none, span_opens, span_skip, span_trim_end, word)
from haptk._fast.captures cimport CAPTURED_REQUEST, CAPTURED_RESPONSE, captured_text
from haptk._fast.http1 cimport (Header, M_CONNECT, M_DELETE, M_GET, M_HEAD, M_OPTIONS, M_POST, M_PUT, M_TRACE,
                                head_method, head_name, head_status, head_target, head_value)
from haptk._fast.inet cimport AF_INET
from haptk._fast.program cimport (F_BASE, F_BE_CONN, F_BE_NAME, F_BOOL, F_COOK, F_COOK_CNT, F_COOK_VAL,
                                  F_DST, F_DST_PORT, F_FE_NAME, F_FHDR, F_FHDR_CNT, F_FIRST, F_HDR, F_HDR_CNT,
                                  F_HDR_IP, F_HDR_VAL, F_INT, F_KEPT_METHOD, F_KEPT_REQUEST, F_KEPT_RES_VERSION,
                                  F_KEPT_URI, F_KEPT_VERSION, F_METHOD, F_NBSRV, F_PATH, F_PATHQ, F_QUERY, F_SO_ID,
                                  F_SO_NAME, F_SRC, F_SRC_PORT, F_SRV_NAME, F_STATUS, F_TEXT, F_URL, F_URL_PARAM,
                                  F_VERSION, Text, span_text)
from haptk._fast.scan cimport hk_load
from haptk._fast.state cimport BackendC, Peer

cdef enum:
    SP = 32, HTAB = 9, SLASH = 47, COLON = 58, SEMI = 59, COMMA = 44, EQUAL = 61, QUOTE = 34, BACKSLASH = 92, DOLLAR = 36
    QUESTION = 63, AMPERSAND = 38
    OCCURRENCES_MAX = 10    # from the end; HAProxy remembers no more


cdef inline bint blank(uint8_t c) noexcept nogil:
    return c == SP or c == HTAB


cdef bint made_text(Seen *x, uint32_t mark, Sample *v) noexcept nogil:
    return not room_full(&x.w.made) and is_text(v, room_since(&x.w.made, mark))


# ---------------------------------------------------------------- targets

cdef bint path_in(Span t, uint32_t *start, uint32_t *end) noexcept nogil:
    # Of an absolute form what follows the authority; nothing for `*` and the authority form.
    cdef uint32_t i = 0, n = span_len(t)
    if n == 0:
        return 0
    if span_at(t, 0) != SLASH:
        while i < n and span_at(t, i) != COLON and span_at(t, i) != SLASH and span_at(t, i) != QUESTION:
            i += 1
        if not span_opens(span_from(t, i), b"://"):
            return 0
        i += 3
        while i < n and span_at(t, i) != SLASH and span_at(t, i) != QUESTION:
            i += 1
        if i == n or span_at(t, i) != SLASH:
            return 0
    start[0] = i
    i = span_find(t, QUESTION, i)
    end[0] = n if i == NOWHERE else i
    return 1


cdef bint query_in(Span t, uint32_t *start) noexcept nogil:
    cdef uint32_t at = span_find(t, QUESTION, 0)
    if at == NOWHERE:
        return 0
    start[0] = at + 1
    return 1


cdef bint url_param(Seen *x, ExprC *e, Cursor *c, Sample *out) noexcept nogil:
    cdef Span t = head_target(x.req)
    cdef uint32_t n = span_len(t), i = c.at, start, equal
    cdef uint8_t delimiter = <uint8_t>e.delimiter
    if not c.inside:
        i = span_find(t, delimiter, 0)
        if i == NOWHERE:
            return 0
        i += 1
        c.inside = 1
    while i < n:
        start = equal = i
        while i < n and span_at(t, i) != AMPERSAND and span_at(t, i) != SEMI and span_at(t, i) != delimiter:
            i += 1
        while equal < i and span_at(t, equal) != EQUAL:
            equal += 1
        c.at = i + 1
        if equal < i and span_eq(span_between(t, start, equal), span_text(&e.text)):
            return is_text(out, span_between(t, equal + 1, i))
        i += 1
    return 0


# ---------------------------------------------------------------- headers and cookies

cdef bint next_line(Head *h, Span name, Cursor *c) noexcept nogil:
    # c.value becomes that of the next header with that name.
    cdef Header *x
    while c.header < h.count:
        x = &h.headers[c.header]
        c.header += 1
        if span_eq(head_name(h, x), name):
            c.value = head_value(h, x)
            c.at = 0
            return 1
    return 0


cdef uint32_t past_quotes(Span v, uint32_t i, bint semicolons) noexcept nogil:
    # Where the value that begins at i ends: at a comma (or semicolon) outside quotes.
    cdef uint32_t n = span_len(v)
    cdef bint quoted = 0
    cdef uint8_t c
    while i < n:
        c = span_at(v, i)
        if not quoted and (c == COMMA or (semicolons and c == SEMI)):
            return i
        if quoted and c == BACKSLASH:
            i += 1
        elif c == QUOTE:
            quoted = not quoted
        i += 1
    return n


cdef bint next_value(Head *h, Span name, bint split, Cursor *c, Sample *out) noexcept nogil:
    # Whole lines, or the parts between commas that stand outside quotes; blanks around them do not count.
    cdef uint32_t start, end
    if not c.inside:
        if not next_line(h, name, c):
            return 0
        if not split:
            return is_text(out, c.value)
        c.inside = 1
    # the last one may have ended behind the value, with a backslash
    start = span_skip(c.value, c.at)
    end = past_quotes(c.value, start, 0)
    c.inside = end < span_len(c.value)
    c.at = end + 1
    return is_text(out, span_trim_end(span_between(c.value, start, end)))


cdef bint cookie_in(Span v, Span name, bint whole_list, uint32_t *at, Sample *out) noexcept nogil:
    # The next cookie of that name in v from at[0] on. A Set-Cookie has its name in the first pair only.
    cdef uint32_t i = at[0], start, end, val, stop, n = span_len(v)
    cdef uint8_t c
    if i and not whole_list:
        return 0
    while i + span_len(name) + 1 < n:
        start = end = i = span_skip(v, i)
        while i < n:
            c = span_at(v, i)
            if c == EQUAL or c == SEMI or (whole_list and c == COMMA):
                break
            i += 1
            if not blank(c):
                end = i
        if i < n and span_at(v, i) == EQUAL:
            val = span_skip(v, i + 1)
            i = past_quotes(v, val, 1)
            stop = val + span_len(span_trim_end(span_between(v, val, i)))
            at[0] = i + 1
            if span_at(v, start) != DOLLAR and span_eq(span_between(v, start, end), name):
                return is_text(out, span_between(v, val, stop))
        if not whole_list:
            break
        i += 1
    at[0] = n
    return 0


cdef bint next_cookie(Head *h, Span name, bint response, Cursor *c, Sample *out) noexcept nogil:
    # A comma divides lines first, so a cookie is looked for in the parts.
    cdef Sample part
    while True:
        if not c.in_part:
            if not next_value(h, word(b"set-cookie") if response else word(b"cookie"), 1, c, &part):
                return 0
            c.in_part = 1
            c.part, c.part_at = part.text, 0
        if cookie_in(c.part, name, not response, &c.part_at, out):
            return 1
        c.in_part = 0


cdef inline Head *head_of(Seen *x, ExprC *e) noexcept nogil:
    # The message that a fetch looks at; NULL when it is not there.
    if not e.response:
        return x.req
    return NULL if x.replaced else x.res


cdef bint next_text(Seen *x, ExprC *e, Cursor *c, Sample *out) noexcept nogil:
    # The values that hdr, fhdr and cook and their _cnt, _val and _ip forms go through.
    cdef Head *h = head_of(x, e)
    if h == NULL:
        return 0
    if e.fetch == F_COOK or e.fetch == F_COOK_CNT or e.fetch == F_COOK_VAL:
        return next_cookie(h, span_text(&e.text), e.response, c, out)
    return next_value(h, span_text(&e.text), e.fetch != F_FHDR and e.fetch != F_FHDR_CNT, c, out)


cdef int64_t leading_int(Span p) noexcept nogil:
    # A sign and digits up to the first other byte, held at the ends of the range; nothing is 0.
    cdef uint64_t v = 0, limit = <uint64_t>INT64_MAX, digit
    cdef uint32_t i = 0, n = span_len(p)
    cdef bint negative = n > 0 and span_at(p, 0) == 45
    if n and (span_at(p, 0) == 45 or span_at(p, 0) == 43):
        i = 1
    while i < n and 48 <= span_at(p, i) <= 57:
        digit = span_at(p, i) - 48
        if v > (limit - digit) // 10:
            return INT64_MIN if negative else INT64_MAX
        v = v * 10 + digit
        i += 1
    return -<int64_t>v if negative else <int64_t>v


cdef bint address_of(Sample *v) noexcept nogil:
    # Text that is an address becomes one.
    cdef int family = span_address(v.text, v.address)
    if family == 0:
        return 0
    v.family = family
    v.kind = S_ADDR
    return 1


cdef bint header_address(Sample *v) noexcept nogil:
    # An IPv4 address may have a port behind it, as proxies write it, and zeros in front of its numbers.
    cdef Span t = v.text
    cdef uint32_t i = 0, k, start, octet, n = span_len(t)
    for k in range(4):
        start = i
        octet = 0
        while i < n and 48 <= span_at(t, i) <= 57 and i - start < 3:
            octet = octet * 10 + span_at(t, i) - 48
            i += 1
        if i == start or octet > 255 or (k < 3 and (i == n or span_at(t, i) != 46)):
            return address_of(v)
        v.address[k] = <uint8_t>octet
        i += k < 3
    if i < n:
        if span_at(t, i) != COLON or i + 1 == n:
            return address_of(v)
        for k in range(i + 1, n):
            if span_at(t, k) < 48 or span_at(t, k) > 57:
                return address_of(v)
    v.family = AF_INET
    v.kind = S_ADDR
    return 1


cdef bint shaped(ExprC *e, Sample *out) noexcept nogil:
    # The value in the fetch's own type; 0 for what is none of it.
    if e.fetch == F_HDR_VAL or e.fetch == F_COOK_VAL:
        return is_int(out, leading_int(out.text))
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
    if head_of(x, e) == NULL:
        return 0
    while next_text(x, e, &c, out):
        total += 1
    return is_int(out, total)


# ---------------------------------------------------------------- everything else

cdef bint is_peer(Sample *out, Peer *peer) noexcept nogil:
    cdef int i
    if peer.text_len == 0:
        return 0
    out.kind = S_ADDR
    out.family = peer.family
    for i in range(16):
        out.address[i] = peer.address[i]
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
    # Those that have chosen it, the one that asks too once it has.
    return hk_load(be.sessions)


cdef bint of_backend(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    cdef BackendC *be = x.s.backend
    if e.backend >= 0:
        be = &x.w.conf.backends[e.backend]
    if be == NULL:
        return 0
    return is_int(out, usable(be) if e.fetch == F_NBSRV else connections(be))


cdef bint of_target(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    cdef Head *h = x.req
    cdef Span t
    cdef uint32_t start = 0, end = 0
    if h == NULL:
        return 0
    t = head_target(h)
    if e.fetch == F_URL:
        return is_text(out, t)
    if e.fetch == F_QUERY:
        return query_in(t, &start) and is_text(out, span_from(t, start))
    if e.fetch == F_BASE:
        return base(x, out)
    if not path_in(t, &start, &end):
        return 0
    return is_text(out, span_from(t, start) if e.fetch == F_PATHQ else span_between(t, start, end))


cdef bint base(Seen *x, Sample *out) noexcept nogil:
    # Host and path in one text.
    cdef Head *h = x.req
    cdef Room *o = &x.w.made
    cdef Cursor c
    cdef uint32_t start = 0, end = 0, mark = room_len(o)
    cdef bint path = path_in(head_target(h), &start, &end)
    cdef Span t = span_between(head_target(h), start, end)
    memset(&c, 0, sizeof(Cursor))
    if not next_line(h, word(b"host"), &c) or span_len(c.value) == 0:
        return path and is_text(out, t)
    room_put(o, c.value)
    room_put(o, t)
    return made_text(x, mark, out)


cdef Span method_name(int method) noexcept nogil:
    if method == M_GET: return word(b"GET")
    if method == M_HEAD: return word(b"HEAD")
    if method == M_POST: return word(b"POST")
    if method == M_PUT: return word(b"PUT")
    if method == M_DELETE: return word(b"DELETE")
    if method == M_OPTIONS: return word(b"OPTIONS")
    if method == M_TRACE: return word(b"TRACE")
    if method == M_CONNECT: return word(b"CONNECT")
    return span_none()


cdef bint of_method(Seen *x, Sample *out) noexcept nogil:
    # What the client asked with, whatever rules made of it, as long as it is one of the known ones.
    cdef Span name = method_name(x.s.method)
    if not span_given(name):
        return x.req != NULL and is_text(out, head_method(x.req))
    return is_text(out, name)


cdef bint of_kept_line(Session *s, bint method, Sample *out) noexcept nogil:
    # Method, or path and query, of the request line as it was kept.
    cdef Span t
    cdef uint32_t blank, start = 0, stop = 0
    if not buf_held(&s.line) or s.line_len == 0:
        return 0
    t = buf_part(&s.line, 0, s.line_len)
    blank = span_find(t, SP, 0)
    if blank == NOWHERE:
        return 0
    if method:
        return is_text(out, span_first(t, blank))
    t = span_from(t, blank + 1)
    blank = span_find(t, SP, 0)
    if blank != NOWHERE:
        t = span_first(t, blank)
    return path_in(t, &start, &stop) and is_text(out, span_from(t, start))


cdef bint of_kept(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    cdef Session *s = x.s
    cdef int which = CAPTURED_REQUEST if e.fetch == F_KEPT_REQUEST else CAPTURED_RESPONSE
    cdef int slots = s.frontend.request_slots if e.fetch == F_KEPT_REQUEST else s.frontend.response_slots
    if e.fetch == F_KEPT_METHOD or e.fetch == F_KEPT_URI:
        return of_kept_line(s, e.fetch == F_KEPT_METHOD, out)
    if e.fetch == F_KEPT_VERSION:
        return s.request_ms and is_text(out, word(b"HTTP/1.1" if s.minor else b"HTTP/1.0"))
    if e.fetch == F_KEPT_RES_VERSION:
        return s.response_minor and is_text(out, word(b"HTTP/1.1" if s.response_minor == 2 else b"HTTP/1.0"))
    if e.number < 0 or e.number >= slots:
        return 0
    out.text = captured_text(s, which, <int>e.number)
    return span_given(out.text) and is_text(out, out.text)


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
        return is_text(out, span_text(&s.frontend.name))
    if e.fetch == F_BE_NAME:
        name = &s.backend.name if s.backend != NULL else &s.frontend.name
        return is_text(out, span_text(name))
    if e.fetch == F_SRV_NAME:
        return s.server != NULL and is_text(out, span_text(&s.server.name))
    if e.fetch == F_SO_ID:
        return is_int(out, s.frontend.bind_ids[s.listener_index])
    if e.fetch == F_SO_NAME:
        name = &s.frontend.bind_names[s.listener_index]
        return name.n and is_text(out, span_text(name))
    if e.fetch == F_FIRST:
        out.kind = S_BOOL
        out.v = s.first
        return 1
    return of_kept(x, e, out)


cdef bint single(Seen *x, ExprC *e, Sample *out) noexcept nogil:
    # Fetches with one sample at most.
    if e.fetch == F_TEXT:
        return is_text(out, span_text(&e.text))
    if e.fetch == F_BOOL or e.fetch == F_INT:
        out.kind = S_INT if e.fetch == F_INT else S_BOOL
        out.v = e.number
        return 1
    if e.fetch == F_METHOD:
        return of_method(x, out)
    if e.fetch == F_VERSION:
        if head_of(x, e) == NULL:
            return 0
        return is_text(out, word(b"1.1" if head_of(x, e).minor else b"1.0"))
    if e.fetch == F_STATUS and x.res == NULL and x.req == NULL:
        # a log line: what the server said, if it said anything
        return x.s.response_ms != 0 and is_int(out, x.s.status)
    if e.fetch == F_STATUS:
        # as the line says it now: a rule may have changed it
        return head_of(x, e) != NULL and is_int(out, leading_int(head_status(x.res)))
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
    cdef Room *o = &x.w.made
    cdef uint32_t mark = room_len(o)
    if v.kind == S_STR:
        return 1
    if v.kind == S_ADDR:
        if room_address(o, v.family, v.address) < 0:
            return 0
    elif v.v < 0:
        room_char(o, 45)
        room_decimal(o, <uint64_t>0 - <uint64_t>v.v)
    else:
        room_decimal(o, <uint64_t>v.v)
    return made_text(x, mark, v)


cdef bint as_int(Sample *v) noexcept nogil:
    # What a text begins with; only an empty one is no number.
    if v.kind == S_INT or v.kind == S_BOOL:
        return 1
    if v.kind == S_ADDR or span_len(v.text) == 0:
        return 0
    return is_int(v, leading_int(v.text))
