# What is accepted is what HAProxy 2.6 accepts, with two differences that the protocol's text asks for: UNKNOWN may be
# followed by anything up to the line end, and a text header ends within 107 bytes.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from haptk._fast.address cimport note_bytes, note_local
from haptk._fast.bytes.address cimport span_address
from haptk._fast.bytes.span cimport (NOWHERE, Room, room_char, room_close, room_decimal, room_open, room_over, room_put,
                                     room_span, room_word, span_at, span_begins, span_between, span_big16, span_bytes,
                                     span_cut, span_find, span_first, span_from, span_is, span_len, span_of,
                                     span_opens, span_over, span_sub, word)
from haptk._fast.inet cimport AF_INET, AF_INET6
from haptk._fast.state cimport Peer

cdef enum:
    TLV_CRC32C = 3, TLV_AUTHORITY = 2, TLV_UNIQUE_ID = 5
    AUTHORITY_MAX = 255, UNIQUE_ID_MAX = 128
    SP = 32, CR = 13, LF = 10, ZERO = 48, NINE = 57
    SIGNATURE_SIZE = 12


cdef inline Span signature() noexcept nogil:
    return span_over(b"\r\n\r\n\0\r\nQUIT\n", SIGNATURE_SIZE)


# ---------------------------------------------------------------- version 1

cdef int take_address(Span d, uint32_t at, int family, uint8_t out[16]) noexcept nogil:
    # The address from `at` up to a blank; returns where the next word begins, or -1.
    cdef uint32_t end = span_find(d, SP, at)
    if end == NOWHERE or span_address(span_between(d, at, end), out) != family:
        return -1
    return <int>end + 1


cdef int take_port(Span d, uint32_t at, uint8_t stop, uint16_t *out) noexcept nogil:
    cdef uint32_t end = span_find(d, stop, at)
    cdef uint32_t value = 0, i
    if end == NOWHERE or end == at or end - at > 5 or (span_at(d, at) == ZERO and end - at > 1):
        return -1
    for i in range(at, end):
        if span_at(d, i) < ZERO or span_at(d, i) > NINE:
            return -1
        value = value * 10 + span_at(d, i) - ZERO
    if value > 65535:
        return -1
    out[0] = <uint16_t>value
    return <int>end + 1


cdef int addresses_v1(Session *s, Span d, int family) noexcept nogil:
    # d is "source destination port port CR".
    cdef uint8_t source[16]
    cdef uint8_t target[16]
    cdef uint16_t source_port = 0, target_port = 0
    cdef int at = take_address(d, 0, family, source)
    if at >= 0:
        at = take_address(d, at, family, target)
    if at >= 0:
        at = take_port(d, at, SP, &source_port)
    if at >= 0:
        at = take_port(d, at, CR, &target_port)
    if at != <int>span_len(d):
        return PROXY_BAD
    note_bytes(&s.peer, family, span_over(source, 16), source_port)
    note_bytes(&s.local, family, span_over(target, 16), target_port)
    return 1


cdef int read_v1(Session *s, Span d) noexcept nogil:
    cdef uint32_t end = span_find(span_cut(d, PROXY_V1_MAX), LF, 0)
    cdef Span line
    if end == NOWHERE:
        return PROXY_MORE if span_len(d) < PROXY_V1_MAX else PROXY_BAD
    if end < 14 or span_at(d, end - 1) != CR:
        return PROXY_BAD
    line = span_between(d, 6, end)
    if span_opens(line, b"UNKNOWN") and (span_is(line, b"UNKNOWN\r") or span_at(line, 7) == SP):
        return <int>end + 1
    if span_opens(line, b"TCP4 "):
        return <int>end + 1 if addresses_v1(s, span_from(line, 5), AF_INET) > 0 else PROXY_BAD
    if span_opens(line, b"TCP6 "):
        return <int>end + 1 if addresses_v1(s, span_from(line, 5), AF_INET6) > 0 else PROXY_BAD
    return PROXY_BAD


# ---------------------------------------------------------------- version 2

cdef uint32_t crc32c(Span d, uint32_t hole) noexcept nogil:
    # Castagnoli's CRC with the four bytes at `hole` taken as 0. Bit by bit: it is met once in a connection's life.
    cdef uint32_t value = 0xffffffff, i
    cdef int _bit
    for i in range(span_len(d)):
        if i < hole or i >= hole + 4:
            value ^= span_at(d, i)
        for _bit in range(8):
            value = (value >> 1) ^ (<uint32_t>0x82f63b78 & (0 - (value & 1)))
    return ~value


cdef bint extras_fine(Span d, uint32_t at) noexcept nogil:
    # What follows the addresses is type, length, value, and ends where the header ends.
    cdef uint32_t n, total = span_len(d)
    cdef uint8_t kind
    while at < total:
        if at + 3 > total:
            return 0
        kind = span_at(d, at)
        n = span_big16(d, at + 1)
        if at + 3 + n > total:
            return 0
        if kind == TLV_CRC32C:
            if n != 4 or crc32c(d, at + 3) != (span_big16(d, at + 3) << 16 | span_big16(d, at + 5)):
                return 0
        elif (kind == TLV_AUTHORITY and n > AUTHORITY_MAX) or (kind == TLV_UNIQUE_ID and n > UNIQUE_ID_MAX):
            return 0
        at += 3 + n
    return 1


