# The character tables are filled at import, from RFC 9110's own list, and never change afterwards.

from libc.stdint cimport uint32_t

from haptk._fast.bytes.span cimport NOWHERE, span_eq_ci, span_find, span_first, span_from, span_trim


cdef void fill_tables() noexcept:
    cdef int c
    for c in range(256):
        TOKEN[c] = 0
        HEX[c] = 255
        HOST[c] = 0x21 <= c < 0x7f and c not in b"/?#@\\,"
    for c in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz":
        TOKEN[c] = c
    for c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        TOKEN[c] = c + 32
    for c in range(10):
        HEX[48 + c] = c
    for c in range(6):
        HEX[65 + c] = 10 + c
        HEX[97 + c] = 10 + c


fill_tables()


cdef int64_t decimal(const char *p, size_t n) noexcept nogil:
    cdef uint64_t v = 0
    cdef size_t i
    cdef uint8_t digit
    if n == 0 or n > 18:
        return -1
    for i in range(n):
        digit = <uint8_t>(<uint8_t>p[i] - 48)
        if digit > 9:
            return -1
        v = v * 10 + digit
    return <int64_t>v


cdef bint same_word(const char *p, const char *word, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if TOKEN[<uint8_t>p[i]] != <uint8_t>word[i]:
            return 0
    return 1


cdef bint list_has(const char *p, size_t n, const char *word, size_t wn) noexcept nogil:
    cdef size_t i = 0, start, end
    while i < n:
        while i < n and (p[i] == 32 or p[i] == 9 or p[i] == 44):
            i += 1
        start = i
        while i < n and p[i] != 44:
            i += 1
        end = i
        while end > start and (p[end - 1] == 32 or p[end - 1] == 9):
            end -= 1
        if end - start == wn and same_word(p + start, word, wn):
            return 1
    return 0


cdef bint has_word(Span v, Span word) noexcept nogil:
    cdef uint32_t comma
    cdef Span one
    while True:
        comma = span_find(v, 44, 0)
        one = v if comma == NOWHERE else span_first(v, comma)
        if span_eq_ci(span_trim(one), word):
            return 1
        if comma == NOWHERE:
            return 0
        v = span_from(v, comma + 1)


cdef size_t put_decimal(char *out, uint64_t v) noexcept nogil:
    cdef char text[20]
    cdef size_t n = 0, i
    while True:
        text[n] = <char>(48 + v % 10)
        n += 1
        v //= 10
        if v == 0:
            break
    for i in range(n):
        out[i] = text[n - 1 - i]
    return n
