# The idle list is last in, first out: the connection used most recently is the least likely to have been closed by
# its server, and its memory is still in the cache.


from libc.stdint cimport uint8_t, uint32_t

from haptk._fast.address cimport note_local
from haptk._fast.balance cimport limit_of
from haptk._fast.bytes.buf cimport buf_front
from haptk._fast.bytes.span cimport Room, put_octets, room_full, room_len, room_over, room_span, span_over
from haptk._fast.inet cimport AF_INET, htons, ntohs, sockaddr_in, sockaddr_in6, sockaddr_storage
from haptk._fast.pool cimport buf_take, link_free, link_new
from haptk._fast.proxyproto cimport PROXY_OUT_MAX, write_proxy
from haptk._fast.retry cimport RE_EMPTY
from haptk._fast.queue cimport slot_free
from haptk._fast.scan cimport hk_add64, hk_count, hk_load, hk_load_ptr
from haptk._fast.sockets cimport (CONNECT_DONE, CONNECT_FAILED, CONNECT_FDS, close_fd, connect_to, keep_alive, reset_fd,
                                  watch)
from haptk._fast.state cimport (BackendC, KIND_SERVER, LB_LEASTCONN, LIVE_MAINT, LIVE_UP, Place, REST_KEPT, REST_NOT,
                                REST_SHARED, REUSE_AGGRESSIVE, REUSE_NEVER, REUSE_SAFE, ServerC, ServerW)
from haptk._fast.tally cimport tally_server, tally_slot

cdef enum:
    IDLE_FLOOR = 4          # so many idle connections per server are always kept
    PROVEN_LOOKS = 64       # among so many of them one is looked for that was used again before


cdef void unlink_idle(Worker *w, Link *l) noexcept nogil:
    cdef ServerW *sw = &w.servers[l.server.gid]
    if l.prev != NULL:
        l.prev.next = l.next
    else:
        sw.idle = l.next
    if l.next != NULL:
        l.next.prev = l.prev
    else:
        sw.idle_tail = l.prev
    l.prev = l.next = NULL
    l.idle = REST_NOT
    sw.idle_count -= 1
    w.idle_total -= 1
    hk_count(w.conf.workers, &l.server.live.idle, -1)


cdef void push_idle(Worker *w, Link *l) noexcept nogil:
    cdef ServerW *sw = &w.servers[l.server.gid]
    l.session = NULL
    l.idle = REST_SHARED
    l.since = w.now
    l.prev = NULL
    l.next = sw.idle
    if sw.idle != NULL:
        sw.idle.prev = l
    else:
        sw.idle_tail = l
    sw.idle = l
    sw.idle_count += 1
    w.idle_total += 1


cdef void close_link(Worker *w, Link *l, bint quiet) noexcept nogil:
    # `quiet`: nothing is under way either way. Then a reset ends it, as HAProxy does: whoever closes first keeps the port
    # for a minute (TIME-WAIT), and a server would be out of our reach after 28,000 connections in that time.
    if quiet or (l.server != NULL and l.server.nolinger):
        reset_fd(l.fd)
    else:
        close_fd(l.fd)
    l.fd = -1
    l.kind = 0
    l.session = NULL
    link_free(w, l)


cdef inline Place *place_of(ServerC *srv) noexcept nogil:
    return <Place *>hk_load_ptr(<void **>&srv.live.place)


cdef inline bint for_one_client(Session *s, ServerC *srv) noexcept nogil:
    # PROXY headers and addresses that come from the client make a connection its own.
    cdef Place *place = place_of(srv)
    return srv.send_proxy or s.backend.reuse == REUSE_NEVER or \
        (place != NULL and (place.port_from_client or place.addr_from_client))


cdef void drop_kept(Worker *w, Session *s) noexcept nogil:
    cdef Link *l = s.kept
    if l != NULL:
        s.kept = NULL
        close_link(w, l, 1)


cdef ServerC *last_server(Session *s) noexcept nogil:
    cdef ServerC *srv = s.kept.server if s.kept != NULL else NULL
    cdef int limit = s.backend.max_ka_queue
    if srv == NULL or srv == s.avoid or srv.backend != s.backend.index or hk_load(&srv.live.state) != LIVE_UP:
        return NULL
    if limit and srv.maxconn and hk_load(&srv.live.sessions) >= limit_of(s.backend, srv) and \
            hk_load(&srv.live.queued) + 1 >= limit:
        return NULL
    return srv


cdef Link *proven(ServerW *sw) noexcept nogil:
    # A connection that its server has kept open before.
    cdef Link *l = sw.idle
    cdef int _k
    for _k in range(PROVEN_LOOKS):
        if l == NULL or l.uses:
            return l
        l = l.next
    return NULL


