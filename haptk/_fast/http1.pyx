# RFC 9112, read strictly: a message with two possible meanings is refused, never repaired; what has one meaning and an odd
# form is written as everybody writes it. What is not parsed here is never forwarded, because the render step copies only
# what the parser has marked. Where HAProxy reads on: docs/explanation/proxy-data-plane.md.

from haptk._fast.authority cimport host_line, same_authority, target_ok, tidy_authority
from haptk._fast.bytes.buf cimport (buf_keep, buf_lower_token, buf_shift, buf_over, buf_ready, buf_set, buf_skip,
                                    buf_unseen, buf_usual_line)
from haptk._fast.bytes.span cimport (NOWHERE, Room, room_close, room_open, room_put, span_any_of, span_at, span_bytes,
                                     span_decimal, span_find, span_first, span_from, span_is, span_is_ci, span_len,
                                     span_of, span_opens, span_skip, span_target_end, span_trim,
                                     span_value_end, span_while, word)
from haptk._fast.scan cimport HEX, HOST, TOKEN, has_word

cdef enum:
    CR = 13, LF = 10, SP = 32, HTAB = 9, COLON = 58, SEMICOLON = 59, COMMA = 44, SLASH = 47, QUESTION = 63
    NAME_MAX = 255          # HAProxy's


# ---------------------------------------------------------------- lines

cdef inline int line_end(Span t, uint32_t at, Head *h) noexcept nogil:
    # Length of the line end at `at`: 2 for CR LF, 1 for a bare LF; 0 when more bytes are needed, -1 when it is none.
    cdef uint32_t n = span_len(t)
    cdef uint8_t c
    if at >= n:
        return 0
    c = span_at(t, at)
    if c == CR:
        if at + 1 >= n:
            return 0
        return 2 if span_at(t, at + 1) == LF else -1
    if c == LF:
        h.bare_lf = 1
        return 1
    return -1


cdef uint8_t header_id(Span name) noexcept nogil:
    cdef uint32_t n = span_len(name)
    if n == 4:
        if span_is(name, b"host"): return H_HOST
        if span_is(name, b"etag"): return H_ETAG
    elif n == 6:
        if span_is(name, b"cookie"): return H_COOKIE
        if span_is(name, b"expect"): return H_EXPECT
        if span_is(name, b"pragma"): return H_PRAGMA
    elif n == 7:
        if span_is(name, b"upgrade"): return H_UPGRADE
        if span_is(name, b"expires"): return H_EXPIRES
    elif n == 10:
        if span_is(name, b"connection"): return H_CONNECTION
        if span_is(name, b"set-cookie"): return H_SET_COOKIE
        if span_is(name, b"keep-alive"): return H_KEEP_ALIVE
    elif n == 11:
        if span_is(name, b"set-cookie2"): return H_SET_COOKIE2
    elif n == 13:
        if span_is(name, b"cache-control"): return H_CACHE_CONTROL
        if span_is(name, b"last-modified"): return H_LAST_MODIFIED
    elif n == 14:
        if span_is(name, b"content-length"): return H_LENGTH
    elif n == 16:
        if span_is(name, b"proxy-connection"): return H_PROXY_CONNECTION
    elif n == 17:
        if span_is(name, b"transfer-encoding"): return H_CODING
    return H_OTHER


# ---------------------------------------------------------------- headers

cdef bint head_is_whole(Span t, uint32_t at, Head *h) noexcept nogil:
    # Whether the empty line behind `at` is there. A folded line is changed only then: parsed again with more bytes, it
    # would no longer show what ended it.
    cdef uint32_t i = at, n = span_len(t)
    while not h.whole:
        i = span_find(t, LF, i)
        if i == NOWHERE:
            return 0
        i += 1
        h.whole = (i < n and span_at(t, i) == LF) or (i + 1 < n and span_at(t, i) == CR and span_at(t, i + 1) == LF)
    return 1


