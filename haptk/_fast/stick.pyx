# s.stick holds what is to be stored: for each key a StickNote and the key's bytes. HAProxy stores when the server has
# answered, so a key of a request that nobody answers is not learned.
#
# The fetches repeat core/sticktable.py in C, oddities included; the tests run over both and over the real HAProxy.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from haptk._fast.bytes.span cimport span_raw
from libc.string cimport memchr, memcmp, memcpy, memset

from haptk._fast.facts cimport Seen
from haptk._fast.http1 cimport H_COOKIE, H_SET_COOKIE, Header
from haptk._fast.match cimport holds
from haptk._fast.pool cimport buf_drop, buf_take
from haptk._fast.scan cimport hk_load
from haptk._fast.inet cimport AF_INET, AF_INET6, inet_pton
from haptk._fast.state cimport (AppSessionC, BackendC, CK_INDIRECT, CK_INSERT, CK_PREFIX, FETCH_COOKIE, FETCH_HEADER,
                                FETCH_LINE, FETCH_PARAM, FETCH_PATH, FETCH_SRC, LIVE_DOWN, LIVE_MAINT, Peer, ServerC,
                                STICK_MATCH, STICK_STORE, StickC, StickRuleC, StickTableC, Text)
from haptk._fast.store cimport (Found, KEY_BINARY, KEY_INTEGER, KEY_IP, KEY_STRING, Store, store_find,
                                store_learn)

cdef enum:
    NOTES_MAX = 8           # keys of one exchange, as in HAProxy
    FRESH_MS = 1000         # a use that is younger need not be repeated when the answer comes

ctypedef struct StickNote:
    uint16_t table
    uint16_t length
    uint16_t known          # the name that the table had for it
    uint16_t response       # came from the response

ctypedef struct Piece:      # bytes somewhere; p is NULL for nothing found
    const char *p
    uint32_t n

ctypedef struct Key:
    const char *p
    uint32_t n
    char own[16]            # where p points for what is no text


cdef inline bint blank(char c) noexcept nogil:
    return c == 32 or c == 9


cdef inline void trim(Piece *x) noexcept nogil:
    while x.n and blank(x.p[0]):
        x.p += 1
        x.n -= 1
    while x.n and blank(x.p[x.n - 1]):
        x.n -= 1


cdef inline bint is_text(const char *p, uint32_t n, Text *word) noexcept nogil:
    return n == word.n and memcmp(p, word.p, n) == 0


# ---------------------------------------------------------------- values

cdef uint32_t comma(const char *v, uint32_t i, uint32_t n) noexcept nogil:
    # The next comma outside quotes.
    cdef bint quoted = 0
    while i < n:
        if quoted and v[i] == 92:
            i += 1
        elif v[i] == 34:
            quoted = not quoted
        elif v[i] == 44 and not quoted:
            return i
        i += 1
    return n


cdef uint32_t value_end(const char *v, uint32_t i, uint32_t n) noexcept nogil:
    cdef bint quoted = 0
    while i < n:
        if quoted and v[i] == 92:
            i += 1
        elif v[i] == 34:
            quoted = not quoted
        elif (v[i] == 59 or v[i] == 44) and not quoted:
            return i
        i += 1
    return n


cdef void cookie_in(Piece part, Text *name, bint response, Piece *out) noexcept nogil:
    # The last value of the cookie in one piece of a header. Of a response only what begins with the name counts.
    cdef const char *v = part.p
    cdef uint32_t n = part.n, i = 0, equal, begin, end, tail
    while i + name.n + 1 < n:
        while i < n and blank(v[i]):
            i += 1
        equal = i
        while equal < n and v[equal] != 61 and v[equal] != 59 and (response or v[equal] != 44):
            equal += 1
        if equal >= n or v[equal] != 61:
            i = equal + 1
            continue
        begin = equal + 1
        while begin < n and blank(v[begin]):
            begin += 1
        end = value_end(v, begin, n)
        tail = equal
        while tail > i and blank(v[tail - 1]):
            tail -= 1
        if v[i] != 36:
            if is_text(v + i, tail - i, name):
                out.p = v + begin
                out.n = end - begin
                while out.n and blank(out.p[out.n - 1]):
                    out.n -= 1
            elif response:
                return
        i = end + 1


