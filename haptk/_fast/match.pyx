# Case is ASCII's. Patterns under -i are lower-case already.

from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcmp, memset

from haptk._fast.convert cimport convert
from haptk._fast.facts cimport Cursor, S_ADDR, S_STR, address_of, as_int, as_text, fetch_next
from haptk._fast.program cimport (MT_BEG, MT_BOOL, MT_DIR, MT_DOM, MT_END, MT_FOUND, MT_INT, MT_IP, MT_LEN, MT_REG,
                                  MT_STR, MT_SUB, TermC, Text)
from haptk._fast.regex cimport Groups, regex_exec

cdef extern from "string.h" nogil:
    void *memmem(const void *a, size_t an, const void *b, size_t bn)


cdef bint in_network(Net *net, int family, const uint8_t *a) noexcept nogil:
    cdef int whole = net.bits // 8, rest = net.bits % 8
    if net.family != family or memcmp(net.base, a, whole) != 0:
        return 0
    return rest == 0 or (net.base[whole] ^ a[whole]) >> (8 - rest) == 0


cdef inline char lower(char c) noexcept nogil:
    return c + 32 if 65 <= c <= 90 else c


cdef bint same(const char *v, Text *p, bint ignore_case) noexcept nogil:
    # v has at least p.n bytes.
    cdef uint32_t i
    if not ignore_case:
        return memcmp(v, p.p, p.n) == 0
    for i in range(p.n):
        if lower(v[i]) != p.p[i]:
            return 0
    return 1


cdef bint holds_text(const char *v, uint32_t n, Text *p, bint ignore_case) noexcept nogil:
    # Somewhere in v.
    cdef uint32_t i
    if p.n > n:
        return 0
    if p.n == 0:
        return 1
    if not ignore_case:
        return memmem(v, n, p.p, p.n) != NULL
    for i in range(n - p.n + 1):
        if same(v + i, p, 1):
            return 1
    return 0


cdef bint holds_segment(const char *v, uint32_t n, Text *p, bint ignore_case, const char *ends, size_t end_count) noexcept nogil:
    # Between two delimiters, or one and an end of v.
    cdef uint32_t i
    if p.n == 0 or p.n > n:
        return 0
    for i in range(n - p.n + 1):
        if i and memchr(ends, <unsigned char>v[i - 1], end_count) == NULL:
            continue
        if i + p.n < n and memchr(ends, <unsigned char>v[i + p.n], end_count) == NULL:
            continue
        if same(v + i, p, ignore_case):
            return 1
    return 0


cdef bint text_matches(Seen *x, TestC *t, PatternC *p, Sample *v) noexcept nogil:
    cdef Groups groups
    if t.method == MT_LEN:
        return p.low <= <int>v.n <= p.high
    if t.method == MT_REG:
        return regex_exec(&x.w.regex, p.regex, v.p, v.n, 0, &groups)
    if t.method == MT_STR:
        return v.n == p.text.n and same(v.p, &p.text, t.ignore_case)
    if t.method == MT_BEG:
        return v.n >= p.text.n and same(v.p, &p.text, t.ignore_case)
    if t.method == MT_END:
        return v.n >= p.text.n and same(v.p + v.n - p.text.n, &p.text, t.ignore_case)
    if t.method == MT_SUB:
        return holds_text(v.p, v.n, &p.text, t.ignore_case)
    if t.method == MT_DIR:
        return holds_segment(v.p, v.n, &p.text, t.ignore_case, b"/?", 2)
    return t.method == MT_DOM and holds_segment(v.p, v.n, &p.text, t.ignore_case, b"/?.:", 4)


cdef bint matches(Seen *x, TestC *t, PatternC *p, Sample *v) noexcept nogil:
    if t.method == MT_INT:
        return as_int(v) and p.low <= v.v <= p.high
    if t.method == MT_IP:
        return v.kind == S_ADDR and in_network(&p.net, v.family, v.address)
    return as_text(x, v) and text_matches(x, t, p, v)


cdef bint test_holds(Seen *x, TestC *t) noexcept nogil:
    cdef Cursor c
    cdef Sample v
    cdef int i
    memset(&c, 0, sizeof(Cursor))
    while True:
        x.used = 0
        if not fetch_next(x, &t.expr, &c, &v):
            return 0
        if not convert(x, &t.expr, &v):
            continue
        if t.method == MT_FOUND:
            return 1
        if t.method == MT_BOOL:
            if as_int(&v) and v.v:
                return 1
            continue
        if t.method == MT_IP and v.kind == S_STR:
            address_of(&v)
        for i in range(t.count):
            if matches(x, t, &t.patterns[i], &v):
                return 1


cdef bint holds(Seen *x, ConditionC *c) noexcept nogil:
    # Terms side by side must all hold; the first alternative that does decides.
    cdef TermC *term
    cdef int i, k
    cdef bint all_hold = 1, one
    if c == NULL:
        return 1
    for i in range(c.count):
        term = &c.terms[i]
        if all_hold:
            one = 0
            for k in range(term.count):
                if test_holds(x, &term.tests[k]):
                    one = 1
                    break
            all_hold = one != term.negated
        if term.last:
            if all_hold:
                return not c.unless
            all_hold = 1
    return c.unless