cdef int odd_header(Buf *b, Span t, uint32_t base, uint32_t at, uint32_t i, Header *out, Head *h) noexcept nogil:
    # The same for a line in any other form, whose name has been read up to i. A folded one becomes one line, with blanks in
    # place of its line ends (RFC 9112 5.2), once the byte behind it is there.
    cdef uint32_t value, stop, n = span_len(t)
    cdef int eol
    while h.lax and i < n and span_at(t, i) != COLON and span_at(t, i) > SP and span_at(t, i) != 127:
        i += 1
        i += buf_lower_token(b, base + i, TOKEN)
    if i >= n:
        return 0
    if span_at(t, i) != COLON or i == at or i - at > NAME_MAX:
        return -1
    out.line = at
    out.name_len = <uint16_t>(i - at)
    out.id = header_id(span_sub(t, at, i - at))
    i += 1
    stop = span_skip(t, i)
    while True:
        stop = span_value_end(t, stop)
        eol = line_end(t, stop, h)
        if eol <= 0:
            return eol
        if stop + eol == n:
            return 0            # what follows tells whether the line is folded, and something always does
        if span_at(t, stop + eol) != SP and span_at(t, stop + eol) != HTAB:
            break
        if not head_is_whole(t, stop, h):
            return 0
        buf_set(b, base + stop, SP)
        if eol == 2:
            buf_set(b, base + stop + 1, SP)
    value = span_skip(t, i)
    if value > stop:
        value = stop
    out.line_end = stop + eol
    out.canonical = eol == 2 and value == i + 1 and span_at(t, i) == SP
    while stop > value and (span_at(t, stop - 1) == SP or span_at(t, stop - 1) == HTAB):
        stop -= 1
        out.canonical = 0
    out.value = value
    out.value_len = stop - value
    return 1


cdef inline int one_header(Buf *b, Span t, uint32_t base, uint32_t at, Header *out, Head *h) noexcept nogil:
    # Parse the header line at `at` of t, which begins at `base` in b. Returns 1, 0 for more bytes, -1 for a bad line.
    cdef uint32_t name_len = 0, value_len = 0
    if not buf_usual_line(b, base + at, TOKEN, &name_len, &value_len) or name_len == 0 or name_len > NAME_MAX:
        return odd_header(b, t, base, at, at + name_len, out, h)
    out.line = at
    out.name_len = <uint16_t>name_len
    out.id = header_id(span_sub(t, at, name_len))
    out.value = at + name_len + 2
    out.value_len = value_len
    out.line_end = out.value + value_len + 2
    out.canonical = 1
    return 1


cdef int one_length(Head *h, Span v) noexcept nogil:
    # One number of a Content-Length, in any number of digits whose value has 18 at most.
    cdef uint32_t i = 0, n = span_len(v)
    cdef int64_t length
    while i + 1 < n and span_at(v, i) == 48:
        i += 1
    length = span_decimal(span_from(v, i))
    if length < 0 or (h.seen_length and h.length != <uint64_t>length):
        return -1
    h.seen_length = 1
    h.length = <uint64_t>length
    return 0


cdef int note_length(Head *h, Header *x) noexcept nogil:
    # Content-Length: a number, or the same one several times in one line or several (RFC 9110 8.6). Returns 1 for the
    # first line, which keeps one of the numbers, 0 for one that repeats it.
    cdef Span v = head_value(h, x)
    cdef uint32_t start = 0, comma, at
    cdef bint again = h.seen_length
    while True:
        comma = span_find(v, COMMA, start)
        at = span_skip(v, start)
        if comma == NOWHERE:
            comma = span_len(v)
        while comma > at and (span_at(v, comma - 1) == SP or span_at(v, comma - 1) == HTAB):
            comma -= 1
        if at >= comma or one_length(h, span_sub(v, at, comma - at)) < 0:
            return -1
        start = span_skip(v, comma)
        if start == span_len(v):
            break
        start += 1              # the comma
    x.canonical &= at == 0
    x.value += at
    x.value_len = comma - at
    if h.body != BODY_CHUNKED:
        h.body = BODY_LENGTH
    return 0 if again else 1


cdef int note_coding(Head *h, Header *x, bint request) noexcept nogil:
    # Transfer-Encoding: `chunked` is the only coding that is understood; a request that names others before it gets 422.
    cdef Span v = head_value(h, x), one
    cdef uint32_t start = 0, end, at
    h.seen_coding = 1
    while True:
        end = span_find(v, COMMA, start)
        if end == NOWHERE:
            end = span_len(v)
        one = span_trim(span_sub(v, start, end - start))
        if span_len(one) == 0 and end == span_len(v):
            return 1            # nothing behind the last comma, or nothing at all
        if h.body == BODY_CHUNKED:
            return -1           # it must be the last one, and once
        if span_is_ci(one, b"chunked"):
            h.body = BODY_CHUNKED
            at = span_skip(v, start)
            x.canonical &= span_len(v) == 7
            x.value += at
            x.value_len = 7
        elif request:
            h.fault = 422
        else:
            return -1
        if end == span_len(v):
            return 1
        start = end + 1


