# The walk copies what it keeps: `kept` is the length of the output, and whatever an edit drops is simply not copied.

from libc.stdint cimport int32_t, int64_t, uint8_t

from haptk._fast.bytes.span cimport (NOWHERE, room_char, room_cut, room_full, room_last, room_len, room_put, room_word,
                                     span_any_of, span_at, span_eq, span_find, span_first, span_from, span_len,
                                     span_skip, span_between, span_trim_end, word)
from haptk._fast.program cimport span_text
from haptk._fast.scan cimport hk_load
from haptk._fast.sockets cimport clock_wall_s
from haptk._fast.state cimport (CK_INDIRECT, CK_INSERT, CK_POSTONLY, CK_PREFIX, CK_PRESERVE, CK_REWRITE, LIVE_DOWN,
                                LIVE_MAINT)
from haptk._fast.http1 cimport M_POST
from haptk._fast.state cimport Text

cdef enum:
    SP = 32, HTAB = 9, SEMI = 59, COMMA = 44, EQUAL = 61, QUOTE = 34, BACKSLASH = 92, DOLLAR = 36
    TILDE = 126, BAR = 124
    DATE = 5                # characters of a date
    FUTURE_MAX_S = 86400    # a stored date may be ahead of our clock by so much

cdef const char *B64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef inline bint blank(uint8_t c) noexcept nogil:
    return c == SP or c == HTAB


cdef uint32_t value_end(Span v, uint32_t i) noexcept nogil:
    # Where the value that starts at i stops: at ; or , outside quotes. A quote that never closes hides the rest.
    cdef bint quoted = 0
    cdef uint32_t n = span_len(v)
    cdef uint8_t c
    i = span_any_of(v, i, SEMI, COMMA, QUOTE)
    while i < n:
        c = span_at(v, i)
        if quoted:
            if c == BACKSLASH:
                i += 1
            elif c == QUOTE:
                quoted = 0
        elif c == QUOTE:
            quoted = 1
        elif c == SEMI or c == COMMA:
            return i
        i += 1
    return n


cdef int64_t read_date(Span p) noexcept nogil:
    # Five characters of base 64, most significant first: 30 bits of unix time >> 2. 0 when it is none.
    cdef int64_t v = 0
    cdef uint32_t i, digit
    if span_len(p) < DATE:
        return 0
    for i in range(DATE):
        digit = span_find(word(B64), span_at(p, i), 0)
        if digit == NOWHERE:
            return 0
        v = v * 64 + digit
    return v * 4


cdef void write_date(int64_t seconds, Room *out) noexcept nogil:
    cdef uint32_t v = <uint32_t>((seconds >> 2) & 0x3fffffff)
    cdef int shift
    for shift in range(24, -1, -6):
        room_char(out, span_at(word(B64), v >> shift & 63))


cdef int64_t wall(Worker *w) noexcept nogil:
    if w.wall_read != w.now or w.wall == 0:
        w.wall = clock_wall_s()
        w.wall_read = w.now
    return w.wall


cdef void read_stamps(Session *s, Span p) noexcept nogil:
    # After the id: "|last" or "|last|first". What is no date changes nothing.
    cdef uint32_t bar = span_find(p, BAR, 0)
    cdef int64_t date = read_date(p)
    if date:
        s.last_date = <uint32_t>date
    if bar != NOWHERE:
        date = read_date(span_from(p, bar + 1))
        if date:
            s.first_date = <uint32_t>date


cdef inline bint outside(uint32_t date, int64_t now, int limit_s) noexcept nogil:
    # Too long ago, or so far ahead of our clock that it is none.
    return limit_s and date and (now - <int64_t>date > limit_s or <int64_t>date - now > FUTURE_MAX_S)


