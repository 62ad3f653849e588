# Variables look at the request line as the client sent it, as HAProxy's do; expressions look at what rules made of it.

from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcpy

from haptk._fast.convert cimport fetch_one
from haptk._fast.facts cimport Sample, as_text, path_in, query_in
from haptk._fast.program cimport (ExprC, PartC, Text, V_BE, V_CI, V_CP, V_FE, V_FI, V_FP, V_HM, V_HOSTNAME, V_HP, V_HPO,
                                  V_HQ, V_HU, V_HV, V_MS, V_PID, V_R, V_SERVER, V_ST, V_TS)
from haptk._fast.scan cimport put_decimal

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_REALTIME
    int clock_gettime(int clock, timespec *t)

cdef const char *HEXITS = b"0123456789ABCDEF"


cdef int64_t plain(const char *p, uint32_t n, char *out, uint32_t size) noexcept nogil:
    if n > size:
        return -1
    memcpy(out, p, n)
    return n


cdef int64_t number(int64_t v, char *out, uint32_t size) noexcept nogil:
    if size < 20:
        return -1
    if v < 0:
        out[0] = 45
        return 1 + <int64_t>put_decimal(out + 1, <unsigned long long>-v)
    return <int64_t>put_decimal(out, <unsigned long long>v)


cdef int64_t encoded(const char *p, uint32_t n, char *out, uint32_t size) noexcept nogil:
    cdef uint32_t i, k = 0
    cdef uint8_t c
    for i in range(n):
        c = <uint8_t>p[i]
        if c >= 32 and c != 127 or c == 9:
            if k == size:
                return -1
            out[k] = <char>c
            k += 1
            continue
        if k + 3 > size:
            return -1
        out[k] = 37
        out[k + 1] = HEXITS[c >> 4]
        out[k + 2] = HEXITS[c & 15]
        k += 3
    return k


cdef int64_t expression(Seen *x, ExprC *e, char *out, uint32_t size) noexcept nogil:
    cdef Sample v
    x.used = 0
    if not fetch_one(x, e, &v) or not as_text(x, &v):
        return 0
    return encoded(v.p, v.n, out, size)


cdef int64_t of_line(Seen *x, int which, char *out, uint32_t size) noexcept nogil:
    # Pieces of "METHOD TARGET VERSION".
    cdef const char *p = x.line.p
    cdef const char *target
    cdef const char *version
    cdef uint32_t n = x.line.n, target_n, start = 0, end = 0
    if p == NULL or which == V_R:
        return plain(p, n, out, size)
    target = <const char *>memchr(p, 32, n)
    if target == NULL:
        return 0
    if which == V_HM:
        return plain(p, <uint32_t>(target - p), out, size)
    target += 1
    target_n = n - <uint32_t>(target - p)
    version = <const char *>memchr(target, 32, target_n)
    if version == NULL:
        return 0
    if which == V_HV:
        return plain(version + 1, n - <uint32_t>(version + 1 - p), out, size)
    target_n = <uint32_t>(version - target)
    if which == V_HU:
        return plain(target, target_n, out, size)
    if which == V_HQ:
        return plain(target + start - 1, target_n - start + 1, out, size) if query_in(target, target_n, &start) else 0
    if which == V_HP:
        return plain(target, start - 1 if query_in(target, target_n, &start) else target_n, out, size)
    return plain(target + start, end - start, out, size) if path_in(target, target_n, &start, &end) else 0


cdef int64_t variable(Seen *x, PartC *part, char *out, uint32_t size) noexcept nogil:
    cdef int which = part.variable
    cdef timespec now
    cdef int64_t ms
    cdef Text *name
    if which == V_CI:
        return plain(x.s.peer.text, x.s.peer.text_len, out, size)
    if which == V_FI:
        return plain(x.s.local.text, x.s.local.text_len, out, size)
    if which == V_CP or which == V_FP:
        return number(x.s.peer.port if which == V_CP else x.s.local.port, out, size)
    if which == V_FE:
        return plain(x.s.frontend.name.p, x.s.frontend.name.n, out, size)
    if which == V_BE:
        name = &x.s.backend.name if x.s.backend != NULL else &x.s.frontend.name
        return plain(name.p, name.n, out, size)
    if which == V_SERVER:
        if x.s.server == NULL:
            return plain(b"<NOSRV>", 7, out, size)
        return plain(x.s.server.name.p, x.s.server.name.n, out, size)
    if which == V_ST:
        return number(x.s.status, out, size)
    if which == V_TS or which == V_MS:
        clock_gettime(CLOCK_REALTIME, &now)
        if which == V_TS:
            return number(now.tv_sec, out, size)
        ms = now.tv_nsec // 1000000
        if size < 3:
            return -1
        out[0], out[1], out[2] = <char>(48 + ms // 100), <char>(48 + ms // 10 % 10), <char>(48 + ms % 10)
        return 3
    if which == V_HOSTNAME or which == V_PID:
        return plain(part.text.p, part.text.n, out, size)
    if which == V_HM or which == V_HP or which == V_HPO or which == V_HQ or which == V_HU or which == V_HV or which == V_R:
        return of_line(x, which, out, size)
    return 0


cdef int64_t format_put(Seen *x, FormatC *f, char *out, uint32_t size) noexcept nogil:
    cdef int i
    cdef int64_t n = 0, got
    cdef PartC *part
    for i in range(f.count):
        part = &f.parts[i]
        if part.expr != NULL:
            got = expression(x, part.expr, out + n, size - <uint32_t>n)
        elif part.variable >= 0:
            got = variable(x, part, out + n, size - <uint32_t>n)
        else:
            got = plain(part.text.p, part.text.n, out + n, size - <uint32_t>n)
        if got < 0:
            return -1
        n += got
    return n
