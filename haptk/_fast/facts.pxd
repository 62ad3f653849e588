# facts: what rules can see of an exchange, read in place from the heads. Samples
# point into the heads, the configuration or Worker.made; they are valid until the next edit or the next sample.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from haptk._fast.bytes.span cimport Span, room_cut
from haptk._fast.http1 cimport Head
from haptk._fast.program cimport ExprC
from haptk._fast.state cimport Session, Worker

cdef enum:
    MADE_SIZE = 65536       # of Worker.made: for what converters make, per sample

cdef enum SampleKind:
    S_STR = 0, S_INT, S_BOOL, S_ADDR

ctypedef struct Sample:
    int kind
    Span text               # S_STR
    int64_t v               # S_INT, S_BOOL
    int family              # S_ADDR
    uint8_t address[16]

ctypedef struct Seen:       # one call's view; on the stack of who evaluates
    Worker *w
    Session *s
    Head *req               # NULL once the response is there
    Head *res               # NULL before
    bint replaced           # the body of our reply to it is made: HAProxy has thrown the response away by then
    Span line               # the request line as the client sent it, for format variables; none where unknown

ctypedef struct Cursor:     # where an expression with several samples stands; zeroed before the first
    int header
    uint32_t at
    uint32_t part_at
    Span value
    Span part               # of a cookie line between commas
    uint8_t in_part
    uint8_t inside          # a value whose rest may hold more
    uint8_t last            # no further sample

# Before each sample: what the one before was made of goes.
cdef inline void sample_begin(Seen *x) noexcept nogil:
    room_cut(&x.w.made, 0)


cdef inline bint is_text(Sample *out, Span text) noexcept nogil:
    out.kind = S_STR
    out.text = text
    return 1


cdef inline bint is_int(Sample *out, int64_t v) noexcept nogil:
    out.kind = S_INT
    out.v = v
    return 1


# The next sample of a fetch, as ACLs go through them, without converters. 0 when there is none.
cdef bint fetch_next(Seen *x, ExprC *e, Cursor *c, Sample *out) noexcept nogil
# The one sample that formats take, without converters: the last occurrence, of url_param the first.
cdef bint fetch_last(Seen *x, ExprC *e, Sample *out) noexcept nogil
cdef bint as_text(Seen *x, Sample *v) noexcept nogil
cdef bint as_int(Sample *v) noexcept nogil
# Path and query of a request target; 0 when there is none. Offsets into t.
cdef bint path_in(Span t, uint32_t *start, uint32_t *end) noexcept nogil
cdef bint query_in(Span t, uint32_t *start) noexcept nogil
# What was appended to x.w.made since its length was `mark` is the text of v; 0 when some of it was refused.
cdef bint made_text(Seen *x, uint32_t mark, Sample *v) noexcept nogil
# A text that is an address becomes one; 0 for any other.
cdef bint address_of(Sample *v) noexcept nogil
# The name of a method that HAProxy knows; not given for any other.
cdef Span method_name(int method) noexcept nogil
