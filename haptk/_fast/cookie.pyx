# The walk copies what it keeps: `kept` is the length of the output, and whatever an edit drops is simply not copied.

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memchr, memcmp, memcpy

from haptk._fast.scan cimport hk_any_of, hk_load
from haptk._fast.sockets cimport clock_wall_s
from haptk._fast.state cimport (CK_INDIRECT, CK_INSERT, CK_POSTONLY, CK_PREFIX, CK_PRESERVE, CK_REWRITE, LIVE_DOWN,
                                LIVE_MAINT)
from haptk._fast.http1 cimport M_POST
from haptk._fast.state cimport Text

cdef enum:
    SP = 32, HTAB = 9, SEMI = 59, COMMA = 44, EQUAL = 61, QUOTE = 34, BACKSLASH = 92, DOLLAR = 36
    TILDE = 126, BAR = 124
    FUTURE_MAX_S = 86400    # a stored date may be ahead of our clock by so much

cdef const char *B64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef inline bint blank(char c) noexcept nogil:
    return c == SP or c == HTAB


cdef inline bint stops(char c) noexcept nogil:
    return c == SEMI or c == COMMA


cdef uint32_t value_end(const char *v, uint32_t i, uint32_t n) noexcept nogil:
    # Where the value that starts at i stops: at ; or , outside quotes. A quote that never closes hides the rest.
    cdef bint quoted = 0
    i += <uint32_t>hk_any_of(v + i, n - i, SEMI, COMMA, QUOTE)
    while i < n:
        if quoted:
            if v[i] == BACKSLASH:
                i += 1
            elif v[i] == QUOTE:
                quoted = 0
        elif v[i] == QUOTE:
            quoted = 1
        elif stops(v[i]):
            return i
        i += 1
    return n


cdef int64_t read_date(const char *p) noexcept nogil:
    # Five characters of base 64, most significant first: 30 bits of unix time >> 2. 0 when it is none.
    cdef int64_t v = 0
    cdef int i
    cdef const char *at
    for i in range(5):
        at = <const char *>memchr(B64, p[i], 64) if p[i] else NULL
        if at == NULL:
            return 0
        v = v * 64 + (at - B64)
    return v * 4


cdef void write_date(int64_t seconds, char *out) noexcept nogil:
    cdef int64_t v = (seconds >> 2) & 0x3fffffff
    cdef int i
    for i in range(5):
        out[4 - i] = B64[v & 63]
        v >>= 6


cdef int64_t wall(Worker *w) noexcept nogil:
    if w.wall_read != w.now or w.wall == 0:
        w.wall = clock_wall_s()
        w.wall_read = w.now
    return w.wall


cdef void read_stamps(Session *s, const char *p, uint32_t n) noexcept nogil:
    # After the id: "|last" or "|last|first". What is no date changes nothing.
    cdef const char *bar
    cdef int64_t date = read_date(p) if n >= 5 else 0
    if date:
        s.last_date = <uint32_t>date
    bar = <const char *>memchr(p, BAR, n) if n else NULL
    if bar != NULL and n - (bar - p) > 5:
        date = read_date(bar + 1)
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


cdef void find_server(Session *s, BackendC *be, const char *id, uint32_t n) noexcept nogil:
    cdef int i, state
    cdef ServerC *srv
    for i in range(be.count):
        srv = &be.servers[i]
        if srv.cookie.p == NULL or srv.cookie.n != n or memcmp(srv.cookie.p, id, n) != 0:
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


cdef void use_value(Worker *w, Session *s, BackendC *be, const char *id, uint32_t n) noexcept nogil:
    # One value of our cookie. The first usable server wins, but the dates of every occurrence are read.
    cdef const char *bar
    if not be.cookie & CK_PREFIX:
        bar = <const char *>memchr(id, BAR, n) if n else NULL
        if bar != NULL:
            read_stamps(s, bar + 1, n - <uint32_t>(bar - id) - 1)
            n = <uint32_t>(bar - id)
        if (be.maxidle_s or be.maxlife_s) and expired(w, s, be):
            n = 0
    if n and not s.direct and not s.ignore_persist:
        find_server(s, be, id, n)
    if s.ck_request == c"N":
        s.ck_request = c"U" if s.ignore_persist else c"I"


cdef inline uint32_t copy(char *out, uint32_t at, const char *v, uint32_t start, uint32_t end) noexcept nogil:
    memcpy(out + at, v + start, end - start)
    return at + end - start


