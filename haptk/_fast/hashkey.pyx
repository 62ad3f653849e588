# What HAProxy 2.6 hashes, to the byte, so that a client meets the same server behind either proxy.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from haptk._fast.bytes.span cimport span_eq, span_raw
from haptk._fast.hashing cimport avalanche, hash_bytes
from haptk._fast.http1 cimport head_name, head_target, head_value
from haptk._fast.program cimport span_text
from haptk._fast.state cimport LB_HDR, LB_SOURCE, LB_URI, LB_URL_PARAM


cdef uint32_t source_hash(Session *s) noexcept nogil:
    cdef uint32_t h = 0, i
    cdef int n = 4 if s.peer.family == 2 else 16
    cdef uint8_t *a = s.peer.address
    for i in range(<uint32_t>(n // 4)):
        h ^= (<uint32_t>a[4 * i] << 24) | (<uint32_t>a[4 * i + 1] << 16) | \
            (<uint32_t>a[4 * i + 2] << 8) | a[4 * i + 3]
    return h


cdef uint32_t uri_hash(BackendC *be, const char *target, uint32_t n) noexcept nogil:
    # The part of the target that counts: from the path on, without the query, cut by `len` and `depth`.
    cdef uint32_t i = 0, depth = 0
    if be.uri_path_only and n and target[0] != 47:
        while i + 3 < n and not (target[i] == 58 and target[i + 1] == 47 and target[i + 2] == 47):
            i += 1
        i += 3
        while i < n and target[i] != 47:
            i += 1
        if i >= n:
            return 0
        target += i
        n -= i
    if be.uri_length and n > <uint32_t>be.uri_length:
        n = be.uri_length
    for i in range(n):
        if target[i] == 63 and not be.uri_whole:
            n = i
            break
        if target[i] == 47 and be.uri_depth:
            depth += 1
            if depth == <uint32_t>be.uri_depth + 1:
                n = i
                break
    return hash_bytes(be.hash_function, target, n)


cdef bint param_hash(Session *s, BackendC *be, const char *target, uint32_t n) noexcept nogil:
    # The value of the first parameter of that name in the query, even an empty one.
    cdef const char *p = <const char *>memchr(target, 63, n)
    cdef const char *end = target + n
    cdef const char *stop
    cdef uint32_t name = be.balance_arg.n
    while p != NULL:
        p += 1
        if end - p <= <int>name:
            return 0
        if p[name] == 61 and memcmp(p, be.balance_arg.p, name) == 0:
            p += name + 1
            stop = <const char *>memchr(p, 38, end - p)
            if stop == NULL:
                stop = end
            s.hash = hash_bytes(be.hash_function, p, <uint32_t>(stop - p))
            return 1
        p = <const char *>memchr(p, 38, end - p)
    return 0


cdef uint32_t domain_hash(BackendC *be, const char *v, uint32_t n) noexcept nogil:
    # The label in front of the last dot: `example` of www.example.com:80. As in HAProxy a dot at the very beginning is
    # not seen, and a label has at least one byte.
    cdef uint32_t end = n, start = 0
    while end > 1 and v[end - 1] != 46:
        end -= 1
    if end <= 1:
        return hash_bytes(be.hash_function, v, n)
    end -= 1
    start = end - 1
    while start and v[start - 1] != 46:
        start -= 1
    return hash_bytes(be.hash_function, v + start, end - start)


cdef uint32_t value_end(const char *v, uint32_t n) noexcept nogil:
    # Of the first value of a comma list, where quotes hide a comma.
    cdef uint32_t i = 0
    cdef bint quoted = 0
    while i < n and (quoted or v[i] != 44):
        if v[i] == 34:
            quoted = not quoted
        elif quoted and v[i] == 92:
            i += 1
        i += 1
    return i if i < n else n


cdef bint header_hash(Session *s, BackendC *be, Head *h) noexcept nogil:
    # The first value of a comma list in the first header of that name.
    cdef const char *v = NULL
    cdef uint32_t n = 0, k
    cdef int i
    for i in range(h.count):
        if span_eq(head_name(h, &h.headers[i]), span_text(&be.balance_arg)):
            v, n = span_raw(head_value(h, &h.headers[i])), h.headers[i].value_len
            break
    if v == NULL:
        return 0
    k = value_end(v, n)
    while k and (v[k - 1] == 32 or v[k - 1] == 9):
        k -= 1
    s.hash = domain_hash(be, v, k) if be.domain_only else hash_bytes(be.hash_function, v, k)
    return 1


cdef void hash_request(Session *s, BackendC *be, Head *h) noexcept nogil:
    if be.balance == LB_SOURCE:
        s.hash = source_hash(s)
        s.hashed = 1
    elif h == NULL:
        return
    elif be.balance == LB_URI:
        s.hash = uri_hash(be, span_raw(head_target(h)), h.target_len)
        s.hashed = 1
    elif be.balance == LB_URL_PARAM:
        s.hashed = param_hash(s, be, span_raw(head_target(h)), h.target_len)
    elif be.balance == LB_HDR:
        s.hashed = header_hash(s, be, h)
    if be.hash_avalanche:
        s.hash = avalanche(s.hash)
