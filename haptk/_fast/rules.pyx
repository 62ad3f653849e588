# Conditions see what earlier rules changed: facts reads the very head that edit changes.

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from haptk._fast.captures cimport CAPTURED_REQUEST, CAPTURED_RESPONSE, capture, capture_cookie
from haptk._fast.convert cimport expand_groups, fetch_one
from haptk._fast.edit cimport (edits_begin, edits_end, edits_room, header_add, header_change, header_drop,
                               header_drop_named, set_request_line, set_status)
from haptk._fast.facts cimport Sample, Seen, as_text, path_in, query_in
from haptk._fast.format cimport format_put
from haptk._fast.cookie cimport cookie_request
from haptk._fast.http1 cimport (H_CODING, H_COOKIE, H_HOST, H_LENGTH, Header, M_CONNECT, M_HEAD)
from haptk._fast.match cimport holds
from haptk._fast.program cimport (A_ADD_HEADER, A_ALLOW, A_CAPTURE, A_DEL_HEADER, A_DENY, A_FORCE_PERSIST,
                                  A_LOG_LEVEL, A_NO_RETRY, A_REDIRECT, A_REPLACE_HEADER, A_REPLACE_PATH,
                                  A_REPLACE_PATHQ, A_REPLACE_URI, A_REPLACE_VALUE, A_RETURN, A_SET_HEADER,
                                  A_SET_METHOD, A_SET_PATH, A_SET_PATHQ, A_SET_QUERY, A_SET_STATUS, A_SET_URI,
                                  A_USE_SERVICE, MT_BEG, MT_END, MT_REG, MT_STR, MT_SUB, Program, RuleC, Text)
from haptk._fast.regex cimport Groups, regex_exec
from haptk._fast.reply cimport reply_redirect, reply_rule, settle_body
from haptk._fast.service cimport SERVICE_STATS, is_stats
from haptk._fast.state cimport BackendC
from haptk._fast.tally cimport tally_backend, tally_denied

cdef extern from "string.h" nogil:
    void *memmem(const void *a, size_t an, const void *b, size_t bn)

cdef enum:
    STOP = 2                # `allow`: the other rules of this list are not looked at


# ---------------------------------------------------------------- headers

cdef bint named(Seen *x, RuleC *r, const char *name, uint32_t n) noexcept nogil:
    cdef Groups groups
    cdef Text *t = &r.name
    if r.match == MT_REG:
        return regex_exec(&x.w.regex, r.regex, name, n, 0, &groups)
    if t.n > n:
        return 0
    if r.match == MT_STR:
        return n == t.n and memcmp(name, t.p, n) == 0
    if r.match == MT_BEG:
        return memcmp(name, t.p, t.n) == 0
    if r.match == MT_END:
        return memcmp(name + n - t.n, t.p, t.n) == 0
    return r.match == MT_SUB and (t.n == 0 or memmem(name, n, t.p, t.n) != NULL)


cdef void del_headers(Seen *x, RuleC *r, Head *h) noexcept nogil:
    cdef int k = 0
    cdef Header *one
    while k < h.count:
        one = &h.headers[k]
        # what frames the message stays, whatever a pattern says
        if one.id != H_LENGTH and one.id != H_CODING and named(x, r, h.d + one.line, one.name_len):
            header_drop(h, k)
        else:
            k += 1


cdef int put_header(Seen *x, RuleC *r, Head *h) noexcept nogil:
    cdef uint32_t room
    cdef char *value
    cdef int64_t n
    # room for the name in front of it, where header_add moves the value to
    value = edits_room(x.w, &room)
    n = format_put(x, &r.format, value, room)
    if n < 0:
        return -1
    if r.action == A_SET_HEADER:
        header_drop_named(h, &r.name)
    return header_add(x.w, h, &r.name, value, <uint32_t>n)


cdef int replaced(Seen *x, RuleC *r, Text *template, const char *v, uint32_t n, char *out, uint32_t size) noexcept nogil:
    # Length of the template with its groups filled, -1 for no match, -2 for no room.
    cdef Groups groups
    cdef int64_t got
    if not regex_exec(&x.w.regex, r.regex, v, n, 0, &groups):
        return -1
    got = expand_groups(template, v, groups.at, groups.count, out, size)
    return -2 if got < 0 else <int>got


