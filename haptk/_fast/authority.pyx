# Who a request is for is said twice, by an absolute target and by Host: two names are a message with two meanings.

from libc.stdint cimport uint8_t

from haptk._fast.bytes.buf cimport buf_shift
from haptk._fast.bytes.span cimport (NOWHERE, Span, span_at, span_eq, span_find, span_first, span_from, span_given,
                                     span_is, span_is_ci, span_len, span_none, span_sub)
from haptk._fast.http1 cimport H_HOST, M_CONNECT, head_target, head_value
from haptk._fast.scan cimport TOKEN

cdef enum:
    COLON = 58, SLASH = 47, QUESTION = 63


cdef Header *host_line(Head *h) noexcept nogil:
    cdef int k
    for k in range(h.count):
        if h.headers[k].id == H_HOST:
            return &h.headers[k]
    return NULL


cdef enum Scheme:
    OTHER_SCHEME = 0, HTTP_SCHEME, HTTPS_SCHEME, EITHER_SCHEME

cdef Span host_in(Span authority, Span *port) noexcept nogil:
    # The host of "host[:port]"; port: its digits, not given when there is no colon.
    cdef uint32_t i = span_len(authority)
    while i > 0 and 48 <= span_at(authority, i - 1) <= 57:
        i -= 1
    if i == 0 or span_at(authority, i - 1) != COLON:
        port[0] = span_none()
        return authority
    port[0] = span_from(authority, i)
    return span_first(authority, i - 1)


cdef bint default_port(Span port, int scheme) noexcept nogil:
    # Whether a port may be left out: it is missing, empty, or the scheme's own.
    if not span_given(port) or span_len(port) == 0:
        return 1
    return (scheme != HTTPS_SCHEME and scheme and span_is(port, b"80")) or \
        (scheme >= HTTPS_SCHEME and span_is(port, b"443"))


cdef bint same_authority(Span a, Span b) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t p, q
    if span_len(a) != span_len(b):
        return 0
    for i in range(span_len(a)):
        p = span_at(a, i)
        q = span_at(b, i)
        if p != q and (TOKEN[p] == 0 or TOKEN[p] != TOKEN[q]):
            return 0
    return 1


cdef int connect_ok(Head *h, Header *x) noexcept nogil:
    # CONNECT names host and port; a Host names the same, its port may be missing where it is a default one.
    cdef Span port, host_port, host, named = host_in(head_target(h), &port)
    if not span_given(port) or span_len(port) == 0 or span_find(named, SLASH, 0) != NOWHERE:
        return 0
    if x == NULL:
        return 1
    host = host_in(head_value(h, x), &host_port)
    if not same_authority(named, host):
        return 0
    if span_given(host_port) and span_len(host_port):
        return span_eq(port, host_port)
    return default_port(port, EITHER_SCHEME)


cdef int absolute_form(Head *h, uint32_t *start, uint32_t *end) noexcept nogil:
    # Where in the target the authority of "scheme://authority..." stands. Returns 1 + Scheme, 0 when the target is none such.
    cdef Span t = head_target(h), scheme
    cdef uint32_t n = span_len(t), i = 0
    while i < n and span_at(t, i) != COLON:
        if TOKEN[span_at(t, i)] == 0:
            return 0
        i += 1
    if i == 0 or n - i < 4 or not span_is(span_sub(t, i, 3), b"://") or not 97 <= TOKEN[span_at(t, 0)] <= 122:
        return 0
    scheme = span_first(t, i)
    start[0] = i = i + 3
    while i < n and span_at(t, i) != SLASH:
        if span_at(t, i) == 64 or span_at(t, i) == QUESTION:
            return 0            # userinfo; a query without a path, which HAProxy takes for a part of the host
        i += 1
    end[0] = i
    if i == start[0]:
        return 0
    return 1 + (HTTP_SCHEME if span_is_ci(scheme, b"http") else HTTPS_SCHEME if span_is_ci(scheme, b"https") else OTHER_SCHEME)


cdef int target_ok(Head *h) noexcept nogil:
    # The form must fit the method (RFC 9112 3.2); an absolute form must agree with Host, default ports apart.
    cdef Span t = head_target(h), named, port, host, host_port
    cdef uint32_t start = 0, end = 0
    cdef int form
    cdef Header *x
    if h.method != M_CONNECT and span_at(t, 0) == SLASH:
        return 1
    x = host_line(h)
    if h.method == M_CONNECT:
        return connect_ok(h, x)
    if span_at(t, 0) == 42:
        return span_len(t) == 1
    form = absolute_form(h, &start, &end)
    if form == 0:
        return 0
    t = span_sub(t, start, end - start)
    named = host_in(t, &port)
    if span_len(named) == 0 or x == NULL:
        return span_len(named) != 0
    if same_authority(t, head_value(h, x)):
        return 1
    host = host_in(head_value(h, x), &host_port)
    return same_authority(named, host) and default_port(port, form - 1) and default_port(host_port, form - 1)


cdef void tidy_authority(Buf *b, uint32_t base, Head *h) noexcept nogil:
    # A default port goes from the target and from Host (RFC 9110 4.2.3), so that everybody behind sees one name.
    cdef Header *x = host_line(h)
    cdef Span named, port
    cdef uint32_t start = 0, end = 0, n
    cdef int form
    if h.method == M_CONNECT:
        if x != NULL:
            named = host_in(head_value(h, x), &port)
            if span_given(port) and span_len(port) and default_port(port, EITHER_SCHEME):
                x.canonical = 0
                x.value_len = span_len(named)
        return
    form = absolute_form(h, &start, &end)
    if form == 0:
        return
    named = host_in(span_sub(head_target(h), start, end - start), &port)
    if not span_given(port) or not default_port(port, form - 1):
        return
    n = span_len(named)
    if x != NULL and x.value_len >= n:
        buf_shift(b, base + x.value, base + h.target + start, n)
        x.canonical &= n == x.value_len
        x.value_len = n
    end -= start + n            # of the port with its colon
    buf_shift(b, base + h.start + end, base + h.start, h.target + start + n - h.start)
    h.start += end
    h.target += end
    h.target_len -= end
