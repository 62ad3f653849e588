# One writer and one reader: the writer publishes by storing the head after the record, the reader frees by storing the
# tail after it has copied. Both indices stay below RING_SIZE; the ring is empty when they are equal.

from libc.string cimport memcpy

from haptk._fast.pool cimport buf_take
from haptk._fast.scan cimport hk_acquire, hk_load, hk_release
from haptk._fast.state cimport CK_INSERT, CK_PREFIX, CK_REWRITE, BackendC
from haptk._fast.tally cimport tally_end


cdef void note_request(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef uint32_t n = h.first_end - h.start
    if (s.frontend.log == 0 and s.frontend.capture_count == 0) or buf_take(w, &s.line) < 0:
        return
    while n and (s.rx.d[h.start + n - 1] == 13 or s.rx.d[h.start + n - 1] == 10):
        n -= 1
    if n > LINE_MAX:
        n = LINE_MAX
    memcpy(s.line.d, s.rx.d + h.start, n)
    s.line.n = s.line_len = n


cdef void keep_item(Worker *w, Session *s, int slot, const char *p, uint32_t n) noexcept nogil:
    cdef uint16_t size
    cdef uint32_t at = s.line.n
    if s.line.d == NULL or s.line.size - at < 3 or s.line.size - at - 3 < n or n > 0xffff:
        return
    size = <uint16_t>n
    s.line.d[at] = <char>slot
    memcpy(s.line.d + at + 1, &size, 2)
    memcpy(s.line.d + at + 3, p, n)
    s.line.n = at + 3 + n


cdef char *reserve(Worker *w, uint32_t size) noexcept nogil:
    # A contiguous place for `size` bytes, or NULL. w.log_head is moved by publish().
    cdef int head = hk_load(&w.log_head), tail = hk_acquire(&w.log_tail)
    if head >= tail:
        if head + <int>size < RING_SIZE:
            return w.log + head
        if <int>size >= tail:
            return NULL
        (<uint32_t *>(w.log + head))[0] = 0
        hk_release(&w.log_head, 0)
        return w.log
    return w.log + head if head + <int>size < tail else NULL


cdef void counts(Session *s, Note *x) noexcept nogil:
    cdef BackendC *be = s.backend
    cdef int i
    x.backend_active = x.server_active = 0
    if be == NULL:
        return
    for i in range(be.count):
        x.backend_active += hk_load(&be.servers[i].live.sessions)
    if s.server != NULL:
        x.server_active = hk_load(&s.server.live.sessions) - s.counted
    x.backend_active -= s.counted       # HAProxy has left the server when it writes the line


cdef void note_end(Worker *w, Session *s) noexcept nogil:
    cdef uint32_t all_of_it = s.line.n if s.line.d != NULL else 0
    cdef uint32_t size = (sizeof(Note) + all_of_it + 7) & ~<uint32_t>7
    cdef Note *x
    tally_end(w, s)
    if s.frontend.log == 0 or s.unlogged:
        return
    x = <Note *>reserve(w, size)
    if x == NULL:
        w.counters.log_dropped += 1
        return
    x.size = size
    x.frontend = s.frontend.index
    # -2 and below: answered by a service, -1 - ServiceId
    x.server = -1 - s.service if s.service else s.server.gid if s.server != NULL else -1
    x.backend = s.backend.index if s.backend != NULL else -1
    x.status = s.status
    x.accepted_ms, x.started_ms, x.request_ms = s.accepted_ms, s.started_ms, s.request_ms
    x.queue_ms, x.connect_ms, x.response_ms, x.end_ms = s.queue_ms, s.connect_ms, s.response_ms, w.now
    x.bytes_down, x.bytes_up = s.bytes_down, s.up.seen
    x.retries = s.backend.retries - s.retries_left if s.backend != NULL else 0
    x.redispatched = s.redispatched
    x.actives = w.session_count
    counts(s, x)
    x.peer_family, x.peer_port = <uint8_t>s.peer.family, s.peer.port
    memcpy(x.peer, s.peer.text, 46)
    x.flags[0], x.flags[1] = s.cause or 45, s.at or 45
    # a cookie without a mode is only read, and HAProxy logs nothing about it
    if s.backend != NULL and s.backend.cookie & (CK_INSERT | CK_PREFIX | CK_REWRITE) and s.request_ms:
        x.flags[2], x.flags[3] = s.ck_request, s.ck_response
    else:
        x.flags[2] = x.flags[3] = 45
    x.line_len = <uint16_t>s.line_len if all_of_it else 0
    x.items_len = <uint16_t>(all_of_it - x.line_len)
    if all_of_it:
        memcpy(<char *>x + sizeof(Note), s.line.d, all_of_it)
    hk_release(&w.log_head, <int>(<char *>x - w.log) + <int>size)


cdef tuple as_tuple(Note *x):
    return (
        x.frontend, x.server, x.status, x.accepted_ms, x.started_ms, x.request_ms, x.queue_ms, x.connect_ms,
        x.response_ms, x.end_ms, x.bytes_down, x.bytes_up, x.retries, x.actives, x.backend_active, x.server_active,
        bool(x.redispatched), x.peer_family, x.peer_port, (<char *>x.flags)[:4].decode("ascii"),
        (<bytes>x.peer).decode("ascii"), (<char *>x + sizeof(Note))[:x.line_len].decode("latin-1"), x.backend,
        (<char *>x + sizeof(Note))[x.line_len:x.line_len + x.items_len],
    )


cdef list take_notes(Worker *w):
    cdef list out = []
    cdef int head, tail
    cdef Note *x
    if w.log == NULL:
        return out
    head = hk_acquire(&w.log_head)
    tail = hk_load(&w.log_tail)
    while tail != head:
        x = <Note *>(w.log + tail)
        if x.size == 0:
            tail = 0
            continue
        out.append(as_tuple(x))
        tail += <int>x.size
    hk_release(&w.log_tail, tail)
    return out
