# s.stick holds what is to be stored: for each key a StickNote and the key's bytes. HAProxy stores when the server has
# answered, so a key of a request that nobody answers is not learned.
#
# The fetches repeat core/sticktable.py in C, oddities included; the tests run over both and over the real HAProxy.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from haptk._fast.bytes.address cimport span_address
from haptk._fast.bytes.buf cimport buf_held, buf_part, buf_put
from haptk._fast.bytes.span cimport (NOWHERE, Span, octets_16, span_at, span_begins, span_between, span_big16, span_cut, span_eq,
                                     span_find, span_first, span_from, span_get, span_given, span_len,
                                     span_none, span_over, span_raw, span_skip, span_sub, span_trim, span_trim_end)
from haptk._fast.facts cimport Seen, path_in
from haptk._fast.http1 cimport H_COOKIE, H_SET_COOKIE, head_name, head_target, head_value
from haptk._fast.match cimport holds
from haptk._fast.pool cimport buf_drop, buf_take
from haptk._fast.program cimport span_text
from haptk._fast.scan cimport hk_load
from haptk._fast.inet cimport AF_INET, AF_INET6
from haptk._fast.state cimport (AppSessionC, BackendC, CK_INDIRECT, CK_INSERT, CK_PREFIX, FETCH_COOKIE, FETCH_HEADER,
                                FETCH_LINE, FETCH_PARAM, FETCH_PATH, FETCH_SRC, LIVE_DOWN, LIVE_MAINT, Peer, ServerC,
                                STICK_MATCH, STICK_STORE, StickC, StickRuleC, StickTableC)
from haptk._fast.store cimport (Found, KEY_BINARY, KEY_INTEGER, KEY_IP, KEY_STRING, Store, store_find,
                                store_learn)

cdef enum:
    NOTES_MAX = 8           # keys of one exchange, as in HAProxy
    FRESH_MS = 1000         # a use that is younger need not be repeated when the answer comes
    SEMI = 59, COMMA = 44, EQUAL = 61, QUOTE = 34, BACKSLASH = 92, DOLLAR = 36, AMPERSAND = 38, TILDE = 126
    SLASH = 47, QUESTION = 63

ctypedef struct StickNote:
    uint16_t table
    uint16_t length
    uint16_t known          # the name that the table had for it
    uint16_t response       # came from the response

ctypedef struct Key:        # `text`, or what is no text in `own`
    Span text
    uint8_t own[16]
    uint32_t own_n          # 0: `text` it is


cdef inline Span key_bytes(Key *k) noexcept nogil:
    return span_over(k.own, k.own_n) if k.own_n else k.text


# ---------------------------------------------------------------- values

cdef uint32_t value_end(Span v, uint32_t i, bint semicolons) noexcept nogil:
    # The next comma (or semicolon) outside quotes.
    cdef bint quoted = 0
    cdef uint32_t n = span_len(v)
    cdef uint8_t c
    while i < n:
        c = span_at(v, i)
        if quoted and c == BACKSLASH:
            i += 1
        elif c == QUOTE:
            quoted = not quoted
        elif not quoted and (c == COMMA or (semicolons and c == SEMI)):
            return i
        i += 1
    return n


cdef void cookie_in(Span v, Span name, bint response, Span *out) noexcept nogil:
    # The last value of the cookie in one piece of a header. Of a response only what begins with the name counts.
    cdef uint32_t n = span_len(v), i = 0, equal, begin, end
    cdef uint8_t c
    while i + span_len(name) + 1 < n:
        equal = i = span_skip(v, i)
        while equal < n:
            c = span_at(v, equal)
            if c == EQUAL or c == SEMI or (not response and c == COMMA):
                break
            equal += 1
        if equal >= n or span_at(v, equal) != EQUAL:
            i = equal + 1
            continue
        begin = span_skip(v, equal + 1)
        end = value_end(v, begin, 1)
        if span_at(v, i) != DOLLAR:
            if span_eq(span_trim_end(span_between(v, i, equal)), name):
                out[0] = span_trim_end(span_between(v, begin, end))
            elif response:
                return
        i = end + 1


