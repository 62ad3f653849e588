# RFC 9112, read strictly: a message with two possible meanings is refused, never repaired. What is not parsed here
# is never forwarded, because the render step copies only what the parser has marked.

from haptk._fast.bytes.buf cimport (buf_keep, buf_lower_token, buf_over, buf_ready, buf_skip, buf_unseen)
from haptk._fast.bytes.span cimport (NOWHERE, Room, room_close, room_open, room_put, span_at, span_bytes, span_decimal,
                                     span_find, span_first, span_from, span_is, span_is_ci, span_last, span_len,
                                     span_of, span_opens, span_skip, span_target_end, span_trim, span_value_end, word)
from haptk._fast.scan cimport HEX, HOST, TOKEN, has_word

cdef enum:
    CR = 13, LF = 10, SP = 32, HTAB = 9, COLON = 58, COMMA = 44, SLASH = 47, QUESTION = 63


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

cdef inline int one_header(Buf *b, Span t, uint32_t base, uint32_t at, Header *out, Head *h) noexcept nogil:
    # Parse the header line at `at` of t, which begins at `base` in b. Returns 1, 0 for more bytes, -1 for a bad line
    # (obs-fold included).
    cdef uint32_t i = at, value, stop, n = span_len(t)
    cdef int eol
    i += buf_lower_token(b, base + at, TOKEN)
    if i >= n:
        return 0
    if span_at(t, i) != COLON or i == at or i - at > 0xffff:
        return -1
    out.line = at
    out.name_len = <uint16_t>(i - at)
    out.id = header_id(span_sub(t, at, i - at))
    i += 1
    if i + 1 < n and span_at(t, i) == SP and span_at(t, i + 1) > SP:
        # almost every line: "name: value" CR LF, whose value has no blanks around it
        value = i + 1
        stop = span_value_end(t, value)
        if stop + 1 < n and span_at(t, stop) == CR and span_at(t, stop + 1) == LF and span_at(t, stop - 1) > SP:
            out.line_end = stop + 2
            out.value = value
            out.value_len = stop - value
            out.canonical = 1
            return 1
    value = span_skip(t, i)
    stop = span_value_end(t, value)
    eol = line_end(t, stop, h)
    if eol <= 0:
        return eol
    out.line_end = stop + eol
    out.canonical = eol == 2 and value == i + 1 and span_at(t, i) == SP
    while stop > value and (span_at(t, stop - 1) == SP or span_at(t, stop - 1) == HTAB):
        stop -= 1
        out.canonical = 0
    out.value = value
    out.value_len = stop - value
    return 1


cdef bint other_codings(Span v) noexcept nogil:
    # Elements separated by commas (a coding may have parameters), none of them empty or "chunked".
    cdef uint32_t comma
    cdef Span one
    while True:
        comma = span_find(v, COMMA, 0)
        one = span_trim(v if comma == NOWHERE else span_first(v, comma))
        if span_len(one) == 0 or span_is_ci(one, b"chunked"):
            return 0
        if comma == NOWHERE:
            return 1
        v = span_from(v, comma + 1)


cdef int note_framing(Head *h, Header *x, bint request) noexcept nogil:
    # Content-Length and Transfer-Encoding: exactly one of them, exactly once (RFC 9112 6.3, and stricter).
    cdef int64_t length
    cdef Span v = head_value(h, x)
    cdef uint32_t n
    if h.seen_length or h.seen_coding:
        return -1
    if x.id == H_LENGTH:
        length = span_decimal(v)
        if length < 0:
            return -1
        h.seen_length = 1
        h.length = <uint64_t>length
        h.body = BODY_LENGTH
        return 1
    h.seen_coding = 1
    h.body = BODY_CHUNKED
    if span_is_ci(v, b"chunked"):
        return 1
    n = span_len(v)
    if request or n < 9 or not span_is_ci(span_last(v, 7), b"chunked"):
        return -1
    # a response may name further codings before the final chunked one
    v = span_trim(span_first(v, n - 7))
    n = span_len(v)
    return 1 if n > 1 and span_at(v, n - 1) == COMMA and other_codings(span_first(v, n - 1)) else -1


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
    # One Host, of bytes that can stand in an authority (RFC 3986 3.2, without userinfo).
    cdef Span v = head_value(h, x)
    cdef uint8_t good = 1
    cdef uint32_t i
    if h.seen_host:
        return -1
    h.seen_host = 1
    for i in range(span_len(v)):
        good &= HOST[span_at(v, i)]
    return 1 if good else -1


