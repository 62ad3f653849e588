# An event replaces the one before it in its place, whose memory is used again where it is large enough.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from haptk._fast.bytes.buf cimport Buf, buf_held, buf_part
from haptk._fast.bytes.span cimport (Room, room_close, room_cut, room_len, room_open, room_put, room_size, room_span,
                                     span_bytes)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *lock, void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *lock)
    int pthread_mutex_unlock(pthread_mutex_t *lock)

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_REALTIME
    int clock_gettime(int clock, timespec *t)

ctypedef struct FaultC:
    int other
    int server
    uint64_t event
    int64_t wall_ms
    int src_port
    int src_len
    char src[46]
    int at                  # where the reader stood in the body, -1 when the head is wrong
    Room text               # what came

cdef pthread_mutex_t lock
cdef uint64_t events = 0
pthread_mutex_init(&lock, NULL)


cdef FaultC *place_for(void **where, uint32_t n) noexcept nogil:
    cdef FaultC *x = <FaultC *>where[0]
    if x == NULL:
        where[0] = x = <FaultC *>calloc(1, sizeof(FaultC))
        if x == NULL:
            return NULL
    if room_size(&x.text) < n:
        room_close(&x.text)
        if room_open(&x.text, n) < 0:
            return NULL
    return x


cdef void drop(FaultC *x) noexcept nogil:
    if x != NULL:
        room_close(&x.text)
    free(x)


cdef void fill(FaultC *x, Session *s, Buf *b, uint32_t start, bint body) noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    x.event = events
    x.wall_ms = <int64_t>now.tv_sec * 1000 + now.tv_nsec // 1000000
    x.src_port, x.src_len = s.peer.port, s.peer.text_len
    x.src = s.peer.text
    x.at = <int>(b.p - start) if body else -1
    room_cut(&x.text, 0)
    room_put(&x.text, buf_part(b, start, b.n))


cdef void fault_request(Worker *w, Session *s, bint body) noexcept nogil:
    global events
    cdef uint32_t start = s.rx.r if body else s.rx.p
    cdef FaultC *x
    if not buf_held(&s.rx) or s.rx.n <= start:
        return
    pthread_mutex_lock(&lock)
    x = place_for(&w.conf.request_faults[s.frontend.index], s.rx.n - start)
    if x != NULL:
        x.other = s.backend.index if body and s.backend != NULL else -1
        x.server = -1
        fill(x, s, &s.rx, start, body)
    events += 1
    pthread_mutex_unlock(&lock)


cdef void fault_response(Worker *w, Session *s) noexcept nogil:
    global events
    cdef uint32_t start = s.sx.r if s.head_done else s.sx.p
    cdef FaultC *x
    if not buf_held(&s.sx) or s.sx.n <= start:
        return
    pthread_mutex_lock(&lock)
    x = place_for(&w.conf.response_faults[s.backend.index], s.sx.n - start)
    if x != NULL:
        x.other = s.frontend.index
        x.server = s.server.gid if s.server != NULL else -1
        fill(x, s, &s.sx, start, s.head_done)
    events += 1
    pthread_mutex_unlock(&lock)


cdef tuple one(FaultC *x, bint response, int proxy):
    return (
        bool(response), proxy, x.other, x.server, x.event, x.wall_ms / 1000, x.src[:x.src_len].decode("ascii"), x.src_port,
        x.at, span_bytes(room_span(&x.text)),
    )


cdef FaultC *copied(void **where) noexcept nogil:
    # Workers wait for the lock, so nothing of Python's happens under it.
    cdef FaultC *x
    cdef FaultC *out = NULL
    pthread_mutex_lock(&lock)
    x = <FaultC *>where[0]
    if x != NULL:
        out = <FaultC *>malloc(sizeof(FaultC))
        if out != NULL:
            out[0] = x[0]
            if room_open(&out.text, room_len(&x.text)) < 0:
                free(out)
                out = NULL
            else:
                room_put(&out.text, room_span(&x.text))
    pthread_mutex_unlock(&lock)
    return out


cdef int gather(list out, void **places, int count, bint response) except -1:
    cdef int i
    cdef FaultC *x
    for i in range(count):
        x = copied(&places[i])
        if x != NULL:
            try:
                out.append(one(x, response, i))
            finally:
                drop(x)
    return 0


cdef tuple faults_of(Conf *conf):
    cdef list out = []
    cdef uint64_t total
    pthread_mutex_lock(&lock)
    total = events
    pthread_mutex_unlock(&lock)
    gather(out, conf.request_faults, conf.frontend_count, 0)
    gather(out, conf.response_faults, conf.backend_count, 1)
    return total, out


cdef void faults_free(Conf *conf) noexcept nogil:
    cdef int i
    for i in range(conf.frontend_count):
        if conf.request_faults != NULL:
            drop(<FaultC *>conf.request_faults[i])
    for i in range(conf.backend_count):
        if conf.response_faults != NULL:
            drop(<FaultC *>conf.response_faults[i])
