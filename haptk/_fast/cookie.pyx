# The walk copies what it keeps: `kept` is the length of the output, and whatever an edit drops is simply not copied.

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memchr, memcmp, memcpy

from haptk._fast.scan cimport hk_load
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
    # After the id: "|last" or "|last|first".
    cdef const char *bar
    if n >= 5:
        s.last_date = <uint32_t>read_date(p)
    bar = <const char *>memchr(p, BAR, n) if n else NULL
    if bar != NULL and n - (bar - p) > 5:
        s.first_date = <uint32_t>read_date(bar + 1)


cdef bint expired(Worker *w, Session *s, BackendC *be) noexcept nogil:
    # Too old is looked at before idle for too long. Dates too far ahead are no dates.
    cdef int64_t now = wall(w)
    if s.last_date and <int64_t>s.last_date - now > FUTURE_MAX_S:
        s.last_date = 0
    if s.first_date and <int64_t>s.first_date - now > FUTURE_MAX_S:
        s.first_date = 0
    if be.maxlife_s and s.first_date and now - <int64_t>s.first_date > be.maxlife_s:
        s.ck_request = c"O"
    elif be.maxidle_s and s.last_date and now - <int64_t>s.last_date > be.maxidle_s:
        s.ck_request = c"E"
    else:
        return 0
    s.last_date = 0
    s.first_date = 0
    return 1


cdef void find_server(Session *s, BackendC *be, const char *id, uint32_t n) noexcept nogil:
    cdef int i, state
    cdef ServerC *srv
    cdef bint known = 0
    for i in range(be.count):
        srv = &be.servers[i]
        if srv.cookie.p == NULL or srv.cookie.n != n or memcmp(srv.cookie.p, id, n) != 0:
            continue
        known = 1
        state = hk_load(&srv.live.state)
        if state == LIVE_DOWN or state == LIVE_MAINT:
            s.ck_request = c"D"
            if not (be.persist or be.strict) :
                continue
        else:
            s.ck_request = c"V"
        s.server = srv
        s.direct = 1
        return
    if not known and s.ck_request != c"D" and s.ck_request != c"E" and s.ck_request != c"O":
        s.ck_request = c"I"


cdef void use_value(Worker *w, Session *s, BackendC *be, const char *id, uint32_t n, uint32_t whole) noexcept nogil:
    # One value of our cookie; the first usable one wins, so later ones are not looked at.
    cdef const char *bar
    if s.direct:
        return
    if not be.cookie & CK_PREFIX:
        bar = <const char *>memchr(id, BAR, n) if n else NULL
        if bar != NULL:
            read_stamps(s, bar + 1, n - <uint32_t>(bar - id) - 1)
            n = <uint32_t>(bar - id)
    if n == 0:
        if s.ck_request == c"N":
            s.ck_request = c"I"
        return
    if (be.maxidle_s or be.maxlife_s) and expired(w, s, be):
        return
    find_server(s, be, id, n)


cdef inline uint32_t copy(char *out, uint32_t at, const char *v, uint32_t start, uint32_t end) noexcept nogil:
    memcpy(out + at, v + start, end - start)
    return at + end - start