cdef int replace_parts(Seen *x, RuleC *r, Text *template, const char *v, uint32_t n, char *out, uint32_t size,
                       bint *changed) noexcept nogil:
    # Each part between commas that matches; the blanks around it go with it. Length, or -2 for no room.
    cdef uint32_t i = 0, start, first, last, k = 0
    cdef bint quoted
    cdef int got
    while True:
        start = i
        quoted = 0
        while i < n and (quoted or v[i] != 44):
            if quoted and v[i] == 92:
                i += 1
            elif v[i] == 34:
                quoted = not quoted
            i += 1
        if i > n:
            i = n
        first, last = start, i
        while first < last and (v[first] == 32 or v[first] == 9):
            first += 1
        while last > first and (v[last - 1] == 32 or v[last - 1] == 9):
            last -= 1
        got = replaced(x, r, template, v + first, last - first, out + k, size - k)
        if got == -1:
            if i - start > size - k:
                return -2
            memcpy(out + k, v + start, i - start)
            got = <int>(i - start)
        elif got >= 0:
            changed[0] = 1
        if got < 0:
            return -2
        k += <uint32_t>got
        if i == n:
            return <int>k
        if k == size:
            return -2
        out[k] = 44
        k += 1
        i += 1


cdef int replace_headers(Seen *x, RuleC *r, Head *h) noexcept nogil:
    cdef uint32_t room, size
    cdef char *space = edits_room(x.w, &room)
    cdef char *out
    cdef Text template
    cdef Header *one
    cdef int k, got
    cdef bint changed
    cdef int64_t n
    size = room // 3
    # three pieces: what header_change writes, the template, the new value
    template.p = space + size
    n = format_put(x, &r.format, template.p, size)
    if n < 0:
        return -1
    template.n = <uint32_t>n
    out = space + 2 * size
    for k in range(h.count):
        one = &h.headers[k]
        if one.name_len != r.name.n or memcmp(h.d + one.line, r.name.p, r.name.n) != 0:
            continue
        changed = 1
        if r.action == A_REPLACE_HEADER:
            got = replaced(x, r, &template, h.d + one.value, one.value_len, out, size)
        else:
            changed = 0
            got = replace_parts(x, r, &template, h.d + one.value, one.value_len, out, size, &changed)
        if got == -2:
            return -1
        if got == -1 or not changed:
            continue
        if x.w.edits + x.w.edits_used + one.name_len + 4 + got > template.p:
            return -1
        if header_change(x.w, h, k, out, <uint32_t>got) < 0:
            return -1
    return 0


# ---------------------------------------------------------------- the request line

cdef int host_from(Seen *x, Head *h) noexcept nogil:
    # `set-uri` with an authority: Host follows.
    cdef const char *t = h.d + h.target
    cdef uint32_t i = 0, start, n
    cdef int k
    cdef char host[512]
    if t[0] == 47 or t[0] == 42 or h.method == M_CONNECT:
        return 0
    while i < h.target_len and t[i] != 58:
        i += 1
    if i + 3 >= h.target_len:
        return -1
    start = i = i + 3
    while i < h.target_len and t[i] != 47 and t[i] != 63:
        i += 1
    n = i - start
    if n > sizeof(host):
        return -1
    memcpy(host, t + start, n)
    for k in range(h.count):
        if h.headers[k].id == H_HOST:
            return header_change(x.w, h, k, host, n)
    return 0


cdef int new_target(Seen *x, int action, Head *h, const char *text, uint32_t n) noexcept nogil:
    # One part of the target replaced; an authority in front of the path stays. Built behind `text`.
    cdef const char *t = h.d + h.target
    cdef uint32_t start = 0, end = 0, query = h.target_len, room, k = 0
    cdef bint asked = query_in(t, h.target_len, &query)
    cdef char *out = edits_room(x.w, &room) + n
    if room < n + h.target_len + n + 8:
        return -1
    if not path_in(t, h.target_len, &start, &end):
        start = end = query - 1 if asked else h.target_len
        if start and t[0] != 47 and memmem(t, h.target_len, b"://", 3) == NULL:
            start = end = 0     # `*`: there is nothing in front to keep
    memcpy(out, t, start)
    k = start
    if action == A_SET_QUERY:
        memcpy(out + k, t + start, end - start)
        k += end - start
        if n:
            out[k] = 63
            k += 1
    memcpy(out + k, text, n)
    k += n
    if action == A_SET_PATH and asked:
        memcpy(out + k, t + query - 1, h.target_len - query + 1)
        k += h.target_len - query + 1
    return set_request_line(x.w, h, h.d + h.start, h.method_len, out, k)


