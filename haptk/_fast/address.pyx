from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memmove, memset, strlen

from haptk._fast.inet cimport (AF_INET, AF_INET6, getsockname, inet_ntop, ntohs, sockaddr, sockaddr_in, sockaddr_in6,
                               socklen_t)

cdef void note_bytes(Peer *peer, int family, const unsigned char *bytes, unsigned short port) noexcept nogil:
    cdef uint8_t *a = peer.address
    cdef int i
    cdef bint mapped
    peer.family = family
    peer.port = port
    memcpy(a, bytes, 4 if family == AF_INET else 16)
    if family == AF_INET6:
        mapped = a[10] == 0xff and a[11] == 0xff
        for i in range(10):
            mapped = mapped and a[i] == 0
        if mapped:
            peer.family = AF_INET
            memmove(a, a + 12, 4)
    peer.text_len = 0
    if inet_ntop(peer.family, a, peer.text, 46) != NULL:
        peer.text_len = <uint8_t>strlen(peer.text)


cdef void note_address(Peer *peer, sockaddr_storage *addr) noexcept nogil:
    cdef sockaddr_in *four = <sockaddr_in *>addr
    cdef sockaddr_in6 *six = <sockaddr_in6 *>addr
    if addr.ss_family == AF_INET:
        note_bytes(peer, AF_INET, <unsigned char *>&four.sin_addr, ntohs(four.sin_port))
    elif addr.ss_family == AF_INET6:
        note_bytes(peer, AF_INET6, <unsigned char *>&six.sin6_addr, ntohs(six.sin6_port))
    else:
        peer.family = addr.ss_family


cdef void note_own(int fd, Peer *peer) noexcept nogil:
    cdef sockaddr_storage addr
    cdef uint32_t n = sizeof(addr)
    memset(&addr, 0, sizeof(addr))
    if getsockname(fd, <sockaddr *>&addr, <socklen_t *>&n) == 0:
        note_address(peer, &addr)


cdef void note_local(Session *s) noexcept nogil:
    if s.local.family == 0:
        note_own(s.fd, &s.local)
