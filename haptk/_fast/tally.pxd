# tally: what each frontend, backend and server did, counted as HAProxy's `show stat` counts it. Each worker counts for
# itself; the control plane adds the workers up. A Tally belongs to its worker, the control plane only reads it (and
# puts the highest values back to zero). Every transaction is opened once and closed once, so in any frontend
# requests = answers by class + those that are open.

from libc.stdint cimport uint32_t, uint64_t

from haptk._fast.bytes.span cimport Span
from haptk._fast.http1 cimport Head
from haptk._fast.state cimport Rate, ServerC, SharedRate, Session, Tally, Worker

# A connection was accepted; `open_now` is how many the frontend has, this one included.
cdef void tally_accept(Worker *w, Session *s, int open_now) noexcept nogil
# It may speak: at once, or once its PROXY header is there.
cdef void tally_session(Worker *w, Session *s) noexcept nogil
# What HAProxy counts of a head as it was received, and of an answer of our own as it is sent.
cdef uint32_t weight_of(Head *h) noexcept nogil
cdef uint32_t weight_of_text(Span text) noexcept nogil
# Bytes to the client, as %B and bout have them.
cdef uint64_t bytes_out(Session *s) noexcept nogil
# A request (or what was to be one) was received; `head` is its weight.
cdef void tally_request(Worker *w, Session *s, uint32_t head) noexcept nogil
# s.backend was chosen.
cdef void tally_backend(Worker *w, Session *s) noexcept nogil
# s.server was chosen by the balancing, not by a cookie.
cdef void tally_balanced(Worker *w, Session *s) noexcept nogil
# s takes a connection to s.server; `open_now` is what take_slot() found.
cdef void tally_server(Worker *w, Session *s) noexcept nogil
cdef void tally_slot(Worker *w, Session *s, int open_now) noexcept nogil
# s waits in the queue of its server (`bound`) or backend.
cdef void tally_queued(Worker *w, Session *s, bint bound) noexcept nogil
cdef void tally_retry(Worker *w, Session *s) noexcept nogil
# `left` is the server that failed.
cdef void tally_redispatch(Worker *w, Session *s, ServerC *left) noexcept nogil
# A final response of a server that is not asked for again.
cdef void tally_answer(Worker *w, Session *s, int status) noexcept nogil
# A rule refused the request (the response).
cdef void tally_denied(Worker *w, Session *s, bint response) noexcept nogil
# A tunnel goes on: say what went through since the last time.
cdef void tally_bytes(Worker *w, Session *s) noexcept nogil
# The transaction is over; s.status, s.cause and s.at are final. Does nothing when none is open.
cdef void tally_end(Worker *w, Session *s) noexcept nogil

# The sums over `count` workers of the Tally at the same place, in the order of proxy/tally.py's Tally.
# `rate` and `requests` are what several workers counted together, NULL for none. `live`, `queued`, `idle` and `used` are
# what is there now; they are passed through.
cdef tuple add_up(Tally **parts, int count, long long now, SharedRate *rate, SharedRate *requests, int live, int queued,
                  int idle, int used)
# `clear counters`: the highest values (`all`: everything) of this worker back to zero; called by the worker itself.
cdef void tally_clear(Worker *w, bint everything) noexcept nogil
