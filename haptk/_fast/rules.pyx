# Conditions see what earlier rules changed: facts reads the very head that edit changes.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from haptk._fast.bytes.span cimport (NOWHERE, Room, Span, room_char, room_full, room_put, room_span,
                                     span_at, span_begins, span_between, span_ends, span_eq,
                                     span_find_span, span_first, span_from, span_len,
                                     span_trim, word)
from haptk._fast.captures cimport CAPTURED_REQUEST, CAPTURED_RESPONSE, capture, capture_cookie
from haptk._fast.convert cimport expand_groups, fetch_one
from haptk._fast.edit cimport (DRAFT_PART, DRAFT_TARGET, DRAFT_TEXT, authority_in, draft, edits_begin, edits_end,
                               header_add, header_change, header_drop, header_drop_named, set_request_line,
                               set_status)
from haptk._fast.facts cimport Sample, Seen, as_text, path_in, query_in, sample_begin
from haptk._fast.format cimport format_put
from haptk._fast.cookie cimport cookie_request
from haptk._fast.http1 cimport (H_CODING, H_COOKIE, H_HOST, H_LENGTH, Header, M_CONNECT, M_HEAD, head_line,
                                head_method, head_name, head_target, head_value)
from haptk._fast.match cimport holds
from haptk._fast.program cimport (A_ADD_HEADER, A_ALLOW, A_CAPTURE, A_DEL_HEADER, A_DENY, A_FORCE_PERSIST,
                                  A_LOG_LEVEL, A_NO_RETRY, A_REDIRECT, A_REPLACE_HEADER, A_REPLACE_PATH,
                                  A_REPLACE_PATHQ, A_REPLACE_URI, A_REPLACE_VALUE, A_RETURN, A_SET_HEADER,
                                  A_SET_METHOD, A_SET_PATH, A_SET_PATHQ, A_SET_QUERY, A_SET_STATUS, A_SET_URI,
                                  A_USE_SERVICE, MT_BEG, MT_END, MT_REG, MT_STR, MT_SUB, Program, RuleC, Text, span_text)
from haptk._fast.regex cimport Groups, regex_exec
from haptk._fast.reply cimport reply_redirect, reply_rule, settle_body
from haptk._fast.service cimport SERVICE_STATS, is_stats
from haptk._fast.state cimport BackendC
from haptk._fast.tally cimport tally_backend, tally_denied

cdef enum:
    COMMA = 44, QUOTE = 34, BACKSLASH = 92, SLASH = 47, QUESTION = 63


# ---------------------------------------------------------------- headers

cdef bint named(Seen *x, RuleC *r, Span name) noexcept nogil:
    cdef Groups groups
    cdef Span t = span_text(&r.name)
    if r.match == MT_REG:
        return regex_exec(&x.w.regex, r.regex, name, 0, &groups)
    if r.match == MT_STR:
        return span_eq(name, t)
    if r.match == MT_BEG:
        return span_begins(name, t)
    if r.match == MT_END:
        return span_ends(name, t)
    return r.match == MT_SUB and span_find_span(name, t) != NOWHERE


cdef void del_headers(Seen *x, RuleC *r, Head *h) noexcept nogil:
    cdef int k = 0
    cdef Header *one
    while k < h.count:
        one = &h.headers[k]
        # what frames the message stays, whatever a pattern says
        if one.id != H_LENGTH and one.id != H_CODING and named(x, r, head_name(h, one)):
            header_drop(h, k)
        else:
            k += 1


cdef int put_header(Seen *x, RuleC *r, Head *h) noexcept nogil:
    cdef Room *value = draft(x.w, DRAFT_TEXT)
    if format_put(x, &r.format, value) < 0:
        return -1
    if r.action == A_SET_HEADER:
        header_drop_named(h, span_text(&r.name))
    return header_add(x.w, h, span_text(&r.name), room_span(value))


