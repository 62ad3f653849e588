# scan: bytes. Character classes, vector scans, numbers. Knows nothing of HTTP's grammar beyond RFC 9110's tokens.
# Nothing here owns memory; every pointer is the caller's and every function is safe for any byte.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from haptk._fast.bytes.span cimport Span

cdef extern from "bytes/vector.h" nogil:
    size_t hk_value_end(const char *p, size_t n) noexcept
    size_t hk_any_of(const char *p, size_t n, char a, char b, char c) noexcept
    size_t hk_target_end(const char *p, size_t n) noexcept
    size_t hk_lower_token(char *p, size_t n, const uint8_t *token) noexcept
    const char *hk_find(const char *p, size_t n, const char *needle, size_t m) noexcept
    bint hk_blank_at_equals(const char *p, size_t n) noexcept

cdef extern from "native.h" nogil:
    bint likely "hk_likely" (bint x) noexcept
    bint unlikely "hk_unlikely" (bint x) noexcept
    void hk_fetch(const void *p, size_t n) noexcept
    int hk_load(const int *p) noexcept
    void hk_store(int *p, int v) noexcept
    int hk_acquire(const int *p) noexcept
    void hk_release(int *p, int v) noexcept
    void hk_lock(int *p) noexcept
    void hk_unlock(int *p) noexcept
    int hk_add(int *p, int v) noexcept
    int hk_count(int sharers, int *p, int v) noexcept
    uint64_t hk_add64(uint64_t *p, uint64_t v) noexcept
    void *hk_load_ptr(void **p) noexcept
    void hk_store_ptr(void **p, void *v) noexcept
    void hk_fence() noexcept
    void hk_push(void **list, void **next, void *node) noexcept
    void *hk_take_all(void **list) noexcept

# token byte -> its lower case; 0 for a byte that is no tchar (RFC 9110 5.6.2)
cdef uint8_t TOKEN[256]
# hexadecimal digit -> value; 255 otherwise
cdef uint8_t HEX[256]

# 1 for a byte that can stand in a Host header (RFC 3986 3.2, without userinfo)
cdef uint8_t HOST[256]

# Value of n decimal digits, or -1 (empty, another byte, more than 18 digits).
cdef int64_t decimal(const char *p, size_t n) noexcept nogil
# 1 when p[0..n) equals the lower-case literal `word` of the same length, ASCII case ignored.
cdef bint same_word(const char *p, const char *word, size_t n) noexcept nogil
# Whether a comma list holds the lower-case token `word` (RFC 9110 5.6.1), ASCII case ignored.
cdef bint list_has(const char *p, size_t n, const char *word, size_t wn) noexcept nogil
# The same for a span.
cdef bint has_word(Span v, Span word) noexcept nogil
# Text of v into out (20 bytes at most); returns the length.
cdef size_t put_decimal(char *out, uint64_t v) noexcept nogil
