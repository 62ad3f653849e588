# sdbm and djb2 are the classic ones; wt6 is HAProxy's own; crc32 is the one of zlib; the avalanche is Bob Jenkins'.

from libc.stdint cimport uint8_t


cdef inline uint32_t rotated(uint32_t v, uint32_t by) noexcept nogil:
    return (v << by) | (v >> ((32 - by) & 31)) if by else v


cdef uint32_t wt6(const uint8_t *p, uint32_t n) noexcept nogil:
    # Two words that are complemented, rotated by their own bits and swapped.
    cdef uint32_t left = 0xa53c965aUL, right = 0x5ca6953aUL, turn_left = 6, turn_right = 18, i, other, mixed
    for i in range(n):
        left = ~(left ^ p[i])
        right = ~(right + p[i])
        other = left
        left = rotated(right, turn_left)
        right = rotated(other, turn_right)
        mixed = ((left >> 16) ^ right) & 0xffff
        turn_left = mixed & 0x1f
        turn_right = mixed >> 11
    return left ^ right


cdef uint32_t crc32(const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint32_t v = 0xffffffffUL, i
    cdef int _bit
    for i in range(n):
        v ^= p[i]
        for _bit in range(8):
            v = (v >> 1) ^ (0xedb88320UL if v & 1 else 0)
    return ~v


cdef uint32_t hash_bytes(int which, const char *text, uint32_t n) noexcept nogil:
    cdef const uint8_t *p = <const uint8_t *>text
    cdef uint32_t v = 0, i
    if which == HASH_WT6:
        return wt6(p, n)
    if which == HASH_CRC32:
        return crc32(p, n)
    if which == HASH_DJB2:
        v = 5381
        for i in range(n):
            v = (v << 5) + v + p[i]
        return v
    for i in range(n):
        v = p[i] + (v << 6) + (v << 16) - v
    return v


cdef uint32_t avalanche(uint32_t v) noexcept nogil:
    v = (v + 0x7ed55d16UL) + (v << 12)
    v = (v ^ 0xc761c23cUL) ^ (v >> 19)
    v = (v + 0x165667b1UL) + (v << 5)
    v = (v + 0xd3a2646cUL) ^ (v << 9)
    v = (v + 0xfd7046c5UL) + (v << 3)
    v = (v ^ 0xb55a4f09UL) ^ (v >> 16)
    return v * 3221225473UL
