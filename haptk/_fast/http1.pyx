# RFC 9112, read strictly: a message with two possible meanings is refused, never repaired. What is not parsed here
# is never forwarded, because the render step copies only what the parser has marked.

from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove

from haptk._fast.scan cimport (HEX, HOST, TOKEN, decimal, hk_lower_token, hk_target_end, hk_value_end, list_has,
                               same_word)

cdef enum:
    CR = 13, LF = 10, SP = 32, HTAB = 9, COLON = 58


# ---------------------------------------------------------------- lines

cdef inline int line_end(const char *p, const char *end, Head *h) noexcept nogil:
    # Length of the line end at p: 2 for CR LF, 1 for a bare LF; 0 when more bytes are needed, -1 when it is none.
    if p >= end:
        return 0
    if p[0] == CR:
        if p + 1 >= end:
            return 0
        return 2 if p[1] == LF else -1
    if p[0] == LF:
        h.bare_lf = 1
        return 1
    return -1


cdef uint8_t header_id(const char *name, size_t n) noexcept nogil:
    if n == 4:
        if memcmp(name, b"host", 4) == 0: return H_HOST
        if memcmp(name, b"etag", 4) == 0: return H_ETAG
    elif n == 6:
        if memcmp(name, b"cookie", 6) == 0: return H_COOKIE
        if memcmp(name, b"expect", 6) == 0: return H_EXPECT
        if memcmp(name, b"pragma", 6) == 0: return H_PRAGMA
    elif n == 7:
        if memcmp(name, b"upgrade", 7) == 0: return H_UPGRADE
        if memcmp(name, b"expires", 7) == 0: return H_EXPIRES
    elif n == 10:
        if memcmp(name, b"connection", 10) == 0: return H_CONNECTION
        if memcmp(name, b"set-cookie", 10) == 0: return H_SET_COOKIE
        if memcmp(name, b"keep-alive", 10) == 0: return H_KEEP_ALIVE
    elif n == 11:
        if memcmp(name, b"set-cookie2", 11) == 0: return H_SET_COOKIE2
    elif n == 13:
        if memcmp(name, b"cache-control", 13) == 0: return H_CACHE_CONTROL
        if memcmp(name, b"last-modified", 13) == 0: return H_LAST_MODIFIED
    elif n == 14:
        if memcmp(name, b"content-length", 14) == 0: return H_LENGTH
    elif n == 16:
        if memcmp(name, b"proxy-connection", 16) == 0: return H_PROXY_CONNECTION
    elif n == 17:
        if memcmp(name, b"transfer-encoding", 17) == 0: return H_CODING
    return H_OTHER


# ---------------------------------------------------------------- headers

cdef inline int one_header(char *d, uint32_t at, uint32_t n, Header *out, Head *h) noexcept nogil:
    # Parse the header line at `at`. Returns 1, 0 for more bytes, -1 for a bad line (obs-fold included).
    cdef uint32_t i = at, value, stop
    cdef int eol
    i += <uint32_t>hk_lower_token(d + at, n - at, TOKEN)
    if i == n:
        return 0
    if d[i] != COLON or i == at or i - at > 0xffff:
        return -1
    out.line = at
    out.name_len = <uint16_t>(i - at)
    out.id = header_id(d + at, i - at)
    i += 1
    if i + 1 < n and d[i] == SP and <uint8_t>d[i + 1] > SP:
        # almost every line: "name: value" CR LF, whose value has no blanks around it
        value = i + 1
        stop = value + <uint32_t>hk_value_end(d + value, n - value)
        if stop + 1 < n and d[stop] == CR and d[stop + 1] == LF and <uint8_t>d[stop - 1] > SP:
            out.line_end = stop + 2
            out.value = value
            out.value_len = stop - value
            out.canonical = 1
            return 1
    value = i
    while value < n and (d[value] == SP or d[value] == HTAB):
        value += 1
    stop = value + <uint32_t>hk_value_end(d + value, n - value)
    eol = line_end(d + stop, d + n, h)
    if eol <= 0:
        return eol
    out.line_end = stop + eol
    out.canonical = eol == 2 and value == i + 1 and d[i] == SP
    while stop > value and (d[stop - 1] == SP or d[stop - 1] == HTAB):
        stop -= 1
        out.canonical = 0
    out.value = value
    out.value_len = stop - value
    return 1


