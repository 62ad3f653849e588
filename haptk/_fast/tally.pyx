# Which event counts where was found by sending the same traffic through HAProxy 2.6 (tests/diff/test_diff_counters).

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from haptk._fast.bytes.span cimport NOWHERE, span_find, span_from, span_len, span_opens
from haptk._fast.http1 cimport H_CONNECTION, head_method, head_reason, head_target
from haptk._fast.scan cimport hk_count, hk_load, hk_lock, hk_unlock
from haptk._fast.state cimport SharedRate

cdef enum:
    SAMPLES = 512           # HAProxy's window for the average times


cdef inline void tick(Rate *r, int64_t now) noexcept nogil:
    # Seconds begin with the first event after a quiet one, as HAProxy's do.
    if now - r.start >= 1000:
        r.before = r.current if now - r.start < 2000 else 0
        r.current = 0
        r.start = now if now - r.start >= 2000 else r.start + 1000
    r.current += 1
    if r.current > r.most:
        r.most = r.current


cdef inline void count_one(Worker *w, Rate *r, SharedRate *shared) noexcept nogil:
    # Several workers count in one place: the most in any second is not the sum of what each of them saw.
    if w.conf.workers > 1:
        hk_lock(&shared.busy)
        tick(&shared.rate, w.now)
        hk_unlock(&shared.busy)
    else:
        tick(r, w.now)


cdef inline void highest(uint32_t *most, int value) noexcept nogil:
    if value > <int>most[0]:
        most[0] = <uint32_t>value


cdef inline Tally *door_of(Worker *w, Session *s) noexcept nogil:
    # The counters of the socket that it came through; NULL where sockets have none.
    return &w.fronts[s.frontend.door + s.listener_index] if s.frontend.door else NULL


cdef void tally_accept(Worker *w, Session *s, int open_now) noexcept nogil:
    cdef Tally *t = &w.fronts[s.frontend.index]
    t.connects += 1
    count_one(w, &t.rate, &w.conf.front_rates[s.frontend.index])
    highest(&t.live_most, open_now)
    if s.frontend.door:
        t = door_of(w, s)
        highest(&t.live_most, hk_count(
            w.conf.workers, &w.conf.door_sessions[s.frontend.door + s.listener_index - w.conf.frontend_count], 1))


cdef void tally_session(Worker *w, Session *s) noexcept nogil:
    w.fronts[s.frontend.index].sessions += 1
    if s.frontend.door:
        door_of(w, s).sessions += 1


# ---------------------------------------------------------------- bytes

# HAProxy counts the parts of a message as it keeps them, not what was on the wire: a first line is 20 bytes and its three
# words, a header its name and value, the end of the head one byte, the end of chunks another. What Connection says of the
# connection alone is no part of the message.

cdef enum:
    FIRST_LINE = 20
    VERSION = 8             # HTTP/1.1


cdef uint32_t weight_of(Head *h) noexcept nogil:
    cdef uint32_t n = FIRST_LINE + VERSION + 1
    cdef int i
    if h.status:
        n += 3 + span_len(head_reason(h))
    else:
        n += span_len(head_method(h)) + span_len(head_target(h))
    for i in range(h.count):
        if h.headers[i].id != H_CONNECTION or h.conn_other or h.conn_upgrade:
            n += h.headers[i].name_len + h.headers[i].value_len
    return n


cdef uint32_t weight_of_text(Span text) noexcept nogil:
    cdef uint32_t n, at, stop = span_find(text, 13, 0), length = span_len(text)
    if stop == NOWHERE:
        return length
    n = FIRST_LINE + (stop - 2 if stop > 2 else 0)
    while stop + 2 < length:
        at = stop + 2
        stop = span_find(text, 13, at)
        if stop == NOWHERE:
            return n
        if stop == at:
            return n + 1 + (length - at - 2 if length > at + 2 else 0)
        if stop - at > 2 and not span_opens(span_from(text, at), b"connection: "):
            n += stop - at - 2
    return n


cdef uint64_t bytes_out(Session *s) noexcept nogil:
    if s.frontend.tcp or s.service:
        return s.bytes_down
    return s.heads_out + s.down.seen if s.request_ms else 0