cdef Span last_cookie(Head *h, int id, Span name, bint response) noexcept nogil:
    cdef Span found = span_none(), v
    cdef uint32_t at, stop
    cdef int i
    if h.cookies == 0:
        return found
    for i in range(h.count):
        if h.headers[i].id != id:
            continue
        v = head_value(h, &h.headers[i])
        at = 0
        while at <= span_len(v):
            stop = value_end(v, at, 0)
            cookie_in(span_trim(span_between(v, at, stop)), name, response, &found)
            at = stop + 1
    return found


cdef Span last_header(Head *h, Span name, bint whole) noexcept nogil:
    cdef Span v
    cdef uint32_t stop
    cdef int i = h.count
    while i:
        i -= 1
        if not span_eq(head_name(h, &h.headers[i]), name):
            continue
        v = head_value(h, &h.headers[i])
        while not whole:
            stop = value_end(v, 0, 0)
            if stop == span_len(v):
                break
            v = span_from(v, stop + 1)
        return span_trim(v)
    return span_none()


cdef Span parameter(Span v, Span name, uint8_t delimiter) noexcept nogil:
    # The first value of a parameter behind the first delimiter.
    cdef uint32_t i = span_find(v, delimiter, 0), stop, n = span_len(v), at = span_len(name)
    cdef uint8_t c
    if i == NOWHERE:
        return span_none()
    i += 1
    while i < n:
        stop = i
        while stop < n:
            c = span_at(v, stop)
            if c == AMPERSAND or c == SEMI or c == delimiter:
                break
            stop += 1
        if stop - i > at and span_at(v, i + at) == EQUAL and span_eq(span_sub(v, i, at), name):
            return span_between(v, i + at + 1, stop)
        i = stop + 1
    return span_none()


cdef Span path_of(Span v) noexcept nogil:
    # The path of the target without its query; nothing for `*` and authority form.
    cdef uint32_t start = 0, end = 0
    return span_between(v, start, end) if path_in(v, &start, &end) else span_none()


cdef Span own_cookie(BackendC *be, Span value, Span name) noexcept nogil:
    # The persistence cookie is a key as the server sees it: without what the prefix adds, or not at all.
    cdef uint32_t mark
    if not span_given(value) or not span_eq(span_text(&be.cookie_name), name):
        return value
    if be.cookie & CK_PREFIX:
        mark = span_find(value, TILDE, 0)
        return value if mark == NOWHERE else span_from(value, mark + 1)
    if be.cookie & CK_INSERT and be.cookie & CK_INDIRECT:
        return span_none()
    return value


cdef Span fetched(Session *s, StickRuleC *r, Head *h, bint response) noexcept nogil:
    cdef Span name = span_text(&r.argument), value
    if r.fetch == FETCH_COOKIE:
        value = last_cookie(h, H_SET_COOKIE if response else H_COOKIE, name, response)
        return value if response or s.backend.cookie == 0 else own_cookie(s.backend, value, name)
    if r.fetch == FETCH_HEADER or r.fetch == FETCH_LINE:
        return last_header(h, name, r.fetch == FETCH_LINE)
    if r.fetch == FETCH_PARAM:
        return parameter(head_target(h), name, <uint8_t>r.delimiter)
    if r.fetch == FETCH_PATH:
        return path_of(head_target(h))
    return head_target(h)


# ---------------------------------------------------------------- keys

cdef void integer_key(Key *k, uint32_t v) noexcept nogil:
    k.own[0], k.own[1] = v & 255, v >> 8 & 255
    k.own[2], k.own[3] = v >> 16 & 255, v >> 24 & 255
    k.own_n = 4


cdef uint32_t leading_integer(Span x) noexcept nogil:
    cdef uint32_t v = 0, i = 0, n = span_len(x)
    cdef bint minus = 0
    if n and (span_at(x, 0) == 45 or span_at(x, 0) == 43):
        minus = span_at(x, 0) == 45
        i = 1
    while i < n and 48 <= span_at(x, i) <= 57:
        v = v * 10 + span_at(x, i) - 48
        i += 1
    return <uint32_t>0 - v if minus else v


cdef bint dotted(Span x, uint8_t out[16]) noexcept nogil:
    # Four numbers with dots; zeros before them and text behind the last one (a port) do not matter.
    cdef uint32_t i, v = 0
    cdef int octets = 0
    cdef bint digit = 0
    cdef uint8_t c
    for i in range(span_len(x)):
        c = span_at(x, i)
        if 48 <= c <= 57:
            v = v * 10 + c - 48
            if v > 255 or (not digit and octets == 4):
                return 0
            octets += not digit
            digit = 1
            out[octets - 1] = <uint8_t>v
        elif c == 46:
            if not digit or octets == 4:
                return 0
            v = 0
            digit = 0
        else:
            break
    return octets == 4


