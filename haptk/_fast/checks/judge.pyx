# A negated expectation holds only when nothing more can come: an answer that is missing, late or broken off is no proof
# that the server is well.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset, strlen

from haptk._fast.bytes.buf cimport Buf, buf_put, buf_ready, buf_unseen
from haptk._fast.bytes.span cimport (NOWHERE, Room, Span, room_cut, room_decimal, room_hex, room_left, room_over, room_put,
                                     room_span, span_at, span_begins, span_cut, span_ends, span_eq, span_find,
                                     span_find_span, span_first, span_from, span_len, span_over, span_trim)
from haptk._fast.checks.plan cimport (A_CONNECT, A_EXPECT, A_SEND, HOW_BEG, HOW_END, HOW_NONE, HOW_REG, HOW_STR, HOW_SUB,
                                      K_BINARY, K_BINARY_REGEX, K_HEADER, K_REGEX, K_STATUS_REGEX, K_STRING, O_L4CON,
                                      O_L4OK, O_L4TOUT, O_L7OK, O_L7OKC, O_L7RSP, O_L7STS, O_L7TOUT, O_SOCKERR, O_UNK)
from haptk._fast.checks.state cimport LINE_SIZE, P_CONNECTING, V_GO, V_STOP, V_WAIT
from haptk._fast.http1 cimport (BODY_BAD, BODY_DONE, BODY_EOF, BODY_LENGTH, BODY_NONE, Body, HEAD_BAD, HEAD_MORE, Head, Header,
                                body_advance, head_name, head_reason, head_value, parse_response)
from haptk._fast.regex cimport Groups, RegexC, regex_exec

cdef extern from "<string.h>" nogil:
    char *strerror_r(int error, char *room, size_t n)


# ---------------------------------------------------------------- words

cdef void unsay(CheckC *c) noexcept nogil:
    room_cut(&c.desc, 0)


cdef void say_span(CheckC *c, Span s) noexcept nogil:
    room_put(&c.desc, span_cut(s, room_left(&c.desc)))


cdef void say(CheckC *c, const char *word) noexcept nogil:
    say_span(c, span_over(word, strlen(word)))


cdef void say_number(CheckC *c, int64_t v) noexcept nogil:
    cdef char digits[24]
    cdef Room room = room_over(digits, sizeof(digits))
    room_decimal(&room, <uint64_t>v)
    say_span(c, room_span(&room))


cdef void say_error(CheckC *c, int error) noexcept nogil:
    cdef char room[128]
    say(c, strerror_r(error, room, sizeof(room)))


cdef void say_text(CheckC *c, Span text) noexcept nogil:
    # As far as the first NUL, as C prints it.
    cdef uint32_t end = span_find(text, 0, 0)
    say_span(c, text if end == NOWHERE else span_first(text, end))


cdef void say_comment(CheckC *c, StepC *step, bint quoted) noexcept nogil:
    if not span_len(step.comment):
        return
    say(c, b" comment: '" if quoted else b" comment: ")
    say_text(c, step.comment)
    if quoted:
        say(c, b"'")


cdef void settle(CheckC *c, int outcome) noexcept nogil:
    c.outcome = outcome


# ---------------------------------------------------------------- connections

cdef void say_expectation(CheckC *c, StepC *step) noexcept nogil:
    if step.kind == K_STRING:
        say(c, b" (expect string '")
        say_text(c, step.data)
        say(c, b"')")
    elif step.kind == K_BINARY:
        say(c, b" (expect binary '")
        say_text(c, step.data)
        say(c, b"')")
    elif step.kind == K_REGEX:
        say(c, b" (expect regex)")
    elif step.kind == K_BINARY_REGEX:
        say(c, b" (expect binary regex)")


