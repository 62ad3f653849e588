# Writes carry MSG_NOSIGNAL; interrupted calls are repeated; every other error is folded into a code.

from libc.errno cimport EAGAIN, ECONNABORTED, EINPROGRESS, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno

from haptk._fast.bytes.wire cimport buf_receive, span_send
from haptk._fast.descriptors cimport FD_CLIENT, FD_SERVER, fd_closed, fd_opened, fd_used
from haptk._fast.inet cimport sockaddr, sockaddr_storage, socklen_t

cdef extern from "sys/socket.h" nogil:
    cdef struct linger:
        int l_onoff
        int l_linger
    int SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SHUT_WR, SOL_SOCKET, SO_ERROR, SO_LINGER
    int SO_KEEPALIVE, SO_REUSEADDR
    int bind(int fd, const sockaddr *addr, socklen_t n)
    int socket(int family, int kind, int protocol)
    int connect(int fd, const sockaddr *addr, socklen_t n)
    int accept4(int fd, sockaddr *addr, socklen_t *n, int flags)
    int MSG_PEEK, MSG_TRUNC, MSG_DONTWAIT
    long recv(int fd, void *buffer, size_t n, int flags)
    int shutdown(int fd, int how)
    int getpeername(int fd, sockaddr *addr, socklen_t *n)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *n)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t n)

cdef extern from "netinet/tcp.h" nogil:
    int TCP_NODELAY, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, IPPROTO_TCP

cdef extern from "netinet/in.h" nogil:
    int IP_BIND_ADDRESS_NO_PORT

cdef extern from "sys/epoll.h" nogil:
    unsigned int EPOLLET, EPOLLEXCLUSIVE
    int EPOLL_CTL_ADD, EPOLL_CTL_DEL
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)

cdef extern from "unistd.h" nogil:
    int c_close "close" (int fd)

cdef extern from "time.h" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC, CLOCK_REALTIME
    int clock_gettime(int which, timespec *t)


cdef int watch(int epfd, int fd, void *what) noexcept nogil:
    cdef epoll_event e
    e.events = <uint32_t>(EPOLLIN | EPOLLOUT | EPOLLRDHUP) | EPOLLET
    e.data.ptr = what
    fd_used(fd, FD_CLIENT | FD_SERVER, b"watched")
    return epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e)


cdef int watch_input(int epfd, int fd, void *what, bint exclusive) noexcept nogil:
    cdef epoll_event e
    e.events = <uint32_t>EPOLLIN | (EPOLLEXCLUSIVE if exclusive else 0)
    e.data.ptr = what
    return epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e)


cdef void unwatch(int epfd, int fd) noexcept nogil:
    cdef epoll_event e
    epoll_ctl(epfd, EPOLL_CTL_DEL, fd, &e)


cdef int64_t fill(int fd, Buf *b) noexcept nogil:
    cdef long got = buf_receive(b, fd)
    if got > 0:
        return got
    if got == 0:
        return IO_EOF
    return IO_AGAIN if errno == EAGAIN else IO_ERROR


cdef bint drained(int fd) noexcept nogil:
    cdef char one
    return recv(fd, &one, 1, MSG_PEEK | MSG_DONTWAIT) < 0 and errno == EAGAIN


cdef int64_t put2(int fd, Span a, Span b) noexcept nogil:
    cdef long put = span_send(fd, a, b)
    if put >= 0:
        return put
    return IO_AGAIN if errno == EAGAIN else IO_ERROR


cdef bint bind_source(int fd, const void *source, uint32_t n) noexcept nogil:
    # The kernel chooses a port when it knows the other end, so that one source reaches each server 60,000 times.
    cdef int one = 1
    setsockopt(fd, 0, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one))
    return bind(fd, <const sockaddr *>source, n) == 0


cdef int connect_to(const void *addr, uint32_t addr_len, int family, const void *source, uint32_t source_len,
                    int *fd) noexcept nogil:
    cdef int s = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if s < 0:
        fd[0] = -1
        return CONNECT_FDS if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM \
            else CONNECT_FAILED
    if (source != NULL and not bind_source(s, source, source_len)) or \
            connect(s, <const sockaddr *>addr, addr_len) < 0 and errno != EINPROGRESS and errno != EINTR:
        c_close(s)
        fd[0] = -1
        return CONNECT_FAILED
    fd_opened(s, FD_SERVER)
    fd[0] = s
    return CONNECT_DONE


cdef void keep_alive(int fd, int probes, int idle_s, int interval_s) noexcept nogil:
    cdef int one = 1
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one))
    if probes:
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes))
    if idle_s:
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s))
    if interval_s:
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s))


cdef void no_delay(int fd) noexcept nogil:
    cdef int one = 1
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))


cdef bint established(int fd) noexcept nogil:
    cdef sockaddr_storage addr
    cdef socklen_t n = sizeof(addr)
    return getpeername(fd, <sockaddr *>&addr, &n) == 0


cdef int socket_error(int fd) noexcept nogil:
    cdef int value = 0
    cdef socklen_t n = sizeof(value)
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &n)
    return value


cdef void close_fd(int fd) noexcept nogil:
    fd_closed(fd)
    c_close(fd)


cdef void reset_fd(int fd) noexcept nogil:
    cdef linger l
    l.l_onoff = 1
    l.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l))
    fd_closed(fd)
    c_close(fd)


cdef void drain(int fd) noexcept nogil:
    cdef int rounds = 0
    while rounds < 16 and recv(fd, NULL, 1 << 20, MSG_TRUNC | MSG_DONTWAIT) > 0:
        rounds += 1


cdef void shut_write(int fd) noexcept nogil:
    fd_used(fd, FD_CLIENT | FD_SERVER, b"shut")
    shutdown(fd, SHUT_WR)


cdef int accept_one(int fd, void *addr, uint32_t *addr_len, int *error) noexcept nogil:
    cdef int got
    while True:
        got = accept4(fd, <sockaddr *>addr, <socklen_t *>addr_len, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if got >= 0:
            fd_opened(got, FD_CLIENT)
            return got
        if errno == EINTR or errno == ECONNABORTED:
            continue
        error[0] = errno
        return -1


cdef int64_t clock_ms() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000 + t.tv_nsec // 1000000


cdef int64_t clock_wall_s() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_REALTIME, &t)
    return t.tv_sec
