# proxyproto: the PROXY protocol, versions 1 and 2: reading the header in front of a client's stream (`accept-proxy`) and
# writing the one for a server (`send-proxy`, `send-proxy-v2`). Strict; a header is at most PROXY_IN_MAX bytes.

from haptk._fast.bytes.span cimport Room, Span
from haptk._fast.state cimport Session

cdef enum:
    PROXY_OUT_MAX = 112     # room for the header that we write
    PROXY_V1_MAX = 107      # of the text form with its line end, as the protocol says
    PROXY_IN_MAX = 4096     # of the binary form, with all that its sender adds

cdef enum ProxyResult:      # of read_proxy; positive is the length of the header
    PROXY_MORE = 0
    PROXY_BAD = -1

# Take the header that d begins with. s.peer and s.local become what it says, or stay when it says nothing about addresses.
cdef int read_proxy(Session *s, Span d) noexcept nogil
# Append the header for s.
cdef void write_proxy(Session *s, int version, Room *out) noexcept nogil
