from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memmove, memset, strlen

from haptk._fast.sockets cimport sockaddr, socklen_t

cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        unsigned int s_addr
    cdef struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    cdef struct in6_addr:
        unsigned char s6_addr[16]
    cdef struct sockaddr_in6:
        unsigned short sin6_port
        in6_addr sin6_addr
    unsigned short ntohs(unsigned short v)

cdef extern from "<sys/socket.h>" nogil:
    int getsockname(int fd, sockaddr *addr, socklen_t *n)

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET, AF_INET6
    const char *inet_ntop(int family, const void *addr, char *out, unsigned int n)


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


cdef void note_local(Session *s) noexcept nogil:
    cdef sockaddr_storage addr
    cdef uint32_t n = sizeof(addr)
    if s.local.family != 0:
        return
    memset(&addr, 0, sizeof(addr))
    if getsockname(s.fd, <sockaddr *>&addr, <socklen_t *>&n) == 0:
        note_address(&s.local, &addr)
