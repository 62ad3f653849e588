# ring: the points of `hash-type consistent`: 16 for each unit of a server's weight, in the places where HAProxy has them.

from haptk._fast.state cimport BackendC, RingPoint

# How many points the servers of be have by the weights of the file.
cdef int ring_size(BackendC *be) noexcept nogil
# Fill be.ring, which has room for ring_size() points; be.ring_n is set.
cdef void ring_fill(BackendC *be) noexcept nogil
# Index of the first point whose key is at least `hash`, 0 behind the last one.
cdef int ring_find(BackendC *be, unsigned int hash) noexcept nogil
