# address: who talks to whom. A Peer is filled once and keeps its text.

from haptk._fast.bytes.span cimport Span
from haptk._fast.inet cimport sockaddr_storage
from haptk._fast.state cimport Peer, Session

# Keep an address; a v4 address that came through a v6 socket is a v4 address.
cdef void note_address(Peer *peer, sockaddr_storage *addr) noexcept nogil
# The same from octets in network order, 4 for AF_INET and 16 for AF_INET6.
cdef void note_bytes(Peer *peer, int family, Span octets, unsigned short port) noexcept nogil
# Fill s.local with the address that the client connected to, unless it is known already.
cdef void note_local(Session *s) noexcept nogil
# Our own address of a connection.
cdef void note_own(int fd, Peer *peer) noexcept nogil
