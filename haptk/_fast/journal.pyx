# One writer and one reader: the writer publishes by storing the head after the record, the reader frees by storing the
# tail after it has sent. Both indices stay below the size; the lane is empty when they are equal.

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from haptk._fast.address cimport note_address, note_local
from haptk._fast.bytes.buf cimport buf_part, buf_put
from haptk._fast.bytes.span cimport (NOWHERE, Room, room_char, room_len, room_over, room_span, room_within, room_wrote,
                                     span_begins, span_cut, span_find, span_len, span_opens, span_over)
from haptk._fast.captures cimport CAPTURED_REQUEST, ID_SLOT, OUR_END_SLOT, SERVER_END_SLOT, captured_text, keep_item
from haptk._fast.descriptors cimport FD_LANE, fd_ring
from haptk._fast.http1 cimport head_line
from haptk._fast.inet cimport getsockname, sockaddr, sockaddr_storage, socklen_t
from haptk._fast.logline cimport Told, log_plain, log_refused, log_tell, log_text, log_wall_us
from haptk._fast.logplan cimport LOG_REQUEST, LOG_RESPONSE, LogPlanC
from haptk._fast.pool cimport buf_take
from haptk._fast.scan cimport hk_acquire, hk_add, hk_fence, hk_load, hk_release, hk_store
from haptk._fast.state cimport Peer
from haptk._fast.state cimport LOG_SILENT
from haptk._fast.tally cimport tally_end

cdef enum:
    LEVEL_ERR = 3, LEVEL_INFO = 6
    AT_END = 1, WITHOUT_REQUEST = 2


# ---------------------------------------------------------------- the lane

cdef LogLane *lane_open() noexcept nogil:
    cdef LogLane *lane = <LogLane *>calloc(1, sizeof(LogLane))
    if lane == NULL:
        return NULL
    lane.d = <char *>malloc(LANE_SIZE)
    lane.size = LANE_SIZE
    lane.wake_fd = -1
    if lane.d == NULL:
        free(lane)
        return NULL
    return lane


cdef void lane_close(LogLane *lane) noexcept nogil:
    if lane != NULL:
        free(lane.d)
        free(lane)


cdef Record *reserve(LogLane *lane, uint32_t size) noexcept nogil:
    # A contiguous place for `size` bytes, or NULL. The head is moved by publish().
    cdef int head = hk_load(&lane.head), tail = hk_acquire(&lane.tail)
    if head >= tail:
        if head + <int>size < <int>lane.size:
            return <Record *>(lane.d + head)
        if <int>size >= tail:
            return NULL
        (<uint32_t *>(lane.d + head))[0] = 0
        hk_release(&lane.head, 0)
        return <Record *>lane.d
    return <Record *>(lane.d + head) if head + <int>size < tail else NULL


cdef void publish(LogLane *lane, Record *x) noexcept nogil:
    x.size = (<uint32_t>sizeof(Record) + x.structured + x.length + 8) & ~<uint32_t>7
    hk_release(&lane.head, <int>(<char *>x - lane.d) + <int>x.size)
    # the reader says that it sleeps and then looks once more: one of us sees the other
    hk_fence()
    if hk_load(&lane.asleep):
        hk_store(&lane.asleep, 0)
        fd_ring(lane.wake_fd, FD_LANE)


cdef Record *lane_next(LogLane *lane, int *at) noexcept nogil:
    cdef int head = hk_acquire(&lane.head)
    cdef Record *x
    if at[0] == head:
        return NULL
    x = <Record *>(lane.d + at[0])
    if x.size == 0:
        at[0] = 0
        if head == 0:
            return NULL
        x = <Record *>lane.d
    at[0] += <int>x.size
    return x


# ---------------------------------------------------------------- what is kept of a request

