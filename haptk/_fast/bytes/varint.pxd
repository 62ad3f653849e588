# varint: the numbers of HAProxy's peers protocol, in 1 to 11 bytes, and 32 bits in network order.

from libc.stdint cimport uint32_t, uint64_t

from haptk._fast.bytes.span cimport Room, Span

cdef extern from "bytes/varint.h" nogil:
    int room_varint(Room *r, uint64_t v) noexcept
    # 1, the number, and `at` moves behind it; 0 when it is not all there; -1 for more than 64 bits
    int span_varint(Span s, uint32_t *at, uint64_t *v) noexcept
    int room_big32(Room *r, uint32_t v) noexcept
    uint32_t span_big32(Span s, uint32_t i) noexcept