cdef void note_connection(Head *h, Header *x) noexcept nogil:
    cdef Span v = head_value(h, x)
    if span_is_ci(v, b"keep-alive"):
        h.conn_keep = 1
    elif span_is_ci(v, b"close"):
        h.conn_close = 1
    elif span_len(v):
        h.conn_close |= has_word(v, word(b"close"))
        h.conn_keep |= has_word(v, word(b"keep-alive"))
        h.conn_upgrade |= has_word(v, word(b"upgrade"))
        h.conn_other = 1


cdef int note_host(Head *h, Header *x) noexcept nogil:
    # One Host, of bytes that can stand in an authority (RFC 3986 3.2, without userinfo). Returns 1, 0 for the same one
    # again, which is left out, -1 for another or a bad one.
    cdef Span v = head_value(h, x)
    cdef Header *first
    if h.seen_host:
        first = host_line(h)
        return 0 if first != NULL and same_authority(head_value(h, first), v) else -1
    h.seen_host = 1
    return 1 if span_while(v, 0, HOST) == span_len(v) else -1


cdef int note_header(Head *h, Header *x, bint request) noexcept nogil:
    # Returns 1, 0 for a line that repeats another and is left out, -1 for a bad one.
    if x.id == H_LENGTH:
        return note_length(h, x)
    if x.id == H_CODING:
        return note_coding(h, x, request)
    if x.id == H_CONNECTION:
        note_connection(h, x)
    elif x.id == H_HOST:
        if request:
            return note_host(h, x)
    elif x.id == H_COOKIE:
        if request and h.cookies < 255:
            h.cookies += 1
    elif x.id == H_SET_COOKIE or x.id == H_SET_COOKIE2:
        if not request and h.cookies < 255:
            h.cookies += 1
    elif x.id == H_UPGRADE:
        # of several lines the last one says whether it is WebSocket that is asked for
        h.upgrade = UP_WEBSOCKET if has_word(head_value(h, x), word(b"websocket")) else UP_OTHER
    elif x.id == H_EXPECT:
        h.expect = 1
    return 1


cdef int parse_headers(Buf *b, uint32_t base, Head *h, bint request) noexcept nogil:
    # The lines behind the first one up to and with the empty one. Returns 1, HEAD_MORE or HEAD_BAD.
    cdef int got
    cdef Header *x
    cdef Span t = h.text
    cdef uint32_t at = h.first_end
    cdef uint8_t c
    h.count = 0
    while True:
        if at >= span_len(t):
            return HEAD_MORE
        c = span_at(t, at)
        if c == CR or c == LF:
            got = line_end(t, at, h)
            if got <= 0:
                return got
            h.end = at + got
            return 1
        if h.count == HEADERS_MAX:
            return HEAD_BAD
        x = &h.headers[h.count]
        got = one_header(b, t, base, at, x, h)
        if got <= 0:
            return got
        at = x.line_end
        if x.id:
            got = note_header(h, x, request)
            if got < 0:
                return HEAD_BAD
            if got == 0:
                continue
        h.count += 1


cdef inline void clear_head(Head *h, Span text, bint lax) noexcept nogil:
    h.text = text
    h.lax = lax
    h.fault = 0
    h.edited = 0
    h.start = 0
    h.status = 0
    h.body = BODY_NONE
    h.conn_close = h.conn_keep = h.conn_upgrade = h.conn_other = 0
    h.expect = h.upgrade = h.bare_lf = h.whole = h.cookies = 0
    h.seen_host = h.seen_length = h.seen_coding = 0
    h.length = 0


# ---------------------------------------------------------------- first lines

cdef uint8_t method_id(Span p) noexcept nogil:
    cdef uint32_t n = span_len(p)
    if n == 3:
        if span_is(p, b"GET"): return M_GET
        if span_is(p, b"PUT"): return M_PUT
    elif n == 4:
        if span_is(p, b"HEAD"): return M_HEAD
        if span_is(p, b"POST"): return M_POST
    elif n == 5:
        if span_is(p, b"TRACE"): return M_TRACE
        if span_is(p, b"PATCH"): return M_PATCH
    elif n == 6:
        if span_is(p, b"DELETE"): return M_DELETE
    elif n == 7:
        if span_is(p, b"OPTIONS"): return M_OPTIONS
        if span_is(p, b"CONNECT"): return M_CONNECT
    return M_OTHER


