# What each variable prints was found in HAProxy 2.6's manual and by sending the same traffic through it
# (tests/diff/test_diff_logs.py); core/logline.py is the readable twin.

from libc.stdint cimport uint8_t
from libc.string cimport memset

from haptk._fast.address cimport note_address
from haptk._fast.bytes.buf cimport buf_held, buf_part
from haptk._fast.bytes.span cimport (NOWHERE, Span, room_char, room_decimal, room_hex, room_left, room_len, room_over,
                                     room_put, room_span, span_at, span_between, span_find, span_first, span_from,
                                     span_get, span_given, span_len, span_none, span_over, span_sub, word)
from haptk._fast.captures cimport (CAPTURED_CLIENT_COOKIE, CAPTURED_REQUEST, CAPTURED_RESPONSE, CAPTURED_SERVER_COOKIE,
                                   ID_SLOT, OUR_END_SLOT, SERVER_END_SLOT, captured_text)
from haptk._fast.convert cimport fetch_one
from haptk._fast.facts cimport Sample, Seen, as_text, path_in, sample_begin
from haptk._fast.logplan cimport LOG_BYTES, LOG_CAPTURE, LOG_ENDS, LOG_FIELD, LOG_STRUCTURED, LOG_URL
from haptk._fast.program cimport (F_BE_NAME, FormatOp, L_ac, L_B, L_b, L_bc, L_bi, L_bp, L_bq, L_CC, L_ci, L_cp, L_CS,
                                  L_EXPR, L_f, L_fc, L_fi, L_fp, L_ft, L_H, L_HM, L_HP, L_HPO, L_HQ, L_hr, L_hrl, L_hs,
                                  L_hsl, L_HU, L_HV, L_ID, L_lc, L_ms, L_pid, L_r, L_rc, L_rt, L_s, L_sc, L_si, L_sp,
                                  L_SPACE, L_sq, L_sslc, L_sslv, L_ST, L_T, L_t, L_Ta, L_Tc, L_Td, L_TEXT, L_Th, L_Ti,
                                  L_Tl, L_Tq, L_TR, L_Tr, L_tr, L_trg, L_trl, L_Ts, L_ts, L_tsc, L_Tt, L_Tu, L_Tw, L_U,
                                  LOG_DASH, LOG_ESCAPE, LOG_HEADER, LOG_HEX, LOG_QUOTE,
                                  span_text)
from haptk._fast.scan cimport hk_load
from haptk._fast.tally cimport bytes_out
from haptk._fast.inet cimport AF_INET, AF_UNIX, getsockname, sockaddr, sockaddr_storage, socklen_t
from haptk._fast.state cimport (CK_INSERT, CK_PREFIX, CK_REWRITE, FrontendC, Peer, SECONDS, Second)

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct tm:
        int tm_sec, tm_min, tm_hour, tm_mday, tm_mon, tm_year
        long tm_gmtoff
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_REALTIME, CLOCK_MONOTONIC
    int clock_gettime(int which, timespec *t)
    tm *localtime_r(const time_t *t, tm *out)
    tm *gmtime_r(const time_t *t, tm *out)

cdef extern from "<unistd.h>" nogil:
    int getpid()

cdef enum:
    LOOK_MS = 50            # between two comparisons of the clocks
    ID_MAX = 128            # HAProxy's UNIQUEID_LEN

cdef const char *MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"

ctypedef struct Out:        # where the next byte goes
    Room *room
    int stop                # something did not fit
    int spaced              # the last thing was a space that the format asked for


# ---------------------------------------------------------------- bytes

cdef inline void put(Out *o, Span s) noexcept nogil:
    cdef uint32_t left = room_left(o.room)
    if span_len(s) > left:
        s = span_first(s, left)
        o.stop = 1
    room_put(o.room, s)


cdef inline void put_char(Out *o, uint8_t c) noexcept nogil:
    if room_left(o.room) == 0:
        o.stop = 1
        return
    room_char(o.room, c)


