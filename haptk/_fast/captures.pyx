from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcpy


cdef const char *captured_text(Session *s, int which, int i, uint32_t *n) noexcept nogil:
    # What journal.keep_item has stored: slot, length, bytes.
    cdef uint32_t at = s.line_len
    cdef uint16_t size = 0
    n[0] = 0
    if which != CAPTURED_REQUEST or s.line.d == NULL:
        return NULL
    while at + 3 <= s.line.n:
        memcpy(&size, s.line.d + at + 1, 2)
        if <uint8_t>s.line.d[at] == i:
            n[0] = size
            return s.line.d + at + 3
        at += 3 + size
    return NULL