cdef uint32_t cookie_request(Worker *w, Session *s, BackendC *be, const char *v, uint32_t n, char *out) noexcept nogil:
    # One turn of the loop is one piece: the delimiter before it (0 for the first) and its text. A removed cookie takes
    # the $attributes behind it along; the blanks around `=` of every pair are dropped. 0: nothing is left.
    cdef uint32_t i = 0, begin, start, name_end, val, stop, end, kept = 0
    cdef bint remove = (be.cookie & (CK_INSERT | CK_INDIRECT)) == (CK_INSERT | CK_INDIRECT)
    cdef bint removing = 0, removed = 0, left = 0, pair
    cdef char delimiter = 0
    cdef const char *mark
    while i < n or delimiter:
        begin = i
        while i < n and blank(v[i]):
            i += 1
        start = i
        i += <uint32_t>hk_any_of(v + i, n - i, EQUAL, SEMI, COMMA)
        name_end = i
        while name_end > start and blank(v[name_end - 1]):
            name_end -= 1
        pair = i < n and v[i] == EQUAL
        val = stop = i
        if pair:
            val = i + 1
            while val < n and blank(v[val]):
                val += 1
            stop = value_end(v, val, n)
        if name_end > start and v[start] == DOLLAR:
            if not removing:
                kept = copy(out, set_delimiter(out, kept, delimiter), v, begin, stop)
        elif pair and remove and is_ours(be, v, start, name_end):
            use_value(w, s, be, v + val, value_tail(v, val, stop) - val)
            removing = removed = 1
        else:
            left = 1
            mark = NULL
            if pair and is_ours(be, v, start, name_end):
                end = value_tail(v, val, stop)
                if be.cookie & CK_PREFIX and end > val:
                    mark = <const char *>memchr(v + val, TILDE, end - val)
                use_value(w, s, be, v + val, (<uint32_t>(mark - v) if mark != NULL else end) - val)
            if removing:
                kept = join(out, kept, delimiter)
                begin = start
                removing = 0
            else:
                kept = set_delimiter(out, kept, delimiter)
            if pair:
                kept = copy(out, kept, v, begin, name_end if name_end > start else start)
                out[kept] = EQUAL
                kept = copy(out, kept + 1, v, <uint32_t>(mark - v) + 1 if mark != NULL else val, stop)
            else:
                kept = copy(out, kept, v, begin, stop)
        i = stop
        delimiter = 0
        if i < n:
            delimiter = v[i]
            i += 1
    return kept if left or not removed else 0


cdef inline bint is_ours(BackendC *be, const char *v, uint32_t start, uint32_t end) noexcept nogil:
    return be.cookie_name.n and end - start == be.cookie_name.n and memcmp(v + start, be.cookie_name.p, be.cookie_name.n) == 0


cdef inline uint32_t value_tail(const char *v, uint32_t start, uint32_t end) noexcept nogil:
    # The end of a value without the blanks behind it.
    while end > start and blank(v[end - 1]):
        end -= 1
    return end


cdef inline uint32_t set_delimiter(char *out, uint32_t kept, char delimiter) noexcept nogil:
    if delimiter:
        out[kept] = delimiter
        kept += 1
    return kept


cdef inline uint32_t join(char *out, uint32_t kept, char delimiter) noexcept nogil:
    # Go on behind a removed cookie: its blanks go, the next delimiter is followed by one space.
    if kept:
        while kept and blank(out[kept - 1]):
            kept -= 1
        out[kept] = delimiter
        out[kept + 1] = SP
        kept += 2
    return kept


cdef uint32_t cookie_response(Session *s, BackendC *be, const char *v, uint32_t n, char *out) noexcept nogil:
    # Only the first pair of a header counts; the blanks around its `=` are dropped whoever it belongs to.
    cdef uint32_t i = 0, start, name_end, val, kept
    cdef ServerC *srv = s.server
    while i < n and blank(v[i]):
        i += 1
    start = i
    i += <uint32_t>hk_any_of(v + i, n - i, EQUAL, SEMI, COMMA)
    if i == n or v[i] != EQUAL:
        return copy(out, 0, v, 0, n)
    name_end = value_tail(v, start, i)
    val = i + 1
    while val < n and blank(v[val]):
        val += 1
    kept = copy(out, 0, v, 0, name_end if name_end > start else start)
    out[kept] = EQUAL
    kept += 1
    if s.ignore_persist or not is_ours(be, v, start, name_end):
        return copy(out, kept, v, val, n)
    s.ck_response = c"P"
    if not be.cookie & CK_PRESERVE:
        if (srv != NULL and be.cookie & CK_INSERT) or (be.cookie & CK_INDIRECT and s.direct):
            s.ck_response = c"D"
            return 0
        if srv != NULL and srv.cookie.p != NULL and be.cookie & (CK_REWRITE | CK_PREFIX):
            s.ck_response = c"R"
            kept = copy(out, kept, srv.cookie.p, 0, srv.cookie.n)
            if be.cookie & CK_REWRITE:
                val = value_tail(v, val, value_end(v, val, n))
            else:
                out[kept] = TILDE
                kept += 1
    return copy(out, kept, v, val, n)


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


cdef uint32_t cookie_line(Worker *w, Session *s, BackendC *be, char *out, uint32_t room) noexcept nogil:
    cdef Text *id = &s.server.cookie
    cdef const char *gone = b"; Expires=Thu, 01-Jan-1970 00:00:01 GMT"
    cdef uint32_t k = 0
    cdef int64_t now
    if 12 + be.cookie_name.n + id.n + be.cookie_tail.n + 64 > room:
        return 0
    k = copy(out, k, b"set-cookie: ", 0, 12)
    k = copy(out, k, be.cookie_name.p, 0, be.cookie_name.n)
    out[k] = EQUAL
    k += 1
    if id.p == NULL:
        k = copy(out, k, gone, 0, 39)
    else:
        k = copy(out, k, id.p, 0, id.n)
        if be.maxidle_s or be.maxlife_s:
            now = wall(w) + 3
            out[k] = BAR
            write_date(now, out + k + 1)
            k += 6
            if be.maxlife_s:
                out[k] = BAR
                write_date(<int64_t>s.first_date if s.first_date else now, out + k + 1)
                k += 6
    k = copy(out, k, be.cookie_tail.p, 0, be.cookie_tail.n)
    k = copy(out, k, b"\r\n", 0, 2)
    s.ck_response = c"U" if id.p != NULL and s.direct else c"I"
    return k
