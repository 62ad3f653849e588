# Slots are circular lists with a head; a bit per slot says that it may hold something.

from libc.stdint cimport uint64_t

cdef enum:
    SLOTS = 1024


cdef void wheel_init(Worker *w) noexcept nogil:
    cdef int i
    for i in range(SLOTS):
        w.slots[i].prev = &w.slots[i]
        w.slots[i].next = &w.slots[i]
    for i in range(16):
        w.bits[i] = 0
    w.timers = 0
    w.wheel_at = w.now // TICK_MS


cdef inline void unlink(Worker *w, Timer *t) noexcept nogil:
    t.prev.next = t.next
    t.next.prev = t.prev
    t.placed = 0
    w.timers -= 1


cdef void place(Worker *w, Timer *t) noexcept nogil:
    # Slot k of the wheel holds what is due in tick k; never the current one, so that a deadline in the past still
    # takes one tick and cannot spin.
    cdef int64_t tick = (t.due + TICK_MS - 1) // TICK_MS
    cdef int slot
    if tick < w.wheel_at:
        tick = w.wheel_at
    if tick >= w.wheel_at + SLOTS - 1:
        tick = w.wheel_at + SLOTS - 2
    slot = <int>(tick & (SLOTS - 1))
    t.placed = tick * TICK_MS
    t.next = &w.slots[slot]
    t.prev = w.slots[slot].prev
    t.prev.next = t
    w.slots[slot].prev = t
    w.bits[slot >> 6] |= <uint64_t>1 << (slot & 63)
    w.timers += 1


cdef void timer_set(Worker *w, Timer *t, int64_t due) noexcept nogil:
    t.due = due
    if due == 0:
        return
    if t.placed != 0:
        if due >= t.placed:
            return
        unlink(w, t)
    place(w, t)


cdef void timer_drop(Worker *w, Timer *t) noexcept nogil:
    if t.placed != 0:
        unlink(w, t)
    t.due = 0


cdef int wheel_wait(Worker *w) noexcept nogil:
    cdef int64_t tick, ms
    cdef int i, slot
    if w.timers == 0:
        return -1
    tick = w.wheel_at
    i = 0
    while i < SLOTS:
        slot = <int>((tick + i) & (SLOTS - 1))
        if w.bits[slot >> 6] >> (slot & 63) == 0:
            i += 64 - (slot & 63)
            continue
        if w.bits[slot >> 6] & (<uint64_t>1 << (slot & 63)):
            ms = (tick + i) * TICK_MS - w.now
            return <int>ms if ms > 0 else 0
        i += 1
    return SLOTS * TICK_MS


cdef Timer *wheel_next(Worker *w) noexcept nogil:
    cdef int64_t current = w.now // TICK_MS
    cdef int slot
    cdef Timer *t
    if w.timers == 0:
        w.wheel_at = current + 1
        return NULL
    while w.wheel_at <= current:
        slot = <int>(w.wheel_at & (SLOTS - 1))
        t = w.slots[slot].next
        if t == &w.slots[slot]:
            w.bits[slot >> 6] &= ~(<uint64_t>1 << (slot & 63))
            w.wheel_at += 1
            continue
        unlink(w, t)
        if t.due == 0:
            continue
        if t.due <= w.now:
            return t
        # it was pushed back, or waits beyond the horizon: the slot is left behind before it is placed anew
        if (t.due + TICK_MS - 1) // TICK_MS <= w.wheel_at:
            t.due = (w.wheel_at + 1) * TICK_MS
        place(w, t)
    return NULL
