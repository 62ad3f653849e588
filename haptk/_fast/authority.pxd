# authority: targets and Host (RFC 9112 3.2), default ports, CONNECT.

from libc.stdint cimport uint32_t

from haptk._fast.bytes.buf cimport Buf
from haptk._fast.bytes.span cimport Span
from haptk._fast.http1 cimport Head, Header

# The first Host, or NULL.
cdef Header *host_line(Head *h) noexcept nogil
# The case of ASCII letters ignored.
cdef bint same_authority(Span a, Span b) noexcept nogil
# 1 when the request's target fits its method and its Host.
cdef int target_ok(Head *h) noexcept nogil
# A default port goes from the target and from Host. The head's text begins at `base` in b; only for a target that is ok.
cdef void tidy_authority(Buf *b, uint32_t base, Head *h) noexcept nogil
