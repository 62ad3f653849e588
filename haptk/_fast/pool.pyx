# Sessions and links are on lists through their own fields; buffers are on a stack of pointers, so that giving one back
# does not touch its memory.

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from haptk._fast.bytes.buf cimport buf_give, buf_move, buf_take_back
from haptk._fast.state cimport BUFS_KEPT, BULK_KEPT, BULK_MOST, BULK_SIZE, SLIM_SIZE, SLIMS_KEPT, Census

cdef extern from "stdlib.h" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "malloc.h" nogil:
    int malloc_trim(size_t pad)

cdef enum:
    LINE = 64               # of the cache
    COLOURS = 16
    AT_REST = 8             # so few of anything are no reason to wake up
    OWED_MOST = 1048576     # so much freed memory is worth a look by malloc
    OWED_EVERY_MS = 5000    # which takes a moment


cdef int buf_get(Worker *w, Buf *b) noexcept nogil:
    cdef void *memory
    if w.free_buf_count:
        w.free_buf_count -= 1
        if w.free_buf_count < w.free_buf_low:
            w.free_buf_low = w.free_buf_count
        memory = w.free_bufs[w.free_buf_count]
    else:
        # sizes a few lines apart: buffers at equal distances of a power of two would share their cache sets
        w.colour = (w.colour + 5) % COLOURS
        memory = malloc(w.conf.bufsize + w.colour * LINE)
        if memory == NULL:
            return -1
    buf_give(b, memory, w.conf.bufsize)
    return 0


cdef inline void give_up(Worker *w, void *p, int size) noexcept nogil:
    free(p)
    w.owed += size


cdef void give_back(Worker *w, void *memory, uint32_t size) noexcept nogil:
    # To the stack of its size, or to the system where that is full.
    if size < <uint32_t>w.conf.bufsize:
        if w.slim_count < SLIMS_KEPT:
            w.free_slims[w.slim_count] = memory
            w.slim_count += 1
            return
    elif size > <uint32_t>w.conf.bufsize:
        if w.bulk_free_count < BULK_KEPT:
            w.bulk_free[w.bulk_free_count] = memory
            w.bulk_free_count += 1
            return
        w.bulk_count -= 1
    elif w.free_buf_count < BUFS_KEPT:
        w.free_bufs[w.free_buf_count] = memory
        w.free_buf_count += 1
        return
    give_up(w, memory, size)


cdef void buf_release(Worker *w, Buf *b) noexcept nogil:
    cdef uint32_t size = b.size
    give_back(w, buf_take_back(b), size)


cdef void buf_slim(Worker *w, Buf *b) noexcept nogil:
    cdef void *memory
    cdef Buf old = b[0]
    if b.n > SLIM_SIZE or b.size != <uint32_t>w.conf.bufsize or b.size <= SLIM_SIZE:
        return
    if w.slim_count:
        w.slim_count -= 1
        if w.slim_count < w.slim_low:
            w.slim_low = w.slim_count
        memory = w.free_slims[w.slim_count]
    else:
        memory = malloc(SLIM_SIZE)
        if memory == NULL:
            return
    buf_move(b, memory, SLIM_SIZE)
    buf_release(w, &old)


cdef void buf_grow(Worker *w, Buf *b) noexcept nogil:
    cdef void *memory
    if b.size >= BULK_SIZE or b.r != b.f or b.p != b.n or w.conf.bufsize >= BULK_SIZE:
        return
    if w.bulk_free_count:
        w.bulk_free_count -= 1
        memory = w.bulk_free[w.bulk_free_count]
    elif w.bulk_count < BULK_MOST:
        memory = malloc(BULK_SIZE)
        if memory == NULL:
            return
        w.bulk_count += 1
    else:
        return
    buf_drop(w, b)
    buf_give(b, memory, BULK_SIZE)


cdef void trim_structures(Worker *w) noexcept nogil:
    # Sessions and links, as the buffers below.
    cdef int surplus = w.free_session_low // 2
    cdef Session *s
    cdef Link *l
    while surplus > 0 and w.free_sessions != NULL:
        s = w.free_sessions
        w.free_sessions = s.next
        w.free_session_count -= 1
        give_up(w, s, sizeof(Session))
        surplus -= 1
    w.free_session_low = w.free_session_count
    surplus = w.free_link_low // 2
    while surplus > 0 and w.free_links != NULL:
        l = w.free_links
        w.free_links = l.next
        w.free_link_count -= 1
        give_up(w, l, sizeof(Link))
        surplus -= 1
    w.free_link_low = w.free_link_count