cdef Piece last_cookie(const char *d, Head *h, int id, Text *name, bint response) noexcept nogil:
    cdef Piece found, part
    cdef Header *x
    cdef uint32_t at, stop
    cdef int i
    found.p = NULL
    found.n = 0
    if h.cookies == 0:
        return found
    for i in range(h.count):
        x = &h.headers[i]
        if x.id != id:
            continue
        at = 0
        while at <= x.value_len:
            stop = comma(d + x.value, at, x.value_len)
            part.p = d + x.value + at
            part.n = stop - at
            trim(&part)
            cookie_in(part, name, response, &found)
            at = stop + 1
    return found


cdef Piece last_header(const char *d, Head *h, Text *name, bint whole) noexcept nogil:
    cdef Piece found
    cdef Header *x
    cdef uint32_t at, stop
    cdef int i = h.count
    found.p = NULL
    found.n = 0
    while i:
        i -= 1
        x = &h.headers[i]
        if not is_text(d + x.line, x.name_len, name):
            continue
        found.p = d + x.value
        found.n = x.value_len
        at = 0
        while not whole:
            stop = comma(d + x.value, at, x.value_len)
            if stop == x.value_len:
                found.p = d + x.value + at
                found.n = x.value_len - at
                break
            at = stop + 1
        trim(&found)
        break
    return found


cdef Piece parameter(const char *v, uint32_t n, Text *name, char delimiter) noexcept nogil:
    # The first value of a parameter behind the first delimiter.
    cdef Piece found
    cdef const char *at = <const char *>memchr(v, delimiter, n)
    cdef uint32_t i, stop
    found.p = NULL
    found.n = 0
    if at == NULL:
        return found
    i = <uint32_t>(at - v) + 1
    while i < n:
        stop = i
        while stop < n and v[stop] != 38 and v[stop] != 59 and v[stop] != delimiter:
            stop += 1
        if stop - i > name.n and v[i + name.n] == 61 and memcmp(v + i, name.p, name.n) == 0:
            found.p = v + i + name.n + 1
            found.n = stop - i - name.n - 1
            return found
        i = stop + 1
    return found


cdef Piece path_of(const char *v, uint32_t n) noexcept nogil:
    # The path of the target without its query; nothing for `*` and authority form.
    cdef Piece found
    cdef uint32_t i = 0
    found.p = NULL
    found.n = 0
    if n and v[0] != 47:
        while i + 2 < n and not (v[i] == 58 and v[i + 1] == 47 and v[i + 2] == 47):
            i += 1
        i += 3
        while i < n and v[i] != 47 and v[i] != 63:
            i += 1
    if i >= n or v[i] != 47:
        return found
    found.p = v + i
    while i < n and v[i] != 63:
        i += 1
    found.n = <uint32_t>(v + i - found.p)
    return found


cdef Piece own_cookie(BackendC *be, Piece value, Text *name) noexcept nogil:
    # The persistence cookie is a key as the server sees it: without what the prefix adds, or not at all.
    cdef const char *mark
    if value.p == NULL or not is_text(be.cookie_name.p, be.cookie_name.n, name):
        return value
    if be.cookie & CK_PREFIX:
        mark = <const char *>memchr(value.p, 126, value.n) if value.n else NULL
        if mark != NULL:
            value.n -= <uint32_t>(mark + 1 - value.p)
            value.p = mark + 1
    elif be.cookie & CK_INSERT and be.cookie & CK_INDIRECT:
        value.p = NULL
    return value


cdef Piece fetched(Session *s, StickRuleC *r, const char *d, Head *h, bint response) noexcept nogil:
    cdef Piece none
    if r.fetch == FETCH_COOKIE:
        none = last_cookie(d, h, H_SET_COOKIE if response else H_COOKIE, &r.argument, response)
        return none if response or s.backend.cookie == 0 else own_cookie(s.backend, none, &r.argument)
    if r.fetch == FETCH_HEADER or r.fetch == FETCH_LINE:
        return last_header(d, h, &r.argument, r.fetch == FETCH_LINE)
    if r.fetch == FETCH_PARAM:
        return parameter(d + h.target, h.target_len, &r.argument, r.delimiter)
    if r.fetch == FETCH_PATH:
        return path_of(d + h.target, h.target_len)
    none.p = d + h.target
    none.n = h.target_len
    return none


# ---------------------------------------------------------------- keys

cdef void integer_key(Key *k, uint32_t v) noexcept nogil:
    k.own[0], k.own[1] = <char>(v & 255), <char>(v >> 8 & 255)
    k.own[2], k.own[3] = <char>(v >> 16 & 255), <char>(v >> 24 & 255)
    k.p, k.n = k.own, 4