cdef void tally_request(Worker *w, Session *s, uint32_t head) noexcept nogil:
    cdef Tally *t = &w.fronts[s.frontend.index]
    s.open = 1
    s.head_in = head
    s.told_in = s.told_out = 0
    if s.frontend.tcp:
        return
    t.requests += 1
    count_one(w, &t.request_rate, &w.conf.request_rates[s.frontend.index])


cdef void tally_backend(Worker *w, Session *s) noexcept nogil:
    cdef Tally *t = &w.backs[s.backend.index]
    if s.in_backend:
        return
    s.in_backend = 1
    t.sessions += 1
    count_one(w, &t.rate, &w.conf.back_rates[s.backend.index])
    highest(&t.live_most, hk_count(w.conf.workers, s.backend.sessions, 1))


cdef void tally_balanced(Worker *w, Session *s) noexcept nogil:
    w.backs[s.backend.index].balanced += 1
    w.servs[s.server.gid].balanced += 1


cdef void tally_slot(Worker *w, Session *s, int open_now) noexcept nogil:
    highest(&w.servs[s.server.gid].live_most, open_now)


cdef void tally_server(Worker *w, Session *s) noexcept nogil:
    cdef Tally *t = &w.servs[s.server.gid]
    cdef Tally *b = &w.backs[s.backend.index]
    t.sessions += 1
    if s.redispatched or s.retries_left == s.backend.retries:
        count_one(w, &t.rate, &w.conf.serv_rates[s.server.gid])
    t.last = b.last = w.now
    if s.link.reused:
        t.reused += 1
        b.reused += 1
    else:
        t.connects += 1
        b.connects += 1


cdef void tally_queued(Worker *w, Session *s, bint bound) noexcept nogil:
    if bound:
        highest(&w.servs[s.server.gid].queued_most, hk_load(&s.server.live.queued))
    else:
        highest(&w.backs[s.backend.index].queued_most, hk_load(&s.backend.shared.any.count))


cdef void tally_retry(Worker *w, Session *s) noexcept nogil:
    w.backs[s.backend.index].retries += 1
    w.servs[s.server.gid].retries += 1


cdef void tally_redispatch(Worker *w, Session *s, ServerC *left) noexcept nogil:
    w.backs[s.backend.index].redispatches += 1
    w.servs[left.gid].redispatches += 1