cdef int read_v2(Session *s, Span d) noexcept nogil:
    cdef uint32_t total, width, ports
    cdef int family
    cdef uint8_t command, kind
    if span_len(d) < 16:
        return PROXY_MORE
    command, kind = span_at(d, 12), span_at(d, 13)
    total = 16 + span_big16(d, 14)
    if (command != 0x20 and command != 0x21) or total > PROXY_IN_MAX:
        return PROXY_BAD
    if span_len(d) < total:
        return PROXY_MORE
    if command == 0x20:
        return <int>total       # LOCAL: the sender speaks for itself
    if kind != 0x11 and kind != 0x21:
        return PROXY_BAD
    d = span_first(d, total)
    family = AF_INET if kind == 0x11 else AF_INET6
    width = 4 if kind == 0x11 else 16
    ports = 16 + 2 * width
    if total < ports + 4 or not extras_fine(d, ports + 4):
        return PROXY_BAD
    note_bytes(&s.peer, family, span_sub(d, 16, width), <uint16_t>span_big16(d, ports))
    note_bytes(&s.local, family, span_sub(d, 16 + width, width), <uint16_t>span_big16(d, ports + 2))
    return <int>total


cdef int read_proxy(Session *s, Span d) noexcept nogil:
    cdef Span text = word(b"PROXY ")
    if span_len(d) == 0:
        return PROXY_MORE
    if span_at(d, 0) == 80:
        if not span_begins(text, span_cut(d, span_len(text))):
            return PROXY_BAD
        return read_v1(s, d) if span_len(d) >= span_len(text) else PROXY_MORE
    return read_v2(s, d) if span_begins(signature(), span_cut(d, SIGNATURE_SIZE)) else PROXY_BAD


# ---------------------------------------------------------------- writing

cdef void put_address(Peer *peer, bint four, Room *out) noexcept nogil:
    # Its octets; an IPv4 address in a header of IPv6 is widened.
    if not four and peer.family == AF_INET:
        room_put(out, span_over(b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12))
    room_put(out, span_over(peer.address, 4 if peer.family == AF_INET else 16))


cdef inline void put16(Room *out, uint16_t value) noexcept nogil:
    room_char(out, <uint8_t>(value >> 8))
    room_char(out, <uint8_t>(value & 0xff))


cdef void write_v2(Session *s, Room *out) noexcept nogil:
    cdef bint known = s.peer.text_len and s.local.text_len
    cdef bint four = s.peer.family == AF_INET and s.local.family == AF_INET
    room_put(out, signature())
    room_char(out, 0x21 if known else 0x20)
    room_char(out, 0 if not known else 0x11 if four else 0x21)
    put16(out, 0 if not known else 12 if four else 36)
    if known:
        put_address(&s.peer, four, out)
        put_address(&s.local, four, out)
        put16(out, s.peer.port)
        put16(out, s.local.port)


cdef void put_text(Peer *peer, bint four, Room *out) noexcept nogil:
    # One side v4 and the other v6: both are written as v6.
    if not four and peer.family == AF_INET:
        room_word(out, b"::ffff:")
    room_put(out, span_over(peer.text, peer.text_len))
    room_char(out, SP)


cdef void write_v1(Session *s, Room *out) noexcept nogil:
    cdef bint four = s.peer.family == AF_INET and s.local.family == AF_INET
    if not (s.peer.text_len and s.local.text_len):
        room_word(out, b"PROXY UNKNOWN\r\n")
        return
    room_word(out, b"PROXY TCP4 " if four else b"PROXY TCP6 ")
    put_text(&s.peer, four, out)
    put_text(&s.local, four, out)
    room_decimal(out, s.peer.port)
    room_char(out, SP)
    room_decimal(out, s.local.port)
    room_word(out, b"\r\n")


cdef void write_proxy(Session *s, int version, Room *out) noexcept nogil:
    note_local(s)
    if version == 1:
        write_v1(s, out)
    else:
        write_v2(s, out)


# ---------------------------------------------------------------- for tests and fuzzers

cdef class Sandbox:
    """A session that only has addresses, and the data in a block of exactly its size for a sanitizer to watch."""

    cdef Session s
    cdef Room data

    def __cinit__(self, bytes data):
        if room_open(&self.data, len(data)) < 0:
            raise MemoryError
        room_put(&self.data, span_of(data))
        memset(&self.s, 0, sizeof(Session))
        self.s.fd = -1

    def __dealloc__(self):
        room_close(&self.data)


cdef object place(Peer *peer):
    return (peer.text[:peer.text_len].decode(), peer.port) if peer.text_len else None


def header(bytes data):
    """(length, source, destination) of the header at the beginning of `data`; None for more, False when it is bad.

    An address is (text, port), or None where the header says nothing about it.
    """
    cdef Sandbox box = Sandbox(data)
    cdef int got = read_proxy(&box.s, room_span(&box.data))
    if got <= 0:
        return None if got == PROXY_MORE else False
    return got, place(&box.s.peer), place(&box.s.local)


def header_for(int version, bytes source, int source_port, bytes target, int target_port):
    """The header that we write for two addresses of 4 or 16 bytes (b"" for a unix socket)."""
    cdef Sandbox box = Sandbox(b"")
    cdef char made[PROXY_OUT_MAX]
    cdef Room out = room_over(made, PROXY_OUT_MAX)
    box.s.local.family = 1      # known: no socket is asked
    if source:
        note_bytes(&box.s.peer, AF_INET if len(source) == 4 else AF_INET6, span_of(source), source_port)
        note_bytes(&box.s.local, AF_INET if len(target) == 4 else AF_INET6, span_of(target), target_port)
    write_proxy(&box.s, version, &out)
    return span_bytes(room_span(&out))
