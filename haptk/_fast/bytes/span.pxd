# span: bytes that know their bounds. Bytes of strangers are reached through these types and no others: their pointers are
# not declared here, so nothing outside this package can take one out (tests/tidy refuses the rest).
#
#   Span    read only: where it begins and how long it is. Small enough for two registers; pass it by value.
#   Room    written from its beginning on: capacity and what was written. What does not fit is refused, and so is all that
#           comes after it, until room_cut; so one look at room_full at the end is enough.
#
# A step out of bounds is a mistake of ours and ends the process: in the shipped build by a trap, in the checked one
# (HAPTK_CHECKED=1 for setup.py) with file and line. See docs/decisions/0008-bytes-of-strangers.md.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "bytes/span.h" nogil:
    ctypedef struct Span "hk_span":
        pass

    ctypedef struct Room "hk_room":
        pass

    # of the functions that find: there is none. Never a valid index
    const uint32_t NOWHERE "HK_NOWHERE"

    # the structure that has a member at an offset
    void *outer "hk_outer" (void *member, size_t offset) noexcept

    # p[0..n) as a span: for memory that comes from outside of this package
    Span span_over(const void *p, size_t n) noexcept
    # a literal
    Span word "hk_word" (const char *literal) noexcept
    Span span_none "hk_span_none" () noexcept
    # the pointer, for code that is not converted yet; goes away
    const char *span_raw "hk_span_raw" (Span s) noexcept
    # 0 for span_none() only: an empty span may be given
    bint span_given "hk_span_given" (Span s) noexcept
    uint32_t span_len "hk_span_len" (Span s) noexcept

    # parts; out of bounds is a mistake
    uint8_t span_at(Span s, uint32_t i) noexcept
    Span span_sub(Span s, uint32_t at, uint32_t n) noexcept
    Span span_from(Span s, uint32_t at) noexcept
    Span span_first(Span s, uint32_t n) noexcept
    Span span_last(Span s, uint32_t n) noexcept
    Span span_between(Span s, uint32_t start, uint32_t end) noexcept
    # where `part` begins in `s`, which it was taken from
    uint32_t span_offset(Span s, Span part) noexcept
    # `most` bytes of it, or all
    Span span_cut "hk_span_cut" (Span s, uint32_t most) noexcept

    # a structure of ours, of n bytes, that was put there as bytes
    void span_get(Span s, uint32_t at, void *out, size_t n) noexcept
    # the 16-bit number in network order at i
    uint32_t span_big16(Span s, uint32_t i) noexcept
    # all of it into an array of 16; into a structure of the operating system that is as long
    void octets_16(uint8_t out[16], Span s) noexcept
    void put_octets "hk_put_octets" (void *out, Span s) noexcept

    # equal; begins or ends with. _is and _opens take literals; _ci ignores the case of ASCII letters in `s`, the other
    # side has no capitals
    bint span_eq "hk_span_eq" (Span a, Span b) noexcept
    bint span_eq_ci "hk_span_eq_ci" (Span s, Span lower) noexcept
    bint span_begins "hk_span_begins" (Span s, Span with_) noexcept
    bint span_ends "hk_span_ends" (Span s, Span with_) noexcept
    bint span_is "hk_span_is" (Span s, const char *literal) noexcept
    bint span_is_ci "hk_span_is_ci" (Span s, const char *lower) noexcept
    bint span_opens "hk_span_opens" (Span s, const char *literal) noexcept
    bint span_opens_ci "hk_span_opens_ci" (Span s, const char *lower) noexcept

    # index of the first c at or behind `from_`, or NOWHERE
    uint32_t span_find(Span s, uint8_t c, uint32_t from_) noexcept
    # index of the first place of a whole span in another, or NOWHERE
    uint32_t span_find_span "hk_span_find_span" (Span s, Span needle) noexcept
    # index of the first byte at or behind `from_` that ends a header's value (NUL, CR, LF), cannot stand in a request's
    # target, or is one of three; the length when there is none
    uint32_t span_value_end(Span s, uint32_t from_) noexcept
    uint32_t span_target_end(Span s, uint32_t from_) noexcept
    uint32_t span_any_of(Span s, uint32_t from_, uint8_t a, uint8_t b, uint8_t c) noexcept
    # whether some `=` has a blank beside it
    bint span_blank_at_equals "hk_span_blank_at_equals" (Span s) noexcept
    # index of the first byte at or behind `from_` whose place in a table of 256 is 0, or the length
    uint32_t span_while(Span s, uint32_t from_, const uint8_t *table) noexcept
    # index of the first byte from i on that is no blank (space or tab), or the length
    uint32_t span_skip "hk_span_skip" (Span s, uint32_t i) noexcept
    # without the blanks at both ends; at its end
    Span span_trim "hk_span_trim" (Span s) noexcept
    Span span_trim_end "hk_span_trim_end" (Span s) noexcept
    # at most 18 decimal digits and nothing else, or -1
    int64_t span_decimal "hk_span_decimal" (Span s) noexcept

    # memory that comes from outside of this package, empty
    Room room_over(void *p, size_t size) noexcept
    # memory of its own: 0, or -1 without; to be closed
    int room_open "hk_room_open" (Room *r, uint32_t size) noexcept
    void room_close "hk_room_close" (Room *r) noexcept
    bint room_given "hk_room_given" (const Room *r) noexcept
    uint32_t room_len "hk_room_len" (const Room *r) noexcept
    uint32_t room_size "hk_room_size" (const Room *r) noexcept
    uint32_t room_left "hk_room_left" (const Room *r) noexcept
    bint room_full "hk_room_full" (const Room *r) noexcept
    # append: 0, or -1 when it was refused
    int room_put(Room *r, Span s) noexcept
    int room_word(Room *r, const char *literal) noexcept
    int room_char(Room *r, uint8_t c) noexcept
    int room_decimal(Room *r, uint64_t v) noexcept
    int room_hex(Room *r, uint8_t v) noexcept           # two digits, with capitals
    # the next `most` bytes, or what is left of them, as a room of their own; room_wrote counts what was written there
    Room room_within "hk_room_within" (Room *r, uint32_t most) noexcept
    void room_wrote(Room *r, uint32_t n) noexcept
    # refuse what comes, as if something had not fit
    void room_refuse "hk_room_refuse" (Room *r) noexcept
    # what was written: all, or since the length was `mark`
    Span room_span "hk_room_span" (const Room *r) noexcept
    Span room_since(const Room *r, uint32_t mark) noexcept
    # back to a length that it had
    void room_cut(Room *r, uint32_t mark) noexcept
    # the byte written last, 0 when there is none
    uint8_t room_last "hk_room_last" (const Room *r) noexcept
    # another byte in place of one that was written
    void room_set(Room *r, uint32_t i, uint8_t c) noexcept


# From and to Python's bytes. A span of one is valid as long as the object is held.
cdef inline Span span_of(bytes data):
    return span_over(PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))


cdef inline bytes span_bytes(Span s):
    return span_raw(s)[:span_len(s)]
