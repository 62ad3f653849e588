# journal: log lines on their way from a worker to the log writer. The worker composes each line into a lane of its own,
# without a lock; the writer's thread sends them. A full lane drops lines and counts them.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from haptk._fast.bytes.span cimport Span
from haptk._fast.http1 cimport Head
from haptk._fast.state cimport LogLane, Session, Worker

cdef enum:
    LANE_SIZE = 1048576
    URI_MAX = 1023          # of the request line, HAProxy's tune.http.logurilen without its NUL

ctypedef struct Record:     # `structured` bytes for rfc5424 and `length` bytes of the line follow, padded to 8
    uint32_t size           # of all of it; 0: the writer went back to the beginning
    uint16_t plan           # index of the frontend
    uint8_t level           # of syslog
    uint32_t structured
    uint32_t length
    int64_t wall_us         # Unix time

# Keep the first line of the request that was just parsed, where somebody asks for it later.
cdef void note_request(Worker *w, Session *s, Head *h) noexcept nogil
# The response's head goes out (HTTP) or the server is connected (TCP): the moment of lines that need not wait.
cdef void note_response(Worker *w, Session *s) noexcept nogil
# Make the unique id of this request and keep it; none where there is no room.
cdef Span make_id(Worker *w, Session *s) noexcept nogil
# The connection to the server is about to be closed: keep its two ends, where a line names them.
cdef void note_link(Worker *w, Session *s) noexcept nogil
# s.status, s.cause, s.at and the cookie letters are final. Counts in any case, writes where the frontend logs.
cdef void note_end(Worker *w, Session *s) noexcept nogil
# The PROXY header was none, or never came (`late`: in time).
cdef void note_refused(Worker *w, Session *s, bint late) noexcept nogil
# A lane, NULL without memory.
cdef LogLane *lane_open() noexcept nogil
cdef void lane_close(LogLane *lane) noexcept nogil
# The reader's side: the next record, NULL when there is none; `at` begins with lane.tail and is moved behind it.
cdef Record *lane_next(LogLane *lane, int *at) noexcept nogil
