# proxyproto: the PROXY protocol, versions 1 and 2: reading the header in front of a client's stream (`accept-proxy`) and
# writing the one for a server (`send-proxy`, `send-proxy-v2`). Strict; a header is at most PROXY_IN_MAX bytes.

from libc.stdint cimport uint32_t

from haptk._fast.state cimport Session

cdef enum:
    PROXY_OUT_MAX = 112     # room for the header that we write
    PROXY_V1_MAX = 107      # of the text form with its line end, as the protocol says
    PROXY_IN_MAX = 4096     # of the binary form, with all that its sender adds

cdef enum ProxyResult:      # of read_proxy; positive is the length of the header
    PROXY_MORE = 0
    PROXY_BAD = -1

# Take the header at d[0:n). s.peer and s.local become what it says, or stay when it says nothing about addresses.
cdef int read_proxy(Session *s, const char *d, uint32_t n) noexcept nogil
# Write the header for s into out[0:PROXY_OUT_MAX) and return its length.
cdef uint32_t write_proxy(Session *s, int version, char *out) noexcept nogil
