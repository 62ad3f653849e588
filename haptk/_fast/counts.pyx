# Rates are HAProxy's: two periods side by side, of which the older one counts for the part that still overlaps the last
# full period. Both ends of a peers connection compute them alike, so what one shows the other one shows.

from libc.stdint cimport int32_t

cdef enum:
    ROOM_MAX = 4096         # bytes of data in one entry


cdef inline bint wide(int kind) noexcept nogil:
    return kind == D_BYTES_IN_CNT or kind == D_BYTES_OUT_CNT


cdef bint counts_rate(int kind) noexcept nogil:
    return kind in (D_GPC0_RATE, D_CONN_RATE, D_SESS_RATE, D_HTTP_REQ_RATE, D_HTTP_ERR_RATE, D_BYTES_IN_RATE,
                    D_BYTES_OUT_RATE, D_GPC1_RATE, D_HTTP_FAIL_RATE, D_GPC_RATE)


cdef inline uint32_t width(int kind) noexcept nogil:
    if counts_rate(kind):
        return sizeof(RateC)
    return 8 if wide(kind) else 4


cdef int counts_lay_out(Layout *x) noexcept nogil:
    cdef uint32_t at = 4
    cdef int kind, turn
    for turn in range(2):       # the wide ones first: they want to be aligned
        for kind in range(KINDS):
            if x.stored >> kind & 1 and kind != D_SERVER_ID and kind != D_SERVER_KEY and wide(kind) == (turn == 0):
                x.place[kind] = <uint16_t>at
                at += width(kind) * x.elements[kind]
                if at > ROOM_MAX:
                    return -1
    x.size = 0 if at == 4 else ((at + 3) & ~<uint32_t>7) + 4
    return 0


cdef inline char *spot(Layout *x, char *data, int kind, int element) noexcept nogil:
    if not x.stored >> kind & 1 or element < 0 or element >= x.elements[kind] or x.place[kind] == 0:
        return NULL
    return data + x.place[kind] + <uint32_t>element * width(kind)


cdef void turn_rate(RateC *r, uint32_t period, uint32_t now) noexcept nogil:
    # Begin a new period when this one is over.
    if now - r.begin < period:
        return
    r.before = r.now
    r.begin += period
    if now - r.begin >= period:     # nothing happened for a whole one
        r.before = 0
        r.begin = now
    r.now = 0


cdef void counts_add(Layout *x, char *data, int kind, int element, int64_t n, uint32_t now) noexcept nogil:
    cdef char *p = spot(x, data, kind, element)
    cdef RateC *r
    if p == NULL:
        return
    if counts_rate(kind):
        if n > 0:
            r = <RateC *>p
            turn_rate(r, x.period_ms[kind], now)
            r.now += <uint32_t>n
    elif wide(kind):
        (<uint64_t *>p)[0] += <uint64_t>n
    elif n < 0 and (<uint32_t *>p)[0] < <uint64_t>-n:
        (<uint32_t *>p)[0] = 0
    else:
        (<uint32_t *>p)[0] += <uint32_t>n


cdef uint64_t counts_get(Layout *x, char *data, int kind, int element, uint32_t now) noexcept nogil:
    cdef char *p = spot(x, data, kind, element)
    cdef RateC *r
    cdef uint64_t period, before, current
    cdef int32_t left
    if p == NULL:
        return 0
    if not counts_rate(kind):
        return (<uint64_t *>p)[0] if wide(kind) else (<uint32_t *>p)[0]
    r = <RateC *>p
    period, before, current = x.period_ms[kind], r.before, r.now
    left = <int32_t>(r.begin + x.period_ms[kind] - now)
    if left < 0:
        left += <int32_t>x.period_ms[kind]
        before = 0 if left < 0 else current
        current = 0
        if left < 0:
            left = 0
    return (before * <uint64_t>left + current * period) // period


cdef void counts_set(Layout *x, char *data, int kind, int element, uint64_t value, uint32_t now) noexcept nogil:
    cdef char *p = spot(x, data, kind, element)
    cdef RateC *r
    if p == NULL:
        return
    if counts_rate(kind):
        # all of them now, so that the rate stays for one period and then fades
        r = <RateC *>p
        r.begin, r.now, r.before = now, <uint32_t>value, 0
    elif wide(kind):
        (<uint64_t *>p)[0] = value
    else:
        (<uint32_t *>p)[0] = <uint32_t>value


cdef int counts_told(Layout *x, char *data, int kind, int element, uint32_t now, uint64_t *out) noexcept nogil:
    cdef char *p = spot(x, data, kind, element)
    if p == NULL:
        return 0
    if counts_rate(kind):
        out[0] = <uint32_t>(now - (<RateC *>p).begin)
        out[1] = (<RateC *>p).now
        out[2] = (<RateC *>p).before
        return 3
    out[0] = (<uint64_t *>p)[0] if wide(kind) else (<uint32_t *>p)[0]
    return 1


cdef void counts_take(Layout *x, char *data, int kind, int element, const uint64_t *told, uint32_t now) noexcept nogil:
    cdef char *p = spot(x, data, kind, element)
    if p == NULL:
        return
    if counts_rate(kind):
        (<RateC *>p).begin = now - <uint32_t>told[0]
        (<RateC *>p).now = <uint32_t>told[1]
        (<RateC *>p).before = <uint32_t>told[2]
    elif wide(kind):
        (<uint64_t *>p)[0] = told[0]
    else:
        (<uint32_t *>p)[0] = <uint32_t>told[0]