cdef int change_line(Seen *x, RuleC *r, Head *h) noexcept nogil:
    cdef uint32_t room
    cdef char *text = edits_room(x.w, &room)
    cdef int64_t n = format_put(x, &r.format, text, room // 2)
    cdef int before = h.method
    if n < 0:
        return -1
    if r.action == A_SET_METHOD:
        if set_request_line(x.w, h, text, <uint32_t>n, h.d + h.target, h.target_len) < 0:
            return -1
        # a tunnel is not begun or prevented by a rule
        return -1 if (before == M_CONNECT) != (h.method == M_CONNECT) else 0
    if r.action == A_SET_URI:
        return new_uri(x, h, text, <uint32_t>n)
    return new_target(x, r.action, h, text, <uint32_t>n)


cdef int new_uri(Seen *x, Head *h, char *text, uint32_t n) noexcept nogil:
    if n == 0:
        text[0] = 47
        n = 1
    if set_request_line(x.w, h, h.d + h.start, h.method_len, text, n) < 0:
        return -1
    return host_from(x, h)


cdef int replace_target(Seen *x, RuleC *r, Head *h) noexcept nogil:
    # The part that matches becomes the template, with its groups filled from there.
    cdef const char *t = h.d + h.target
    cdef uint32_t room, size, start = 0, end = h.target_len
    cdef char *text = edits_room(x.w, &room)
    cdef Text template
    cdef int64_t n
    cdef int got
    size = room // 3
    template.p = text + 2 * size
    n = format_put(x, &r.format, template.p, size)
    if n < 0:
        return -1
    template.n = <uint32_t>n
    if r.action != A_REPLACE_URI:
        if not path_in(t, h.target_len, &start, &end):
            return 0
        if r.action == A_REPLACE_PATHQ:
            end = h.target_len
    got = replaced(x, r, &template, t + start, end - start, text, size)
    if got < 0:
        return 0 if got == -1 else -1
    if r.action == A_REPLACE_URI:
        return new_uri(x, h, text, <uint32_t>got)
    return new_target(x, A_SET_PATH if r.action == A_REPLACE_PATH else A_SET_PATHQ, h, text, <uint32_t>got)


# ---------------------------------------------------------------- lists of rules

cdef int edit(Seen *x, RuleC *r, Head *h) noexcept nogil:
    edits_begin(x.w, h)
    if r.action == A_SET_HEADER or r.action == A_ADD_HEADER:
        return put_header(x, r, h)
    if r.action == A_DEL_HEADER:
        del_headers(x, r, h)
        return 0
    if r.action == A_REPLACE_HEADER or r.action == A_REPLACE_VALUE:
        return replace_headers(x, r, h)
    if r.action == A_SET_STATUS:
        x.s.status = r.status       # what the log says; h.status goes on saying how the body is framed
        return set_status(x.w, h, r.status, &r.reason)
    if r.action == A_REPLACE_PATH or r.action == A_REPLACE_PATHQ or r.action == A_REPLACE_URI:
        return replace_target(x, r, h)
    return change_line(x, r, h)


cdef void capture_sample(Seen *x, RuleC *r) noexcept nogil:
    cdef Sample v
    x.used = 0
    if fetch_one(x, r.expr, &v) and as_text(x, &v):
        capture(x.s, CAPTURED_REQUEST if x.req != NULL else CAPTURED_RESPONSE, r.target, v.p, v.n)


cdef void read_cookies(Seen *x) noexcept nogil:
    # The log of a denied request tells what its cookies meant, and which server they asked for.
    cdef Session *s = x.s
    cdef uint32_t room
    cdef char *scratch = edits_room(x.w, &room)
    cdef Header *one
    cdef int k
    for k in range(x.req.count):
        one = &x.req.headers[k]
        if one.id == H_COOKIE and one.value_len and one.value_len + 16 < room:
            cookie_request(x.w, s, s.backend, x.req.d + one.value, one.value_len, scratch)


cdef int answered(Seen *x, RuleC *r) noexcept nogil:
    # RULES_ANSWER, RULES_GO for a redirect with nothing to say, RULES_FAILED.
    cdef Session *s = x.s
    cdef int got
    if x.req != NULL:
        settle_body(s)
        if r.action == A_DENY and s.frontend.capturing:
            capture_cookie(s, x.req, 0)
        if r.action == A_DENY and s.frontend.log != NULL and s.backend != NULL and s.backend.cookie:
            read_cookies(x)
    if r.action == A_DENY:
        tally_denied(x.w, s, x.req == NULL)
    s.cause = c"P" if r.action == A_DENY else c"L"
    s.at = c"R" if x.req != NULL else c"H"
    if r.action == A_REDIRECT:
        got = reply_redirect(x, r)
        return RULES_FAILED if got < 0 else RULES_ANSWER if got else RULES_GO
    return RULES_FAILED if reply_rule(x, r.reply) < 0 else RULES_ANSWER


cdef void hand_over(Seen *x, int kind) noexcept nogil:
    x.s.service = <uint8_t>kind
    x.s.cause, x.s.at = c"L", c"R"


cdef int carry_out(Seen *x, RuleC *rules, int count, Head *h) noexcept nogil:
    cdef int i, got
    cdef RuleC *r
    for i in range(count):
        r = &rules[i]
        if not holds(x, r.condition):
            continue
        if r.action == A_ALLOW:
            return RULES_GO
        if r.action == A_DENY or r.action == A_RETURN or r.action == A_REDIRECT:
            got = answered(x, r)
            if got != RULES_GO:
                return got
        elif r.action == A_CAPTURE:
            capture_sample(x, r)
        elif r.action == A_NO_RETRY:
            x.s.no_retry = 1
        elif r.action == A_LOG_LEVEL:
            x.s.log_level = <uint8_t>r.target
        elif r.action == A_USE_SERVICE:
            hand_over(x, r.target)
            return RULES_SERVICE
        elif edit(x, r, h) < 0:
            return RULES_FAILED
    return RULES_GO


cdef int of_request(Seen *x, Program *p, Text *stats_uri, Head *h) noexcept nogil:
    # In HAProxy's order: http-request, the statistics of this proxy, the old redirect lines.
    cdef int got = carry_out(x, p.request, p.request_count, h)
    if got == RULES_GO and is_stats(stats_uri, h):
        hand_over(x, SERVICE_STATS)
        return RULES_SERVICE
    if got == RULES_GO and p.redirect_count:
        got = carry_out(x, p.redirect, p.redirect_count, h)
    return got


cdef void choose_backend(Seen *x, Session *s) noexcept nogil:
    cdef Program *p = s.frontend.program
    cdef BackendC *chosen = s.frontend.backend
    cdef int i
    for i in range(p.choice_count):
        if holds(x, p.choice[i].condition):
            chosen = &x.w.conf.backends[p.choice[i].target]
            break
    s.backend = chosen
    if s.backend == NULL:
        return
    # the first one that holds decides
    p = s.backend.program
    for i in range(p.persist_count):
        if holds(x, p.persist[i].condition):
            s.force_persist = p.persist[i].action == A_FORCE_PERSIST
            s.ignore_persist = not s.force_persist
            break


cdef int rules_monitor(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef Seen x
    cdef Program *p = s.frontend.program
    cdef int i
    memset(&x, 0, sizeof(Seen))
    x.w, x.s, x.req = w, s, h
    x.line.p = h.d + h.start
    x.line.n = h.target + h.target_len + 9 - h.start
    for i in range(p.monitor_count):
        if holds(&x, p.monitor[i].condition):
            return 1
    return 0


cdef int rules_request(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef Seen x
    cdef int got
    memset(&x, 0, sizeof(Seen))
    x.w, x.s, x.req = w, s, h
    x.line.p = h.d + h.start
    x.line.n = h.target + h.target_len + 9 - h.start
    w.edits_used = w.conf.bufsize
    s.backend = s.frontend.own
    got = of_request(&x, s.frontend.program, &s.frontend.stats_uri, h)
    if got != RULES_GO:
        return got
    choose_backend(&x, s)
    if s.backend == NULL:
        return RULES_GO
    tally_backend(w, s)
    if s.backend != s.frontend.own:
        got = of_request(&x, s.backend.program, &s.backend.stats_uri, h)
        if got != RULES_GO:
            return got
    if edits_end(w, h, 1) < 0:
        return RULES_FAILED
    s.method_sent = h.method
    if h.d == w.edits:
        s.rule_close, s.rule_keep = h.conn_close, h.conn_keep
    if h.method == M_HEAD and s.method != M_HEAD:
        s.keep = 0          # the client waits for a body that does not come
    return RULES_GO


cdef void rules_connection(Worker *w, Session *s) noexcept nogil:
    # Mode tcp: which backend, and whether persistence counts. Fetches that need a message find nothing.
    cdef Seen x
    memset(&x, 0, sizeof(Seen))
    x.w, x.s = w, s
    s.backend = s.frontend.own
    choose_backend(&x, s)


cdef int rules_response(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef Seen x
    cdef int got = RULES_GO
    memset(&x, 0, sizeof(Seen))
    x.w, x.s, x.res = w, s, h
    w.edits_used = w.conf.bufsize
    if s.backend != s.frontend.own:
        got = carry_out(&x, s.backend.program.response, s.backend.program.response_count, h)
    if got == RULES_GO:
        got = carry_out(&x, s.frontend.program.response, s.frontend.program.response_count, h)
    if got == RULES_GO and edits_end(w, h, 0) < 0:
        return RULES_FAILED
    return got