cdef bint replaced(Seen *x, RuleC *r, Span template, Span v, Room *out) noexcept nogil:
    # Append the template with its groups filled; 0 when nothing matches.
    cdef Groups groups
    if not regex_exec(&x.w.regex, r.regex, v, 0, &groups):
        return 0
    expand_groups(template, v, &groups, out)
    return 1


cdef bint replace_parts(Seen *x, RuleC *r, Span template, Span v, Room *out) noexcept nogil:
    # Each part between commas that matches; the blanks around it go with it. 0 when none matches.
    cdef uint32_t i = 0, start, n = span_len(v)
    cdef bint quoted, changed = 0
    cdef Span part
    while True:
        start = i
        quoted = 0
        while i < n and (quoted or span_at(v, i) != COMMA):
            if quoted and span_at(v, i) == BACKSLASH:
                i += 1
            elif span_at(v, i) == QUOTE:
                quoted = not quoted
            i += 1
        if i > n:
            i = n
        part = span_between(v, start, i)
        if replaced(x, r, template, span_trim(part), out):
            changed = 1
        else:
            room_put(out, part)
        if i == n:
            return changed
        room_char(out, COMMA)
        i += 1


cdef int replace_headers(Seen *x, RuleC *r, Head *h) noexcept nogil:
    cdef Room *template = draft(x.w, DRAFT_TEXT)
    cdef Room *out
    cdef Header *one
    cdef int k
    cdef bint changed
    if format_put(x, &r.format, template) < 0:
        return -1
    for k in range(h.count):
        one = &h.headers[k]
        if not span_eq(head_name(h, one), span_text(&r.name)):
            continue
        out = draft(x.w, DRAFT_PART)
        if r.action == A_REPLACE_HEADER:
            changed = replaced(x, r, room_span(template), head_value(h, one), out)
        else:
            changed = replace_parts(x, r, room_span(template), head_value(h, one), out)
        if room_full(out) or (changed and header_change(x.w, h, k, room_span(out)) < 0):
            return -1
    return 0


# ---------------------------------------------------------------- the request line

cdef int host_from(Seen *x, Head *h) noexcept nogil:
    # `set-uri` with an authority: Host follows.
    cdef uint32_t start = 0, end = 0
    cdef int k, got = authority_in(h, &start, &end)
    if got <= 0:
        return got
    for k in range(h.count):
        if h.headers[k].id == H_HOST:
            return header_change(x.w, h, k, span_between(head_target(h), start, end))
    return 0


cdef int new_target(Seen *x, int action, Head *h, Span text) noexcept nogil:
    # One part of the target replaced; an authority in front of the path stays.
    cdef Span t = head_target(h)
    cdef uint32_t start = 0, end = 0, query = span_len(t)
    cdef bint asked = query_in(t, &query)
    cdef Room *out = draft(x.w, DRAFT_TARGET)
    if not path_in(t, &start, &end):
        start = end = query - 1 if asked else span_len(t)
        if start and span_at(t, 0) != SLASH and span_find_span(t, word(b"://")) == NOWHERE:
            start = end = 0     # `*`: there is nothing in front to keep
    room_put(out, span_first(t, start))
    if action == A_SET_QUERY:
        room_put(out, span_between(t, start, end))
        room_char(out, QUESTION)    # even before nothing, as in HAProxy
    room_put(out, text)
    if action == A_SET_PATH and asked:
        room_put(out, span_from(t, query - 1))
    return -1 if room_full(out) else set_request_line(x.w, h, head_method(h), room_span(out))


cdef int change_line(Seen *x, RuleC *r, Head *h) noexcept nogil:
    cdef Room *text = draft(x.w, DRAFT_TEXT)
    cdef int before = h.method
    if format_put(x, &r.format, text) < 0:
        return -1
    if r.action == A_SET_METHOD:
        if set_request_line(x.w, h, room_span(text), head_target(h)) < 0:
            return -1
        # a tunnel is not begun or prevented by a rule
        return -1 if (before == M_CONNECT) != (h.method == M_CONNECT) else 0
    if r.action == A_SET_URI:
        return new_uri(x, h, room_span(text))
    return new_target(x, r.action, h, room_span(text))


