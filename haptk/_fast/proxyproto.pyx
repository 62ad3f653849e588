# What is accepted is what HAProxy 2.6 accepts, with two differences that the protocol's text asks for: UNKNOWN may be
# followed by anything up to the line end, and a text header ends within 107 bytes.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset

from haptk._fast.address cimport note_bytes, note_local
from haptk._fast.inet cimport AF_INET, AF_INET6, inet_pton
from haptk._fast.state cimport Peer

cdef enum:
    TLV_CRC32C = 3, TLV_AUTHORITY = 2, TLV_UNIQUE_ID = 5
    AUTHORITY_MAX = 255, UNIQUE_ID_MAX = 128

cdef const char *SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


# ---------------------------------------------------------------- version 1

cdef inline int word_end(const char *d, uint32_t at, uint32_t n, char stop) noexcept nogil:
    # Index of `stop`, or -1.
    while at < n:
        if d[at] == stop:
            return <int>at
        at += 1
    return -1


cdef int take_address(const char *d, uint32_t at, uint32_t n, int family, uint8_t *out) noexcept nogil:
    # The address from `at` up to a blank; returns where the next word begins, or -1.
    cdef char text[48]
    cdef int end = word_end(d, at, n, 32)
    if end <= <int>at or end - <int>at > 45:
        return -1
    if memchr(d + at, 0, end - at) != NULL:
        return -1       # it would end the text for inet_pton
    memcpy(text, d + at, end - at)
    text[end - <int>at] = 0
    return end + 1 if inet_pton(family, text, out) == 1 else -1


cdef int take_port(const char *d, uint32_t at, uint32_t n, char stop, uint16_t *out) noexcept nogil:
    cdef int end = word_end(d, at, n, stop)
    cdef uint32_t value = 0, i
    if end <= <int>at or end - <int>at > 5 or (d[at] == 48 and end - <int>at > 1):
        return -1
    for i in range(at, <uint32_t>end):
        if d[i] < 48 or d[i] > 57:
            return -1
        value = value * 10 + <uint32_t>(d[i] - 48)
    if value > 65535:
        return -1
    out[0] = <uint16_t>value
    return end + 1


cdef int addresses_v1(Session *s, const char *d, uint32_t n, int family) noexcept nogil:
    # d[0:n) is "source destination port port CR".
    cdef uint8_t source[16]
    cdef uint8_t target[16]
    cdef uint16_t source_port = 0, target_port = 0
    cdef int at = take_address(d, 0, n, family, source)
    if at >= 0:
        at = take_address(d, at, n, family, target)
    if at >= 0:
        at = take_port(d, at, n, 32, &source_port)
    if at >= 0:
        at = take_port(d, at, n, 13, &target_port)
    if at != <int>n:
        return PROXY_BAD
    note_bytes(&s.peer, family, source, source_port)
    note_bytes(&s.local, family, target, target_port)
    return 1


cdef int read_v1(Session *s, const char *d, uint32_t n) noexcept nogil:
    cdef int end = word_end(d, 0, n if n < PROXY_V1_MAX else PROXY_V1_MAX, 10)
    if end < 0:
        return PROXY_MORE if n < PROXY_V1_MAX else PROXY_BAD
    if end < 14 or d[end - 1] != 13:
        return PROXY_BAD
    if memcmp(d + 6, b"UNKNOWN", 7) == 0 and ((d[13] == 13 and end == 14) or d[13] == 32):
        return end + 1
    if memcmp(d + 6, b"TCP4 ", 5) == 0:
        return end + 1 if addresses_v1(s, d + 11, end - 11, AF_INET) > 0 else PROXY_BAD
    if memcmp(d + 6, b"TCP6 ", 5) == 0:
        return end + 1 if addresses_v1(s, d + 11, end - 11, AF_INET6) > 0 else PROXY_BAD
    return PROXY_BAD


# ---------------------------------------------------------------- version 2

cdef uint32_t crc32c(const uint8_t *d, uint32_t n, uint32_t hole) noexcept nogil:
    # Castagnoli's CRC with the four bytes at `hole` taken as 0. Bit by bit: it is met once in a connection's life.
    cdef uint32_t value = 0xffffffff, i
    cdef int _bit
    for i in range(n):
        if i < hole or i >= hole + 4:
            value ^= d[i]
        for _bit in range(8):
            value = (value >> 1) ^ (<uint32_t>0x82f63b78 & (0 - (value & 1)))
    return ~value


cdef inline uint32_t big16(const uint8_t *d) noexcept nogil:
    return (<uint32_t>d[0] << 8) | d[1]


cdef bint extras_fine(const uint8_t *d, uint32_t at, uint32_t total) noexcept nogil:
    # What follows the addresses is type, length, value, and ends where the header ends.
    cdef uint32_t n
    while at < total:
        if at + 3 > total:
            return 0
        n = big16(d + at + 1)
        if at + 3 + n > total:
            return 0
        if d[at] == TLV_CRC32C:
            if n != 4 or crc32c(d, total, at + 3) != (big16(d + at + 3) << 16 | big16(d + at + 5)):
                return 0
        elif (d[at] == TLV_AUTHORITY and n > AUTHORITY_MAX) or (d[at] == TLV_UNIQUE_ID and n > UNIQUE_ID_MAX):
            return 0
        at += 3 + n
    return 1


