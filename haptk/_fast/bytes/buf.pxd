# buf: the buffers of a session, in which bytes arrive and wait.

from libc.stdint cimport uint8_t, uint32_t

from haptk._fast.bytes.span cimport Room, Span

cdef extern from "bytes/buf.h" nogil:
    # Bytes on their way through: d[r:f) may be written, d[p:n) has not been looked at, and d[f:p) is framing that was
    # dropped. r <= f <= p <= n <= size. Buffers that are only filled and sent (rendered heads, keys, lines) use r and n
    # alone. The owner is the session; the memory, d, comes from the worker's pool and is not declared here.
    ctypedef struct Buf "hk_buf":
        uint32_t r
        uint32_t f
        uint32_t p
        uint32_t n
        uint32_t size

    bint buf_held "hk_buf_held" (const Buf *b) noexcept
    Span buf_part(const Buf *b, uint32_t start, uint32_t end) noexcept
    # over what was written to a room, all of it unseen; the room's memory stays the room's
    void buf_over "hk_buf_over" (Buf *b, const Room *r) noexcept
    # append: 0, or -1 when there is no room for all of it
    int buf_put(Buf *b, Span s) noexcept
    # the rest of the buffer to write into, behind what it holds; buf_wrote takes over what was written
    Room buf_room(Buf *b) noexcept
    void buf_wrote(Buf *b, const Room *r) noexcept
    # take out what stands from `start` to `end`
    void buf_cut(Buf *b, uint32_t start, uint32_t end) noexcept
    # the next `count` unseen bytes are to be forwarded; are dropped
    void buf_keep(Buf *b, uint32_t count) noexcept
    void buf_skip(Buf *b, uint32_t count) noexcept
    # what stands from `start` on moves to the beginning, and with it r, f and p
    void buf_compact(Buf *b, uint32_t start) noexcept
    # the first `count` bytes are exchanged for a span: 0, or -1 when the result does not fit
    int buf_front(Buf *b, uint32_t count, Span s) noexcept
    # nothing is held any more
    void buf_empty "hk_buf_empty" (Buf *b) noexcept
    # for the pool: memory in, empty; out again; other memory for what is held
    void buf_give "hk_buf_give" (Buf *b, void *memory, uint32_t size) noexcept
    void *buf_take_back "hk_buf_take_back" (Buf *b) noexcept
    void buf_move(Buf *b, void *memory, uint32_t size) noexcept
    # in place, of what has arrived: one byte; `count` bytes from one place to another
    void buf_set(Buf *b, uint32_t at, uint8_t c) noexcept
    void buf_shift(Buf *b, uint32_t to, uint32_t from_, uint32_t count) noexcept
    # whether the header line at `at` is "name: value" CR LF and the next one no part of it; the name is lower-cased, and its
    # length told in any case
    bint buf_usual_line(Buf *b, uint32_t at, const uint8_t *token, uint32_t *name_len, uint32_t *value_len) noexcept
    # length of the run of token characters from `at` on, which are lower-cased in place; `token` is scan.TOKEN
    uint32_t buf_lower_token(Buf *b, uint32_t at, const uint8_t *token) noexcept


cdef inline Span buf_ready(const Buf *b) noexcept nogil:
    return buf_part(b, b.r, b.f)


cdef inline Span buf_unseen(const Buf *b) noexcept nogil:
    return buf_part(b, b.p, b.n)


# What is still to be sent of a buffer that is only filled and sent.
cdef inline Span buf_owed(const Buf *b) noexcept nogil:
    return buf_part(b, b.r, b.n)