cdef Link *idle_for(Worker *w, Session *s) noexcept nogil:
    # A connection that may be used again for this request, taken out of where it rested; NULL for none.
    cdef Link *l
    cdef bint careful
    cdef ServerW *sw = &w.servers[s.server.gid]
    if s.want_fresh or s.tunnel:
        return NULL
    if for_one_client(s, s.server):
        l = s.kept
        if l == NULL or l.server != s.server or l.place != place_of(s.server):
            drop_kept(w, s)
            return NULL
        s.kept = NULL
        l.idle = REST_NOT
        return l
    # nobody would repeat it if the connection turned out to be dead
    careful = s.first and not (s.keeping and s.backend.retry_on & RE_EMPTY)
    if careful and s.backend.reuse == REUSE_SAFE:
        return NULL
    while sw.idle != NULL:
        l = proven(sw) if careful and s.backend.reuse == REUSE_AGGRESSIVE else sw.idle
        if l == NULL:
            return NULL
        unlink_idle(w, l)
        if l.place == place_of(s.server):
            return l
        close_link(w, l, 1)    # the server has moved
    return NULL


cdef int from_client(Session *s, Place *place, sockaddr_storage *addr, uint32_t *n) noexcept nogil:
    # Fill in what the file leaves to the connection that the client made. Returns the family.
    cdef sockaddr_in *four = <sockaddr_in *>addr
    cdef sockaddr_in6 *six = <sockaddr_in6 *>addr
    cdef int port = 0
    note_local(s)
    if place.port_from_client:
        port = s.local.port + place.port_offset
    else:
        port = ntohs(four.sin_port)     # in the same place for both families
    if place.addr_from_client and s.local.text_len:
        addr.ss_family = <unsigned short>s.local.family
        if s.local.family == AF_INET:
            put_octets(&four.sin_addr, span_over(s.local.address, 4))
            n[0] = sizeof(sockaddr_in)
        else:
            put_octets(&six.sin6_addr, span_over(s.local.address, 16))
            n[0] = sizeof(sockaddr_in6)
    four.sin_port = htons(<unsigned short>port)
    return addr.ss_family


cdef int announce(Worker *w, Session *s) noexcept nogil:
    # Put the PROXY header in front of what is sent on a new connection. 0, or -1 without room.
    cdef char made[PROXY_OUT_MAX]
    cdef Room line = room_over(made, PROXY_OUT_MAX)
    if buf_take(w, &s.out_head) < 0:        # TCP mode has no head of its own
        return -1
    if s.server.send_proxy:
        write_proxy(s, s.server.send_proxy, &line)
    if room_full(&line) or buf_front(&s.out_head, s.announced, room_span(&line)) < 0:
        return -1
    s.announced = <uint8_t>room_len(&line)
    s.out_head.r = 0
    return 0


cdef int reach(Worker *w, ServerC *srv, sockaddr_storage *addr, uint32_t n, int family, int *fd) noexcept nogil:
    # From the configured source; of its ports each is tried once, beginning behind the last one.
    cdef ServerW *sw = &w.servers[srv.gid]
    cdef sockaddr_storage source
    cdef int got = CONNECT_FAILED, _left
    if srv.source == NULL or srv.source.family != family:
        return connect_to(addr, n, family, NULL, 0, fd)
    source = srv.source.addr
    for _left in range(srv.source_high - srv.source_low + 1):
        if srv.source_low:
            sw.source_port = sw.source_port + 1 if srv.source_low <= sw.source_port < srv.source_high else srv.source_low
        (<sockaddr_in *>&source).sin_port = htons(<unsigned short>sw.source_port)
        got = connect_to(addr, n, family, &source, srv.source.addr_len, fd)
        if got != CONNECT_FAILED:
            break
    return got


cdef int open_link(Worker *w, Session *s) noexcept nogil:
    cdef ServerC *srv = s.server
    cdef Link *l
    cdef Place *place = place_of(srv)
    cdef int fd, got, family
    cdef uint32_t n
    cdef sockaddr_storage addr
    if place == NULL:
        return ATTACH_FAILED    # its name did not resolve
    if (srv.send_proxy or s.announced) and announce(w, s) < 0:
        return ATTACH_FAILED
    addr, n, family = place.addr, place.addr_len, place.family
    if place.port_from_client or place.addr_from_client:
        family = from_client(s, place, &addr, &n)
    got = reach(w, srv, &addr, n, family, &fd)
    if got == CONNECT_FDS and give_up_idle(w):
        got = reach(w, srv, &addr, n, family, &fd)
    if got != CONNECT_DONE:
        return ATTACH_FDS if got == CONNECT_FDS else ATTACH_FAILED
    l = link_new(w)
    if l == NULL:
        close_fd(fd)
        return ATTACH_FDS
    l.kind = KIND_SERVER
    l.fd = fd
    l.server = srv
    l.place = place
    l.session = s
    l.writable = 1      # tried at once: a local server has accepted by now
    if watch(w.epfd, fd, l) < 0:
        close_link(w, l, 0)
        return ATTACH_FDS
    if srv.tcpka:
        keep_alive(fd, srv.tcpka_probes, srv.tcpka_idle_s, srv.tcpka_interval_s)
    s.link = l
    w.counters.server_connections += 1
    return ATTACH_OK


