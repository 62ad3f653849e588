# address: addresses as text and as octets in network order, four of them or sixteen.

from libc.stdint cimport uint8_t

from haptk._fast.bytes.span cimport Room, Span

cdef extern from "bytes/address.h" nogil:
    # family of the address that a text is, its octets in out; 0 when it is none
    int span_address "hk_span_address" (Span s, uint8_t out[16]) noexcept
    # append the text of an address: 0, or -1
    int room_address(Room *r, int family, const uint8_t octets[16]) noexcept