cdef bint other_codings(const char *v, uint32_t n) noexcept nogil:
    # Elements separated by commas (a coding may have parameters), none of them empty or "chunked".
    cdef uint32_t i = 0, start, end
    while True:
        while i < n and (v[i] == SP or v[i] == HTAB):
            i += 1
        start = i
        while i < n and v[i] != 44:
            i += 1
        end = i
        while end > start and (v[end - 1] == SP or v[end - 1] == HTAB):
            end -= 1
        if end == start or (end - start == 7 and same_word(v + start, b"chunked", 7)):
            return 0
        if i == n:
            return 1
        i += 1


cdef int note_framing(char *d, Header *x, Head *h, bint request) noexcept nogil:
    # Content-Length and Transfer-Encoding: exactly one of them, exactly once (RFC 9112 6.3, and stricter).
    cdef int64_t length
    cdef const char *v = d + x.value
    cdef uint32_t n = x.value_len, i
    if h.seen_length or h.seen_coding:
        return -1
    if x.id == H_LENGTH:
        length = decimal(v, n)
        if length < 0:
            return -1
        h.seen_length = 1
        h.length = <uint64_t>length
        h.body = BODY_LENGTH
        return 1
    h.seen_coding = 1
    h.body = BODY_CHUNKED
    if n == 7 and same_word(v, b"chunked", 7):
        return 1
    if request or n < 9 or not same_word(v + n - 7, b"chunked", 7):
        return -1
    # a response may name further codings before the final chunked one
    i = n - 7
    while i > 0 and (v[i - 1] == SP or v[i - 1] == HTAB):
        i -= 1
    return 1 if i > 1 and v[i - 1] == 44 and other_codings(v, i - 1) else -1


cdef void note_connection(char *d, Header *x, Head *h) noexcept nogil:
    cdef const char *v = d + x.value
    cdef uint32_t n = x.value_len
    if n == 10 and same_word(v, b"keep-alive", 10):
        h.conn_keep = 1
    elif n == 5 and same_word(v, b"close", 5):
        h.conn_close = 1
    elif n:
        h.conn_close |= list_has(v, n, b"close", 5)
        h.conn_keep |= list_has(v, n, b"keep-alive", 10)
        h.conn_upgrade |= list_has(v, n, b"upgrade", 7)
        h.conn_other = 1


cdef int note_host(char *d, Header *x, Head *h) noexcept nogil:
    # One Host, of bytes that can stand in an authority (RFC 3986 3.2, without userinfo).
    cdef const uint8_t *v = <const uint8_t *>d + x.value
    cdef uint8_t good = 1
    cdef uint32_t i
    if h.seen_host:
        return -1
    h.seen_host = 1
    for i in range(x.value_len):
        good &= HOST[v[i]]
    return 1 if good else -1


cdef int note_header(char *d, Header *x, Head *h, bint request) noexcept nogil:
    if x.id == H_LENGTH or x.id == H_CODING:
        return note_framing(d, x, h, request)
    if x.id == H_CONNECTION:
        note_connection(d, x, h)
    elif x.id == H_HOST:
        if request:
            return note_host(d, x, h)
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


cdef int parse_headers(Buf *b, Head *h, uint32_t at, bint request) noexcept nogil:
    # The lines from `at` up to and with the empty one. Returns 1, HEAD_MORE or HEAD_BAD.
    cdef int got
    cdef Header *x
    cdef char *d = b.d
    h.count = 0
    while True:
        if at >= b.n:
            return HEAD_MORE
        if d[at] == CR or d[at] == LF:
            got = line_end(d + at, d + b.n, h)
            if got <= 0:
                return got
            h.end = at + got
            return 1
        if h.count == HEADERS_MAX:
            return HEAD_BAD
        x = &h.headers[h.count]
        got = one_header(d, at, b.n, x, h)
        if got <= 0:
            return got
        if x.id and note_header(d, x, h, request) < 0:
            return HEAD_BAD
        at = x.line_end
        h.count += 1


