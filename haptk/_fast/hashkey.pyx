# What HAProxy 2.6 hashes, to the byte, so that a client meets the same server behind either proxy.

from libc.stdint cimport uint8_t, uint32_t

from haptk._fast.bytes.span cimport (NOWHERE, Span, span_at, span_begins, span_between, span_cut, span_eq, span_find,
                                     span_find_span, span_first, span_from, span_len, span_trim_end, word)
from haptk._fast.hashing cimport avalanche, hash_bytes
from haptk._fast.http1 cimport head_name, head_target, head_value
from haptk._fast.inet cimport AF_INET
from haptk._fast.program cimport span_text
from haptk._fast.state cimport LB_HDR, LB_SOURCE, LB_URI, LB_URL_PARAM

cdef enum:
    SLASH = 47, QUESTION = 63, AMPERSAND = 38, EQUAL = 61, DOT = 46, COMMA = 44, QUOTE = 34, BACKSLASH = 92


cdef uint32_t source_hash(Session *s) noexcept nogil:
    cdef uint32_t h = 0, i
    cdef uint8_t *a = s.peer.address
    for i in range(1 if s.peer.family == AF_INET else 4):
        h ^= (<uint32_t>a[4 * i] << 24) | (<uint32_t>a[4 * i + 1] << 16) | \
            (<uint32_t>a[4 * i + 2] << 8) | a[4 * i + 3]
    return h


cdef uint32_t uri_hash(BackendC *be, Span target) noexcept nogil:
    # The part of the target that counts: from the path on, without the query, cut by `len` and `depth`.
    cdef uint32_t i, depth = 0
    if be.uri_path_only and span_len(target) and span_at(target, 0) != SLASH:
        i = span_find_span(target, word(b"://"))
        if i != NOWHERE:
            i = span_find(target, SLASH, i + 3)
        if i == NOWHERE:
            return 0
        target = span_from(target, i)
    if be.uri_length:
        target = span_cut(target, be.uri_length)
    for i in range(span_len(target)):
        if span_at(target, i) == QUESTION and not be.uri_whole:
            target = span_first(target, i)
            break
        if span_at(target, i) == SLASH and be.uri_depth:
            depth += 1
            if depth == <uint32_t>be.uri_depth + 1:
                target = span_first(target, i)
                break
    return hash_bytes(be.hash_function, target)


cdef bint param_hash(Session *s, BackendC *be, Span target) noexcept nogil:
    # The value of the first parameter of that name in the query, even an empty one.
    cdef Span name = span_text(&be.balance_arg), rest
    cdef uint32_t at = span_find(target, QUESTION, 0), stop
    while at != NOWHERE:
        rest = span_from(target, at + 1)
        if span_len(rest) <= span_len(name):
            return 0
        if span_at(rest, span_len(name)) == EQUAL and span_begins(rest, name):
            rest = span_from(rest, span_len(name) + 1)
            stop = span_find(rest, AMPERSAND, 0)
            s.hash = hash_bytes(be.hash_function, rest if stop == NOWHERE else span_first(rest, stop))
            return 1
        at = span_find(target, AMPERSAND, at + 1)
    return 0


cdef uint32_t domain_hash(BackendC *be, Span v) noexcept nogil:
    # The label in front of the last dot: `example` of www.example.com:80. As in HAProxy a dot at the very beginning is
    # not seen, and a label has at least one byte.
    cdef uint32_t end = span_len(v), start = 0
    while end > 1 and span_at(v, end - 1) != DOT:
        end -= 1
    if end <= 1:
        return hash_bytes(be.hash_function, v)
    end -= 1
    start = end - 1
    while start and span_at(v, start - 1) != DOT:
        start -= 1
    return hash_bytes(be.hash_function, span_between(v, start, end))


cdef Span first_value(Span v) noexcept nogil:
    # Of a comma list, where quotes hide a comma.
    cdef uint32_t i = 0, n = span_len(v)
    cdef bint quoted = 0
    while i < n and (quoted or span_at(v, i) != COMMA):
        if span_at(v, i) == QUOTE:
            quoted = not quoted
        elif quoted and span_at(v, i) == BACKSLASH:
            i += 1
        i += 1
    return span_trim_end(span_cut(v, i))


cdef bint header_hash(Session *s, BackendC *be, Head *h) noexcept nogil:
    # The first value of a comma list in the first header of that name.
    cdef Span v
    cdef int i
    for i in range(h.count):
        if span_eq(head_name(h, &h.headers[i]), span_text(&be.balance_arg)):
            v = first_value(head_value(h, &h.headers[i]))
            s.hash = domain_hash(be, v) if be.domain_only else hash_bytes(be.hash_function, v)
            return 1
    return 0


cdef void hash_request(Session *s, BackendC *be, Head *h) noexcept nogil:
    if be.balance == LB_SOURCE:
        s.hash = source_hash(s)
        s.hashed = 1
    elif h == NULL:
        return
    elif be.balance == LB_URI:
        s.hash = uri_hash(be, head_target(h))
        s.hashed = 1
    elif be.balance == LB_URL_PARAM:
        s.hashed = param_hash(s, be, head_target(h))
    elif be.balance == LB_HDR:
        s.hashed = header_hash(s, be, h)
    if be.hash_avalanche:
        s.hash = avalanche(s.hash)