cdef void number(Out *o, int64_t v) noexcept nogil:
    # As a whole or not at all.
    cdef char digits[24]
    cdef Room made
    if 0 <= v <= 9:
        put_char(o, <uint8_t>(48 + v))
        return
    made = room_over(digits, sizeof(digits))
    if v < 0:
        room_char(&made, 45)
    room_decimal(&made, <uint64_t>0 - <uint64_t>v if v < 0 else <uint64_t>v)
    if room_len(&made) > room_left(o.room):
        o.stop = 1
        return
    room_put(o.room, room_span(&made))


cdef void hexadecimal(Out *o, uint64_t v, int width) noexcept nogil:
    cdef int n = 16
    while n > width and n > 1 and v >> (4 * (n - 1)) == 0:
        n -= 1
    while n:
        n -= 1
        put_char(o, span_at(word(b"0123456789ABCDEF"), v >> (4 * n) & 15))


cdef void encode(Out *o, Span s, int mask, uint8_t sign, int flags) noexcept nogil:
    cdef uint32_t i = 0, start = 0, n = span_len(s)
    cdef uint8_t what, all_of_it = <uint8_t>(mask | (LOG_STRUCTURED if flags & LOG_ESCAPE else 0))
    while i < n:
        what = LOG_BYTES[span_at(s, i)] & all_of_it
        if what == 0:
            i += 1
            continue
        put(o, span_between(s, start, i))
        if room_left(o.room) < <uint32_t>(3 if what & mask else 2):
            o.stop = 1
            return
        if what & mask:
            room_char(o.room, sign)
            room_hex(o.room, span_at(s, i))
        else:
            room_char(o.room, 92)
            room_char(o.room, span_at(s, i))
        i += 1
        start = i
    put(o, span_from(s, start))


cdef void quoted(Out *o, Span s, int mask, int flags) noexcept nogil:
    if flags & LOG_QUOTE:
        put_char(o, 34)
    encode(o, s, mask, 35, flags)
    if flags & LOG_QUOTE:
        put_char(o, 34)


cdef void text(Out *o, Span s, int flags) noexcept nogil:
    if flags & LOG_QUOTE:
        put_char(o, 34)
    if span_len(s):
        if flags & LOG_ESCAPE:
            encode(o, s, LOG_ENDS, 35, flags)
        else:
            put(o, s)
    elif flags & (LOG_QUOTE | LOG_DASH) == LOG_DASH:
        put_char(o, 45)
    if flags & LOG_QUOTE:
        put_char(o, 34)


# ---------------------------------------------------------------- dates

cdef int64_t log_wall_us(Calendar *calendar, int64_t now_ms, int64_t at_ms) noexcept nogil:
    cdef timespec wall, mono
    if now_ms - calendar.looked_ms >= LOOK_MS or calendar.looked_ms == 0:
        calendar.looked_ms = now_ms
        clock_gettime(CLOCK_MONOTONIC, &mono)
        clock_gettime(CLOCK_REALTIME, &wall)
        calendar.offset_us = (<int64_t>wall.tv_sec - mono.tv_sec) * 1000000 + (wall.tv_nsec - mono.tv_nsec) // 1000
    return at_ms * 1000 + calendar.offset_us