cdef void note_request(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef LogPlanC *plan = s.frontend.log
    if s.frontend.noting == 0:
        return
    s.logged = 0
    s.behind_server = s.behind_backend = 0
    if w.conf.numbers != NULL:
        s.number = <uint32_t>(hk_add(w.conf.numbers, 1) - 1)
    if h != NULL and buf_take(w, &s.line) == 0:
        buf_put(&s.line, span_cut(head_line(h), URI_MAX))
        s.line_len = s.line.n
    if plan != NULL and (plan.plain or plan.moment == LOG_REQUEST):
        write_early(w, s)


cdef Span make_id(Worker *w, Session *s) noexcept nogil:
    cdef char made[128]
    cdef Room room = room_over(made, sizeof(made))
    cdef Told x
    log_tell(w, s, &x)
    x.naming = x.asking = 1
    x.early = 0
    log_text(&x, &s.frontend.unique, &room)
    keep_item(s, ID_SLOT, room_span(&room))
    return captured_text(s, CAPTURED_REQUEST, ID_SLOT)


cdef void note_link(Worker *w, Session *s) noexcept nogil:
    cdef sockaddr_storage addr
    cdef socklen_t n = sizeof(addr)
    cdef Peer ends[2]
    if s.frontend.log == NULL or not s.frontend.log.wants_link:
        return
    memset(ends, 0, sizeof(ends))
    memset(&addr, 0, sizeof(addr))
    # a connection that never came to be has the server's end only
    if s.link.connected and getsockname(s.link.fd, <sockaddr *>&addr, &n) == 0:
        note_address(&ends[0], &addr)
    note_address(&ends[1], &s.link.place.addr)
    keep_item(s, OUR_END_SLOT, span_over(&ends[0], sizeof(Peer)))
    keep_item(s, SERVER_END_SLOT, span_over(&ends[1], sizeof(Peer)))


# ---------------------------------------------------------------- lines

cdef bint failed(Session *s) noexcept nogil:
    # What `option log-separate-errors` and `option dontlog-normal` tell from the rest.
    return s.redispatched or (s.cause and s.cause != 45 and s.cause != 76) or (not s.frontend.tcp and s.status >= 500)


cdef void send_line(Worker *w, Session *s, Told *x, const char *why) noexcept nogil:
    cdef LogPlanC *plan = s.frontend.log
    cdef Record *r = reserve(w.lane, <uint32_t>sizeof(Record) + 2 * plan.most + 8)
    cdef Room whole, part
    if r == NULL:
        w.counters.log_dropped += 1
        return
    if plan.wants_local:
        note_local(s)
    whole = room_over(r + 1, 2 * <size_t>plan.most)
    r.plan = <uint16_t>plan.index
    r.level = LEVEL_ERR if plan.separate_errors and (x.bare or failed(s)) else LEVEL_INFO
    if s.log_level:
        r.level = s.log_level - 1
    r.wall_us = log_wall_us(&w.calendar, w.now, w.now)
    r.structured = 0
    if plan.structured.count:
        part = room_within(&whole, plan.most - 1)
        log_text(x, &plan.structured, &part)
        r.structured = room_len(&part)
        room_wrote(&whole, r.structured)
    part = room_within(&whole, plan.most - 1)
    if why != NULL and not plan.own_error:
        log_refused(x, why, &part)
    elif plan.plain and not (x.bare and plan.own_error):
        log_plain(x, &part)
    else:
        log_text(x, &plan.error if x.bare else &plan.line, &part)
    r.length = room_len(&part)
    room_wrote(&whole, r.length)
    if r.length == 0:
        return
    room_char(&whole, 10)       # for whoever sends the line as it is
    hk_add(plan.lines, 1)
    publish(w.lane, r)


cdef void write_early(Worker *w, Session *s) noexcept nogil:
    cdef Told x
    log_tell(w, s, &x)
    x.end_ms = s.response_ms or s.connect_ms or s.ready_ms
    x.down = s.heads_out if s.response_ms else 0
    s.logged = 1
    send_line(w, s, &x, NULL)


cdef void note_response(Worker *w, Session *s) noexcept nogil:
    cdef LogPlanC *plan = s.frontend.log
    if plan == NULL or plan.moment != LOG_RESPONSE or s.logged:
        return
    if s.log_level == LOG_SILENT or (plan.no_normal and not failed(s)):
        s.logged = 1        # whatever becomes of it: its moment was now
        return
    write_early(w, s)


cdef void note_end(Worker *w, Session *s) noexcept nogil:
    cdef LogPlanC *plan = s.frontend.log
    cdef Told x
    cdef bint bare = s.request_ms == 0 and not s.frontend.tcp
    if plan == NULL or s.logged or s.unlogged or s.log_level == LOG_SILENT or (
            plan.plain and not (bare and plan.own_error)):
        s.logged = 0
        tally_end(w, s)
        return
    log_tell(w, s, &x)
    tally_end(w, s)         # and only then the counts: HAProxy has left the backend when it writes the line
    x.ended = 1
    if bare and plan.dontlognull and not s.got_byte:
        return
    if bare:
        x.bare = 1
        x.down = 0
        x.backend = s.frontend.own
    elif plan.no_normal and not failed(s):
        return
    elif s.frontend.tcp and plan.dontlognull and s.up.seen == 0:
        return
    send_line(w, s, &x, NULL)


cdef const char *refusal(Session *s, bint late) noexcept nogil:
    # HAProxy's sentence about what came instead of a PROXY header.
    cdef Span t = buf_part(&s.rx, 0, s.rx.n)
    if late:
        return b"Timeout while waiting for PROXY protocol header"
    if span_len(t) == 0:
        return b"Connection closed while waiting for PROXY protocol header"
    if span_opens(t, b"PROXY"):
        if s.eof and span_find(t, 10, 0) == NOWHERE:
            return b"Truncated PROXY protocol header received"
        return b"Received an invalid PROXY protocol header"
    if span_begins(t, span_over(b"\r\n\r\n\0\r\nQUIT\n", 12)):
        return b"Truncated PROXY protocol header received" if s.eof else b"Received an invalid PROXY protocol header"
    if span_len(t) < 16:    # what is no line of text is read as a binary header, which is longer
        return b"Truncated PROXY protocol header received"
    return b"Received something which does not look like a PROXY protocol header"


cdef void note_refused(Worker *w, Session *s, bint late) noexcept nogil:
    cdef Told x
    cdef bint silent = s.rx.n == 0
    if s.frontend.log == NULL or (silent and s.frontend.log.dontlognull and not late):
        return
    log_tell(w, s, &x)
    x.bare = 1
    x.backend = s.frontend.own
    send_line(w, s, &x, refusal(s, late))
