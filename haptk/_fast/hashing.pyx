# sdbm and djb2 are the classic ones; wt6 is HAProxy's own; crc32 is the one of zlib; the avalanche is Bob Jenkins'.

from haptk._fast.bytes.span cimport span_at, span_len


cdef inline uint32_t rotated(uint32_t v, uint32_t by) noexcept nogil:
    return (v << by) | (v >> ((32 - by) & 31)) if by else v


cdef uint32_t wt6(Span s) noexcept nogil:
    # Two words that are complemented, rotated by their own bits and swapped.
    cdef uint32_t left = 0xa53c965aUL, right = 0x5ca6953aUL, turn_left = 6, turn_right = 18, i, other, mixed
    for i in range(span_len(s)):
        left = ~(left ^ span_at(s, i))
        right = ~(right + span_at(s, i))
        other = left
        left = rotated(right, turn_left)
        right = rotated(other, turn_right)
        mixed = ((left >> 16) ^ right) & 0xffff
        turn_left = mixed & 0x1f
        turn_right = mixed >> 11
    return left ^ right


cdef uint32_t crc32(Span s) noexcept nogil:
    cdef uint32_t v = 0xffffffffUL, i
    cdef int _bit
    for i in range(span_len(s)):
        v ^= span_at(s, i)
        for _bit in range(8):
            v = (v >> 1) ^ (0xedb88320UL if v & 1 else 0)
    return ~v


cdef uint32_t hash_bytes(int which, Span s) noexcept nogil:
    cdef uint32_t v = 0, i
    if which == HASH_WT6:
        return wt6(s)
    if which == HASH_CRC32:
        return crc32(s)
    if which == HASH_DJB2:
        v = 5381
        for i in range(span_len(s)):
            v = (v << 5) + v + span_at(s, i)
        return v
    for i in range(span_len(s)):
        v = span_at(s, i) + (v << 6) + (v << 16) - v
    return v


cdef uint32_t avalanche(uint32_t v) noexcept nogil:
    v = (v + 0x7ed55d16UL) + (v << 12)
    v = (v ^ 0xc761c23cUL) ^ (v >> 19)
    v = (v + 0x165667b1UL) + (v << 5)
    v = (v + 0xd3a2646cUL) ^ (v << 9)
    v = (v + 0xfd7046c5UL) + (v << 3)
    v = (v ^ 0xb55a4f09UL) ^ (v >> 16)
    return v * 3221225473UL