cdef int read_v2(Session *s, const uint8_t *d, uint32_t n) noexcept nogil:
    cdef uint32_t total, width, ports
    cdef int family
    if n < 16:
        return PROXY_MORE
    total = 16 + big16(d + 14)
    if d[12] != 0x20 and d[12] != 0x21:
        return PROXY_BAD
    if total > PROXY_IN_MAX:
        return PROXY_BAD
    if n < total:
        return PROXY_MORE
    if d[12] == 0x20:
        return <int>total       # LOCAL: the sender speaks for itself
    if d[13] != 0x11 and d[13] != 0x21:
        return PROXY_BAD
    family = AF_INET if d[13] == 0x11 else AF_INET6
    width = 4 if d[13] == 0x11 else 16
    ports = 16 + 2 * width
    if total < ports + 4 or not extras_fine(d, ports + 4, total):
        return PROXY_BAD
    note_bytes(&s.peer, family, d + 16, <uint16_t>big16(d + ports))
    note_bytes(&s.local, family, d + 16 + width, <uint16_t>big16(d + ports + 2))
    return <int>total


cdef int read_proxy(Session *s, const char *d, uint32_t n) noexcept nogil:
    if n == 0:
        return PROXY_MORE
    if d[0] == 80:
        if memcmp(d, b"PROXY ", n if n < 6 else 6) != 0:
            return PROXY_BAD
        return read_v1(s, d, n) if n >= 6 else PROXY_MORE
    if memcmp(d, SIGNATURE, n if n < 12 else 12) != 0:
        return PROXY_BAD
    return read_v2(s, <const uint8_t *>d, n)


# ---------------------------------------------------------------- writing

cdef void widen(Peer *peer, uint8_t *out) noexcept nogil:
    if peer.family == AF_INET6:
        memcpy(out, peer.address, 16)
        return
    memset(out, 0, 10)
    out[10] = out[11] = 0xff
    memcpy(out + 12, peer.address, 4)


cdef inline void put16(uint8_t *out, uint16_t value) noexcept nogil:
    out[0] = <uint8_t>(value >> 8)
    out[1] = <uint8_t>(value & 0xff)


cdef uint32_t write_v2(Session *s, uint8_t *out) noexcept nogil:
    cdef bint known = s.peer.text_len and s.local.text_len
    cdef bint four = s.peer.family == AF_INET and s.local.family == AF_INET
    memcpy(out, SIGNATURE, 12)
    if not known:
        out[12], out[13], out[14], out[15] = 0x20, 0, 0, 0
        return 16
    out[12], out[13] = 0x21, 0x11 if four else 0x21
    put16(out + 14, 12 if four else 36)
    if four:
        memcpy(out + 16, s.peer.address, 4)
        memcpy(out + 20, s.local.address, 4)
        put16(out + 24, s.peer.port)
        put16(out + 26, s.local.port)
        return 28
    widen(&s.peer, out + 16)
    widen(&s.local, out + 32)
    put16(out + 48, s.peer.port)
    put16(out + 50, s.local.port)
    return 52


cdef uint32_t write_v1(Session *s, char *out) noexcept nogil:
    cdef bint four = s.peer.family == AF_INET and s.local.family == AF_INET
    cdef const char *family = b"TCP4" if four else b"TCP6"
    cdef const char *before = b"::ffff:"
    cdef const char *none = b""
    if not (s.peer.text_len and s.local.text_len):
        memcpy(out, b"PROXY UNKNOWN\r\n", 15)
        return 15
    # one side v4 and the other v6: both are written as v6
    return <uint32_t>snprintf(
        out, PROXY_OUT_MAX, b"PROXY %s %s%s %s%s %u %u\r\n", family,
        none if four or s.peer.family == AF_INET6 else before, s.peer.text,
        none if four or s.local.family == AF_INET6 else before, s.local.text,
        <unsigned int>s.peer.port, <unsigned int>s.local.port)


cdef uint32_t write_proxy(Session *s, int version, char *out) noexcept nogil:
    note_local(s)
    return write_v1(s, out) if version == 1 else write_v2(s, <uint8_t *>out)


# ---------------------------------------------------------------- for tests and fuzzers

cdef class Sandbox:
    """A session that only has addresses, and the data in a block of exactly its size for a sanitizer to watch."""

    cdef Session s
    cdef char *d
    cdef uint32_t n

    def __cinit__(self, bytes data):
        self.n = len(data)
        self.d = <char *>malloc(self.n if self.n else 1)
        if self.d == NULL:
            raise MemoryError
        memcpy(self.d, <char *>data, self.n)
        memset(&self.s, 0, sizeof(Session))
        self.s.fd = -1

    def __dealloc__(self):
        free(self.d)


cdef object place(Peer *peer):
    return (peer.text[:peer.text_len].decode(), peer.port) if peer.text_len else None


def header(bytes data):
    """(length, source, destination) of the header at the beginning of `data`; None for more, False when it is bad.

    An address is (text, port), or None where the header says nothing about it.
    """
    cdef Sandbox box = Sandbox(data)
    cdef int got = read_proxy(&box.s, box.d, box.n)
    if got <= 0:
        return None if got == PROXY_MORE else False
    return got, place(&box.s.peer), place(&box.s.local)


def header_for(int version, bytes source, int source_port, bytes target, int target_port):
    """The header that we write for two addresses of 4 or 16 bytes (b"" for a unix socket)."""
    cdef Sandbox box = Sandbox(b"")
    cdef char out[PROXY_OUT_MAX]
    cdef uint32_t n
    box.s.local.family = 1      # known: no socket is asked
    if source:
        note_bytes(&box.s.peer, AF_INET if len(source) == 4 else AF_INET6, source, source_port)
        note_bytes(&box.s.local, AF_INET if len(target) == 4 else AF_INET6, target, target_port)
    n = write_proxy(&box.s, version, out)
    return out[:n]
