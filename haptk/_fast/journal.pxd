# journal: what is noted when a transaction ends. The worker writes records into a ring of its own without a lock; the
# control plane reads them and makes log lines of them. A full ring drops records and counts them.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from haptk._fast.http1 cimport Head
from haptk._fast.state cimport Session, Worker

cdef enum:
    RING_SIZE = 1048576
    LINE_MAX = 1024         # of the request line, HAProxy's default for a log line

ctypedef struct Note:       # one record; `line_len` bytes of the request line and `items_len` of captures follow, padded to 8
    uint32_t size           # 0: the writer went back to the beginning
    int32_t frontend
    int32_t server          # gid, -1 for none
    int32_t backend         # index, -1 for none
    int32_t status
    int64_t accepted_ms     # all of the worker's monotonic clock
    int64_t started_ms
    int64_t request_ms      # 0: not reached, as for the two below
    int64_t queue_ms
    int64_t connect_ms
    int64_t response_ms
    int64_t end_ms
    uint64_t bytes_down
    uint64_t bytes_up
    int32_t retries
    int32_t actives
    int32_t backend_active
    int32_t server_active
    uint8_t redispatched
    uint8_t peer_family
    uint16_t peer_port
    uint8_t flags[4]
    char peer[46]
    uint16_t line_len
    uint16_t items_len

# Keep the first line of the request that was just parsed, if the frontend logs.
cdef void note_request(Worker *w, Session *s, Head *h) noexcept nogil
# Store what was captured for a slot behind that line; dropped where there is no room for it.
cdef void keep_item(Worker *w, Session *s, int slot, const char *p, uint32_t n) noexcept nogil
# s.status, s.cause, s.at and the cookie letters are final. Counts in any case, records where the frontend logs.
cdef void note_end(Worker *w, Session *s) noexcept nogil
# All records that are there, as tuples in the order of Note's fields; from the control plane's thread.
cdef list take_notes(Worker *w)
