# descriptors: who owns which descriptor. In a checked build (HAPTK_CHECKED) every descriptor of the data plane is
# entered when it is opened and asked for when it is used or closed; a wrong use aborts and names both sides. Without it
# all of this compiles to nothing.
#
# A worker works on a descriptor table of its own (see worker.own_table), so a number means something else in it than in
# the rest of the process. What the process opened and a worker uses is carried over: Worker.carried has all of it.

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #if defined(HAPTK_CHECKED) && HAPTK_CHECKED
    #define HK_CHECKED 1
    #else
    #define HK_CHECKED 0
    #endif
    """
    int HK_CHECKED

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd_write(int fd, uint64_t value)

cdef enum Owner:            # bits
    FD_CLIENT = 1           # an accepted connection
    FD_SERVER = 2           # a connection to a server
    FD_LISTENER = 4
    FD_EPOLL = 8
    FD_WAKE = 16            # eventfd: the control plane wakes a worker
    FD_SERVICE = 32         # eventfd: a worker asks the control plane
    FD_LANE = 64            # eventfd: a worker wakes the log writer
    FD_ALARM = 128          # eventfd: a worker reports errors of live traffic (`observe`)
    FD_LOG = 256            # a socket of the log writer
    FD_ANY = 511

cdef void register_opened(int fd, int owner) noexcept nogil
cdef void register_used(int fd, int owners, const char *what) noexcept nogil
cdef void register_closed(int fd) noexcept nogil
# This thread has a table of its own now, with these descriptors in it.
cdef void register_own(const int *carried, int count) noexcept nogil
# This thread ends.
cdef void register_leave() noexcept nogil


# A descriptor was opened by this thread.
cdef inline void fd_opened(int fd, int owner) noexcept nogil:
    if HK_CHECKED:
        register_opened(fd, owner)


# It is about to be used as one of `owners` (bits).
cdef inline void fd_used(int fd, int owners, const char *what) noexcept nogil:
    if HK_CHECKED:
        register_used(fd, owners, what)


# It is about to be closed.
cdef inline void fd_closed(int fd) noexcept nogil:
    if HK_CHECKED:
        register_closed(fd)


# Wake whoever reads the eventfd.
cdef inline void fd_ring(int fd, int owner) noexcept nogil:
    if HK_CHECKED:
        register_used(fd, owner, b"rung")
    eventfd_write(fd, 1)