cdef void pool_trim(Worker *w) noexcept nogil:
    # What lay unused during the whole last period is a peak that has passed: half of it goes back to malloc, and when
    # that has come to an end malloc gives its own back to the system.
    cdef int surplus = w.free_buf_low // 2
    cdef int64_t before = w.owed
    while surplus > 0 and w.free_buf_count > 0:
        w.free_buf_count -= 1
        give_up(w, w.free_bufs[w.free_buf_count], w.conf.bufsize)
        surplus -= 1
    w.free_buf_low = w.free_buf_count
    surplus = w.slim_low // 2
    while surplus > 0 and w.slim_count > 0:
        w.slim_count -= 1
        give_up(w, w.free_slims[w.slim_count], SLIM_SIZE)
        surplus -= 1
    w.slim_low = w.slim_count
    if w.bulk_free_count:
        w.bulk_free_count -= 1
        w.bulk_count -= 1
        give_up(w, w.bulk_free[w.bulk_free_count], BULK_SIZE)
    trim_structures(w)
    if w.owed >= OWED_MOST and w.owed - before < OWED_MOST and w.now - w.owed_ms >= OWED_EVERY_MS:
        malloc_trim(0)
        w.owed = 0
        w.owed_ms = w.now


cdef bint pool_rests(Worker *w) noexcept nogil:
    return w.free_buf_count <= AT_REST and w.slim_count <= AT_REST and w.bulk_free_count == 0 and \
        w.free_session_count <= AT_REST and w.free_link_count <= AT_REST and w.owed < OWED_MOST


cdef Session *session_new(Worker *w) noexcept nogil:
    cdef Session *s = w.free_sessions
    if s != NULL:
        w.free_sessions = s.next
        w.free_session_count -= 1
        if w.free_session_count < w.free_session_low:
            w.free_session_low = w.free_session_count
    else:
        s = <Session *>aligned_alloc(LINE, (sizeof(Session) + LINE - 1) // LINE * LINE)
        if s == NULL:
            return NULL
    memset(s, 0, sizeof(Session))
    s.all_next = w.all
    if w.all != NULL:
        w.all.all_prev = s
    w.all = s
    w.session_count += 1
    return s


cdef Link *link_new(Worker *w) noexcept nogil:
    cdef Link *l = w.free_links
    if l != NULL:
        w.free_links = l.next
        w.free_link_count -= 1
        if w.free_link_count < w.free_link_low:
            w.free_link_low = w.free_link_count
    else:
        l = <Link *>malloc(sizeof(Link))
        if l == NULL:
            return NULL
    memset(l, 0, sizeof(Link))
    w.link_count += 1
    return l


cdef void session_free(Worker *w, Session *s) noexcept nogil:
    if s.all_prev != NULL:
        s.all_prev.all_next = s.all_next
    else:
        w.all = s.all_next
    if s.all_next != NULL:
        s.all_next.all_prev = s.all_prev
    if w.census != NULL and (<Census *>w.census).cursor == s:
        (<Census *>w.census).cursor = s.all_next
    s.next = w.dead_sessions
    w.dead_sessions = s
    w.session_count -= 1


cdef void link_free(Worker *w, Link *l) noexcept nogil:
    l.next = w.dead_links
    w.dead_links = l
    w.link_count -= 1


cdef void reap(Worker *w) noexcept nogil:
    cdef Session *s
    cdef Link *l
    while w.dead_sessions != NULL:
        s = w.dead_sessions
        w.dead_sessions = s.next
        s.next = w.free_sessions
        w.free_sessions = s
        w.free_session_count += 1
    while w.dead_links != NULL:
        l = w.dead_links
        w.dead_links = l.next
        l.next = w.free_links
        w.free_links = l
        w.free_link_count += 1


cdef void pool_close(Worker *w) noexcept nogil:
    cdef Session *s
    cdef Link *l
    reap(w)
    while w.free_buf_count:
        w.free_buf_count -= 1
        free(w.free_bufs[w.free_buf_count])
    while w.slim_count:
        w.slim_count -= 1
        free(w.free_slims[w.slim_count])
    while w.bulk_free_count:
        w.bulk_free_count -= 1
        free(w.bulk_free[w.bulk_free_count])
    while w.free_sessions != NULL:
        s = w.free_sessions
        w.free_sessions = s.next
        free(s)
    while w.free_links != NULL:
        l = w.free_links
        w.free_links = l.next
        free(l)