cdef bint text_key(Store *t, Span x, Key *k) noexcept nogil:
    if not span_given(x):
        return 0
    k.own_n = 0
    if t.type == KEY_STRING or t.type == KEY_BINARY:
        k.text = x
        return 1
    if t.type == KEY_INTEGER:
        integer_key(k, leading_integer(x))
        return span_len(x) != 0
    k.own_n = 4 if t.type == KEY_IP else 16
    return dotted(x, k.own) if t.type == KEY_IP else span_address(x, k.own) == AF_INET6


cdef bint mapped_key(Span octets, Key *k) noexcept nogil:
    # An IPv4 address as IPv6 writes it.
    cdef uint32_t i
    k.own_n = 16
    for i in range(16):
        k.own[i] = span_at(octets, i - 12) if i >= 12 else 0xff if i >= 10 else 0
    return 1


cdef bint address_key(Store *t, Peer *peer, Key *k) noexcept nogil:
    cdef Span a = span_over(peer.address, 4 if peer.family == AF_INET else 16)
    if peer.text_len == 0:
        return 0
    k.own_n = 0
    if t.type == KEY_STRING:
        k.text = span_over(peer.text, peer.text_len)
        return 1
    if t.type == KEY_INTEGER:
        if peer.family != AF_INET:
            return 0
        integer_key(k, span_big16(a, 0) << 16 | span_big16(a, 2))
        return 1
    if t.type == KEY_IP and peer.family == AF_INET6:
        if not span_eq(span_first(a, 12), span_over(b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12)):
            return 0
        a = span_from(a, 12)
    elif t.type != KEY_IP and t.type != KEY_BINARY and peer.family == AF_INET:
        return mapped_key(a, k)
    octets_16(k.own, a)
    k.own_n = span_len(a)
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


cdef bint note_at(Session *s, uint32_t at, StickNote *out, Span *key) noexcept nogil:
    # The note that begins at `at`, and its key; 0 behind the last one.
    cdef Span rest
    if not buf_held(&s.stick) or at >= s.stick.n:
        return 0
    rest = buf_part(&s.stick, at, s.stick.n)
    span_get(rest, 0, out, sizeof(StickNote))
    key[0] = span_sub(rest, sizeof(StickNote), out.length)
    return 1


cdef inline uint32_t next_note(StickNote *x, uint32_t at) noexcept nogil:
    return at + <uint32_t>sizeof(StickNote) + x.length


cdef bint noted(Session *s, int table, bint response) noexcept nogil:
    # Whether a key of that table is to be stored already; only the first one counts.
    cdef uint32_t at = 0
    cdef StickNote x
    cdef Span key
    while note_at(s, at, &x, &key):
        if x.table == table and x.response == response:
            return 1
        at = next_note(&x, at)
    return 0


cdef void keep(Worker *w, Session *s, int table, Store *t, Key *k, uint16_t known, bint response) noexcept nogil:
    cdef Span key = span_cut(key_bytes(k), t.key_size)
    cdef StickNote x
    if buf_take(w, &s.stick) < 0 or s.stick.r >= NOTES_MAX or \
            s.stick.size - s.stick.n < sizeof(StickNote) + span_len(key):
        return
    x.table, x.length, x.known, x.response = <uint16_t>table, <uint16_t>span_len(key), known, response
    buf_put(&s.stick, span_over(&x, sizeof(StickNote)))
    buf_put(&s.stick, key)
    s.stick.r += 1


cdef bint found_in(StickTableC *t, Key *k, int64_t now_ms, Found *found) noexcept nogil:
    cdef Span key = key_bytes(k)
    found.name = 0
    return store_find(t.store, span_raw(key), span_len(key), now_ms, found)


