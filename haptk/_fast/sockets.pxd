# sockets: system calls with one meaning each. Nothing here knows of sessions; descriptors belong to the caller.

from libc.stdint cimport int64_t, uint32_t

from haptk._fast.bytes.buf cimport Buf
from haptk._fast.bytes.span cimport Span

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        void *ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)

cdef enum IoResult:
    IO_EOF = 0
    IO_AGAIN = -1
    IO_ERROR = -2

cdef enum ConnectResult:
    CONNECT_DONE = 0        # established or under way
    CONNECT_FDS = -1        # no descriptors left
    CONNECT_FAILED = -2     # refused at once, no route, no local port...

# Edge-triggered both ways; the only epoll_ctl of a connection's life. 0 or -1.
cdef int watch(int epfd, int fd, void *what) noexcept nogil
# Level-triggered input, for listeners and the wake-up descriptor. `exclusive` wakes one worker only.
cdef int watch_input(int epfd, int fd, void *what, bint exclusive) noexcept nogil
cdef void unwatch(int epfd, int fd) noexcept nogil
# Bytes read into b's free space (b.n moved), or an IoResult.
cdef int64_t fill(int fd, Buf *b) noexcept nogil
# Whether nothing can be read now, an end of stream included. Takes nothing.
cdef bint drained(int fd) noexcept nogil
# Bytes written of up to two pieces, or an IoResult.
cdef int64_t put2(int fd, Span a, Span b) noexcept nogil
# New non-blocking stream connection to addr, from `source` where that is not NULL. *fd is set when it is >= 0.
cdef int connect_to(const void *addr, uint32_t addr_len, int family, const void *source, uint32_t source_len,
                    int *fd) noexcept nogil
# SO_KEEPALIVE.
cdef void keep_alive(int fd, int probes, int idle_s, int interval_s) noexcept nogil
# TCP_NODELAY; on a unix socket it fails silently.
cdef void no_delay(int fd) noexcept nogil
# SO_ERROR, cleared by reading it.
# Whether a connection attempt has succeeded.
cdef bint established(int fd) noexcept nogil
cdef int socket_error(int fd) noexcept nogil
cdef void close_fd(int fd) noexcept nogil
# Close with a reset: the peer must not take what it has for the whole.
cdef void reset_fd(int fd) noexcept nogil
cdef void shut_write(int fd) noexcept nogil
# Discard what has arrived and was not read, for the close that follows.
cdef void drain(int fd) noexcept nogil
# One accepted connection or -1 (errno in *error); the peer's address goes to addr.
cdef int accept_one(int fd, void *addr, uint32_t *addr_len, int *error) noexcept nogil
cdef int64_t clock_ms() noexcept nogil
cdef int64_t clock_wall_s() noexcept nogil