cdef void say_where(CheckC *c, StepC *step) noexcept nogil:
    # Where a script was when its connection ended.
    if not c.tcp_texts:
        return
    if step.number == 0:
        say(c, b" at initial connection step of tcp-check")
        return
    say(c, b" at step ")
    say_number(c, step.number)
    say(c, b" of tcp-check")
    if step.action == A_CONNECT:
        if step.port:
            say(c, b" (connect port ")
            say_number(c, step.port)
            say(c, b")")
        else:
            say(c, b" (connect)")
    elif step.action == A_EXPECT:
        say_expectation(c, step)
    elif step.action == A_SEND:
        say(c, b" (send)")
    say_comment(c, step, 1)


cdef void settle_broken(CheckC *c, int error, bint expired) noexcept nogil:
    cdef StepC *step = &c.steps[c.at if c.at < c.count else c.count - 1]
    cdef int outcome
    unsay(c)
    c.code = 0
    if error:
        say_error(c, error)
    say_where(c, step)
    if c.phase == P_CONNECTING:
        outcome = O_L4TOUT if expired else O_L4CON
    elif not expired:
        outcome = O_SOCKERR
    else:
        outcome = step.timeout_status if step.action == A_EXPECT and step.timeout_status != O_UNK else O_L7TOUT
    settle(c, outcome)


# ---------------------------------------------------------------- expectations

cdef Verdict wrong(CheckC *c, StepC *step, int outcome, bint matched, const char *text) noexcept nogil:
    # An expectation is not met; `text` is what is said unless the file says something else, NULL for the general words.
    unsay(c)
    if text != NULL and text[0]:
        say(c, text)
    elif step.says_error:
        say_text(c, step.on_error)
    elif c.tcp_texts:
        say(c, b"TCPCHK matched unwanted content" if matched else b"TCPCHK did not match content")
        if step.kind == K_STRING:
            say(c, b" '")
            say_text(c, step.data)
            say(c, b"'")
        elif step.kind == K_BINARY:
            say(c, b" (binary)")
        elif step.kind == K_REGEX:
            say(c, b" (regex)")
        elif step.kind == K_BINARY_REGEX:
            say(c, b" (binary regex)")
        say(c, b" at step ")
        say_number(c, step.number)
    say_comment(c, step, 0)
    settle(c, outcome)
    return V_STOP


cdef Verdict wrong_reason(CheckC *c, StepC *step, int outcome, Span reason) noexcept nogil:
    # The same with the reason phrase of the answer.
    if step.says_error or not span_len(reason):
        return wrong(c, step, outcome, 0, NULL)
    unsay(c)
    say_span(c, reason)
    say_comment(c, step, 0)
    settle(c, outcome)
    return V_STOP


cdef bint matches_bytes(EngineC *e, StepC *step, Span s) noexcept nogil:
    cdef Groups groups
    cdef uint32_t i
    if step.kind == K_STRING or step.kind == K_BINARY:
        return span_find_span(s, step.data) != NOWHERE
    if step.kind == K_REGEX:
        return regex_exec(&e.regex, &step.regex, s, 0, &groups)
    room_cut(&e.hex, 0)
    for i in range(span_len(s)):
        if room_left(&e.hex) < 2:
            break       # HAProxy sees no more of it
        room_hex(&e.hex, span_at(s, i))
    return regex_exec(&e.regex, &step.regex, room_span(&e.hex), 0, &groups)


cdef Verdict judge_tcp(EngineC *e, CheckC *c, StepC *step, bint last) noexcept nogil:
    cdef bint match
    cdef Span seen = buf_unseen(&c.data)
    if span_len(seen) >= e.bufsize:
        last = 1
    if not last:
        if (step.kind == K_STRING or step.kind == K_BINARY) and span_len(seen) < span_len(step.data):
            return V_WAIT
        if step.min_recv > 0 and span_len(seen) < step.min_recv:
            return V_WAIT
    match = matches_bytes(e, step, seen)
    if not match and not last and step.min_recv == -1:
        return V_WAIT
    if match != step.negate:
        return V_GO
    return wrong(c, step, step.error_status if step.error_status != O_UNK else O_L7RSP, match, NULL)