cdef int version_at(Span v, Head *h) noexcept nogil:
    # "HTTP/D.D" and nothing else; what is above 1.0 means 1.1 (RFC 9110 2.5).
    cdef uint8_t major, minor
    if span_is(v, b"HTTP/1.1"):
        h.minor = 1
        return 1
    if not span_opens(v, b"HTTP/") or span_len(v) != 8 or span_at(v, 6) != 46:
        return -1
    major, minor = span_at(v, 5), span_at(v, 7)
    if major < 48 or major > 57 or minor < 48 or minor > 57:
        return -1
    h.minor = 1 if major > 49 or (major == 49 and minor > 48) else 0
    return 1


cdef int request_line(Head *h) noexcept nogil:
    # method SP target SP version, with any blanks in place of SP (RFC 9112 3). Returns 1, HEAD_MORE or HEAD_BAD; a bad byte
    # is seen as early as it comes.
    cdef Span t = h.text
    cdef uint32_t i = span_while(t, 0, TOKEN), n = span_len(t), v
    cdef int eol
    if i == n:
        return HEAD_MORE
    if (span_at(t, i) != SP and span_at(t, i) != HTAB) or i == 0 or i > 0xffff or span_is(span_first(t, i), b"PRI"):
        return HEAD_BAD         # PRI is HTTP/2's preface
    h.method_len = <uint16_t>i
    h.method = method_id(span_first(t, i))
    i = span_skip(t, i)
    h.target = i
    i = span_target_end(t, i)
    while h.lax and i < n and span_at(t, i) > 127:
        i = span_target_end(t, i + 1)
    if i == n:
        return HEAD_MORE
    if (span_at(t, i) != SP and span_at(t, i) != HTAB) or i == h.target:
        return HEAD_BAD
    h.target_len = i - h.target
    v = span_skip(t, i)
    if n - v < 9:
        return HEAD_MORE if span_find(t, LF, v) == NOWHERE else HEAD_BAD
    if version_at(span_sub(t, v, 8), h) < 0:
        return HEAD_BAD
    eol = line_end(t, v + 8, h)
    if eol <= 0:
        return eol
    h.version = v
    h.first_end = v + 8 + eol
    return 1


cdef void tidy_line(Buf *b, uint32_t base, Head *h) noexcept nogil:
    # The first line as everybody writes it: rules, logs and render count on single blanks and on HTTP/1.D.
    cdef Span t = h.text
    cdef uint32_t to = h.version - 1 - h.target_len
    if to == h.target and to == <uint32_t>h.method_len + 1 and span_at(t, to - 1) == SP and \
            span_is(span_sub(t, h.version - 1, 9), b" HTTP/1.1"):
        return
    buf_set(b, base + h.version + 5, 49)
    buf_set(b, base + h.version + 7, 49 if h.minor else 48)
    if to == h.target and to == <uint32_t>h.method_len + 1 and span_at(t, to - 1) == SP and span_at(t, h.version - 1) == SP:
        return
    buf_shift(b, base + to, base + h.target, h.target_len)
    buf_set(b, base + h.version - 1, SP)
    buf_set(b, base + to - 1, SP)
    buf_shift(b, base + to - 1 - h.method_len, base, h.method_len)
    h.target = to
    h.start = to - 1 - h.method_len


# ---------------------------------------------------------------- whole heads

cdef bint websocket_key(Head *h) noexcept nogil:
    # Whether a handshake of WebSocket brings its key: 16 bytes in base64 (RFC 6455 4.1).
    cdef int i
    for i in range(h.count):
        if span_is(head_name(h, &h.headers[i]), b"sec-websocket-key"):
            return h.headers[i].value_len == 24
    return 0