cdef void app_request(Worker *w, Session *s, Head *h, bint force) noexcept nogil:
    cdef AppSessionC *app = s.backend.stick.app
    cdef StickTableC *t = &s.backend.stick.tables[app.table]
    cdef Key k
    cdef Found found
    k.own_n = 0
    k.text = app_in_request(app, h)
    if span_len(k.text) == 0:
        return
    if found_in(t, &k, w.now, &found) and s.server == NULL:
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
        elif h == NULL or not text_key(t.store, fetched(s, r, h, 0), &k):
            continue
        found.name = 0
        if r.act & STICK_MATCH and found_in(t, &k, w.now, &found) and s.server == NULL:
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
    cdef StickNote x
    cdef Span key
    cdef uint32_t at = 0
    cdef uint16_t own
    cdef bint fresh = w.now - s.request_ms < FRESH_MS
    while note_at(s, at, &x, &key):
        at = next_note(&x, at)
        if (app != NULL and x.table == app.table) != apps:
            continue
        t = &s.backend.stick.tables[x.table]
        own = t.own[s.server.index]
        # what the request has used a moment ago need not be written again
        if not (fresh and own and x.known == own and (t.store.expire_ms == 0 or t.store.expire_ms > 8 * FRESH_MS)):
            store_learn(t.store, span_raw(key), span_len(key), w.now, s.server.id, own)


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
        if text_key(rules.tables[r.table].store, fetched(s, r, h, 1), &k):
            keep(w, s, r.table, rules.tables[r.table].store, &k, 0, 1)
    if buf_held(&s.stick):
        learn(w, s, 0)
        if rules.app == NULL or h == NULL:
            buf_drop(w, &s.stick)


cdef void app_response(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef AppSessionC *app = s.backend.stick.app
    cdef Key k
    if app == NULL:
        return
    if s.server != NULL and not s.server.non_stick:
        k.own_n = 0
        k.text = app_in_response(app, h)
        if span_len(k.text):
            keep(w, s, app.table, s.backend.stick.tables[app.table].store, &k, 0, 1)
        if buf_held(&s.stick):
            learn(w, s, 1)
    buf_drop(w, &s.stick)


# ---------------------------------------------------------------- appsession

cdef Span app_id(AppSessionC *app, Span v) noexcept nogil:
    # The id in one piece `name=value`; with `prefix` everything behind the configured beginning.
    cdef Span name = span_text(&app.name), left
    cdef uint32_t equal
    v = span_trim(v)
    equal = span_find(v, EQUAL, 0)
    if equal == NOWHERE:
        return span_none()
    left = span_trim_end(span_first(v, equal))
    if app.prefix and span_begins(left, name):
        return span_cut(span_from(v, span_len(name)), app.length)
    if not app.prefix and span_eq(left, name):
        return span_cut(span_from(v, span_skip(v, equal + 1)), app.length)
    return span_none()


cdef Span app_in_list(AppSessionC *app, Span v, uint8_t delimiter) noexcept nogil:
    # The first id among the pieces of a cookie header (delimiter 0: ; and , outside quotes) or of parameters.
    cdef Span id = span_none()
    cdef uint32_t i = 0, stop, n = span_len(v)
    while i < n and span_len(id) == 0:
        stop = span_find(v, delimiter, i) if delimiter else value_end(v, i, 1)
        if stop == NOWHERE:
            stop = n
        id = app_id(app, span_between(v, i, stop))
        i = stop + 1
    return id


cdef Span app_in_request(AppSessionC *app, Head *h) noexcept nogil:
    cdef Span target = head_target(h), id
    cdef uint32_t mark
    cdef int i
    for i in range(h.count if h.cookies else 0):
        if h.headers[i].id == H_COOKIE:
            id = app_in_list(app, head_value(h, &h.headers[i]), 0)
            if span_len(id):
                return id
    mark = span_find(target, QUESTION, 0)
    if app.query:
        return span_none() if mark == NOWHERE else app_in_list(app, span_from(target, mark + 1), AMPERSAND)
    if mark != NOWHERE:
        target = span_first(target, mark)
    mark = span_find(target, SEMI, 0)
    return span_none() if mark == NOWHERE else app_in_list(app, span_from(target, mark + 1), SEMI)


cdef Span app_in_response(AppSessionC *app, Head *h) noexcept nogil:
    # Only the first pair of a Set-Cookie header counts.
    cdef Span id, v
    cdef uint32_t mark
    cdef int i
    for i in range(h.count if h.cookies else 0):
        if h.headers[i].id != H_SET_COOKIE or h.headers[i].value_len == 0:
            continue
        v = head_value(h, &h.headers[i])
        mark = span_find(v, SEMI, 0)
        id = app_id(app, v if mark == NOWHERE else span_first(v, mark))
        if span_len(id):
            return id
    return span_none()