# ---------------------------------------------------------------- HTTP

cdef bint compares(EngineC *e, int how, RegexC *re, Span what, Span s) noexcept nogil:
    cdef Groups groups
    if how == HOW_STR:
        return span_eq(s, what)
    if how == HOW_BEG:
        return span_begins(s, what)
    if how == HOW_END:
        return span_ends(s, what)
    if how == HOW_SUB:
        return span_find_span(s, what) != NOWHERE
    if how == HOW_REG:
        return regex_exec(&e.regex, re, s, 0, &groups)
    return 1


cdef uint32_t comma(Span s) noexcept nogil:
    # Length of the first value of a list; quoted strings are one.
    cdef uint32_t i = 0, n = span_len(s)
    cdef bint quoted = 0
    while i < n:
        if quoted and span_at(s, i) == b'\\' and i + 1 < n:
            i += 1
        elif span_at(s, i) == b'"':
            quoted = not quoted
        elif span_at(s, i) == b',' and not quoted:
            return i
        i += 1
    return n


cdef bint has_value(EngineC *e, StepC *step, Span s) noexcept nogil:
    # A header's value, or one of its values, compares.
    cdef uint32_t size
    if step.value_how == HOW_NONE:
        return 1
    if step.whole_line:
        return compares(e, step.value_how, &step.value_regex, step.value, s)
    while True:
        size = comma(s)
        if compares(e, step.value_how, &step.value_regex, step.value, span_trim(span_first(s, size))):
            return 1
        if size >= span_len(s):
            return 0
        s = span_from(s, size + 1)


cdef bint matches_header(EngineC *e, StepC *step, Head *h) noexcept nogil:
    cdef int i
    cdef Header *x
    for i in range(h.count):
        x = &h.headers[i]
        if compares(e, step.name_how, &step.name_regex, step.name, head_name(h, x)) and has_value(e, step, head_value(h, x)):
            return 1
    return 0


cdef bint matches_status(EngineC *e, StepC *step, Head *h) noexcept nogil:
    cdef Groups groups
    cdef int i
    cdef char digits[24]
    cdef Room room
    if step.kind == K_STATUS_REGEX:
        room = room_over(digits, sizeof(digits))
        room_decimal(&room, <uint64_t>h.status)
        return regex_exec(&e.regex, &step.regex, room_span(&room), 0, &groups)
    for i in range(step.code_count):
        if step.codes[2 * i] <= h.status <= step.codes[2 * i + 1]:
            return 1
    return 0


cdef int read_body(CheckC *c, Buf *b, Head *h, bint *done) noexcept nogil:
    # The body as far as it has come is b.d[b.r:b.f). -1 when it is malformed.
    cdef Body body
    cdef int got
    memset(&body, 0, sizeof(body))
    body.mode = h.body
    if body.mode == BODY_NONE:
        body.mode = BODY_EOF    # no header says how long it is
    if c.no_body or h.status == 204 or h.status == 304:
        body.mode = BODY_NONE
    body.strip = 1
    if body.mode == BODY_LENGTH:
        body.left = h.length
        if h.length == 0:
            body.mode = BODY_NONE
    got = body_advance(&body, b)
    done[0] = got == BODY_DONE
    return -1 if got == BODY_BAD else 0


cdef const char *text_of(StepC *step, const char *text) noexcept nogil:
    # What the file wants to be said goes first.
    return NULL if step.says_error else text


cdef Verdict judge_body(EngineC *e, CheckC *c, StepC *step, Span seen, bint last) noexcept nogil:
    cdef bint match
    cdef uint32_t n = span_len(seen)
    cdef int outcome = step.error_status if step.error_status != O_UNK else O_L7RSP
    if not n:
        if not last:
            return V_WAIT
        return wrong(c, step, outcome, 0, text_of(step, b"HTTP content check could not find a response body"))
    if not last and ((step.kind == K_STRING and n < span_len(step.data)) or (step.min_recv > 0 and n < step.min_recv)):
        return V_WAIT
    match = matches_bytes(e, step, seen)
    if not match and not last and step.min_recv == -1:
        return V_WAIT
    if match != step.negate:
        return V_GO
    if step.negate:
        return wrong(c, step, outcome, match, text_of(step, b"HTTP check matched unwanted content"))
    return wrong(c, step, outcome, match, text_of(step, b"HTTP content check did not match"))


