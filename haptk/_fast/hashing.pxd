# hashing: the string hashes of HAProxy's `hash-type`, so that a client meets the same server behind either proxy.

from libc.stdint cimport uint32_t

from haptk._fast.bytes.span cimport Span

cdef enum HashId:
    HASH_SDBM = 0, HASH_DJB2, HASH_WT6, HASH_CRC32

cdef uint32_t hash_bytes(int which, Span s) noexcept nogil
# Spreads a hash over all 32 bits (`hash-type ... avalanche`).
cdef uint32_t avalanche(uint32_t v) noexcept nogil