cdef uint32_t leading_integer(Piece x) noexcept nogil:
    cdef uint32_t v = 0, i = 0
    cdef bint minus = 0
    if x.n and (x.p[0] == 45 or x.p[0] == 43):
        minus = x.p[0] == 45
        i = 1
    while i < x.n and 48 <= x.p[i] <= 57:
        v = v * 10 + <uint32_t>(x.p[i] - 48)
        i += 1
    return <uint32_t>0 - v if minus else v


cdef bint dotted(Piece x, char *out) noexcept nogil:
    # Four numbers with dots; zeros before them and text behind the last one (a port) do not matter.
    cdef uint32_t i, v = 0
    cdef int octets = 0
    cdef bint digit = 0
    for i in range(x.n):
        if 48 <= x.p[i] <= 57:
            v = v * 10 + <uint32_t>(x.p[i] - 48)
            if v > 255 or (not digit and octets == 4):
                return 0
            octets += not digit
            digit = 1
            out[octets - 1] = <char>v
        elif x.p[i] == 46:
            if not digit or octets == 4:
                return 0
            v = 0
            digit = 0
        else:
            break
    return octets == 4


cdef bint text_key(Store *t, Piece x, Key *k) noexcept nogil:
    cdef char text[46]      # INET6_ADDRSTRLEN
    if x.p == NULL:
        return 0
    if t.type == KEY_STRING or t.type == KEY_BINARY:
        k.p, k.n = x.p, x.n
        return 1
    if t.type == KEY_INTEGER:
        integer_key(k, leading_integer(x))
        return x.n != 0
    k.p, k.n = k.own, 4 if t.type == KEY_IP else 16
    if t.type == KEY_IP:
        return dotted(x, k.own)
    if x.n > 45:
        return 0
    memcpy(text, x.p, x.n)
    text[x.n] = 0
    return inet_pton(AF_INET6, text, k.own) == 1


cdef bint address_key(Store *t, Peer *peer, Key *k) noexcept nogil:
    cdef const uint8_t *a = peer.address
    cdef int i
    if peer.text_len == 0:
        return 0
    k.p = k.own
    if t.type == KEY_STRING:
        k.p, k.n = peer.text, peer.text_len
    elif t.type == KEY_BINARY:
        k.n = 4 if peer.family == AF_INET else 16
        memcpy(k.own, a, k.n)
    elif t.type == KEY_INTEGER:
        if peer.family != AF_INET:
            return 0
        integer_key(k, (<uint32_t>a[0] << 24) | (<uint32_t>a[1] << 16) | (<uint32_t>a[2] << 8) | a[3])
    elif t.type == KEY_IP:
        k.n = 4
        if peer.family == AF_INET:
            memcpy(k.own, a, 4)
        elif a[0] == 0x20 and a[1] == 0x02:
            memcpy(k.own, a + 2, 4)     # 6to4; mapped addresses are v4 already
        else:
            return 0
    else:
        k.n = 16
        if peer.family == AF_INET6:
            memcpy(k.own, a, 16)
        else:
            for i in range(10):
                k.own[i] = 0
            k.own[10] = k.own[11] = <char>0xff
            memcpy(k.own + 12, a, 4)
    return 1


# ---------------------------------------------------------------- asking

cdef void stick_to(Session *s, StickTableC *t, Found *found, bint force) noexcept nogil:
    # By name, else by id; a server that is down lets its sessions go unless persistence is forced.
    cdef BackendC *be = s.backend
    cdef ServerC *srv = NULL
    cdef int i, state
    if found.name and found.name < t.names and t.by_name[found.name] >= 0:
        srv = &be.servers[t.by_name[found.name]]
    elif found.server_id:
        for i in range(be.count):
            if be.servers[i].id == found.server_id:
                srv = &be.servers[i]
                break
    if srv == NULL:
        return
    state = hk_load(&srv.live.state)
    if (state == LIVE_DOWN or state == LIVE_MAINT) and not (force or be.persist or be.strict):
        return
    s.server = srv
    s.direct = 1


cdef StickNote *note(Session *s, uint32_t at) noexcept nogil:
    return <StickNote *>(s.stick.d + at) if at < s.stick.n else NULL


cdef inline uint32_t next_note(StickNote *x, uint32_t at) noexcept nogil:
    return at + sizeof(StickNote) + ((x.length + 1) & ~<uint32_t>1)


