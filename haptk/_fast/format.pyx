# Rules, logs and the unique id have one kind of format, as in HAProxy: logline carries it out.

from haptk._fast.logline cimport Told, log_tell, log_text


cdef int64_t format_put(Seen *x, FormatC *f, char *out, uint32_t size) noexcept nogil:
    cdef Told t
    cdef uint32_t n
    if f.count == 0:
        return 0
    log_tell(x.w, x.s, &t)
    t.seen = x
    t.early = 0
    t.asking = x.req != NULL and x.s.cause != c"P"   # HAProxy takes the time before a denial
    t.backend = x.s.backend
    t.end_ms = x.s.ready_ms     # HAProxy knows no duration yet
    n = log_text(&t, f, out, size)
    return -1 if t.cut else <int64_t>n
