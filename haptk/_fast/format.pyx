# Rules, logs and the unique id have one kind of format, as in HAProxy: logline carries it out.

from haptk._fast.bytes.span cimport room_refuse
from haptk._fast.logline cimport Told, log_tell, log_text


cdef int format_put(Seen *x, FormatC *f, Room *out) noexcept nogil:
    cdef Told t
    if f.count == 0:
        return 0
    log_tell(x.w, x.s, &t)
    t.seen = x
    t.early = t.down = 0
    t.asking = x.req != NULL and x.s.cause != c"P"   # HAProxy takes the time before a denial
    t.backend = x.s.backend
    t.end_ms = x.s.ready_ms     # HAProxy knows no duration yet
    log_text(&t, f, out)
    if t.cut:
        room_refuse(out)
        return -1
    return 0
