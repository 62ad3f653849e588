from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from haptk._fast.bytes.address cimport room_address
from haptk._fast.bytes.span cimport (Room, octets_16, room_len, room_over, span_at, span_first, span_from, span_over)
from haptk._fast.inet cimport (AF_INET, AF_INET6, getsockname, ntohs, sockaddr, sockaddr_in, sockaddr_in6,
                               socklen_t)


cdef bint mapped(Span octets) noexcept nogil:
    # An IPv4 address as IPv6 writes it, behind ten zeros and two octets of ones.
    cdef int i
    for i in range(12):
        if span_at(octets, i) != (0xff if i >= 10 else 0):
            return 0
    return 1


cdef void note_bytes(Peer *peer, int family, Span octets, unsigned short port) noexcept nogil:
    cdef Room text = room_over(peer.text, sizeof(peer.text))
    if family == AF_INET6 and mapped(span_first(octets, 16)):
        family = AF_INET
        octets = span_from(octets, 12)
    octets_16(peer.address, span_first(octets, 4 if family == AF_INET else 16))
    peer.family = family
    peer.port = port
    room_address(&text, family, peer.address)
    peer.text_len = <uint8_t>room_len(&text)


cdef void note_address(Peer *peer, sockaddr_storage *addr) noexcept nogil:
    cdef sockaddr_in *four = <sockaddr_in *>addr
    cdef sockaddr_in6 *six = <sockaddr_in6 *>addr
    if addr.ss_family == AF_INET:
        note_bytes(peer, AF_INET, span_over(&four.sin_addr, 4), ntohs(four.sin_port))
    elif addr.ss_family == AF_INET6:
        note_bytes(peer, AF_INET6, span_over(&six.sin6_addr, 16), ntohs(six.sin6_port))
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
