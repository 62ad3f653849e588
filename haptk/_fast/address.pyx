from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from haptk._fast.bytes.address cimport room_address
from haptk._fast.bytes.span cimport (Room, octets_16, room_len, room_over, span_first, span_over)
from haptk._fast.inet cimport (AF_INET, AF_INET6, getsockname, ntohs, sockaddr, sockaddr_in, sockaddr_in6,
                               socklen_t)


cdef void note_bytes(Peer *peer, int family, Span octets, unsigned short port) noexcept nogil:
    # An IPv4 client of a socket of IPv6 is an address of IPv6, ::ffff:a.b.c.d, as in HAProxy.
    cdef Room text = room_over(peer.text, sizeof(peer.text))
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