cdef int request_sense(Head *h, bint lax) noexcept nogil:
    # What is wrong with a request whose lines are right: 0, or HEAD_BAD with the status in h.fault.
    if (h.seen_coding and h.body != BODY_CHUNKED) or (not target_ok(h) and not lax):
        h.fault = 0
        return HEAD_BAD
    if h.minor == 0 and (h.body == BODY_CHUNKED or h.length) and \
            (h.method == M_GET or h.method == M_HEAD or h.method == M_DELETE):
        h.fault = 413
        return HEAD_BAD
    if h.fault:
        return HEAD_BAD
    if h.seen_coding and (h.seen_length or h.bare_lf or h.minor == 0):
        return HEAD_BAD         # who understands it otherwise sees other requests behind it
    if h.conn_upgrade and h.upgrade == UP_WEBSOCKET and h.body != BODY_CHUNKED and h.length == 0 and not websocket_key(h):
        return HEAD_BAD
    return 0


cdef int empty_lines(Span t) noexcept nogil:
    # Length of the empty lines before a message, which are skipped (RFC 9112 2.2); -1 for a CR alone.
    cdef uint32_t at = 0, n = span_len(t)
    while at < n and (span_at(t, at) == CR or span_at(t, at) == LF):
        if span_at(t, at) == CR and at + 1 < n and span_at(t, at + 1) != LF:
            return -1
        at += 1
    return <int>at


cdef int parse_request(Buf *b, Head *h, bint lax) noexcept nogil:
    cdef Span t = buf_unseen(b)
    cdef int got, at = empty_lines(t)
    h.fault = 0
    if at < 0:
        return HEAD_BAD
    clear_head(h, span_from(t, <uint32_t>at), lax)
    got = request_line(h)
    if got <= 0:
        return got
    got = parse_headers(b, b.p + <uint32_t>at, h, 1)
    if got <= 0:
        h.fault = 0
        return got
    if request_sense(h, lax) < 0:
        return HEAD_BAD
    tidy_line(b, b.p + <uint32_t>at, h)
    if h.method == M_CONNECT or span_at(h.text, h.target) != SLASH:
        tidy_authority(b, b.p + <uint32_t>at, h)
    return at + <int>h.end


cdef void drop_lines(Head *h, uint8_t id) noexcept nogil:
    cdef int i, kept = 0
    for i in range(h.count):
        if h.headers[i].id != id:
            h.headers[kept] = h.headers[i]
            kept += 1
    h.count = kept


cdef void tidy_status(Buf *b, uint32_t base, Head *h) noexcept nogil:
    # "HTTP/1.D NNN reason", as everybody writes it.
    cdef uint32_t to = h.version - 9
    if to == 0 and span_opens(h.text, b"HTTP/1.1 ") and span_at(h.text, h.reason - 1) == SP:
        return
    buf_set(b, base + 5, 49)
    buf_set(b, base + 7, 49 if h.minor else 48)
    if to:
        buf_shift(b, base + to, base, 8)
        h.start = to
    buf_set(b, base + h.version - 1, SP)
    if span_at(h.text, h.reason - 1) == HTAB:
        buf_set(b, base + h.reason - 1, SP)


cdef int status_line(Head *h) noexcept nogil:
    # version SP status [SP reason], with any blanks in place of SP. Returns 1, HEAD_MORE or HEAD_BAD.
    cdef Span t = h.text
    cdef uint32_t i, stop, n = span_len(t)
    cdef int got, k
    if n < 13:
        return HEAD_BAD if n >= 5 and not span_opens(t, b"HTTP/") else HEAD_MORE
    if version_at(span_first(t, 8), h) < 0 or (span_at(t, 8) != SP and span_at(t, 8) != HTAB):
        return HEAD_BAD
    i = span_skip(t, 8)
    if n - i < 4:
        return HEAD_MORE if span_find(t, LF, 0) == NOWHERE else HEAD_BAD
    for k in range(3):
        if span_at(t, i + k) < 48 or span_at(t, i + k) > 57:
            return HEAD_BAD
        h.status = h.status * 10 + span_at(t, i + k) - 48
    if h.status < 100:
        return HEAD_BAD
    h.version = i
    h.reason = i + 3
    if span_at(t, i + 3) == SP or span_at(t, i + 3) == HTAB:
        h.reason = span_skip(t, i + 3)
    elif span_at(t, i + 3) != CR and span_at(t, i + 3) != LF:
        return HEAD_BAD
    stop = span_value_end(t, h.reason)
    h.reason_len = stop - h.reason
    got = line_end(t, stop, h)
    if got <= 0:
        return got
    h.first_end = stop + got
    return 1