cdef inline void two(Room *out, int v) noexcept nogil:
    room_char(out, <uint8_t>(48 + v // 10 % 10))
    room_char(out, <uint8_t>(48 + v % 10))


cdef void spell(char[20] where, tm *t) noexcept nogil:
    # 26/Nov/2026:10:14:05
    cdef Room out = room_over(where, 20)
    two(&out, t.tm_mday)
    room_char(&out, 47)
    room_put(&out, span_sub(word(MONTHS), 3 * (t.tm_mon % 12), 3))
    room_char(&out, 47)
    two(&out, (t.tm_year + 1900) // 100)
    two(&out, (t.tm_year + 1900) % 100)
    room_char(&out, 58)
    two(&out, t.tm_hour)
    room_char(&out, 58)
    two(&out, t.tm_min)
    room_char(&out, 58)
    two(&out, t.tm_sec)


cdef Second *second_of(Calendar *calendar, int64_t at) noexcept nogil:
    # The C library knows the zone, and whether it is summer there at that second.
    cdef Second *found = &calendar.seconds[at & (SECONDS - 1)]
    cdef tm t
    cdef time_t moment = <time_t>at
    cdef long minutes
    cdef Room zone
    if found.at == at:
        return found
    found.at = at
    memset(&t, 0, sizeof(t))
    gmtime_r(&moment, &t)
    spell(found.universal, &t)
    localtime_r(&moment, &t)
    spell(found.local, &t)
    minutes = t.tm_gmtoff // 60 if t.tm_gmtoff >= 0 else -t.tm_gmtoff // 60
    zone = room_over(found.zone, 5)
    room_char(&zone, 43 if t.tm_gmtoff >= 0 else 45)
    two(&zone, <int>(minutes // 60))
    two(&zone, <int>(minutes % 60))
    return found


cdef void put_date(Out *o, Calendar *calendar, int64_t wall_us) noexcept nogil:
    # In local time, with milliseconds.
    cdef int64_t ms = wall_us // 1000 % 1000
    put(o, span_over(second_of(calendar, wall_us // 1000000).local, 20))
    put_char(o, 46)
    put_char(o, <uint8_t>(48 + ms // 100))
    put_char(o, <uint8_t>(48 + ms // 10 % 10))
    put_char(o, <uint8_t>(48 + ms % 10))


cdef void put_dated(Out *o, Told *x, int64_t at_ms, bint universal) noexcept nogil:
    # Apache's form, with the zone.
    cdef Second *found = second_of(&x.w.calendar, log_wall_us(&x.w.calendar, x.w.now, at_ms) // 1000000)
    if universal:
        put(o, span_over(found.universal, 20))
        put(o, word(b" +0000"))
    else:
        put(o, span_over(found.local, 20))
        put_char(o, 32)
        put(o, span_over(found.zone, 5))


# ---------------------------------------------------------------- what a transaction is made of

cdef void log_tell(Worker *w, Session *s, Told *x) noexcept nogil:
    memset(x, 0, sizeof(Told))
    x.w, x.s = w, s
    # HAProxy names the frontend until a backend is chosen, which for a `listen` is itself
    x.backend = s.backend if s.in_backend else s.frontend.own
    x.end_ms = w.now
    x.down = bytes_out(s)
    if s.frontend.log != NULL:
        x.early = s.frontend.log.early
        x.lines = hk_load(s.frontend.log.lines)


cdef inline int64_t began_ms(Told *x) noexcept nogil:
    # The first byte of the request; while there is none, when waiting for it began.
    return x.s.started_ms if x.s.started_ms > x.s.ready_ms else x.s.ready_ms


cdef inline int64_t between(int64_t start, int64_t end) noexcept nogil:
    return end - start if start and end else -1


cdef int64_t active_ms(Told *x) noexcept nogil:
    cdef int64_t v = x.end_ms - began_ms(x)
    return v if v > 0 else 0


cdef int64_t data_ms(Told *x) noexcept nogil:
    cdef Session *s = x.s
    if s.frontend.tcp:
        return between(s.connect_ms, x.end_ms)
    return between(s.response_ms, x.end_ms) if s.at != c"H" or x.seen != NULL else -1


cdef int64_t time_of(Told *x, int op) noexcept nogil:
    # Milliseconds; -1 for a phase that was not reached.
    cdef Session *s = x.s
    # without a backend HAProxy gives up before it has taken the time of the request
    cdef bint none = x.bare or (s.cause == c"S" and s.backend == NULL)
    if op == L_Tw:
        return -1 if none else between(s.request_ms or s.ready_ms, s.queue_ms)
    if op == L_Tc:
        return -1 if none else between(s.queue_ms, s.connect_ms)
    if op == L_Tr:
        # an answer that was never passed on counts as none
        return -1 if none or (s.at == c"H" and x.seen == NULL) else between(s.connect_ms, s.response_ms)
    if op == L_TR:
        return -1 if none or x.asking else between(began_ms(x), s.request_ms)
    if op == L_Tq:
        return -1 if none or x.asking else between(s.ready_ms, s.request_ms)
    if op == L_Td:
        return -1 if none else data_ms(x)
    if op == L_Th:
        return s.handshake_ms
    return began_ms(x) - s.ready_ms - s.handshake_ms       # Ti


cdef void address(Out *o, Told *x, Peer *peer, int flags) noexcept nogil:
    cdef int i
    if peer.family == AF_UNIX:
        text(o, word(b"unix"), flags)
    elif flags & LOG_HEX and peer.text_len:
        for i in range(4 if peer.family == AF_INET else 16):
            hexadecimal(o, peer.address[i], 2)
    else:
        text(o, span_over(peer.text, peer.text_len), flags)


cdef void port(Out *o, Told *x, Peer *peer, int flags) noexcept nogil:
    if peer.family == AF_UNIX:
        number(o, x.s.frontend.bind_ids[x.s.listener_index])
    elif peer.family == 0:
        text(o, span_none(), flags)
    elif flags & LOG_HEX:
        hexadecimal(o, peer.port, 4)
    else:
        number(o, peer.port)


cdef void link_end(Out *o, Told *x, bint ours, bint wants_port, int flags) noexcept nogil:
    # Our or the server's end of the connection to the server.
    cdef sockaddr_storage addr
    cdef socklen_t n = sizeof(addr)
    cdef Span kept
    cdef Peer peer
    memset(&peer, 0, sizeof(peer))
    memset(&addr, 0, sizeof(addr))
    if x.s.link == NULL and not x.bare:
        # it is closed already, but what there was of it is kept
        kept = captured_text(x.s, CAPTURED_REQUEST, OUR_END_SLOT if ours else SERVER_END_SLOT)
        if span_len(kept) == sizeof(Peer):
            span_get(kept, 0, &peer, sizeof(Peer))
    elif not x.bare and x.s.link.connected:
        if not ours:
            note_address(&peer, &x.s.link.place.addr)
        elif getsockname(x.s.link.fd, <sockaddr *>&addr, &n) == 0:
            note_address(&peer, &addr)
    if wants_port:
        port(o, x, &peer, flags)
    else:
        address(o, x, &peer, flags)


cdef void server_name(Out *o, Told *x, int flags) noexcept nogil:
    cdef Session *s = x.s
    if s.service == 1 and not x.bare:
        text(o, word(b"<STATS>"), flags)
    elif s.service == 2 and not x.bare:
        text(o, word(b"<PROMEX>"), flags)
    elif s.server == NULL or x.bare:
        text(o, word(b"<NOSRV>"), flags)
    else:
        text(o, span_text(&s.server.name), flags)


cdef void termination(Out *o, Told *x, bint cookies) noexcept nogil:
    cdef Session *s = x.s
    if x.seen != NULL:
        put(o, word(b"--"))        # a rule that answers is not at the end yet
    else:
        put_char(o, s.cause or <char>45)
        put_char(o, s.at or <char>45)
    if not cookies:
        return
    # a cookie without a mode is only read, and HAProxy logs nothing about it
    if x.bare or x.backend == NULL or s.frontend.tcp or not x.backend.cookie & (CK_INSERT | CK_PREFIX | CK_REWRITE):
        put(o, word(b"--"))
        return
    put_char(o, s.ck_request)
    put_char(o, s.ck_response)


cdef void request_part(Out *o, Told *x, int op, int flags) noexcept nogil:
    # Of "METHOD TARGET VERSION" as the client sent it.
    cdef Span line = span_none(), target, version = span_none()
    cdef uint32_t at, start = 0, stop = 0
    if buf_held(&x.s.line):
        line = buf_part(&x.s.line, 0, x.s.line_len)
    elif x.seen != NULL:
        line = x.seen.line
    at = span_find(line, 32, 0)
    if span_len(line) == 0 or x.bare or (at == NOWHERE and op != L_r):
        quoted(o, word(b"<BADREQ>"), LOG_URL, flags)
        return
    if op == L_r or op == L_HM:
        quoted(o, line if op == L_r else span_first(line, at), LOG_URL, flags)
        return
    target = span_from(line, at + 1)
    at = span_find(target, 32, 0)
    if at != NOWHERE:
        version = span_from(target, at + 1)
        target = span_first(target, at)
    if op == L_HV:
        quoted(o, version if span_given(version) else word(b"<BADREQ>"), LOG_URL, flags)
    elif op == L_HU:
        quoted(o, target, LOG_URL, flags)
    elif op == L_HPO:
        if not path_in(target, &start, &stop):
            start = stop = 0
        quoted(o, span_between(target, start, stop), LOG_URL, flags)
    else:
        at = span_find(target, 63, 0)
        if at == NOWHERE:
            at = span_len(target)
        quoted(o, span_first(target, at) if op == L_HP else span_from(target, at), LOG_URL, flags)


cdef void captures(Out *o, Told *x, int which, bint listed, int flags) noexcept nogil:
    cdef int i, slots = x.s.frontend.request_slots if which == CAPTURED_REQUEST else x.s.frontend.response_slots
    cdef Span kept
    if slots == 0 or x.bare:
        return
    o.spaced = 0
    if not listed:
        if flags & LOG_QUOTE:
            put_char(o, 34)
        put_char(o, 123)
    for i in range(slots):
        if i:
            put_char(o, 32 if listed else 124)
        kept = captured_text(x.s, which, i)
        if not listed:
            encode(o, kept, LOG_CAPTURE, 35, flags)
        elif span_given(kept):
            quoted(o, kept, LOG_CAPTURE, flags)
        elif flags & LOG_QUOTE:
            put(o, word(b'""'))
        else:
            put_char(o, 45)
    if not listed:
        put_char(o, 125)
        if flags & LOG_QUOTE:
            put_char(o, 34)


cdef void expression(Out *o, Told *x, FormatOp *op) noexcept nogil:
    cdef Sample v
    cdef Seen seen
    cdef Seen *sight = x.seen
    if sight == NULL:
        memset(&seen, 0, sizeof(seen))
        seen.w, seen.s = x.w, x.s
        sight = &seen
    sample_begin(sight)
    if (x.bare and op.expr.fetch == F_BE_NAME) or not fetch_one(sight, op.expr, &v) or not as_text(sight, &v):
        v.text = span_none()
    if op.flags & LOG_HEADER:
        encode(o, v.text, LOG_FIELD, 37, op.flags)
    elif span_len(v.text) and not op.flags & (LOG_QUOTE | LOG_ESCAPE):
        encode(o, v.text, LOG_ENDS, 35, 0)
    elif span_len(v.text):
        quoted(o, v.text, LOG_ENDS, op.flags)
    else:
        text(o, span_none(), op.flags)


cdef void unique_id(Out *o, Told *x, int flags) noexcept nogil:
    # The one that the server got, else one that a log line makes now.
    cdef char made[ID_MAX]
    cdef Room room = room_over(made, ID_MAX)
    cdef Span kept = span_none()
    if not x.bare:
        kept = captured_text(x.s, CAPTURED_REQUEST, ID_SLOT)
        if not span_given(kept) and x.seen == NULL and not x.naming and x.s.frontend.unique.count:
            x.naming = 1
            log_text(x, &x.s.frontend.unique, &room)
            x.naming = 0
            kept = room_span(&room)
    text(o, kept, flags)


cdef void counted(Out *o, Told *x, int op) noexcept nogil:
    cdef Session *s = x.s
    cdef BackendC *be = x.backend
    if op == L_ac:
        number(o, hk_load(x.w.conf.actives) if x.w.conf.actives != NULL else 0)
    elif op == L_fc:
        number(o, hk_load(s.frontend.sessions))
    elif op == L_bc:
        number(o, hk_load(be.sessions) if be != NULL else 0)
    elif op == L_sc:
        # HAProxy has left the server when it writes the line of an end
        number(o, hk_load(&s.server.live.sessions) - (s.counted and x.ended)
               if s.server != NULL and not x.bare else 0)
    elif op == L_rc:
        if s.redispatched and not x.bare:
            put_char(o, 43)
        number(o, s.backend.retries - s.retries_left if be != NULL and not x.bare and s.retries_left >= 0 else 0)
    elif op == L_sq:
        number(o, s.behind_server if not x.bare else 0)
    else:
        number(o, s.behind_backend if not x.bare else 0)


# ---------------------------------------------------------------- the line

cdef void dated(Out *o, Told *x, FormatOp *op) noexcept nogil:
    cdef int64_t us
    if op.op == L_tr:
        put_date(o, &x.w.calendar, log_wall_us(&x.w.calendar, x.w.now, began_ms(x)))
        return
    if op.op == L_trg or op.op == L_trl:
        put_dated(o, x, began_ms(x), op.op == L_trg)
        return
    if op.op == L_T or op.op == L_Tl:
        put_dated(o, x, x.s.ready_ms, op.op == L_T)
        return
    us = log_wall_us(&x.w.calendar, x.w.now, x.s.ready_ms)
    if op.op == L_t:
        put_date(o, &x.w.calendar, us)
    elif op.op == L_Ts:
        if op.flags & LOG_HEX:
            hexadecimal(o, <uint64_t>(us // 1000000), 4)
        else:
            number(o, us // 1000000)
    elif op.flags & LOG_HEX:
        hexadecimal(o, <uint64_t>(us // 1000 % 1000), 2)
    else:
        us = us // 1000 % 1000
        put_char(o, <char>(48 + us // 100))
        put_char(o, <char>(48 + us // 10 % 10))
        put_char(o, <char>(48 + us % 10))


cdef void growing(Out *o, Told *x, int op) noexcept nogil:
    # What only the end knows: a + says that it was written before.
    if x.early:
        put_char(o, 43)
    if op == L_B:
        number(o, <int64_t>x.down)
    elif op == L_Ta:
        number(o, active_ms(x))
    elif op == L_Tt:
        number(o, x.end_ms - x.s.ready_ms)
    else:
        number(o, x.end_ms - x.s.ready_ms - time_of(x, L_Ti))


cdef void whole(Out *o, int64_t v, int flags) noexcept nogil:
    if flags & LOG_HEX:
        hexadecimal(o, <uint64_t>v, 4)
    else:
        number(o, v)


cdef void named(Out *o, Told *x, FormatOp *op) noexcept nogil:
    cdef Session *s = x.s
    cdef FrontendC *fe = s.frontend
    cdef Span kept = span_none()
    if op.op == L_b:
        if x.backend != NULL:
            text(o, span_text(&x.backend.name), op.flags)
        else:
            text(o, span_text(&fe.name), op.flags)
    elif op.op == L_s:
        server_name(o, x, op.flags)
    elif op.op == L_H:
        text(o, span_text(&op.text), op.flags)
    elif op.op == L_ID:
        unique_id(o, x, op.flags)
    elif op.op == L_CC or op.op == L_CS:
        if not x.bare:
            kept = captured_text(s, CAPTURED_CLIENT_COOKIE if op.op == L_CC else CAPTURED_SERVER_COOKIE, 0)
        text(o, kept, op.flags)
    else:
        text(o, span_text(&fe.name), op.flags)


cdef void places(Out *o, Told *x, FormatOp *op) noexcept nogil:
    if op.op == L_ci:
        address(o, x, &x.s.peer, op.flags)
    elif op.op == L_cp:
        port(o, x, &x.s.peer, op.flags)
    elif op.op == L_fi:
        address(o, x, &x.s.local, op.flags)
    elif op.op == L_fp:
        port(o, x, &x.s.local, op.flags)
    else:
        link_end(o, x, op.op == L_bi or op.op == L_bp, op.op == L_bp or op.op == L_sp, op.flags)


cdef void step(Out *o, Told *x, FormatOp *op) noexcept nogil:
    cdef int which = op.op
    if which == L_ci or which == L_cp or which == L_fi or which == L_fp or which == L_bi or which == L_bp or \
            which == L_si or which == L_sp:
        places(o, x, op)
    elif which == L_TR or which == L_Tw or which == L_Tc or which == L_Tr or which == L_Td or which == L_Th or \
            which == L_Ti or which == L_Tq:
        number(o, time_of(x, which))
    elif which == L_Ta or which == L_B or which == L_Tt or which == L_Tu:
        growing(o, x, which)
    elif which == L_ac or which == L_fc or which == L_bc or which == L_sc or which == L_rc or which == L_sq or \
            which == L_bq:
        counted(o, x, which)
    elif which == L_f or which == L_ft or which == L_b or which == L_s or which == L_H or which == L_ID or \
            which == L_CC or which == L_CS:
        named(o, x, op)
    elif which == L_t or which == L_tr or which == L_T or which == L_Tl or which == L_trg or which == L_trl or \
            which == L_Ts or which == L_ms:
        dated(o, x, op)
    elif which == L_ST:
        # a request that ended before anything was answered has none: -1 in mode http, 0 in mode tcp
        number(o, x.s.status if x.s.status or x.s.frontend.tcp or (x.bare and not x.asking) else -1)
    elif which == L_tsc or which == L_ts:
        termination(o, x, which == L_tsc)
    elif which == L_r or which == L_HM or which == L_HP or which == L_HPO or which == L_HQ or which == L_HU or \
            which == L_HV:
        request_part(o, x, which, op.flags)
    elif which == L_EXPR:
        expression(o, x, op)
    elif which == L_U:
        number(o, <int64_t>(x.s.up.seen + x.s.head_in) if not (x.bare or x.asking or x.seen != NULL) else 0)
    elif which == L_sslc or which == L_sslv:
        text(o, span_none(), op.flags)
    elif which == L_rt:
        whole(o, x.s.number, op.flags)
    elif which == L_lc:
        whole(o, x.lines, op.flags)
    elif which == L_pid:
        whole(o, getpid(), op.flags)


cdef void log_text(Told *x, FormatC *f, Room *out) noexcept nogil:
    cdef Out o
    cdef int i, which
    cdef FormatOp *op
    o.room, o.stop, o.spaced = out, 0, 1
    for i in range(f.count):
        op = &f.ops[i]
        which = op.op
        if which == L_TEXT:
            put(&o, span_text(&op.text))
            o.spaced = 0
        elif which == L_SPACE:
            if not o.spaced:
                put_char(&o, 32)
                o.spaced = 1
        elif which == L_hr or which == L_hrl:
            captures(&o, x, CAPTURED_REQUEST, which == L_hrl, op.flags)
        elif which == L_hs or which == L_hsl:
            captures(&o, x, CAPTURED_RESPONSE, which == L_hsl, op.flags)
        else:
            step(&o, x, op)
            o.spaced = 0
        if o.stop:
            break
    x.cut = o.stop


cdef void log_plain(Told *x, Room *out) noexcept nogil:
    cdef Out o
    cdef Session *s = x.s
    o.room, o.stop, o.spaced = out, 0, 0
    if s.peer.family == AF_UNIX:
        put(&o, word(b"Connect to unix:"))
        number(&o, s.frontend.bind_ids[s.listener_index])
    else:
        put(&o, word(b"Connect from "))
        put(&o, span_over(s.peer.text, s.peer.text_len))
        put_char(&o, 58)
        number(&o, s.peer.port)
        put(&o, word(b" to "))
        put(&o, span_over(s.local.text, s.local.text_len))
        put_char(&o, 58)
        number(&o, s.local.port)
    put(&o, word(b" ("))
    put(&o, span_text(&s.frontend.name))
    put(&o, word(b"/TCP)" if s.frontend.tcp else b"/HTTP)"))


cdef void log_refused(Told *x, const char *why, Room *out) noexcept nogil:
    cdef Out o
    cdef Session *s = x.s
    o.room, o.stop, o.spaced = out, 0, 0
    address(&o, x, &s.peer, 0)
    put_char(&o, 58)
    port(&o, x, &s.peer, 0)
    put(&o, word(b" ["))
    put_date(&o, &x.w.calendar, log_wall_us(&x.w.calendar, x.w.now, s.accepted_ms))
    put(&o, word(b"] "))
    put(&o, span_text(&s.frontend.name))
    put_char(&o, 47)
    if s.frontend.bind_names[s.listener_index].n:
        put(&o, span_text(&s.frontend.bind_names[s.listener_index]))
    else:
        number(&o, s.frontend.bind_ids[s.listener_index])
    put(&o, word(b": "))
    put(&o, word(why))