cdef inline void clear_head(Head *h, char *d, uint32_t start) noexcept nogil:
    h.d = d
    h.start = start
    h.status = 0
    h.body = BODY_NONE
    h.conn_close = h.conn_keep = h.conn_upgrade = h.conn_other = 0
    h.expect = h.upgrade = h.bare_lf = h.cookies = 0
    h.seen_host = h.seen_length = h.seen_coding = 0
    h.length = 0


# ---------------------------------------------------------------- first lines

cdef uint8_t method_id(const char *p, size_t n) noexcept nogil:
    if n == 3:
        if memcmp(p, b"GET", 3) == 0: return M_GET
        if memcmp(p, b"PUT", 3) == 0: return M_PUT
    elif n == 4:
        if memcmp(p, b"HEAD", 4) == 0: return M_HEAD
        if memcmp(p, b"POST", 4) == 0: return M_POST
    elif n == 5:
        if memcmp(p, b"TRACE", 5) == 0: return M_TRACE
        if memcmp(p, b"PATCH", 5) == 0: return M_PATCH
    elif n == 6:
        if memcmp(p, b"DELETE", 6) == 0: return M_DELETE
    elif n == 7:
        if memcmp(p, b"OPTIONS", 7) == 0: return M_OPTIONS
        if memcmp(p, b"CONNECT", 7) == 0: return M_CONNECT
    return M_OTHER


cdef int version_at(const char *p, size_t n, Head *h) noexcept nogil:
    # "HTTP/1.D" and nothing else; a minor version above 1 means 1 (RFC 9110 2.5).
    if n != 8 or memcmp(p, b"HTTP/1.", 7) != 0 or p[7] < 48 or p[7] > 57:
        return -1
    h.minor = 0 if p[7] == 48 else 1
    return 1


cdef int request_line(Buf *b, Head *h) noexcept nogil:
    # method SP target SP version. Returns 1, HEAD_MORE or HEAD_BAD; a bad byte is seen as early as it comes.
    cdef char *d = b.d
    cdef uint32_t i = h.start, n = b.n, v
    cdef int eol
    while i < n and TOKEN[<uint8_t>d[i]]:
        i += 1
    if i == n:
        return HEAD_MORE
    if d[i] != SP or i == h.start or i - h.start > 64:
        return HEAD_BAD
    h.method_len = <uint16_t>(i - h.start)
    h.method = method_id(d + h.start, h.method_len)
    i += 1
    h.target = i
    i += <uint32_t>hk_target_end(d + i, n - i)
    if i == n:
        return HEAD_MORE
    if d[i] != SP or i == h.target:
        return HEAD_BAD
    h.target_len = i - h.target
    v = i + 1
    if n - v < 9:
        return HEAD_MORE if memchr(d + v, LF, n - v) == NULL else HEAD_BAD
    if version_at(d + v, 8, h) < 0:
        return HEAD_BAD
    eol = line_end(d + v + 8, d + n, h)
    if eol <= 0:
        return eol
    h.first_end = v + 8 + eol
    return 1


cdef int target_ok(Head *h) noexcept nogil:
    # The form must fit the method (RFC 9112 3.2); an absolute form must agree with Host.
    cdef const char *t = h.d + h.target
    cdef uint32_t n = h.target_len, i = 0, start, k
    cdef Header *x
    if t[0] == 47:
        return 0 if h.method == M_CONNECT else 1
    if h.method == M_CONNECT:
        return 1
    if t[0] == 42:
        return n == 1 and h.method == M_OPTIONS
    while i < n and t[i] != COLON:
        if TOKEN[<uint8_t>t[i]] == 0:
            return 0
        i += 1
    if i == 0 or n - i < 4 or memcmp(t + i, b"://", 3) != 0:
        return 0
    start = i + 3
    i = start
    while i < n and t[i] != 47 and t[i] != 63:
        if t[i] == 64:
            return 0
        i += 1
    if i == start:
        return 0
    for k in range(<uint32_t>h.count):
        x = &h.headers[k]
        if x.id == H_HOST:
            return same_authority(t + start, i - start, h.d + x.value, x.value_len)
    return 1


