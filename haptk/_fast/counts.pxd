# counts: what an entry of a stick table stores beside its server: counters, tags and rates. A layout says where each
# kind stands in the entry's data; nothing here locks, knows tables or allocates. Owned by the table that uses it.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

cdef enum:                  # kinds have HAProxy's numbers, which go over the wire between peers
    D_SERVER_ID = 0, D_GPT0, D_GPC0, D_GPC0_RATE, D_CONN_CNT, D_CONN_RATE, D_CONN_CUR, D_SESS_CNT, D_SESS_RATE
    D_HTTP_REQ_CNT = 9, D_HTTP_REQ_RATE, D_HTTP_ERR_CNT, D_HTTP_ERR_RATE, D_BYTES_IN_CNT, D_BYTES_IN_RATE
    D_BYTES_OUT_CNT = 15, D_BYTES_OUT_RATE, D_GPC1, D_GPC1_RATE, D_SERVER_KEY, D_HTTP_FAIL_CNT, D_HTTP_FAIL_RATE
    D_GPT = 22, D_GPC, D_GPC_RATE
    KINDS = 25

ctypedef struct Layout:
    uint32_t stored         # bit by kind
    uint32_t size           # of the data; 0 for none, else 8 * n + 4, so that what follows 44 bytes of entry is aligned
    uint16_t place[KINDS]   # from the beginning of the data, whose first four bytes count who holds the entry
    uint16_t elements[KINDS]    # 1 but for gpt, gpc and gpc_rate
    uint32_t period_ms[KINDS]   # of rates

ctypedef struct RateC:      # as HAProxy counts: events of this period and of the one before
    uint32_t begin          # ms modulo 2^32
    uint32_t now
    uint32_t before

cdef bint counts_rate(int kind) noexcept nogil
# 0 and the place of each kind, or -1 for more than there is room for.
cdef int counts_lay_out(Layout *x) noexcept nogil
# Add to a counter (never below 0), a tag or a rate; what is not stored is passed over.
cdef void counts_add(Layout *x, char *data, int kind, int element, int64_t n, uint32_t now) noexcept nogil
# The value of an element; of a rate the events of the last period, as HAProxy reckons them.
cdef uint64_t counts_get(Layout *x, char *data, int kind, int element, uint32_t now) noexcept nogil
cdef void counts_set(Layout *x, char *data, int kind, int element, uint64_t value, uint32_t now) noexcept nogil
# What goes over the wire: one number, or three of a rate (its age in ms, now, before). Returns how many.
cdef int counts_told(Layout *x, char *data, int kind, int element, uint32_t now, uint64_t *out) noexcept nogil
cdef void counts_take(Layout *x, char *data, int kind, int element, const uint64_t *told, uint32_t now) noexcept nogil