cdef int note_header(Head *h, Header *x, bint request) noexcept nogil:
    if x.id == H_LENGTH or x.id == H_CODING:
        return note_framing(h, x, request)
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
        h.upgrade = 1
    elif x.id == H_EXPECT:
        h.expect = 1
    return 1


cdef int parse_headers(Buf *b, uint32_t base, Head *h, bint request) noexcept nogil:
    # The lines behind the first one up to and with the empty one. Returns 1, HEAD_MORE or HEAD_BAD.
    cdef int got
    cdef Header *x
    cdef Span t = h.text
    cdef uint32_t at = h.first_end
    h.count = 0
    while True:
        if at >= span_len(t):
            return HEAD_MORE
        if span_at(t, at) == CR or span_at(t, at) == LF:
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
        if x.id and note_header(h, x, request) < 0:
            return HEAD_BAD
        at = x.line_end
        h.count += 1


cdef inline void clear_head(Head *h, Span text) noexcept nogil:
    h.text = text
    h.edited = 0
    h.start = 0
    h.status = 0
    h.body = BODY_NONE
    h.conn_close = h.conn_keep = h.conn_upgrade = h.conn_other = 0
    h.expect = h.upgrade = h.bare_lf = h.cookies = 0
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
    # "HTTP/1.D" and nothing else; a minor version above 1 means 1 (RFC 9110 2.5).
    if not span_opens(v, b"HTTP/1.") or span_len(v) != 8 or span_at(v, 7) < 48 or span_at(v, 7) > 57:
        return -1
    h.minor = 0 if span_at(v, 7) == 48 else 1
    return 1


cdef int request_line(Head *h) noexcept nogil:
    # method SP target SP version. Returns 1, HEAD_MORE or HEAD_BAD; a bad byte is seen as early as it comes.
    cdef Span t = h.text
    cdef uint32_t i = 0, n = span_len(t), v
    cdef int eol
    while i < n and TOKEN[span_at(t, i)]:
        i += 1
    if i == n:
        return HEAD_MORE
    if span_at(t, i) != SP or i == 0 or i > 64:
        return HEAD_BAD
    h.method_len = <uint16_t>i
    h.method = method_id(span_first(t, i))
    i += 1
    h.target = i
    i = span_target_end(t, i)
    if i == n:
        return HEAD_MORE
    if span_at(t, i) != SP or i == h.target:
        return HEAD_BAD
    h.target_len = i - h.target
    v = i + 1
    if n - v < 9:
        return HEAD_MORE if span_find(t, LF, v) == NOWHERE else HEAD_BAD
    if version_at(span_sub(t, v, 8), h) < 0:
        return HEAD_BAD
    eol = line_end(t, v + 8, h)
    if eol <= 0:
        return eol
    h.first_end = v + 8 + eol
    return 1


cdef int target_ok(Head *h) noexcept nogil:
    # The form must fit the method (RFC 9112 3.2); an absolute form must agree with Host.
    cdef Span t = head_target(h)
    cdef uint32_t n = span_len(t), i = 0, start, k
    cdef Header *x
    if span_at(t, 0) == SLASH:
        return 0 if h.method == M_CONNECT else 1
    if h.method == M_CONNECT:
        return 1
    if span_at(t, 0) == 42:
        return n == 1 and h.method == M_OPTIONS
    while i < n and span_at(t, i) != COLON:
        if TOKEN[span_at(t, i)] == 0:
            return 0
        i += 1
    if i == 0 or n - i < 4 or not span_is(span_sub(t, i, 3), b"://"):
        return 0
    start = i + 3
    i = start
    while i < n and span_at(t, i) != SLASH and span_at(t, i) != QUESTION:
        if span_at(t, i) == 64:
            return 0
        i += 1
    if i == start:
        return 0
    for k in range(<uint32_t>h.count):
        x = &h.headers[k]
        if x.id == H_HOST:
            return same_authority(span_sub(t, start, i - start), head_value(h, x))
    return 1


cdef bint same_authority(Span a, Span b) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t p, q
    if span_len(a) != span_len(b):
        return 0
    for i in range(span_len(a)):
        p = span_at(a, i)
        q = span_at(b, i)
        if p != q and (TOKEN[p] == 0 or TOKEN[p] != TOKEN[q]):
            return 0
    return 1