cdef int attach(Worker *w, Session *s) noexcept nogil:
    cdef ServerW *sw = &w.servers[s.server.gid]
    cdef Link *l = NULL
    cdef int got
    if s.kept != NULL or sw.idle != NULL:
        l = idle_for(w, s)
    s.out_head.r = s.announced      # a connection in use has had its PROXY header
    if l != NULL:
        l.session = s
        l.reused = 1
        l.uses += 1
        s.link = l
        s.connect_ms = s.server_ms = w.now
        w.counters.reused += 1
    else:
        got = open_link(w, s)
        if got != ATTACH_OK:
            return got
    sw.used += 1
    if sw.used > sw.peak:
        sw.peak = sw.used
    tally_server(w, s)
    return ATTACH_OK


cdef inline void touch(BackendC *be, ServerC *srv) noexcept nogil:
    be.shared.servers[srv.index].touched = hk_add64(&be.shared.touches, 1)


cdef bint take_slot(Worker *w, Session *s) noexcept nogil:
    cdef int n = hk_count(w.conf.workers, &s.server.live.sessions, 1)
    if s.server.maxconn and n > limit_of(s.backend, s.server):
        hk_count(w.conf.workers, &s.server.live.sessions, -1)
        return 0
    s.counted = 1
    if s.backend.balance == LB_LEASTCONN:
        touch(s.backend, s.server)
    tally_slot(w, s, n)
    return 1


cdef void take_granted(Worker *w, Session *s) noexcept nogil:
    s.server = s.granted
    s.granted = NULL
    s.counted = 1
    if s.backend.balance == LB_LEASTCONN:
        touch(s.backend, s.server)
    tally_slot(w, s, s.open_now)


cdef inline bint worth_keeping(Worker *w, ServerC *srv, ServerW *sw) noexcept nogil:
    # Counts it as idle if so. No more than were in use at once lately: with http-reuse safe a first request takes none, and
    # clients that come for one request would otherwise leave one behind each.
    if w.now - sw.peak_at > 1000:
        sw.peak_at = w.now
        sw.peak = sw.used if sw.used > sw.peak // 2 else sw.peak // 2
    if sw.idle_count >= IDLE_FLOOR and sw.idle_count + sw.used > sw.peak:
        return 0
    # the place is taken before the limit is asked: other workers ask at the same moment
    if hk_count(w.conf.workers, &srv.live.idle, 1) > srv.pool_max >= 0:
        hk_count(w.conf.workers, &srv.live.idle, -1)
        return 0
    return 1


cdef void detach(Worker *w, Session *s, bint keep) noexcept nogil:
    cdef Link *l = s.link
    cdef ServerW *sw
    cdef bint quiet
    if s.counted:
        hk_count(w.conf.workers, &s.server.live.sessions, -1)
        s.counted = 0
        if s.backend.balance == LB_LEASTCONN:
            touch(s.backend, s.server)
        if s.backend.limited:
            slot_free(w, s.backend, s.server)
    if l == NULL:
        return
    s.link = NULL
    sw = &w.servers[l.server.gid]
    sw.used -= 1
    if keep and l.server.max_reuse >= 0 and l.uses >= <uint32_t>l.server.max_reuse:
        keep = 0
    if keep and for_one_client(s, l.server):
        if s.keep:
            drop_kept(w, s)
            l.idle = REST_KEPT
            s.kept = l
            return
    elif keep and worth_keeping(w, l.server, sw):
        push_idle(w, l)
        return
    quiet = s.head_done and s.down.done and s.up.done and not (s.tunnel or s.server_eof or s.up_failed or l.hup)
    # a server that still works for a client that has left is told so by a reset
    close_link(w, l, quiet or s.cause == c"C")


cdef void idle_event(Worker *w, Link *l) noexcept nogil:
    if l.idle == REST_KEPT:
        l.session.kept = NULL
    else:
        unlink_idle(w, l)
    close_link(w, l, 0)


cdef bint give_up_idle(Worker *w) noexcept nogil:
    cdef int i
    cdef Link *l
    if w.idle_total == 0:
        return 0
    for i in range(w.conf.server_count):
        l = w.servers[i].idle_tail
        if l != NULL:
            unlink_idle(w, l)
            close_link(w, l, 1)
            return 1
    return 0


cdef void purge_idle(Worker *w, bint everything) noexcept nogil:
    cdef int i
    cdef bint all_of_it
    cdef Link *l
    for i in range(w.conf.server_count):
        if w.servers[i].idle_tail == NULL:
            continue
        all_of_it = everything or hk_load(&w.conf.servers[i].live.state) == LIVE_MAINT
        while True:
            l = w.servers[i].idle_tail
            if l == NULL or not (all_of_it or w.now - l.since >= l.server.pool_purge_ms):
                break
            unlink_idle(w, l)
            close_link(w, l, 1)