cdef int parse_response(Buf *b, Head *h, bint lax) noexcept nogil:
    cdef Span t = buf_unseen(b)
    cdef int got, at = empty_lines(t)
    if at < 0:
        return HEAD_BAD
    clear_head(h, span_from(t, <uint32_t>at), lax)
    got = status_line(h)
    if got <= 0:
        return got
    got = parse_headers(b, b.p + <uint32_t>at, h, 0)
    if got <= 0:
        return got
    tidy_status(b, b.p + <uint32_t>at, h)
    if h.seen_coding:
        if h.body != BODY_CHUNKED:
            return HEAD_BAD
        if h.seen_length:
            drop_lines(h, H_LENGTH)     # which must not go on (RFC 9112 6.3)
            h.length = 0
        if h.seen_length or h.minor == 0:
            h.conn_close = 1            # its framing is to be mistrusted (RFC 9112 6.1)
    return at + <int>h.end


# ---------------------------------------------------------------- bodies

cdef enum ChunkStage:
    CHUNK_SIZE = 0, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER

cdef enum:
    CHUNK_LINE_MAX = 8192   # bytes of a size line with its extensions, and of all trailer lines


cdef inline void take_data(Body *body, Buf *b) noexcept nogil:
    cdef uint64_t here = b.n - b.p
    if here > body.left:
        here = body.left
    buf_keep(b, <uint32_t>here)
    body.left -= here
    body.seen += here


cdef inline void framing(Body *body, Buf *b, uint32_t count) noexcept nogil:
    # Framing goes on to the receiver, unless that gets the plain body.
    if body.strip:
        buf_skip(b, count)
    else:
        buf_keep(b, count)


cdef int chunk_size(Body *body, Buf *b) noexcept nogil:
    # One size line as a whole: digits (zeroes in front are dropped), blanks, an extension. Extensions are dropped
    # (RFC 9112 7.1.1 lets a recipient ignore them), so whatever they hold goes no further.
    cdef Span t = buf_unseen(b)
    cdef uint32_t i = 0, zeroes = 0, stop, n = span_len(t)
    cdef uint64_t size = 0
    while i < n and HEX[span_at(t, i)] != 255:
        size = size * 16 + HEX[span_at(t, i)]
        if size >> 52:
            return BODY_BAD     # HAProxy's limit, so that nobody's floating-point numbers lose digits
        i += 1
        if size == 0:
            zeroes = i
    if i == n:
        return BODY_OPEN if n < CHUNK_LINE_MAX else BODY_BAD
    stop = span_skip(t, i)
    if stop < n and span_at(t, stop) == SEMICOLON:
        stop = span_any_of(t, stop, CR, LF, CR)
    if i == 0 or stop > CHUNK_LINE_MAX:
        return BODY_BAD
    if stop + 1 >= n:
        return BODY_BAD if stop < n and span_at(t, stop) != CR else BODY_OPEN
    if span_at(t, stop) != CR or span_at(t, stop + 1) != LF:
        return BODY_BAD
    if zeroes == i:
        zeroes -= 1             # the last chunk's own
    if body.strip or (stop == i and zeroes == 0):
        framing(body, b, stop + 2)
    else:
        buf_skip(b, zeroes)
        buf_keep(b, i - zeroes)
        buf_skip(b, stop - i)
        buf_keep(b, 2)
    body.left = size
    body.stage = CHUNK_DATA if size else CHUNK_TRAILER
    return BODY_DONE


cdef int chunk_end(Body *body, Buf *b) noexcept nogil:
    cdef Span t = buf_unseen(b)
    if span_len(t) < 2:
        return BODY_BAD if span_len(t) and span_at(t, 0) != CR else BODY_OPEN
    if span_at(t, 0) != CR or span_at(t, 1) != LF:
        return BODY_BAD
    framing(body, b, 2)
    body.stage = CHUNK_SIZE
    return BODY_DONE


