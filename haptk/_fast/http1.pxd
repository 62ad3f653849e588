# http1: heads and bodies of HTTP/1 messages, parsed in place and strictly (RFC 9112).
# A Head is a span of its own: its offsets count from its own first byte, wherever that lies in a buffer, and are used
# through the functions below only. It is valid until the buffer that was parsed moves. Header names are lower-cased in the
# buffer itself. One Head per worker suffices: it is used up before the next parse.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from haptk._fast.bytes.buf cimport Buf
from haptk._fast.bytes.span cimport Span, span_between, span_sub

cdef enum:
    HEADERS_MAX = 100       # one less than HAProxy's tune.http.maxhdr, which counts the empty line
    HEADERS_ADDED = 155     # so many more may rules add

cdef enum HeaderId:
    H_OTHER = 0, H_HOST, H_COOKIE, H_CONNECTION, H_LENGTH, H_CODING, H_EXPECT, H_UPGRADE, H_KEEP_ALIVE
    H_PROXY_CONNECTION, H_SET_COOKIE, H_SET_COOKIE2, H_CACHE_CONTROL, H_EXPIRES, H_ETAG, H_LAST_MODIFIED, H_PRAGMA

cdef enum Method:
    M_OTHER = 0, M_GET, M_HEAD, M_POST, M_PUT, M_DELETE, M_OPTIONS, M_TRACE, M_CONNECT, M_PATCH

cdef enum HeadResult:       # of the two head parsers; positive is the length of the head
    HEAD_MORE = 0
    HEAD_BAD = -1

cdef enum UpgradeTo:
    UP_NONE = 0, UP_OTHER, UP_WEBSOCKET

cdef enum BodyMode:
    BODY_NONE = 0, BODY_LENGTH, BODY_CHUNKED, BODY_EOF, BODY_TUNNEL

cdef enum BodyResult:
    BODY_OPEN = 0, BODY_DONE = 1, BODY_BAD = -1

# Offsets count from the beginning of Head.text, in a Head and in its Headers.
ctypedef struct Header:
    uint32_t line           # of the line, which is also that of the name
    uint32_t line_end       # after its line end
    uint32_t value
    uint32_t value_len      # without the blanks around it
    uint16_t name_len
    uint8_t id
    uint8_t canonical       # the line reads exactly "name: value CR LF", so runs of lines can be copied

ctypedef struct Head:
    Span text               # from its first byte on: the buffer that was parsed, or the room of the copy that rules edit
    uint8_t edited          # it is such a copy
    uint32_t start          # of the first line
    uint32_t first_end      # after the first line; 0 when rules have made another one
    uint32_t end            # after the empty line, as it came
    uint32_t target
    uint32_t target_len
    uint32_t version        # requests: offset of the version; responses: of the status; as they came
    uint32_t reason         # responses: offset of the reason phrase
    uint32_t reason_len
    uint16_t method_len
    uint8_t method
    uint8_t minor           # 0 or 1, of HTTP/1.x
    uint16_t fault          # of a request that is refused: the status that it gets instead of 400, or 0
    int status              # as it came
    int count
    # what the headers say, found while parsing
    uint8_t body            # BodyMode by the headers alone
    uint8_t conn_close
    uint8_t conn_keep
    uint8_t conn_upgrade
    uint8_t conn_other      # Connection names something else
    uint8_t expect
    uint8_t upgrade         # UpgradeTo
    uint8_t bare_lf
    uint8_t whole           # its end was seen before it was reached
    uint8_t lax             # parsed under accept-invalid-http-request or -response
    uint8_t cookies         # number of Cookie or Set-Cookie headers, at most 255
    uint8_t seen_host
    uint8_t seen_length
    uint8_t seen_coding
    uint64_t length
    Header headers[HEADERS_MAX + HEADERS_ADDED]

ctypedef struct Body:
    uint8_t mode
    uint8_t stage           # of the chunk parser
    uint8_t strip           # chunk framing is removed: the receiver speaks HTTP/1.0
    uint8_t done
    uint64_t left           # of the body or of the current chunk
    uint64_t seen           # body bytes so far

# Parse a request (response) head at b.p. Returns its length from b.p (empty lines before it included), HEAD_MORE or
# HEAD_BAD.
# `lax` (`option accept-invalid-http-request`, `-response`) accepts any printable byte and those beyond ASCII in names and
# targets, and a Host that is another than the target's. Changes bytes: names become lower case, a folded line becomes one
# line, an odd first line and a default port what everybody writes (Head.start tells where the line then begins).
cdef int parse_request(Buf *b, Head *h, bint lax) noexcept nogil
cdef int parse_response(Buf *b, Head *h, bint lax) noexcept nogil
# For headers that rules made: their id, and what Connection, Host, Upgrade and Expect say. note_host returns -1 for bytes
# that cannot stand in a Host, and for a second one.
cdef uint8_t header_id(Span name) noexcept nogil
cdef uint8_t method_id(Span method) noexcept nogil
cdef void note_connection(Head *h, Header *x) noexcept nogil
cdef int note_host(Head *h, Header *x) noexcept nogil
# Takes all lines of one HeaderId out of a head.
cdef void drop_lines(Head *h, uint8_t id) noexcept nogil
# Moves b.p and b.f over what can be forwarded of the body; BODY_DONE leaves b.p at the next message.
cdef int body_advance(Body *body, Buf *b) noexcept nogil


cdef inline Span head_name(Head *h, Header *x) noexcept nogil:
    return span_sub(h.text, x.line, x.name_len)


cdef inline Span head_value(Head *h, Header *x) noexcept nogil:
    return span_sub(h.text, x.value, x.value_len)


cdef inline Span head_method(Head *h) noexcept nogil:
    return span_sub(h.text, h.start, h.method_len)


cdef inline Span head_target(Head *h) noexcept nogil:
    return span_sub(h.text, h.target, h.target_len)


# "METHOD TARGET", with a blank between them
cdef inline Span head_asked(Head *h) noexcept nogil:
    return span_between(h.text, h.start, h.target + h.target_len)


# The request line without its end, as it came: only before any rule.
cdef inline Span head_line(Head *h) noexcept nogil:
    return span_between(h.text, h.start, h.target + h.target_len + 9)


cdef inline Span head_reason(Head *h) noexcept nogil:
    return span_sub(h.text, h.reason, h.reason_len)


# The three digits of the status, as rules have left them.
cdef inline Span head_status(Head *h) noexcept nogil:
    return span_sub(h.text, h.start + 9, 3)
