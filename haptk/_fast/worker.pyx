# The turn of the loop: wait, read the clock once, expire timers, handle events, free what died, wait again.


cimport cython

from libc.errno cimport EMFILE, ENFILE, ENOBUFS, ENOMEM
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from haptk._fast.address cimport note_address, note_local
from haptk._fast.census cimport CENSUS_END, CENSUS_LIST, census_ask, census_close, census_step, census_take
from haptk._fast.deadlines cimport PARTING_MS
from haptk._fast.bytes.span cimport room_close, room_open
from haptk._fast.descriptors cimport (FD_EPOLL, FD_LANE, FD_LISTENER, FD_SERVICE, FD_WAKE, HK_CHECKED, fd_opened,
                                      fd_ring, register_leave, register_own)
from haptk._fast.edit cimport edits_close, edits_open
from haptk._fast.ending cimport session_kill
from haptk._fast.facts cimport MADE_SIZE
from haptk._fast.gate cimport gate_closed, gate_enter, gate_quit, gate_return, gate_waits
from haptk._fast.inet cimport sockaddr_storage
from haptk._fast.journal cimport lane_close, lane_open
from haptk._fast.pool cimport pool_close, pool_rests, pool_trim, reap, session_new
from haptk._fast.queue cimport look_at_queues
from haptk._fast.regex cimport regex_close, regex_open
from haptk._fast.relay cimport link_ready
from haptk._fast.scan cimport hk_fetch, hk_load, hk_load_ptr, hk_store
from haptk._fast.service cimport next_answered, service_close, take_errands
from haptk._fast.session cimport serve_queues, session_begin, session_end, session_expire, session_run, session_watch
from haptk._fast.sockets cimport (EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, accept_one, clock_ms, close_fd,
                                  epoll_event, epoll_wait, unwatch, watch_input)
from haptk._fast.state cimport (KIND_LISTENER, KIND_SERVER, KIND_SESSION, KIND_WAKE, Link,
                                Listener, PH_HEAD, PH_PROXY, ServerW, Session, SharedRate, Tally, Timer)
from haptk._fast.tally cimport add_up, tally_clear
from haptk._fast.upstream cimport give_up_idle, idle_event, purge_idle
from haptk._fast.wheel cimport timer_set, wheel_init, wheel_next, wheel_wait

cdef extern from "<sys/epoll.h>" nogil:
    int EPOLL_CLOEXEC
    int epoll_create1(int flags)