cdef int trailer_line(Body *body, Buf *b) noexcept nogil:
    # One trailer field, or the empty line that ends the message. Framing fields may not come here (RFC 9110 6.5.1).
    cdef Header x
    cdef Head scratch
    cdef int got
    cdef Span t = buf_unseen(b)
    if span_len(t) < 2:
        return BODY_OPEN
    if span_at(t, 0) == CR:
        if span_at(t, 1) != LF:
            return BODY_BAD
        framing(body, b, 2)
        body.seen += 1          # HAProxy counts the end of trailers, also where there are none
        body.done = 1
        return BODY_DONE
    scratch.bare_lf = scratch.lax = scratch.whole = 0
    got = one_header(b, t, b.p, 0, &x, &scratch)
    if got < 0 or scratch.bare_lf:
        return BODY_BAD
    if got == 0:
        return BODY_OPEN if span_len(t) < CHUNK_LINE_MAX else BODY_BAD
    if x.id == H_LENGTH or x.id == H_CODING or x.id == H_HOST or x.id == H_CONNECTION:
        return BODY_BAD
    body.left += x.line_end
    if body.left > CHUNK_LINE_MAX:
        return BODY_BAD
    framing(body, b, x.line_end)
    body.seen += x.name_len + x.value_len
    return BODY_DONE


cdef int chunks_advance(Body *body, Buf *b) noexcept nogil:
    cdef int got
    while b.p < b.n:
        if body.stage == CHUNK_DATA:
            take_data(body, b)
            if body.left:
                return BODY_OPEN
            body.stage = CHUNK_END
            continue
        if body.stage == CHUNK_SIZE:
            got = chunk_size(body, b)
        elif body.stage == CHUNK_END:
            got = chunk_end(body, b)
        else:
            got = trailer_line(body, b)
        if got != BODY_DONE:
            return got
        if body.done:
            return BODY_DONE
    return BODY_OPEN


cdef int body_advance(Body *body, Buf *b) noexcept nogil:
    if body.done:
        return BODY_DONE
    if body.mode == BODY_LENGTH:
        take_data(body, b)
        if body.left:
            return BODY_OPEN
        body.done = 1
        return BODY_DONE
    if body.mode == BODY_CHUNKED:
        return chunks_advance(body, b)
    if body.mode == BODY_NONE:
        body.done = 1
        return BODY_DONE
    body.seen += b.n - b.p
    buf_keep(b, b.n - b.p)
    return BODY_OPEN


# ---------------------------------------------------------------- for tests and fuzzers

cdef class Sandbox:
    """One buffer of exactly the size of the data, so that a sanitizer sees every step too far."""

    cdef Room room
    cdef Buf b
    cdef Head h

    def __cinit__(self, bytes data):
        if room_open(&self.room, len(data)) < 0:
            raise MemoryError
        room_put(&self.room, span_of(data))
        buf_over(&self.b, &self.room)

    def __dealloc__(self):
        room_close(&self.room)

    cdef dict head(self, int length):
        cdef Header *x
        cdef int i
        out = {"size": length, "minor": self.h.minor, "status": self.h.status, "length": self.h.length,
               "body": ("none", "length", "chunked", "eof", "tunnel")[self.h.body], "headers": []}
        if self.h.status:
            out["reason"] = span_bytes(head_reason(&self.h)).decode("latin-1")
        else:
            out["method"] = span_bytes(head_method(&self.h)).decode("latin-1")
            out["target"] = span_bytes(head_target(&self.h)).decode("latin-1")
        for i in range(self.h.count):
            x = &self.h.headers[i]
            out["headers"].append((span_bytes(head_name(&self.h, x)).decode("latin-1"),
                                   span_bytes(head_value(&self.h, x)).decode("latin-1")))
        return out


def request_head(bytes data, bint lax=False):
    """The head at the beginning of `data` as a dict, None when more bytes are needed, False when it is refused."""
    cdef Sandbox box = Sandbox(data)
    cdef int got = parse_request(&box.b, &box.h, lax)
    return None if got == HEAD_MORE else False if got < 0 else box.head(got)


def response_head(bytes data):
    """The same for a response."""
    cdef Sandbox box = Sandbox(data)
    cdef int got = parse_response(&box.b, &box.h, 0)
    return None if got == HEAD_MORE else False if got < 0 else box.head(got)


def chunked_body(bytes data, bint strip=False):
    """(what is forwarded, the rest) of a chunked body; None when it is not complete, False when it is refused."""
    cdef Sandbox box = Sandbox(data)
    cdef Body body
    cdef int got
    body.mode, body.stage, body.strip, body.done = BODY_CHUNKED, CHUNK_SIZE, strip, 0
    body.left = body.seen = 0
    got = body_advance(&body, &box.b)
    if got == BODY_BAD:
        return False
    if got == BODY_OPEN:
        return None
    return span_bytes(buf_ready(&box.b)), span_bytes(buf_unseen(&box.b))