cdef Verdict judge_head(EngineC *e, CheckC *c, StepC *step, Head *h) noexcept nogil:
    cdef bint match = matches_header(e, step, h) if step.kind == K_HEADER else matches_status(e, step, h)
    if match != step.negate:
        return V_GO
    return wrong_reason(c, step, step.error_status if step.error_status != O_UNK else O_L7STS, head_reason(h))


cdef Verdict judge_http(EngineC *e, CheckC *c, StepC *step, bint last) noexcept nogil:
    # An interim answer in front counts as the answer, as HAProxy has it; the body is that of the last one.
    cdef Buf b = e.scratch
    cdef Span seen = buf_unseen(&c.data)
    cdef int got
    cdef bint first = 1, done = 0, on_body = step.kind == K_STRING or step.kind == K_REGEX
    buf_put(&b, seen)
    last = last or span_len(seen) >= e.bufsize
    while True:
        got = parse_response(&b, &e.head, 0)
        if got == HEAD_BAD or (got == HEAD_MORE and last):
            return wrong(c, step, O_L7RSP, 0, NULL)
        if got == HEAD_MORE:
            return V_WAIT
        if first:
            c.code = e.head.status
            if c.off_404 and not c.stopped and c.code == 404:
                return V_GO
        first = 0
        b.p += <uint32_t>got
        if not on_body or e.head.status == 101 or not 100 <= e.head.status < 200:
            break
    b.r = b.f = b.p
    if read_body(c, &b, &e.head, &done) < 0:
        return wrong(c, step, O_L7RSP, 0, NULL)
    return judge_body(e, c, step, buf_ready(&b), last or done) if on_body else judge_head(e, c, step, &e.head)


# ---------------------------------------------------------------- agents

cdef Verdict judge_agent(EngineC *e, CheckC *c, StepC *step, bint last) noexcept nogil:
    # One line; what its words mean is the control plane's.
    cdef Span seen = buf_unseen(&c.data)
    cdef uint32_t i = 0, n = span_len(seen)
    while i < n and span_at(seen, i) not in (0, 10, 13):
        i += 1
    if i == n or span_at(seen, i) == 0:
        if not last and n < e.bufsize:
            return V_WAIT
        unsay(c)
        say(c, b"Ignoring incomplete line from agent")
        settle(c, c.found.outcome)
        return V_STOP
    room_cut(&c.line, 0)
    room_put(&c.line, span_cut(span_first(seen, i), LINE_SIZE))
    settle(c, O_L7OK)
    return V_STOP


cdef Verdict judge(EngineC *e, CheckC *c, StepC *step, bint last) noexcept nogil:
    if c.agent:
        return judge_agent(e, c, step, last)
    if c.http:
        return judge_http(e, c, step, last)
    return judge_tcp(e, c, step, last)


cdef void settle_passed(CheckC *c) noexcept nogil:
    cdef StepC *step = &c.steps[c.count - 1]
    unsay(c)
    if step.action == A_EXPECT:
        if c.off_404 and not c.stopped and c.code == 404:
            settle(c, O_L7OKC)
            return
        if step.says_success:
            say_text(c, step.on_success)
        elif c.tcp_texts:
            say(c, b"(tcp-check)")
        settle(c, step.ok_status if step.ok_status != O_UNK else O_L7OK)
    elif step.action == A_CONNECT:
        if not step.implicit:
            say(c, b"(tcp-check)")
        settle(c, O_L4OK)
    else:
        say(c, b"(tcp-check)")
        settle(c, O_L7OK)
