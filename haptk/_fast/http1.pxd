# http1: heads and bodies of HTTP/1 messages, parsed in place and strictly (RFC 9112).
# A Head holds offsets into the buffer that was parsed; it is valid until that buffer moves. Header names are
# lower-cased in the buffer itself. One Head per worker suffices: it is used up before the next parse.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    HEADERS_MAX = 101       # HAProxy's tune.http.maxhdr
    HEADERS_ADDED = 155     # so many more may rules add

cdef enum HeaderId:
    H_OTHER = 0, H_HOST, H_COOKIE, H_CONNECTION, H_LENGTH, H_CODING, H_EXPECT, H_UPGRADE, H_KEEP_ALIVE
    H_PROXY_CONNECTION, H_SET_COOKIE, H_SET_COOKIE2, H_CACHE_CONTROL, H_EXPIRES, H_ETAG, H_LAST_MODIFIED, H_PRAGMA

cdef enum Method:
    M_OTHER = 0, M_GET, M_HEAD, M_POST, M_PUT, M_DELETE, M_OPTIONS, M_TRACE, M_CONNECT, M_PATCH

cdef enum HeadResult:       # of the two head parsers; positive is the length of the head
    HEAD_MORE = 0
    HEAD_BAD = -1

cdef enum BodyMode:
    BODY_NONE = 0, BODY_LENGTH, BODY_CHUNKED, BODY_EOF, BODY_TUNNEL

cdef enum BodyResult:
    BODY_OPEN = 0, BODY_DONE = 1, BODY_BAD = -1

ctypedef struct Header:
    uint32_t line           # offset of the line, which is also that of the name
    uint32_t line_end       # offset after its line end
    uint32_t value
    uint32_t value_len      # without the blanks around it
    uint16_t name_len
    uint8_t id
    uint8_t canonical       # the line reads exactly "name: value CR LF", so runs of lines can be copied

ctypedef struct Head:
    char *d                 # what the offsets count from: the buffer that was parsed, or the copy that rules edit
    uint32_t start          # of the first line (after empty lines before a request)
    uint32_t first_end      # after the first line
    uint32_t end            # after the empty line
    uint32_t target
    uint32_t target_len
    uint32_t reason         # responses: offset of the reason phrase
    uint32_t reason_len
    uint16_t method_len
    uint8_t method
    uint8_t minor           # 0 or 1, of HTTP/1.x
    int status
    int count
    # what the headers say, found while parsing
    uint8_t body            # BodyMode by the headers alone
    uint8_t conn_close
    uint8_t conn_keep
    uint8_t conn_upgrade
    uint8_t conn_other      # Connection names something else
    uint8_t expect
    uint8_t upgrade
    uint8_t bare_lf
    uint8_t cookies         # number of Cookie or Set-Cookie headers, at most 255
    uint8_t seen_host
    uint8_t seen_length
    uint8_t seen_coding
    uint64_t length
    Header headers[HEADERS_MAX + HEADERS_ADDED]

# Bytes on their way through: d[r:f) may be written, d[p:n) has not been looked at, and d[f:p) is framing that was
# dropped. r <= f <= p <= n <= size. The owner is the session; d comes from the worker's pool, NULL when none is held.
ctypedef struct Buf:
    char *d
    uint32_t r
    uint32_t f
    uint32_t p
    uint32_t n
    uint32_t size

ctypedef struct Body:
    uint8_t mode
    uint8_t stage           # of the chunk parser
    uint8_t strip           # chunk framing is removed: the receiver speaks HTTP/1.0
    uint8_t done
    uint64_t left           # of the body or of the current chunk
    uint64_t seen           # body bytes so far

# Parse a request (response) head at b.p. Returns its length from b.p, HEAD_MORE or HEAD_BAD.
# `lax` accepts what `option accept-invalid-http-request` names. Changes bytes only by lower-casing names.
cdef int parse_request(Buf *b, Head *h, bint lax) noexcept nogil
cdef int parse_response(Buf *b, Head *h, bint lax) noexcept nogil
# For headers that rules made: their id, and what Connection, Host, Upgrade and Expect say. note_host returns -1 for bytes
# that cannot stand in a Host, and for a second one.
cdef uint8_t header_id(const char *name, size_t n) noexcept nogil
cdef uint8_t method_id(const char *p, size_t n) noexcept nogil
cdef void note_connection(char *d, Header *x, Head *h) noexcept nogil
cdef int note_host(char *d, Header *x, Head *h) noexcept nogil
# 1 when the request's target fits its method and its Host.
cdef int target_ok(Head *h) noexcept nogil
# Moves b.p and b.f over what can be forwarded of the body; BODY_DONE leaves b.p at the next message.
cdef int body_advance(Body *body, Buf *b) noexcept nogil