cdef extern from "<sys/eventfd.h>" nogil:
    int EFD_CLOEXEC, EFD_NONBLOCK
    int eventfd(unsigned int value, int flags)
    int eventfd_read(int fd, uint64_t *value)

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sched.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    """
    int CLONE_FILES
    long SYS_close_range
    int unshare(int flags) nogil
    long syscall(long number, ...) nogil

cdef enum:
    EVENTS = 256            # taken from epoll at once
    ACCEPTS = 64            # connections accepted per listener and turn
    PAUSE_MS = 100          # accepting rests so long when descriptors ran out
    LOOK_MS = 10            # between two looks at what other workers may have freed
    TIDY_MS = 1000
    FIRST_MS = 3000         # that a connection without a request has left when we stop
    HOT_SIZE = 576          # of a session: what every request touches
    WORKERS_MOST = 256


# ---------------------------------------------------------------- accepting

cdef void pause_accepting(Worker *w) noexcept nogil:
    # No descriptors: a level-triggered listener would spin. Idle server connections go first.
    cdef int i
    w.counters.fd_exhausted += 1
    if w.accept_paused:
        return
    for i in range(w.listener_count):
        unlisten(w, &w.listeners[i])
    w.accept_paused = 1
    w.accept_resume = w.now + PAUSE_MS


cdef void unlisten(Worker *w, Listener *l) noexcept nogil:
    if l.watched:
        unwatch(w.epfd, l.fd)
        l.watched = 0


cdef void resume_accepting(Worker *w) noexcept nogil:
    # Watch what is not watched and may be.
    cdef int i
    cdef Listener *l
    w.accept_paused = w.listener_full = 0
    for i in range(w.listener_count):
        l = &w.listeners[i]
        if l.fd < 0 or l.watched or hk_load(&l.frontend.paused):
            continue
        if gate_closed(w, l.frontend, l.bind):
            w.listener_full = 1
            continue
        l.watched = 1
        watch_input(w.epfd, l.fd, l, not l.owned)
        if gate_waits(w, l.frontend, l.bind):
            accept_some(w, l)       # its turn: if nobody is there any more, others must not wait for us
            if w.accept_paused:
                return


cdef void heed_pauses(Worker *w) noexcept nogil:
    # After the control plane has spoken: rest where a frontend is paused, accept where it is not any more.
    cdef int i
    for i in range(w.listener_count):
        if w.listeners[i].fd >= 0 and hk_load(&w.listeners[i].frontend.paused):
            unlisten(w, &w.listeners[i])
    if not w.accept_paused:
        resume_accepting(w)


cdef void accept_some(Worker *w, Listener *l) noexcept nogil:
    cdef sockaddr_storage addr
    cdef uint32_t n
    cdef int fd, error = 0, _k
    cdef Session *s
    for _k in range(ACCEPTS):
        if hk_load(&l.frontend.paused):
            unlisten(w, l)
            return
        if not gate_enter(w, l.frontend, l.bind):
            # the rest waits in the kernel's queue, as with HAProxy
            unlisten(w, l)
            w.listener_full = 1
            return
        n = sizeof(addr)
        fd = accept_one(l.fd, &addr, &n, &error)
        if fd < 0:
            gate_return(w, l.frontend, l.bind)
            if error == EMFILE or error == ENFILE or error == ENOBUFS or error == ENOMEM:
                if not give_up_idle(w):
                    pause_accepting(w)
            return
        s = session_new(w)
        if s == NULL:
            close_fd(fd)
            gate_return(w, l.frontend, l.bind)
            return
        s.kind = KIND_SESSION
        s.fd = fd
        s.frontend = l.frontend
        s.listener_index = l.bind
        if n:
            note_address(&s.peer, &addr)
        if l.announced:
            s.phase = PH_PROXY
        elif l.frontend.wants_local:
            note_local(s)
        w.unwatched += 1
        session_begin(w, s)     # many a request is here already: epoll looks at it only when it has to wait


cdef void watch_all(Worker *w) noexcept nogil:
    # Who waits for a server for so long should be missed when it goes away.
    cdef Session *s = w.all
    cdef Session *following
    while s != NULL and w.unwatched:
        following = s.all_next
        if not s.watched:
            session_watch(w, s)
        s = following


# ---------------------------------------------------------------- events

cdef void session_event(Worker *w, Session *s, uint32_t events) noexcept nogil:
    if events & EPOLLOUT:
        s.writable = 1
    if events & EPOLLIN:
        s.readable = 1
    if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        s.hup = 1
        s.readable = 1
        if events & (EPOLLHUP | EPOLLERR):
            s.broken = 1
            s.writable = 1
    session_run(w, s)


cdef void link_event(Worker *w, Link *l, uint32_t events) noexcept nogil:
    if l.idle:
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            idle_event(w, l)
        return
    if events & EPOLLOUT:
        l.writable = 1
        if not l.connected and l.session != NULL and l.session.tunnel and not events & (EPOLLHUP | EPOLLERR):
            link_ready(w, l.session)    # a relay may have nothing to write for long
    if events & EPOLLIN:
        l.readable = 1
    if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        l.hup = 1
        if events & (EPOLLHUP | EPOLLERR):
            l.broken = 1
            l.writable = 1
        if l.connected or events & EPOLLIN and not events & EPOLLERR:
            l.readable = 1
    if l.session != NULL:
        session_run(w, l.session)


cdef void cut_of_server(Worker *w, int gid, bint by_hand) noexcept nogil:
    # on-marked-down shutdown-sessions, or `shutdown sessions server`: the letters are HAProxy's.
    cdef Session *s = w.all
    cdef Session *following
    while s != NULL:
        following = s.all_next
        if s.server == w.conf.servers[gid] and s.link != NULL:
            if by_hand:
                session_end(w, s)
            else:
                session_kill(w, s, c"D", c"D" if s.head_done else c"H")
        s = following


cdef void cut_sessions(Worker *w) noexcept nogil:
    cdef int i, asked
    for i in range(w.conf.server_count):
        asked = hk_load(&w.conf.servers[i].live.kills)
        if asked != w.servers[i].kills_seen:
            w.servers[i].kills_seen = asked
            cut_of_server(w, i, 0)
        asked = hk_load(&w.conf.servers[i].live.cuts)
        if asked != w.servers[i].cuts_seen:
            w.servers[i].cuts_seen = asked
            cut_of_server(w, i, 1)


cdef void run_answered(Worker *w) noexcept nogil:
    cdef Session *s
    while True:
        s = next_answered(w)
        if s == NULL:
            return
        session_run(w, s)


cdef inline void look_ahead(epoll_event *events, int i, int n) noexcept nogil:
    # With many connections each event meets cold memory: ask for it while the event before is handled. What is named
    # here may be dead already, but is not freed before the end of the turn.
    cdef void *p
    if i + 2 < n:
        hk_fetch(events[i + 2].data.ptr, sizeof(Link))
    if i + 1 < n:
        p = events[i + 1].data.ptr
        if (<int *>p)[0] == KIND_SERVER:
            p = (<Link *>p).session
        hk_fetch(p, HOT_SIZE)


cdef void handle(Worker *w, epoll_event *e) noexcept nogil:
    cdef int kind = (<int *>e.data.ptr)[0]
    cdef uint64_t drained
    if kind == KIND_SERVER:
        link_event(w, <Link *>e.data.ptr, e.events)
    elif kind == KIND_SESSION:
        session_event(w, <Session *>e.data.ptr, e.events)
    elif kind == KIND_LISTENER:
        accept_some(w, <Listener *>e.data.ptr)
    elif kind == KIND_WAKE:
        eventfd_read(w.wake_fd, &drained)
        if hk_load(&w.told):
            hk_store(&w.told, 0)
            cut_sessions(w)
            purge_idle(w, 0)
            heed_pauses(w)
        run_answered(w)
        census_step(w, session_end)
        if hk_load(&w.clear_asked):
            tally_clear(w, hk_load(&w.clear_asked) == 2)
            hk_store(&w.clear_asked, 0)


# ---------------------------------------------------------------- descriptors of our own

cdef void own_table(Worker *w) noexcept nogil:
    # Give this thread a descriptor table of its own. In a table that threads share, the kernel counts references at
    # every system call (fdget, 3-4 % of all our time). Everything that is not carried over is closed in the copy; closing
    # a listener is then this thread's business too. Where the kernel refuses, the table stays shared.
    cdef int low = 3, lowest, i, fd
    if unshare(CLONE_FILES) != 0:
        return
    w.own_table = 1
    if HK_CHECKED:
        register_own(w.carried, w.carried_count)
    while True:
        lowest = -1
        for i in range(w.carried_count):
            fd = w.carried[i]
            if fd >= low and (lowest < 0 or fd < lowest):
                lowest = fd
        if lowest < 0:
            syscall(SYS_close_range, low, <unsigned int>0xffffffff, 0)
            return
        if lowest > low:
            syscall(SYS_close_range, low, lowest - 1, 0)
        low = lowest + 1


# ---------------------------------------------------------------- the loop

cdef void close_listeners(Worker *w) noexcept nogil:
    cdef int i
    for i in range(w.listener_count):
        if w.listeners[i].fd >= 0:
            unlisten(w, &w.listeners[i])
            gate_quit(w, w.listeners[i].frontend, w.listeners[i].bind)
            if w.own_table:
                close_fd(w.listeners[i].fd)
            w.listeners[i].fd = -1
    w.accept_paused = w.listener_full = 0
    hk_store(&w.listening, 0)


cdef void begin_stop(Worker *w) noexcept nogil:
    # No new connections. Who has waited for long for another request is closed; of one that spoke a moment ago the next
    # request may be on the way, and is still answered, with the word that it is the last one.
    cdef Session *s
    cdef Session *following
    cdef int i
    for i in range(w.listener_count):
        accept_some(w, &w.listeners[i])     # who is in the queue already gets served
    close_listeners(w)
    s = w.all
    while s != NULL:
        following = s.all_next
        if (s.phase == PH_HEAD or s.phase == PH_PROXY) and not s.got_byte:
            if s.first:
                timer_set(w, &s.timer, w.now + FIRST_MS)    # its request may be on the way
            elif w.now - s.since_ms < PARTING_MS:
                timer_set(w, &s.timer, s.since_ms + PARTING_MS)
            else:
                session_kill(w, s, 0, 0)
        s = following
    purge_idle(w, 1)


cdef void end_all(Worker *w) noexcept nogil:
    close_listeners(w)
    while w.all != NULL:
        session_kill(w, w.all, 75, 75)      # K: killed by an administrator
    purge_idle(w, 1)
    reap(w)


cdef int patience(Worker *w) noexcept nogil:
    # How long epoll may wait, ms.
    cdef int wait = wheel_wait(w)
    if (w.idle_total or not pool_rests(w)) and (wait < 0 or wait > TIDY_MS):
        wait = TIDY_MS
    if w.accept_paused and (wait < 0 or wait > PAUSE_MS):
        wait = PAUSE_MS
    if (w.queued or w.listener_full) and (wait < 0 or wait > LOOK_MS):
        wait = LOOK_MS      # a server or a place may have become free without a word
    return 0 if hk_load_ptr(<void **>&w.ready) != NULL else wait


cdef void loop(Worker *w) noexcept nogil:
    cdef epoll_event events[EVENTS]
    cdef int n, i, stop, stopped = 0
    cdef Timer *t
    cdef int64_t tidy_at = 0
    while True:
        stop = hk_load(&w.stopping)
        if stop and not stopped:
            stopped = 1
            begin_stop(w)
            reap(w)
        if stop >= 2 or (stop and w.session_count == 0):
            break
        n = epoll_wait(w.epfd, events, EVENTS, patience(w))
        w.now = clock_ms()
        w.counters.loops += 1
        w.counters.events += n if n > 0 else 0
        if hk_load_ptr(<void **>&w.ready) != NULL:
            serve_queues(w)     # before their time in the queue may run out
        while True:
            t = wheel_next(w)
            if t == NULL:
                break
            w.counters.expired += 1
            session_expire(w, t)
        for i in range(n):
            look_ahead(events, i, n)
            handle(w, &events[i])
        if w.accept_paused:
            if w.now >= w.accept_resume:
                resume_accepting(w)
        elif w.listener_full:
            resume_accepting(w)
        if w.queued and w.now >= w.look_at:
            w.look_at = w.now + LOOK_MS
            look_at_queues(w)
        if hk_load_ptr(<void **>&w.ready) != NULL:
            serve_queues(w)
        if w.now >= tidy_at:
            tidy_at = w.now + TIDY_MS
            purge_idle(w, 0)
            pool_trim(w)
            if w.unwatched:
                watch_all(w)
        if w.dead_sessions != NULL or w.dead_links != NULL:
            reap(w)
    end_all(w)


# ---------------------------------------------------------------- the object

@cython.no_gc_clear     # __dealloc__ needs the image
cdef class DataWorker:
    """One worker. `listeners` are proxy.listeners.Opened; the sockets are listening already.

    `run()` blocks without the GIL until `stop()` was called and, for a graceful stop, the last connection is closed.
    """

    def __cinit__(self, Image image, listeners, int index=0, unsigned int seed=1):
        cdef int i
        memset(&self.w, 0, sizeof(Worker))
        self.w.epfd = self.w.wake_fd = self.w.service_fd = -1
        self.image = image
        self.w.conf = &image.conf
        self.w.index = index
        image.conf.workers += 1
        self.w.rng = seed if seed else 1
        self.w.servers = <ServerW *>calloc(image.conf.server_room + 1, sizeof(ServerW))
        self.w.listeners = <Listener *>calloc(len(listeners) + 1, sizeof(Listener))
        self.w.carried_room = len(listeners) + 5 + WORKERS_MOST
        self.w.carried = <int *>calloc(self.w.carried_room, sizeof(int))
        self.w.fronts = <Tally *>calloc(image.conf.frontend_count + image.conf.door_count + 1, sizeof(Tally))
        self.w.backs = <Tally *>calloc(image.conf.backend_count + 1, sizeof(Tally))
        self.w.servs = <Tally *>calloc(image.conf.server_room + 1, sizeof(Tally))
        if self.w.servers == NULL or self.w.listeners == NULL or \
                self.w.carried == NULL or self.w.fronts == NULL or self.w.backs == NULL or self.w.servs == NULL:
            raise MemoryError
        self.w.epfd = epoll_create1(EPOLL_CLOEXEC)
        self.w.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        self.w.service_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.w.epfd < 0 or self.w.wake_fd < 0 or self.w.service_fd < 0:
            raise OSError("no descriptors left for an event loop")
        self.carry(self.w.epfd, FD_EPOLL)
        self.carry(self.w.wake_fd, FD_WAKE)
        if not 0 <= index < WORKERS_MOST:
            raise ValueError(f"no more than {WORKERS_MOST} workers")
        image.conf.bells[index] = self.w.wake_fd
        self.carry(self.w.service_fd, FD_SERVICE)
        self.carry(image.alarm, 0)      # opened by the image, for all workers
        self.w.wake_kind = KIND_WAKE
        watch_input(self.w.epfd, self.w.wake_fd, &self.w.wake_kind, 0)
        self.sockets = [entry[0] for entry in listeners]
        self.w.listener_count = len(listeners)
        self.rules_rooms()
        numbers = {}
        for i, (sock, frontend, shared, bind) in enumerate(listeners):
            lines = numbers.setdefault(frontend, [])
            if id(bind) not in lines:
                lines.append(id(bind))      # a line may have several sockets
            self.w.listeners[i].bind = lines.index(id(bind))
            sock.setblocking(False)
            self.w.listeners[i].kind = KIND_LISTENER
            self.w.listeners[i].fd = sock.fileno()
            self.carry(self.w.listeners[i].fd, FD_LISTENER)
            self.w.listeners[i].owned = not shared
            self.w.listeners[i].announced = bind.accept_proxy
            self.w.listeners[i].frontend = &image.conf.frontends[<int>frontend]
        self.log_lane()
        self.w.listening = 1
        self.w.now = clock_ms()
        wheel_init(&self.w)
        resume_accepting(&self.w)

    cdef int carry(self, int fd, int owner) except -1:
        # A descriptor of the process that the worker's thread uses: it stays open in that thread's own table.
        if fd < 0:
            return 0
        if self.w.carried_count == self.w.carried_room:
            raise IndexError(fd)
        self.w.carried[self.w.carried_count] = fd
        self.w.carried_count += 1
        if owner:
            fd_opened(fd, owner)
        return 0

    cdef int log_lane(self) except -1:
        # Where some frontend logs.
        cdef int i
        cdef bint needed = 0
        for i in range(self.w.conf.frontend_count):
            needed = needed or self.w.conf.frontends[i].log != NULL
        if not needed:
            return 0
        self.w.lane = lane_open()
        if self.w.lane == NULL:
            raise MemoryError
        self.w.lane.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.w.lane.wake_fd < 0:
            raise OSError("no descriptors left for log lines")
        self.carry(self.w.lane.wake_fd, FD_LANE)
        return 0

    cdef int rules_rooms(self) except -1:
        # Always: conditions, formats and captures stand in many places, and memory that nobody writes to costs nothing.
        regex_open(&self.w.regex)
        if edits_open(&self.w) < 0 or room_open(&self.w.made, MADE_SIZE) < 0:
            raise MemoryError
        return 0

    def __dealloc__(self):
        if self.w.conf != NULL:
            pool_close(&self.w)
            service_close(&self.w)
            census_close(&self.w)
        regex_close(&self.w.regex)
        edits_close(&self.w)
        room_close(&self.w.made)
        if self.w.epfd >= 0:
            close_fd(self.w.epfd)
        if self.w.wake_fd >= 0:
            close_fd(self.w.wake_fd)
        if self.w.service_fd >= 0:
            close_fd(self.w.service_fd)
        free(self.w.servers)
        free(self.w.listeners)
        free(self.w.carried)
        if self.w.lane != NULL and self.w.lane.wake_fd >= 0:
            close_fd(self.w.lane.wake_fd)
        lane_close(self.w.lane)
        free(self.w.fronts)
        free(self.w.backs)
        free(self.w.servs)

    def run(self):
        """Serve until stopped. Call once, from the thread that shall do the work."""
        cdef int i
        if self.running:
            raise RuntimeError("this worker runs already")
        self.running = True
        for i in range(self.w.conf.workers):
            if i != self.w.index:
                self.carry(self.w.conf.bells[i], 0)
        with nogil:
            own_table(&self.w)
            loop(&self.w)
            if HK_CHECKED:
                register_leave()

    def stop(self, bint now=False):
        """Ask run() to return: after the open connections, or at once. From any thread."""
        if now or hk_load(&self.w.stopping) == 0:
            hk_store(&self.w.stopping, 2 if now else 1)
        fd_ring(self.w.wake_fd, FD_WAKE)

    def wake(self):
        """Have the worker look at what the control plane changed."""
        hk_store(&self.w.told, 1)
        fd_ring(self.w.wake_fd, FD_WAKE)

    def clear(self, bint everything=False):
        """Have the worker put the highest values (or all) of its tallies back to zero; `cleared` says when it did."""
        hk_store(&self.w.clear_asked, 2 if everything else 1)
        fd_ring(self.w.wake_fd, FD_WAKE)

    def look(self, size_t wanted=0, bint names=False, bint end=False):
        """Have the worker list its sessions (or only `wanted`, and `end` it); False while it is at an older list.

        `names` looks up the addresses that cost a system call each. `seen` has the list.
        """
        return census_ask(&self.w, CENSUS_END if end else CENSUS_LIST, wanted, names)

    def seen(self):
        """What `look` asked for, as tuples (proxy/glance.py's Glance); None while the worker is not through."""
        return census_take(&self.w, self.w.index)

    def idle(self, int gid):
        """How many connections to a server wait for use here."""
        return self.w.servers[gid].idle_count if 0 <= gid < self.w.conf.server_count else 0

    @property
    def cleared(self):
        """True when nothing is left to clear."""
        return hk_load(&self.w.clear_asked) == 0

    @property
    def service_fd(self):
        """An eventfd that is readable when `requests` has something."""
        return self.w.service_fd

    def requests(self):
        """What the control plane is to answer (see service.pyx's Request), oldest first; drains service_fd."""
        cdef uint64_t drained
        eventfd_read(self.w.service_fd, &drained)
        return take_errands(&self.w, self)

    @property
    def listening(self):
        """False once this worker no longer touches its listening sockets, which may then be closed."""
        return self.running and hk_load(&self.w.listening) != 0

    def counters(self):
        """This worker's counters as a dict; read while it runs, so they may be some requests apart."""
        cdef dict out = dict(self.w.counters)
        out["responses"] = [self.w.counters.responses[i] for i in range(6)]
        out["sessions"] = self.w.session_count
        out["server_links"] = self.w.link_count
        out["idle_links"] = self.w.idle_total
        return out


cdef tuple one_tally(list workers, int kind, int i, int64_t now):
    # `kind` is 0 for a frontend or one of the sockets behind them, 1 for a backend, 2 for a server.
    cdef DataWorker one
    cdef Tally *parts[256]
    cdef int count = 0, live = 0, queued = 0, idle = 0, used = 0
    cdef SharedRate *rate = NULL
    cdef SharedRate *requests = NULL
    for one in workers:
        if kind == 0:
            parts[count] = &one.w.fronts[i]
            if i < one.w.conf.frontend_count:
                live = hk_load(one.w.conf.frontends[i].sessions)
                rate, requests = &one.w.conf.front_rates[i], &one.w.conf.request_rates[i]
            else:
                live = hk_load(&one.w.conf.door_sessions[i - one.w.conf.frontend_count])
        elif kind == 1:
            parts[count] = &one.w.backs[i]
            rate = &one.w.conf.back_rates[i]
            live = hk_load(one.w.conf.backends[i].sessions)
            queued = hk_load(&one.w.conf.backends[i].shared.any.count)
        else:
            parts[count] = &one.w.servs[i]
            rate = &one.w.conf.serv_rates[i]
            live = hk_load(&one.w.conf.servers[i].live.sessions)
            queued = hk_load(&one.w.conf.servers[i].live.queued)
            idle += one.w.servers[i].idle_count
            used += one.w.servers[i].used
        count += 1
    return add_up(parts, count, now, rate, requests, live, queued, idle, used)


def tallies(list workers):
    """What frontends, backends and servers did, summed over `workers`: lists of tuples (proxy/tally.py's Tally); the last
    one is of sockets with counters of their own, in the order of the file.

    All workers run on one image. The values are read while the workers count, so they may be some events apart.
    """
    cdef DataWorker first
    cdef int64_t now = clock_ms()
    cdef int i
    if not workers or len(workers) > 256:
        raise ValueError("between 1 and 256 workers are added up")
    first = workers[0]
    return (
        [one_tally(workers, 0, i, now) for i in range(first.w.conf.frontend_count)],
        [one_tally(workers, 1, i, now) for i in range(first.w.conf.backend_count)],
        [one_tally(workers, 2, i, now) for i in range(first.w.conf.server_count)],
        [one_tally(workers, 0, first.w.conf.frontend_count + i, now) for i in range(first.w.conf.door_count)],
    )