cdef void tally_answer(Worker *w, Session *s, int status) noexcept nogil:
    # The server's own, whatever rules make of it and whoever still wants it.
    cdef Tally *t = &w.servs[s.server.gid]
    t.answers[status // 100 if 1 <= status // 100 <= 5 else 0] += 1
    t.requests += 1


cdef void tally_denied(Worker *w, Session *s, bint response) noexcept nogil:
    s.denied = 1
    if response:
        w.fronts[s.frontend.index].denied_responses += 1
        if s.frontend.door:
            door_of(w, s).denied_responses += 1
        if s.in_backend:
            w.backs[s.backend.index].denied_responses += 1
        if s.server != NULL:
            w.servs[s.server.gid].denied_responses += 1
        return
    w.fronts[s.frontend.index].denied_requests += 1
    if s.frontend.door:
        door_of(w, s).denied_requests += 1
    if s.in_backend:
        w.backs[s.backend.index].denied_requests += 1


cdef inline void count_bytes(Tally *t, uint64_t up, uint64_t down) noexcept nogil:
    t.bytes_in += up
    t.bytes_out += down


cdef void tally_bytes(Worker *w, Session *s) noexcept nogil:
    cdef uint64_t up = s.head_in + s.up.seen - s.told_in, down = bytes_out(s) - s.told_out
    count_bytes(&w.fronts[s.frontend.index], up, down)
    if s.frontend.door:
        count_bytes(door_of(w, s), up, down)
    if s.in_backend:
        count_bytes(&w.backs[s.backend.index], up, down)
        if s.server != NULL:
            count_bytes(&w.servs[s.server.gid], up, down)
    elif s.frontend.own != NULL:
        count_bytes(&w.backs[s.frontend.own.index], up, down)   # of a `listen`, also before it is chosen
    s.told_in += up
    s.told_out += down


cdef inline void sample(uint64_t *total, uint32_t *most, uint64_t seen, uint64_t v) noexcept nogil:
    # HAProxy's sliding sum: exact for the first samples, then each new one pushes an average one out.
    if seen > SAMPLES:
        total[0] -= (total[0] + SAMPLES - 1) // SAMPLES
    total[0] += v
    if v > most[0]:
        most[0] = <uint32_t>v


cdef inline uint64_t spent(int64_t start, int64_t end) noexcept nogil:
    return <uint64_t>(end - start) if end > start else 0


cdef void time_it(Tally *t, uint64_t *times) noexcept nogil:
    t.timed += 1
    sample(&t.queue_sum, &t.queue_most, t.timed, times[0])
    sample(&t.connect_sum, &t.connect_most, t.timed, times[1])
    sample(&t.response_sum, &t.response_most, t.timed, times[2])
    sample(&t.total_sum, &t.total_most, t.timed, times[3])


cdef inline bint times_of(Session *s, int64_t now, uint64_t *times) noexcept nogil:
    # Only what reached a server is timed.
    if s.connect_ms == 0 or s.queue_ms == 0:
        return 0
    times[0] = spent(s.request_ms if s.request_ms else s.accepted_ms, s.queue_ms)
    times[1] = spent(s.queue_ms, s.connect_ms)
    times[2] = spent(s.connect_ms, s.response_ms)
    times[3] = spent(s.started_ms, now)
    return 1


cdef inline void blame(Tally *t, Session *s, char cause, char at, bint sent) noexcept nogil:
    # What the two letters of the termination state mean for a backend or a server.
    if at == c"R" or cause == c"L":
        return
    if cause == c"C" and (at == c"C" or at == c"Q" and (s.tunnel or s.up.done and not s.broken)):
        return      # it left before a server had anything to do with it
    if cause == c"C" or cause == c"c":
        t.client_aborts += 1
    elif at == c"C" or at == c"Q":
        t.connect_errors += 1
    elif at == c"H":
        if cause != c"D":
            t.bad_responses += 1
    elif at == c"D" and (cause == c"S" or cause == c"s" or cause == c"P"):
        if cause != c"P":
            t.server_aborts += 1
        t.bad_responses += sent


cdef void tally_end(Worker *w, Session *s) noexcept nogil:
    cdef Tally *f = &w.fronts[s.frontend.index]
    cdef Tally *b
    cdef Tally *v
    cdef int cls = s.status // 100
    cdef uint64_t times[4]
    cdef bint http = not s.frontend.tcp, timed
    if not s.open:
        return
    s.open = 0
    tally_bytes(w, s)
    if cls < 1 or cls > 5:
        cls = 0
    if http:
        f.answers[cls] += 1
    if s.cause == c"R":
        f.internal_errors += 1
    elif s.at == c"R" and s.cause != c"L" and not s.denied and s.cause != c"-":
        f.bad_requests += 1
        if s.frontend.door:
            door_of(w, s).bad_requests += 1
    if s.cause == c"L" and not s.in_backend:
        f.intercepted += 1
    if not s.in_backend:
        s.denied = 0
        return
    s.in_backend = 0
    hk_count(w.conf.workers, s.backend.sessions, -1)
    b = &w.backs[s.backend.index]
    if http:
        b.answers[cls] += 1
        b.requests += 1
    if not s.denied:
        blame(b, s, s.cause, s.at, http and s.cause != c"s")
        if s.server != NULL:
            blame(&w.servs[s.server.gid], s, s.cause, s.at, http and s.cause != c"s")
    s.denied = 0
    timed = times_of(s, w.now, times)
    if timed:
        time_it(b, times)
    if s.server == NULL:
        return
    v = &w.servs[s.server.gid]
    if timed:
        time_it(v, times)


cdef void clear_one(Tally *t, bint everything) noexcept nogil:
    if everything:
        memset(t, 0, sizeof(Tally))
        return
    t.queue_most = t.connect_most = t.response_most = t.total_most = 0
    t.live_most = t.queued_most = 0
    t.rate.most = t.request_rate.most = 0


cdef void clear_rates(SharedRate *rates, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        hk_lock(&rates[i].busy)
        rates[i].rate.most = 0
        hk_unlock(&rates[i].busy)


cdef void tally_clear(Worker *w, bint everything) noexcept nogil:
    cdef int i
    clear_rates(w.conf.front_rates, w.conf.frontend_count)
    clear_rates(w.conf.request_rates, w.conf.frontend_count)
    clear_rates(w.conf.back_rates, w.conf.backend_count)
    clear_rates(w.conf.serv_rates, w.conf.server_count)
    for i in range(w.conf.frontend_count + w.conf.door_count):
        clear_one(&w.fronts[i], everything)
    for i in range(w.conf.backend_count):
        clear_one(&w.backs[i], everything)
    for i in range(w.conf.server_count):
        clear_one(&w.servs[i], everything)


# ---------------------------------------------------------------- reading

cdef void add_rate(Rate *into, Rate *r, int64_t now) noexcept nogil:
    # Sliding over one second: what is left of the second before, and this one.
    cdef int64_t age = now - r.start
    cdef uint32_t current = r.current, before = r.before
    if age >= 2000:
        current = before = 0
    elif age >= 1000:
        before, current = current, 0
        age -= 1000
    into.current += current + <uint32_t>(before * (1000 - age) // 1000) if age >= 0 else current
    into.most += r.most


cdef void add_one(Tally *into, Tally *t, int64_t now) noexcept nogil:
    cdef int i
    into.sessions += t.sessions
    into.requests += t.requests
    for i in range(6):
        into.answers[i] += t.answers[i]
    into.bytes_in += t.bytes_in
    into.bytes_out += t.bytes_out
    into.denied_requests += t.denied_requests
    into.denied_responses += t.denied_responses
    into.bad_requests += t.bad_requests
    into.connect_errors += t.connect_errors
    into.bad_responses += t.bad_responses
    into.retries += t.retries
    into.redispatches += t.redispatches
    into.client_aborts += t.client_aborts
    into.server_aborts += t.server_aborts
    into.balanced += t.balanced
    into.connects += t.connects
    into.reused += t.reused
    into.intercepted += t.intercepted
    into.internal_errors += t.internal_errors
    into.timed += t.timed if t.timed < SAMPLES else SAMPLES
    into.queue_sum += t.queue_sum
    into.connect_sum += t.connect_sum
    into.response_sum += t.response_sum
    into.total_sum += t.total_sum
    highest(&into.queue_most, t.queue_most)
    highest(&into.connect_most, t.connect_most)
    highest(&into.response_most, t.response_most)
    highest(&into.total_most, t.total_most)
    highest(&into.live_most, t.live_most)
    highest(&into.queued_most, t.queued_most)
    if t.last > into.last:
        into.last = t.last
    add_rate(&into.rate, &t.rate, now)
    add_rate(&into.request_rate, &t.request_rate, now)


cdef tuple add_up(Tally **parts, int count, long long now, SharedRate *rate, SharedRate *requests, int live, int queued,
                  int idle, int used):
    cdef Tally t
    cdef int i
    cdef uint64_t n
    memset(&t, 0, sizeof(Tally))
    for i in range(count):
        add_one(&t, parts[i], now)
    if count > 1 and rate != NULL:
        add_rate(&t.rate, &rate.rate, now)
    if count > 1 and requests != NULL:
        add_rate(&t.request_rate, &requests.rate, now)
    n = t.timed if t.timed else 1
    return (
        t.sessions, t.requests, t.answers[0], t.answers[1], t.answers[2], t.answers[3], t.answers[4], t.answers[5],
        t.bytes_in, t.bytes_out, t.denied_requests, t.denied_responses, t.bad_requests, t.connect_errors,
        t.bad_responses, t.retries, t.redispatches, t.client_aborts, t.server_aborts, t.balanced, t.connects,
        t.reused, t.intercepted, t.internal_errors, t.queue_sum // n, t.connect_sum // n, t.response_sum // n,
        t.total_sum // n, t.queue_most, t.connect_most, t.response_most, t.total_most, t.live_most, t.queued_most,
        (now - t.last) // 1000 if t.last else -1, t.rate.current, t.rate.most, t.request_rate.current,
        t.request_rate.most, live, queued, idle, used,
    )
