# wire: bytes between spans, buffers and sockets. Interrupted calls are repeated; errno says what went wrong.

from haptk._fast.bytes.buf cimport Buf
from haptk._fast.bytes.span cimport Span

cdef extern from "bytes/wire.h" nogil:
    # recv(2) into what is free behind b, whose n moves
    long buf_receive(Buf *b, int fd) noexcept
    # send(2) of one span behind the other, in one call
    long span_send "hk_span_send" (int fd, Span a, Span b) noexcept
