# logline: the text of one log line, from a session at the end of its transaction (or before, see LogMoment).

from libc.stdint cimport int64_t, uint32_t, uint64_t

from haptk._fast.bytes.span cimport Room
from haptk._fast.facts cimport Seen
from haptk._fast.program cimport FormatC
from haptk._fast.state cimport BackendC, Calendar, Session, Worker

ctypedef struct Told:       # what a line says that the session alone does not
    Worker *w
    Session *s
    BackendC *backend       # NULL while none was chosen
    int bare                # there was no request that could be understood
    int early               # growing values carry a +
    int ended               # the transaction is over
    int lines               # of the frontend so far
    int64_t end_ms
    uint64_t down           # bytes to the client
    Seen *seen              # what a rule sees that has the format carried out; NULL for a log line
    int asking              # the request is being processed: its time and size are unknown
    int naming              # the unique id is being made: a %ID inside it is empty
    int cut                 # the text did not fit

# What is known of a session now; the caller fills in the rest.
cdef void log_tell(Worker *w, Session *s, Told *x) noexcept nogil
# Append; what does not fit is cut, a number is left out whole.
cdef void log_text(Told *x, FormatC *f, Room *out) noexcept nogil
# HAProxy's line for a frontend without a format.
cdef void log_plain(Told *x, Room *out) noexcept nogil
# The line for a connection whose PROXY header failed; `why` is HAProxy's sentence.
cdef void log_refused(Told *x, const char *why, Room *out) noexcept nogil
# Unix time in us of a moment of the worker's clock.
cdef int64_t log_wall_us(Calendar *calendar, int64_t now_ms, int64_t at_ms) noexcept nogil
