# facts: what rules can see of an exchange, read in place from the heads. Samples
# point into the heads, the configuration or the room of Seen; they are valid until the next edit or the next sample.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from haptk._fast.http1 cimport Head
from haptk._fast.program cimport ExprC, Text
from haptk._fast.state cimport Session, Worker

cdef enum:
    ROOM_SIZE = 65536       # for what converters make, per sample

cdef enum SampleKind:
    S_STR = 0, S_INT, S_BOOL, S_ADDR

ctypedef struct Sample:
    int kind
    const char *p           # S_STR
    uint32_t n
    int64_t v               # S_INT, S_BOOL
    int family              # S_ADDR
    uint8_t address[16]

ctypedef struct Seen:       # one call's view; on the stack of who evaluates
    Worker *w
    Session *s
    Head *req               # NULL once the response is there
    Head *res               # NULL before
    Text line               # the request line as the client sent it, for format variables; p NULL where unknown
    uint32_t used           # of w.room

ctypedef struct Cursor:     # where an expression with several samples stands; zeroed before the first
    int header
    uint32_t at
    uint32_t value
    uint32_t value_len
    uint32_t part           # of a cookie line between commas
    uint32_t part_len
    uint32_t part_at
    uint8_t in_part
    uint8_t inside          # a value whose rest may hold more
    uint8_t last            # no further sample

# The next sample of a fetch, as ACLs go through them, without converters. 0 when there is none.
cdef bint fetch_next(Seen *x, ExprC *e, Cursor *c, Sample *out) noexcept nogil
# The one sample that formats take, without converters: the last occurrence, of url_param the first.
cdef bint fetch_last(Seen *x, ExprC *e, Sample *out) noexcept nogil
cdef bint as_text(Seen *x, Sample *v) noexcept nogil
cdef bint as_int(Sample *v) noexcept nogil
# Path and query of a request target; 0 when there is none. Offsets into t.
cdef bint path_in(const char *t, uint32_t n, uint32_t *start, uint32_t *end) noexcept nogil
cdef bint query_in(const char *t, uint32_t n, uint32_t *start) noexcept nogil
# Bytes of w.room, NULL when it is used up.
cdef char *room_take(Seen *x, uint32_t n) noexcept nogil
# A text that is an address becomes one; 0 for any other.
cdef bint address_of(Sample *v) noexcept nogil
