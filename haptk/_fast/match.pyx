# Case is ASCII's. Patterns under -i are lower-case already.

from libc.stdint cimport uint32_t
from libc.string cimport memset

from haptk._fast.bytes.span cimport (NOWHERE, Span, span_at, span_eq, span_eq_ci, span_find,
                                     span_find_span, span_first, span_given, span_last, span_len, span_sub, word)
from haptk._fast.convert cimport convert
from haptk._fast.facts cimport Cursor, S_ADDR, S_STR, address_of, as_int, as_text, fetch_next, method_name, sample_begin
from haptk._fast.http1 cimport M_CONNECT, M_GET
from haptk._fast.inet cimport AF_INET, AF_INET6
from haptk._fast.program cimport (F_METHOD, MT_BEG, MT_BOOL, MT_DIR, MT_DOM, MT_END, MT_FOUND, MT_INT, MT_IP, MT_LEN, MT_REG,
                                  MT_STR, MT_SUB, TermC, span_text)
from haptk._fast.regex cimport Groups, regex_exec


cdef bint in_network(Net *net, int family, const uint8_t *a) noexcept nogil:
    cdef int i, whole = net.bits // 8, rest = net.bits % 8
    if net.family != family:
        return 0
    for i in range(whole):
        if net.base[i] != a[i]:
            return 0
    return rest == 0 or (net.base[whole] ^ a[whole]) >> (8 - rest) == 0


cdef bint other_family(Sample *v, Sample *out) noexcept nogil:
    # The same address in the other family: an IPv4 one mapped, an IPv6 one that is mapped (behind ::ffff: or zeros) or 6to4.
    cdef int i, start = 12
    out.family = AF_INET6 if v.family == AF_INET else AF_INET
    if v.family == AF_INET:
        for i in range(16):
            out.address[i] = v.address[i - 12] if i >= 12 else 0xff if i >= 10 else 0
        return 1
    if v.address[0] == 0x20 and v.address[1] == 0x02:
        start = 2
    else:
        for i in range(10):
            if v.address[i]:
                return 0
        if v.address[10] != v.address[11] or (v.address[10] and v.address[10] != 0xff):
            return 0
    for i in range(4):
        out.address[i] = v.address[start + i]
    return 1


cdef bint net_holds(Net *net, Sample *v) noexcept nogil:
    # As HAProxy's patterns see it: an address of the other family is converted.
    cdef Sample other
    if net.family == v.family:
        return in_network(net, v.family, v.address)
    return other_family(v, &other) and in_network(net, other.family, other.address)


cdef inline bint same(Span v, Span pattern, bint ignore_case) noexcept nogil:
    return span_eq_ci(v, pattern) if ignore_case else span_eq(v, pattern)


cdef bint holds_text(Span v, Span pattern, bint ignore_case) noexcept nogil:
    # Somewhere in v.
    cdef uint32_t i, n = span_len(pattern)
    if not ignore_case:
        return span_find_span(v, pattern) != NOWHERE
    if n > span_len(v):
        return 0
    for i in range(span_len(v) - n + 1):
        if span_eq_ci(span_sub(v, i, n), pattern):
            return 1
    return 0


cdef bint holds_segment(Span v, Span pattern, bint ignore_case, Span ends) noexcept nogil:
    # Between two delimiters, or one and an end of v.
    cdef uint32_t i, n = span_len(pattern), whole = span_len(v)
    if n == 0 or n > whole:
        return 0
    for i in range(whole - n + 1):
        if i and span_find(ends, span_at(v, i - 1), 0) == NOWHERE:
            continue
        if i + n < whole and span_find(ends, span_at(v, i + n), 0) == NOWHERE:
            continue
        if same(span_sub(v, i, n), pattern, ignore_case):
            return 1
    return 0


cdef bint made_known(Seen *x, Span name) noexcept nogil:
    # A method that HAProxy knows is looked for in what the client asked with: a rule does not make one of another.
    cdef int method
    if span_given(method_name(x.s.method)):
        return 0
    for method in range(M_GET, M_CONNECT + 1):
        if span_eq(method_name(method), name):
            return 1
    return 0


cdef bint text_matches(Seen *x, TestC *t, PatternC *p, Span v) noexcept nogil:
    cdef Groups groups
    cdef Span pattern = span_text(&p.text)
    cdef uint32_t n = span_len(pattern)
    if t.method == MT_LEN:
        return p.low <= <int>span_len(v) <= p.high
    if t.method == MT_REG:
        return regex_exec(&x.w.regex, p.regex, v, 0, &groups)
    if t.method == MT_STR:
        return same(v, pattern, t.ignore_case) and not (t.expr.fetch == F_METHOD and made_known(x, pattern))
    if t.method == MT_BEG:
        return n <= span_len(v) and same(span_first(v, n), pattern, t.ignore_case)
    if t.method == MT_END:
        return n <= span_len(v) and same(span_last(v, n), pattern, t.ignore_case)
    if t.method == MT_SUB:
        return holds_text(v, pattern, t.ignore_case)
    if t.method == MT_DIR:
        return holds_segment(v, pattern, t.ignore_case, word(b"/?"))
    return t.method == MT_DOM and holds_segment(v, pattern, t.ignore_case, word(b"/?.:"))


cdef bint matches(Seen *x, TestC *t, PatternC *p, Sample *v) noexcept nogil:
    if t.method == MT_INT:
        return as_int(v) and p.low <= v.v <= p.high
    if t.method == MT_IP:
        return v.kind == S_ADDR and net_holds(&p.net, v)
    return as_text(x, v) and text_matches(x, t, p, v.text)


cdef bint test_holds(Seen *x, TestC *t) noexcept nogil:
    cdef Cursor c
    cdef Sample v
    cdef int i
    memset(&c, 0, sizeof(Cursor))
    while True:
        sample_begin(x)
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