cdef bint expired(Worker *w, Session *s, BackendC *be) noexcept nogil:
    # Too old is looked at before idle for too long.
    cdef int64_t now = wall(w)
    if outside(s.first_date, now, be.maxlife_s):
        s.ck_request = c"O"
    elif outside(s.last_date, now, be.maxidle_s):
        s.ck_request = c"E"
    else:
        return 0
    s.last_date = 0
    s.first_date = 0
    return 1


cdef void find_server(Session *s, BackendC *be, Span id) noexcept nogil:
    cdef int i, state
    cdef ServerC *srv
    for i in range(be.count):
        srv = &be.servers[i]
        if srv.cookie.p == NULL or not span_eq(span_text(&srv.cookie), id):
            continue
        state = hk_load(&srv.live.state)
        if state == LIVE_DOWN or state == LIVE_MAINT:
            s.ck_request = c"D"
            if not (be.persist or be.strict or s.force_persist):
                continue
        else:
            s.ck_request = c"V"
        s.server = srv
        s.direct = 1
        return


cdef void use_value(Worker *w, Session *s, BackendC *be, Span id) noexcept nogil:
    # One value of our cookie. The first usable server wins, but the dates of every occurrence are read.
    cdef uint32_t bar
    if not be.cookie & CK_PREFIX:
        bar = span_find(id, BAR, 0)
        if bar != NOWHERE:
            read_stamps(s, span_from(id, bar + 1))
            id = span_first(id, bar)
        if (be.maxidle_s or be.maxlife_s) and expired(w, s, be):
            id = span_first(id, 0)
    if span_len(id) and not s.direct and not s.ignore_persist:
        find_server(s, be, id)
    if s.ck_request == c"N":
        s.ck_request = c"U" if s.ignore_persist else c"I"


cdef bint cookie_request(Worker *w, Session *s, BackendC *be, Span v, Room *out) noexcept nogil:
    # One turn of the loop is one piece: the delimiter before it (0 for the first) and its text. A removed cookie takes
    # the $attributes behind it along; the blanks around `=` of every pair are dropped.
    cdef uint32_t i = 0, begin, start, name_end, val, stop, end, mark, n = span_len(v), at = room_len(out)
    cdef bint remove = (be.cookie & (CK_INSERT | CK_INDIRECT)) == (CK_INSERT | CK_INDIRECT)
    cdef bint removing = 0, removed = 0, left = 0, pair
    cdef uint8_t delimiter = 0
    while i < n or delimiter:
        begin = i
        start = i = span_skip(v, i)
        i = span_any_of(v, i, EQUAL, SEMI, COMMA)
        name_end = value_tail(v, start, i)
        pair = i < n and span_at(v, i) == EQUAL
        val = stop = i
        if pair:
            val = span_skip(v, i + 1)
            stop = value_end(v, val)
        if name_end > start and span_at(v, start) == DOLLAR:
            if not removing:
                set_delimiter(out, delimiter)
                room_put(out, span_between(v, begin, stop))
        elif pair and remove and is_ours(be, v, start, name_end):
            use_value(w, s, be, span_between(v, val, value_tail(v, val, stop)))
            removing = removed = 1
        else:
            left = 1
            mark = NOWHERE
            if pair and is_ours(be, v, start, name_end):
                end = value_tail(v, val, stop)
                if be.cookie & CK_PREFIX:
                    mark = span_find(span_first(v, end), TILDE, val)
                use_value(w, s, be, span_between(v, val, end if mark == NOWHERE else mark))
            if removing:
                join(out, at, delimiter)
                begin = start
                removing = 0
            else:
                set_delimiter(out, delimiter)
            if pair:
                room_put(out, span_between(v, begin, name_end if name_end > start else start))
                room_char(out, EQUAL)
                room_put(out, span_between(v, val if mark == NOWHERE else mark + 1, stop))
            else:
                room_put(out, span_between(v, begin, stop))
        i = stop
        delimiter = 0
        if i < n:
            delimiter = span_at(v, i)
            i += 1
    return (left or not removed) and room_len(out) > at