cdef bint same_authority(const char *a, uint32_t an, const char *b, uint32_t bn) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t p, q
    if an != bn:
        return 0
    for i in range(an):
        p = <uint8_t>a[i]
        q = <uint8_t>b[i]
        if p != q and (TOKEN[p] == 0 or TOKEN[p] != TOKEN[q]):
            return 0
    return 1


cdef int parse_request(Buf *b, Head *h, bint lax) noexcept nogil:
    cdef uint32_t at = b.p
    cdef int got
    while at < b.n and (b.d[at] == CR or b.d[at] == LF) and at - b.p < 8:
        # RFC 9112 2.2: empty lines before a request are skipped
        if b.d[at] == CR and at + 1 < b.n and b.d[at + 1] != LF:
            return HEAD_BAD
        at += 1
    clear_head(h, b.d, at)
    got = request_line(b, h)
    if got <= 0:
        return got
    got = parse_headers(b, h, h.first_end, 1)
    if got <= 0:
        return got
    if h.seen_coding and (h.minor == 0 or h.bare_lf):
        return HEAD_BAD
    if h.minor == 1 and not h.seen_host and not lax:
        return HEAD_BAD
    if not target_ok(h) and not lax:
        return HEAD_BAD
    return <int>(h.end - b.p)


cdef int parse_response(Buf *b, Head *h, bint lax) noexcept nogil:
    cdef char *d = b.d
    cdef uint32_t i = b.p, stop
    cdef int got, k
    clear_head(h, b.d, i)
    if b.n - i < 13:
        if b.n - i >= 5 and memcmp(d + i, b"HTTP/", 5) != 0:
            return HEAD_BAD
        return HEAD_MORE
    if version_at(d + i, 8, h) < 0 or d[i + 8] != SP:
        return HEAD_BAD
    for k in range(9, 12):
        if d[i + k] < 48 or d[i + k] > 57:
            return HEAD_BAD
        h.status = h.status * 10 + d[i + k] - 48
    if h.status < 100:
        return HEAD_BAD
    i += 12
    h.reason = i
    if d[i] == SP:
        h.reason = i + 1
    elif d[i] != CR and d[i] != LF:
        return HEAD_BAD
    stop = h.reason + <uint32_t>hk_value_end(d + h.reason, b.n - h.reason)
    h.reason_len = stop - h.reason
    got = line_end(d + stop, d + b.n, h)
    if got <= 0:
        return got
    h.first_end = stop + got
    got = parse_headers(b, h, h.first_end, 0)
    if got <= 0:
        return got
    if h.seen_coding and (h.minor == 0 or h.bare_lf):
        return HEAD_BAD
    return <int>(h.end - b.p)


# ---------------------------------------------------------------- bodies

cdef enum ChunkStage:
    CHUNK_SIZE = 0, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER

cdef enum:
    CHUNK_LINE_MAX = 1024   # bytes of a size line with its extensions, or of one trailer line's wait


cdef inline void keep(Buf *b, uint32_t count) noexcept nogil:
    # The next `count` unseen bytes are to be forwarded.
    if b.f != b.p:
        memmove(b.d + b.f, b.d + b.p, count)
    b.f += count
    b.p += count


cdef inline void take_data(Body *body, Buf *b) noexcept nogil:
    cdef uint64_t here = b.n - b.p
    if here > body.left:
        here = body.left
    keep(b, <uint32_t>here)
    body.left -= here
    body.seen += here


