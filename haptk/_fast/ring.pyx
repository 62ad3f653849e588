from libc.stdint cimport uint32_t
from libc.stdlib cimport qsort

from haptk._fast.hashing cimport avalanche
from haptk._fast.state cimport WEIGHT_SCALE

cdef enum:
    STRIDE = 4096           # points that HAProxy reserves for each server id


cdef int ring_size(BackendC *be) noexcept nogil:
    cdef int i, n = 0
    for i in range(be.count):
        n += be.servers[i].weight * WEIGHT_SCALE
    return n


cdef int by_key(const void *a, const void *b) noexcept nogil:
    cdef RingPoint *x = <RingPoint *>a
    cdef RingPoint *y = <RingPoint *>b
    if x.key != y.key:
        return -1 if x.key < y.key else 1
    return x.server - y.server


cdef void ring_fill(BackendC *be) noexcept nogil:
    cdef int i, k, n = 0
    for i in range(be.count):
        for k in range(be.servers[i].weight * WEIGHT_SCALE):
            be.ring[n].key = avalanche(<uint32_t>(be.servers[i].id * STRIDE + k))
            be.ring[n].node = k
            be.ring[n].server = i
            n += 1
    qsort(be.ring, n, sizeof(RingPoint), by_key)
    be.ring_n = n


cdef int ring_find(BackendC *be, unsigned int hash) noexcept nogil:
    cdef int low = 0, high = be.ring_n, middle
    while low < high:
        middle = (low + high) // 2
        if be.ring[middle].key < hash:
            low = middle + 1
        else:
            high = middle
    return low if low < be.ring_n else 0