cdef inline bint is_ours(BackendC *be, Span v, uint32_t start, uint32_t end) noexcept nogil:
    return be.cookie_name.n and span_eq(span_between(v, start, end), span_text(&be.cookie_name))


cdef inline uint32_t value_tail(Span v, uint32_t start, uint32_t end) noexcept nogil:
    # The end of a value without the blanks behind it.
    return start + span_len(span_trim_end(span_between(v, start, end)))


cdef inline void set_delimiter(Room *out, uint8_t delimiter) noexcept nogil:
    if delimiter:
        room_char(out, delimiter)


cdef inline void join(Room *out, uint32_t start, uint8_t delimiter) noexcept nogil:
    # Go on behind a removed cookie: its blanks go, the next delimiter is followed by one space.
    if room_full(out) or room_len(out) == start:
        return
    while room_len(out) > start and blank(room_last(out)):
        room_cut(out, room_len(out) - 1)
    room_char(out, delimiter)
    room_char(out, SP)


cdef bint cookie_response(Session *s, BackendC *be, Span v, Room *out) noexcept nogil:
    # Only the first pair of a header counts; the blanks around its `=` are dropped whoever it belongs to.
    cdef uint32_t i, start, name_end, val, n = span_len(v)
    cdef ServerC *srv = s.server
    start = span_skip(v, 0)
    i = span_any_of(v, start, EQUAL, SEMI, COMMA)
    if i == n or span_at(v, i) != EQUAL:
        room_put(out, v)
        return 1
    name_end = value_tail(v, start, i)
    val = span_skip(v, i + 1)
    room_put(out, span_first(v, name_end if name_end > start else start))
    room_char(out, EQUAL)
    if s.ignore_persist or not is_ours(be, v, start, name_end):
        room_put(out, span_from(v, val))
        return 1
    s.ck_response = c"P"
    if not be.cookie & CK_PRESERVE:
        if (srv != NULL and be.cookie & CK_INSERT) or (be.cookie & CK_INDIRECT and s.direct):
            s.ck_response = c"D"
            return 0
        if srv != NULL and srv.cookie.p != NULL and be.cookie & (CK_REWRITE | CK_PREFIX):
            s.ck_response = c"R"
            room_put(out, span_text(&srv.cookie))
            if be.cookie & CK_REWRITE:
                val = value_tail(v, val, value_end(v, val))
            else:
                room_char(out, TILDE)
    room_put(out, span_from(v, val))
    return 1


cdef bint cookie_wanted(Worker *w, Session *s, BackendC *be) noexcept nogil:
    if not be.cookie & CK_INSERT or s.server == NULL or s.ignore_persist:
        return 0
    if be.cookie & CK_PRESERVE and s.ck_response == c"P":
        return 0
    if be.cookie & CK_POSTONLY and s.method != M_POST:
        return 0
    if not s.direct:
        return 1
    if (be.maxidle_s or s.last_date) and (s.last_date == 0 or <int64_t><int32_t>s.last_date < wall(w)):
        return 1
    return (be.maxlife_s != 0) != (s.first_date != 0)


cdef void cookie_line(Worker *w, Session *s, BackendC *be, Room *out) noexcept nogil:
    cdef Text *id = &s.server.cookie
    cdef int64_t now
    room_word(out, b"set-cookie: ")
    room_put(out, span_text(&be.cookie_name))
    room_char(out, EQUAL)
    if id.p == NULL:
        room_word(out, b"; Expires=Thu, 01-Jan-1970 00:00:01 GMT")
    else:
        room_put(out, span_text(id))
        if be.maxidle_s or be.maxlife_s:
            now = wall(w) + 3
            room_char(out, BAR)
            write_date(now, out)
            if be.maxlife_s:
                room_char(out, BAR)
                write_date(<int64_t>s.first_date if s.first_date else now, out)
    room_put(out, span_text(&be.cookie_tail))
    room_word(out, b"\r\n")
    s.ck_response = c"U" if id.p != NULL and s.direct else c"I"