cdef int chunk_size(Body *body, Buf *b) noexcept nogil:
    # One size line as a whole. Extensions are checked and dropped (RFC 9112 7.1.1 lets a recipient ignore them).
    cdef uint32_t i = b.p, digits
    cdef uint64_t size = 0
    cdef uint32_t stop
    while i < b.n and HEX[<uint8_t>b.d[i]] != 255:
        if i - b.p >= 15:
            return BODY_BAD
        size = size * 16 + HEX[<uint8_t>b.d[i]]
        i += 1
    digits = i - b.p
    if i == b.n:
        return BODY_OPEN
    if digits == 0 or (b.d[i] != CR and b.d[i] != 59):
        return BODY_BAD
    stop = i + <uint32_t>hk_value_end(b.d + i, b.n - i)
    if stop - b.p > CHUNK_LINE_MAX:
        return BODY_BAD
    if stop + 1 >= b.n:
        return BODY_BAD if stop < b.n and b.d[stop] != CR else BODY_OPEN
    if b.d[stop] != CR or b.d[stop + 1] != LF:
        return BODY_BAD
    if body.strip:
        b.p = stop + 2
    elif stop == i:
        keep(b, stop + 2 - b.p)
    else:
        keep(b, digits)
        b.p = stop
        keep(b, 2)
    body.left = size
    body.stage = CHUNK_DATA if size else CHUNK_TRAILER
    return BODY_DONE


cdef int chunk_end(Body *body, Buf *b) noexcept nogil:
    if b.n - b.p < 2:
        return BODY_BAD if b.n > b.p and b.d[b.p] != CR else BODY_OPEN
    if b.d[b.p] != CR or b.d[b.p + 1] != LF:
        return BODY_BAD
    if body.strip:
        b.p += 2
    else:
        keep(b, 2)
    body.stage = CHUNK_SIZE
    return BODY_DONE


cdef int trailer_line(Body *body, Buf *b) noexcept nogil:
    # One trailer field, or the empty line that ends the message. Framing fields may not come here (RFC 9110 6.5.1).
    cdef Header x
    cdef Head scratch
    cdef int got
    if b.n - b.p < 2:
        return BODY_OPEN
    if b.d[b.p] == CR:
        if b.d[b.p + 1] != LF:
            return BODY_BAD
        if body.strip:
            b.p += 2
        else:
            keep(b, 2)
        body.done = 1
        return BODY_DONE
    scratch.bare_lf = 0
    got = one_header(b.d, b.p, b.n, &x, &scratch)
    if got < 0 or scratch.bare_lf:
        return BODY_BAD
    if got == 0:
        return BODY_OPEN if b.n - b.p < 8 * CHUNK_LINE_MAX else BODY_BAD
    if x.id == H_LENGTH or x.id == H_CODING or x.id == H_HOST or x.id == H_CONNECTION:
        return BODY_BAD
    body.left += x.line_end - b.p
    if body.left > 8 * CHUNK_LINE_MAX:
        return BODY_BAD
    if body.strip:
        b.p = x.line_end
    else:
        keep(b, x.line_end - b.p)
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
    keep(b, b.n - b.p)
    return BODY_OPEN


# ---------------------------------------------------------------- for tests and fuzzers

cdef class Sandbox:
    """One buffer of exactly the size of the data, so that a sanitizer sees every step too far."""

    cdef Buf b
    cdef Head h

    def __cinit__(self, bytes data):
        cdef uint32_t n = len(data)
        self.b.d = <char *>malloc(n if n else 1)
        if self.b.d == NULL:
            raise MemoryError
        memcpy(self.b.d, <char *>data, n)
        self.b.n = self.b.size = n

    def __dealloc__(self):
        free(self.b.d)

    cdef dict head(self, int length):
        cdef char *d = self.b.d
        cdef Header *x
        cdef int i
        out = {"size": length, "minor": self.h.minor, "status": self.h.status, "length": self.h.length,
               "body": ("none", "length", "chunked", "eof", "tunnel")[self.h.body], "headers": []}
        if self.h.status:
            out["reason"] = d[self.h.reason:self.h.reason + self.h.reason_len].decode("latin-1")
        else:
            out["method"] = d[self.h.start:self.h.start + self.h.method_len].decode("latin-1")
            out["target"] = d[self.h.target:self.h.target + self.h.target_len].decode("latin-1")
        for i in range(self.h.count):
            x = &self.h.headers[i]
            out["headers"].append((d[x.line:x.line + x.name_len].decode("latin-1"),
                                   d[x.value:x.value + x.value_len].decode("latin-1")))
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
    return box.b.d[:box.b.f], box.b.d[box.b.p:box.b.n]
