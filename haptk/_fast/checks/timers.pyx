# Each check stands in the heap at most once and knows its place, so that a new time moves it.


cdef inline void put(EngineC *e, CheckC *c, int at) noexcept nogil:
    e.heap[at] = c
    c.place = at


cdef void rise(EngineC *e, CheckC *c, int at) noexcept nogil:
    cdef int up
    while at > 0:
        up = (at - 1) // 2
        if e.heap[up].due <= c.due:
            break
        put(e, e.heap[up], at)
        at = up
    put(e, c, at)


cdef void sink(EngineC *e, CheckC *c, int at) noexcept nogil:
    cdef int down
    while True:
        down = 2 * at + 1
        if down >= e.heap_n:
            break
        if down + 1 < e.heap_n and e.heap[down + 1].due < e.heap[down].due:
            down += 1
        if e.heap[down].due >= c.due:
            break
        put(e, e.heap[down], at)
        at = down
    put(e, c, at)


cdef void take(EngineC *e, CheckC *c) noexcept nogil:
    cdef int at = c.place
    cdef CheckC *moved
    c.place = -1
    e.heap_n -= 1
    if at == e.heap_n:
        return
    moved = e.heap[e.heap_n]
    if at > 0 and e.heap[(at - 1) // 2].due > moved.due:
        rise(e, moved, at)
    else:
        sink(e, moved, at)


cdef void timer_set(EngineC *e, CheckC *c, int64_t due) noexcept nogil:
    cdef int64_t before = c.due
    c.due = due
    if due == 0:
        if c.place >= 0:
            take(e, c)
    elif c.place < 0:
        e.heap_n += 1
        rise(e, c, e.heap_n - 1)
    elif due < before:
        rise(e, c, c.place)
    else:
        sink(e, c, c.place)


cdef CheckC *timer_next(EngineC *e) noexcept nogil:
    cdef CheckC *c
    if e.heap_n == 0 or e.heap[0].due > e.now:
        return NULL
    c = e.heap[0]
    take(e, c)
    c.due = 0
    return c