cdef int parse_request(Buf *b, Head *h, bint lax) noexcept nogil:
    cdef Span t = buf_unseen(b)
    cdef uint32_t at = 0, n = span_len(t)
    cdef int got
    while at < n and (span_at(t, at) == CR or span_at(t, at) == LF) and at < 8:
        # RFC 9112 2.2: empty lines before a request are skipped
        if span_at(t, at) == CR and at + 1 < n and span_at(t, at + 1) != LF:
            return HEAD_BAD
        at += 1
    clear_head(h, span_from(t, at))
    got = request_line(h)
    if got <= 0:
        return got
    got = parse_headers(b, b.p + at, h, 1)
    if got <= 0:
        return got
    if h.seen_coding and (h.minor == 0 or h.bare_lf):
        return HEAD_BAD
    if h.minor == 1 and not h.seen_host and not lax:
        return HEAD_BAD
    if not target_ok(h) and not lax:
        return HEAD_BAD
    return <int>(at + h.end)


cdef int parse_response(Buf *b, Head *h, bint lax) noexcept nogil:
    cdef Span t = buf_unseen(b)
    cdef uint32_t stop, n = span_len(t)
    cdef int got, k
    clear_head(h, t)
    if n < 13:
        return HEAD_BAD if n >= 5 and not span_opens(t, b"HTTP/") else HEAD_MORE
    if version_at(span_first(t, 8), h) < 0 or span_at(t, 8) != SP:
        return HEAD_BAD
    for k in range(9, 12):
        if span_at(t, k) < 48 or span_at(t, k) > 57:
            return HEAD_BAD
        h.status = h.status * 10 + span_at(t, k) - 48
    if h.status < 100:
        return HEAD_BAD
    h.reason = 12
    if span_at(t, 12) == SP:
        h.reason = 13
    elif span_at(t, 12) != CR and span_at(t, 12) != LF:
        return HEAD_BAD
    stop = span_value_end(t, h.reason)
    h.reason_len = stop - h.reason
    got = line_end(t, stop, h)
    if got <= 0:
        return got
    h.first_end = stop + got
    got = parse_headers(b, b.p, h, 0)
    if got <= 0:
        return got
    if h.seen_coding and (h.minor == 0 or h.bare_lf):
        return HEAD_BAD
    return <int>h.end


# ---------------------------------------------------------------- bodies

cdef enum ChunkStage:
    CHUNK_SIZE = 0, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER

cdef enum:
    CHUNK_LINE_MAX = 1024   # bytes of a size line with its extensions, or of one trailer line's wait


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
    # One size line as a whole. Extensions are checked and dropped (RFC 9112 7.1.1 lets a recipient ignore them).
    cdef Span t = buf_unseen(b)
    cdef uint32_t i = 0, stop, n = span_len(t)
    cdef uint64_t size = 0
    while i < n and HEX[span_at(t, i)] != 255:
        if i >= 15:
            return BODY_BAD
        size = size * 16 + HEX[span_at(t, i)]
        i += 1
    if i == n:
        return BODY_OPEN
    if i == 0 or (span_at(t, i) != CR and span_at(t, i) != 59):
        return BODY_BAD
    stop = span_value_end(t, i)
    if stop > CHUNK_LINE_MAX:
        return BODY_BAD
    if stop + 1 >= n:
        return BODY_BAD if stop < n and span_at(t, stop) != CR else BODY_OPEN
    if span_at(t, stop) != CR or span_at(t, stop + 1) != LF:
        return BODY_BAD
    if body.strip or stop == i:
        framing(body, b, stop + 2)
    else:
        buf_keep(b, i)
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
        body.done = 1
        return BODY_DONE
    scratch.bare_lf = 0
    got = one_header(b, t, b.p, 0, &x, &scratch)
    if got < 0 or scratch.bare_lf:
        return BODY_BAD
    if got == 0:
        return BODY_OPEN if span_len(t) < 8 * CHUNK_LINE_MAX else BODY_BAD
    if x.id == H_LENGTH or x.id == H_CODING or x.id == H_HOST or x.id == H_CONNECTION:
        return BODY_BAD
    body.left += x.line_end
    if body.left > 8 * CHUNK_LINE_MAX:
        return BODY_BAD
    framing(body, b, x.line_end)
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