cdef bint noted(Session *s, int table, bint response) noexcept nogil:
    # Whether a key of that table is to be stored already; only the first one counts.
    cdef uint32_t at = 0
    cdef StickNote *x = note(s, at)
    while x != NULL:
        if x.table == table and x.response == response:
            return 1
        at = next_note(x, at)
        x = note(s, at)
    return 0


cdef void keep(Worker *w, Session *s, int table, Store *t, Key *k, uint16_t known, bint response) noexcept nogil:
    cdef uint32_t n = k.n if k.n < t.key_size else t.key_size
    cdef StickNote *x
    if buf_take(w, &s.stick) < 0 or s.stick.r >= NOTES_MAX or \
            s.stick.n + sizeof(StickNote) + n + 1 > s.stick.size:
        return
    x = <StickNote *>(s.stick.d + s.stick.n)
    x.table, x.length, x.known, x.response = <uint16_t>table, <uint16_t>n, known, response
    memcpy(<char *>x + sizeof(StickNote), k.p, n)
    s.stick.n = next_note(x, s.stick.n)
    s.stick.r += 1


cdef void app_request(Worker *w, Session *s, Head *h, bint force) noexcept nogil:
    cdef AppSessionC *app = s.backend.stick.app
    cdef StickTableC *t = &s.backend.stick.tables[app.table]
    cdef Piece id = app_in_request(app, span_raw(h.text), h)
    cdef Key k
    cdef Found found
    found.name = 0
    if id.n == 0:
        return
    k.p, k.n = id.p, id.n
    if store_find(t.store, k.p, k.n, w.now, &found) and s.server == NULL:
        stick_to(s, t, &found, force)
    if app.request_learn:
        keep(w, s, app.table, t.store, &k, found.name, 0)


cdef bint applies(Worker *w, Session *s, StickRuleC *r, Head *req, Head *res) noexcept nogil:
    cdef Seen x
    if r.condition == NULL:
        return 1
    memset(&x, 0, sizeof(Seen))
    x.w, x.s, x.req, x.res = w, s, req, res
    return holds(&x, r.condition)


cdef void stick_request(Worker *w, Session *s, Head *h, bint force, bint ignore) noexcept nogil:
    cdef StickC *rules = s.backend.stick
    cdef StickRuleC *r
    cdef StickTableC *t
    cdef Key k
    cdef Found found
    cdef int i
    buf_drop(w, &s.stick)
    for i in range(rules.request_count):
        r = &rules.requests[i]
        if r.act & STICK_STORE and noted(s, r.table, 0):
            continue
        if not applies(w, s, r, h, NULL):
            continue
        t = &rules.tables[r.table]
        if r.fetch == FETCH_SRC:
            if not address_key(t.store, &s.peer, &k):
                continue
        elif h == NULL or not text_key(t.store, fetched(s, r, span_raw(h.text), h, 0), &k):
            continue
        found.name = 0
        if r.act & STICK_MATCH and store_find(t.store, k.p, k.n, w.now, &found) and s.server == NULL:
            stick_to(s, t, &found, force)
        if r.act & STICK_STORE:
            keep(w, s, r.table, t.store, &k, found.name, 0)
    if rules.app != NULL and h != NULL and not ignore:
        app_request(w, s, h, force)


# ---------------------------------------------------------------- learning

cdef void learn(Worker *w, Session *s, bint apps) noexcept nogil:
    # What is noted for appsession, or what is noted for all others.
    cdef AppSessionC *app = s.backend.stick.app
    cdef StickTableC *t
    cdef StickNote *x
    cdef uint32_t at = 0
    cdef uint16_t own
    cdef bint fresh = w.now - s.request_ms < FRESH_MS
    x = note(s, at)
    while x != NULL:
        if (app != NULL and x.table == app.table) != apps:
            at = next_note(x, at)
            x = note(s, at)
            continue
        t = &s.backend.stick.tables[x.table]
        own = t.own[s.server.index]
        # what the request has used a moment ago need not be written again
        if not (fresh and own and x.known == own and (t.store.expire_ms == 0 or t.store.expire_ms > 8 * FRESH_MS)):
            store_learn(t.store, <char *>x + sizeof(StickNote), x.length, w.now, s.server.id, own)
        at = next_note(x, at)
        x = note(s, at)