cdef uint32_t cookie_request(Worker *w, Session *s, BackendC *be, const char *v, uint32_t n, char *out) noexcept nogil:
    cdef uint32_t i = 0, start, name_end, equal, val, end, stop, kept = 0, done = 0, cut, prev
    cdef uint32_t name_n = be.cookie_name.n
    cdef bint remove = (be.cookie & (CK_INSERT | CK_INDIRECT)) == (CK_INSERT | CK_INDIRECT)
    cdef bint removed = 0
    cdef const char *mark
    # v[done:] is what has not been copied yet; a removed cookie takes its delimiter and its $attributes along
    while i < n:
        prev = i                            # the delimiter before this cookie
        if stops(v[i]):
            i += 1
        while i < n and blank(v[i]):
            i += 1
        start = i
        if start == n:
            break
        while i < n and v[i] != EQUAL and not stops(v[i]):
            i += 1
        equal = i
        name_end = i
        while name_end > start and blank(v[name_end - 1]):
            name_end -= 1
        if i < n and v[i] == EQUAL:
            val = i + 1
            while val < n and blank(v[val]):
                val += 1
            stop = value_end(v, val, n)
        else:
            val = stop = i
        end = stop
        while end > val and blank(v[end - 1]):
            end -= 1
        i = stop
        if name_end > start and v[start] == DOLLAR:
            if removed:
                done = stop
            continue
        if val == equal or name_end - start != name_n or memcmp(v + start, be.cookie_name.p, name_n) != 0:
            if removed:
                # the delimiter before this one is written anew after a removal
                kept = join(out, kept)
                done = start
                removed = 0
            continue
        mark = NULL
        if be.cookie & CK_PREFIX and end > val:
            mark = <const char *>memchr(v + val, TILDE, end - val)
        cut = <uint32_t>(mark - v) if mark != NULL else end
        use_value(w, s, be, v + val, cut - val, end - val)
        if remove:
            if not removed:
                kept = trim_tail(out, copy(out, kept, v, done, prev))
            removed = 1
            done = stop
        else:
            kept = copy(out, kept, v, done, name_end)
            kept = copy(out, kept, v, equal, equal + 1)
            done = cut + 1 if mark != NULL else val
    return kept if removed else copy(out, kept, v, done, n)


cdef inline uint32_t trim_tail(char *out, uint32_t kept) noexcept nogil:
    # Drop the blanks that stood before the delimiter of a removed cookie.
    while kept and blank(out[kept - 1]):
        kept -= 1
    return kept


cdef inline uint32_t join(char *out, uint32_t kept) noexcept nogil:
    if kept:
        out[kept] = SEMI
        out[kept + 1] = SP
        kept += 2
    return kept


cdef uint32_t cookie_response(Session *s, BackendC *be, const char *v, uint32_t n, char *out) noexcept nogil:
    cdef uint32_t i = 0, start, name_end, val, stop, kept
    cdef ServerC *srv = s.server
    while i < n and blank(v[i]):
        i += 1
    start = i
    while i < n and v[i] != EQUAL and not stops(v[i]):
        i += 1
    name_end = i
    while name_end > start and blank(v[name_end - 1]):
        name_end -= 1
    if i == n or v[i] != EQUAL or name_end - start != be.cookie_name.n or \
            memcmp(v + start, be.cookie_name.p, be.cookie_name.n) != 0:
        return copy(out, 0, v, 0, n)
    val = i + 1
    while val < n and blank(v[val]):
        val += 1
    stop = value_end(v, val, n)
    s.ck_response = c"P"
    if (srv != NULL and be.cookie & CK_INSERT) or (be.cookie & CK_INDIRECT and s.direct):
        if be.cookie & CK_PRESERVE:
            return copy(out, 0, v, 0, n)
        s.ck_response = c"D"
        return 0
    if srv == NULL or srv.cookie.p == NULL or not be.cookie & (CK_REWRITE | CK_PREFIX):
        return copy(out, 0, v, 0, n)
    s.ck_response = c"R"
    kept = copy(out, 0, v, 0, val)
    kept = copy(out, kept, srv.cookie.p, 0, srv.cookie.n)
    if be.cookie & CK_REWRITE:
        return copy(out, kept, v, stop, n)
    out[kept] = TILDE
    return copy(out, kept + 1, v, val, n)


cdef bint cookie_wanted(Worker *w, Session *s, BackendC *be) noexcept nogil:
    if not be.cookie & CK_INSERT or s.server == NULL:
        return 0
    if be.cookie & CK_PRESERVE and s.ck_response == c"P":
        return 0
    if be.cookie & CK_POSTONLY and s.method != M_POST:
        return 0
    if not s.direct:
        return 1
    if (be.maxidle_s or s.last_date) and (s.last_date == 0 or <int64_t>s.last_date < wall(w)):
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
