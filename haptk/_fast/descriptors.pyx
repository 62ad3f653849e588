# One register for the process and one for each thread that has a descriptor table of its own.

from libc.stdlib cimport abort, calloc, free

cdef extern from *:
    """
    #include <stdio.h>
    #include <stdint.h>
    static __thread uint16_t *hk_register;
    static uint16_t hk_common[65536];
    """
    unsigned short *hk_register
    unsigned short *hk_common
    int dprintf(int fd, const char *form, ...) nogil

cdef enum:
    NUMBERS = 65536         # descriptors above are not watched
    SHOWN = 9

cdef const char **NAMES = [
    b"a client's connection", b"a server's connection", b"a listener", b"an epoll instance", b"a worker's wake-up",
    b"a worker's service bell", b"a log lane's bell", b"the alarm of observe", b"a log socket",
]
CHECKED = bool(HK_CHECKED)


cdef inline unsigned short *mine() noexcept nogil:
    return hk_register if hk_register != NULL else hk_common


cdef const char *name_of(int owners) noexcept nogil:
    cdef int i
    for i in range(SHOWN):
        if owners >> i & 1:
            return NAMES[i]
    return b"nobody"


cdef void wrong(int fd, const char *what, int expected, int found) noexcept nogil:
    dprintf(2, b"descriptor %d: %s as %s, but it belongs to %s\n", fd, what, name_of(expected), name_of(found))
    abort()


cdef void register_opened(int fd, int owner) noexcept nogil:
    cdef unsigned short *seen = mine()
    if not 0 <= fd < NUMBERS or (owner == FD_LISTENER and seen == hk_common):
        return              # what listens is closed by the control plane
    if seen[fd]:
        wrong(fd, b"opened", owner, seen[fd])
    seen[fd] = <unsigned short>owner


cdef void register_used(int fd, int owners, const char *what) noexcept nogil:
    if 0 <= fd < NUMBERS and not mine()[fd] & owners:
        wrong(fd, what, owners, mine()[fd])


cdef void register_closed(int fd) noexcept nogil:
    cdef unsigned short *seen = mine()
    if not 0 <= fd < NUMBERS:
        return
    if seen[fd] == 0 and seen != hk_common:
        wrong(fd, b"closed", FD_ANY, 0)
    seen[fd] = 0


cdef void register_own(const int *carried, int count) noexcept nogil:
    global hk_register
    cdef unsigned short *own = <unsigned short *>calloc(NUMBERS, sizeof(unsigned short))
    cdef int i
    if own == NULL:
        abort()
    for i in range(count):
        if 0 <= carried[i] < NUMBERS:
            own[carried[i]] = hk_common[carried[i]] if hk_common[carried[i]] else FD_LISTENER
    hk_register = own


cdef void register_leave() noexcept nogil:
    global hk_register
    free(hk_register)
    hk_register = NULL


def use_wrongly(int fd):
    """For the test of a checked build: enters `fd` as a client's connection and rings it. Does not return there."""
    register_opened(fd, FD_CLIENT)
    fd_ring(fd, FD_ALARM)