cdef void stick_response(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef StickC *rules = s.backend.stick
    cdef StickRuleC *r
    cdef Key k
    cdef int i
    if s.server == NULL or s.server.non_stick:
        buf_drop(w, &s.stick)
        return
    for i in range(rules.response_count if h != NULL else 0):
        r = &rules.responses[i]
        if noted(s, r.table, 1) or not applies(w, s, r, NULL, h):
            continue
        if text_key(rules.tables[r.table].store, fetched(s, r, span_raw(h.text), h, 1), &k):
            keep(w, s, r.table, rules.tables[r.table].store, &k, 0, 1)
    if s.stick.d != NULL:
        learn(w, s, 0)
        if rules.app == NULL or h == NULL:
            buf_drop(w, &s.stick)


cdef void app_response(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef AppSessionC *app = s.backend.stick.app
    cdef Piece id
    cdef Key k
    if app == NULL:
        return
    if s.server != NULL and not s.server.non_stick:
        id = app_in_response(app, span_raw(h.text), h)
        if id.n:
            k.p, k.n = id.p, id.n
            keep(w, s, app.table, s.backend.stick.tables[app.table].store, &k, 0, 1)
        if s.stick.d != NULL:
            learn(w, s, 1)
    buf_drop(w, &s.stick)


# ---------------------------------------------------------------- appsession

cdef Piece app_id(AppSessionC *app, const char *v, uint32_t n) noexcept nogil:
    # The id in one piece `name=value`; with `prefix` everything behind the configured beginning.
    cdef Piece id
    cdef uint32_t equal = 0, tail, begin
    id.p = NULL
    id.n = 0
    while n and blank(v[0]):
        v += 1
        n -= 1
    while n and blank(v[n - 1]):
        n -= 1
    while equal < n and v[equal] != 61:
        equal += 1
    if equal == n:
        return id
    tail, begin = equal, equal + 1
    while tail and blank(v[tail - 1]):
        tail -= 1
    while begin < n and blank(v[begin]):
        begin += 1
    if app.prefix and tail >= app.name.n and memcmp(v, app.name.p, app.name.n) == 0:
        id.p = v + app.name.n
        id.n = n - app.name.n
    elif not app.prefix and is_text(v, tail, &app.name):
        id.p = v + begin
        id.n = n - begin
    if id.n > app.length:
        id.n = app.length
    return id


cdef Piece app_in_list(AppSessionC *app, const char *v, uint32_t n, char delimiter) noexcept nogil:
    # The first id among the pieces of a cookie header (delimiter 0: ; and , outside quotes) or of parameters.
    cdef Piece id
    cdef uint32_t i = 0, stop
    id.p = NULL
    id.n = 0
    while i < n and id.n == 0:
        if delimiter:
            stop = i
            while stop < n and v[stop] != delimiter:
                stop += 1
        else:
            stop = value_end(v, i, n)
        id = app_id(app, v + i, stop - i)
        i = stop + 1
    return id


cdef Piece app_in_request(AppSessionC *app, const char *d, Head *h) noexcept nogil:
    cdef Piece id
    cdef const char *v = d + h.target
    cdef const char *mark
    cdef uint32_t path
    cdef int i
    for i in range(h.count if h.cookies else 0):
        if h.headers[i].id == H_COOKIE:
            id = app_in_list(app, d + h.headers[i].value, h.headers[i].value_len, 0)
            if id.n:
                return id
    mark = <const char *>memchr(v, 63, h.target_len)
    path = <uint32_t>(mark - v) if mark != NULL else h.target_len
    if app.query:
        if mark == NULL:
            id.p = NULL
            id.n = 0
            return id
        return app_in_list(app, mark + 1, h.target_len - path - 1, 38)
    mark = <const char *>memchr(v, 59, path)
    if mark == NULL:
        id.p = NULL
        id.n = 0
        return id
    return app_in_list(app, mark + 1, <uint32_t>(v + path - mark - 1), 59)


cdef Piece app_in_response(AppSessionC *app, const char *d, Head *h) noexcept nogil:
    # Only the first pair of a Set-Cookie header counts.
    cdef Piece id
    cdef const char *v
    cdef const char *mark
    cdef int i
    id.p = NULL
    id.n = 0
    for i in range(h.count if h.cookies else 0):
        if h.headers[i].id != H_SET_COOKIE or h.headers[i].value_len == 0:
            continue
        v = d + h.headers[i].value
        mark = <const char *>memchr(v, 59, h.headers[i].value_len)
        id = app_id(app, v, <uint32_t>(mark - v) if mark != NULL else h.headers[i].value_len)
        if id.n:
            return id
    return id