cdef int new_uri(Seen *x, Head *h, Span text) noexcept nogil:
    if set_request_line(x.w, h, head_method(h), text if span_len(text) else word(b"/")) < 0:
        return -1
    return host_from(x, h)


cdef int replace_target(Seen *x, RuleC *r, Head *h) noexcept nogil:
    # The part that matches becomes the template, with its groups filled from there.
    cdef Span t = head_target(h)
    cdef uint32_t start = 0, end = span_len(t)
    cdef Room *template = draft(x.w, DRAFT_TEXT)
    cdef Room *text = draft(x.w, DRAFT_PART)
    if format_put(x, &r.format, template) < 0:
        return -1
    if r.action != A_REPLACE_URI:
        if not path_in(t, &start, &end):
            return 0
        if r.action == A_REPLACE_PATHQ:
            end = span_len(t)
    if not replaced(x, r, room_span(template), span_between(t, start, end), text):
        return 0
    if room_full(text):
        return -1
    if r.action == A_REPLACE_URI:
        return new_uri(x, h, room_span(text))
    return new_target(x, A_SET_PATH if r.action == A_REPLACE_PATH else A_SET_PATHQ, h, room_span(text))


# ---------------------------------------------------------------- lists of rules

cdef int edit(Seen *x, RuleC *r, Head *h) noexcept nogil:
    if edits_begin(x.w, h) < 0:
        return -1
    if r.action == A_SET_HEADER or r.action == A_ADD_HEADER:
        return put_header(x, r, h)
    if r.action == A_DEL_HEADER:
        del_headers(x, r, h)
        return 0
    if r.action == A_REPLACE_HEADER or r.action == A_REPLACE_VALUE:
        return replace_headers(x, r, h)
    if r.action == A_SET_STATUS:
        x.s.status = r.status       # what the log says; h.status goes on saying how the body is framed
        return set_status(x.w, h, r.status, span_text(&r.reason))
    if r.action == A_REPLACE_PATH or r.action == A_REPLACE_PATHQ or r.action == A_REPLACE_URI:
        return replace_target(x, r, h)
    return change_line(x, r, h)


cdef void capture_sample(Seen *x, RuleC *r) noexcept nogil:
    cdef Sample v
    sample_begin(x)
    if fetch_one(x, r.expr, &v) and as_text(x, &v):
        capture(x.s, CAPTURED_REQUEST if x.req != NULL else CAPTURED_RESPONSE, r.target, v.text)


cdef void read_cookies(Seen *x) noexcept nogil:
    # The log of a denied request tells what its cookies meant, and which server they asked for.
    cdef Session *s = x.s
    cdef Header *one
    cdef int k
    for k in range(x.req.count):
        one = &x.req.headers[k]
        if one.id == H_COOKIE and one.value_len:
            cookie_request(x.w, s, s.backend, head_value(x.req, one), draft(x.w, DRAFT_PART))


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
    x.line = head_line(h)
    for i in range(p.monitor_count):
        if holds(&x, p.monitor[i].condition):
            return 1
    return 0


cdef int rules_request(Worker *w, Session *s, Head *h) noexcept nogil:
    cdef Seen x
    cdef int got
    memset(&x, 0, sizeof(Seen))
    x.w, x.s, x.req = w, s, h
    x.line = head_line(h)
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
    if h.edited:
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
    if s.backend != s.frontend.own:
        got = carry_out(&x, s.backend.program.response, s.backend.program.response_count, h)
    if got == RULES_GO:
        got = carry_out(&x, s.frontend.program.response, s.frontend.program.response_count, h)
    if got == RULES_GO and edits_end(w, h, 0) < 0:
        return RULES_FAILED
    return got
