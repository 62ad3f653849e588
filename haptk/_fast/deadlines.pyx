# The wheel is lazy, so that pushing a deadline back costs one store.

from libc.stdint cimport int64_t

from haptk._fast.relay cimport owes_client
from haptk._fast.service cimport service_deadline
from haptk._fast.state cimport (Limits, PH_HEAD, PH_LINGER, PH_PROXY, PH_QUEUE, PH_RELAY, PH_REPLY, PH_RETRY, PH_SERVICE)
from haptk._fast.wheel cimport timer_set

cdef enum:
    RETRY_MS = 1000         # HAProxy's turn-around before the same server is tried again
    REPLY_MS = 10000        # to take an answer of ours, without a `timeout client`


cdef inline int64_t after(int64_t start, int limit) noexcept nogil:
    return start + limit if limit else 0


cdef inline int shorter(int a, int b) noexcept nogil:
    # The shorter of two limits, of which either may be 0 for none.
    return b if a == 0 or (b and b < a) else a


cdef int tunnel_limit(Session *s) noexcept nogil:
    # A side that has ended is waited for no longer than its -fin limit, where there is one.
    cdef Limits *client = &s.frontend.limits
    cdef Limits *server = &s.backend.limits
    cdef int limit = server.tunnel
    if limit == 0:
        limit = shorter(client.client, server.server)
    if client.client_fin and (s.eof or s.shut_client):
        limit = shorter(limit, client.client_fin)
    if server.server_fin and (s.server_eof or s.link.shut):
        limit = shorter(limit, server.server_fin)
    return limit


cdef int64_t relay_deadline(Worker *w, Session *s) noexcept nogil:
    cdef int client = s.frontend.limits.client
    cdef Limits *server = &s.backend.limits
    if not s.link.connected:
        return after(s.since_ms, server.connect)
    if s.tunnel:
        return after(w.now, tunnel_limit(s))
    if owes_client(s):
        return after(w.now, client)
    if not s.up.done and s.link.writable:
        return after(w.now, client)
    return after(w.now, server.server)


cdef void arm(Worker *w, Session *s) noexcept nogil:
    cdef Limits *client = &s.frontend.limits
    cdef int64_t due = 0
    cdef int wait = RETRY_MS
    if s.phase == PH_HEAD:
        if s.got_byte or s.first:
            due = after(s.started_ms, client.request) if client.request else after(w.now, client.client)
        else:
            due = after(s.since_ms, shorter(client.keep_alive, PARTING_MS) if w.stopping else client.keep_alive)
    elif s.phase == PH_RELAY:
        due = relay_deadline(w, s)
    elif s.phase == PH_REPLY:
        due = after(w.now, client.client if client.client else REPLY_MS)
    elif s.phase == PH_LINGER:
        due = w.now + 1 if s.readable else s.since_ms + LINGER_MS
    elif s.phase == PH_RETRY:
        if s.backend.limits.connect and s.backend.limits.connect < wait:
            wait = s.backend.limits.connect
        due = s.since_ms + wait
    elif s.phase == PH_QUEUE:
        due = after(s.since_ms, s.backend.limits.queue)
    elif s.phase == PH_SERVICE:
        due = service_deadline(w, s)
    elif s.phase == PH_PROXY:
        due = after(s.accepted_ms, client.client)
    timer_set(w, &s.timer, due)
