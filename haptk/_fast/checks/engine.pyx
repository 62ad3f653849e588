# A turn: wait, play what has something to say, expire, begin what is due. A result that changes nothing (the control
# plane said which) is written down and the check gets its next time; all others are handed to the caller, who decides
# and says when the next check is wanted.
#
# The thread stays in the process' table of descriptors: what it opens is closed by it before anyone else could mean it,
# and the Python code that runs between turns sees every descriptor.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

from haptk._fast.bytes.buf cimport buf_give, buf_take_back
from haptk._fast.bytes.span cimport (Room, room_cut, room_close, room_open, room_over, room_put, room_span, span_bytes,
                                     span_given, span_none, span_of)
from haptk._fast.checks.judge cimport say_span, unsay
from haptk._fast.checks.plan cimport O_INI, O_UNK, Steps, address_of
from haptk._fast.checks.play cimport play_begin, play_drop, play_event, play_expired
from haptk._fast.checks.state cimport DESC_SIZE, LINE_SIZE, P_IDLE
from haptk._fast.checks.timers cimport timer_next, timer_set
from haptk._fast.descriptors cimport FD_EPOLL, FD_WAKE, fd_opened
from haptk._fast.regex cimport regex_close, regex_open
from haptk._fast.scan cimport hk_lock, hk_unlock
from haptk._fast.sockets cimport (EPOLLERR, EPOLLHUP, clock_ms, close_fd, epoll_event, epoll_wait, watch_input)

from haptk._fast.checks.plan import CODES

cdef extern from "<sys/epoll.h>" nogil:
    int EPOLL_CLOEXEC
    int epoll_create1(int flags)

cdef extern from "<sys/eventfd.h>" nogil:
    int EFD_CLOEXEC, EFD_NONBLOCK
    int eventfd(unsigned int value, int flags)
    int eventfd_read(int fd, uint64_t *value)
    int eventfd_write(int fd, uint64_t value)

cdef enum:
    EVENTS = 256


# ---------------------------------------------------------------- results

cdef void publish(CheckC *c) noexcept nogil:
    hk_lock(&c.found.lock)
    c.found.outcome, c.found.code = c.outcome, c.code
    c.found.duration_ms = c.ended - c.started
    room_cut(&c.found.desc, 0)
    room_put(&c.found.desc, room_span(&c.desc))
    c.found.number += 1
    hk_unlock(&c.found.lock)


cdef int64_t spread(EngineC *e, int64_t ms) noexcept nogil:
    # spread-checks: up to so many percent more or less.
    cdef int64_t most = ms * e.spread // 100
    if most <= 0:
        return ms
    e.rng ^= e.rng << 13
    e.rng ^= e.rng >> 7
    e.rng ^= e.rng << 17
    return ms - most + <int64_t>(e.rng % <uint64_t>(2 * most + 1))


cdef void next_at(EngineC *e, CheckC *c, int64_t due) noexcept nogil:
    # A time that has passed is made up for in whole intervals.
    if due <= e.now:
        due += ((e.now - due) // c.inter + 1) * c.inter
    timer_set(e, c, due)


cdef void settled(EngineC *e, CheckC *c) noexcept nogil:
    if c.phase != P_IDLE or c.outcome == O_UNK:
        return
    if c.outcome == c.steady:
        publish(c)
        c.outcome = O_UNK
        e.quiet += 1
        next_at(e, c, e.now + spread(e, c.steady_ms))
        return
    e.results[e.result_n] = c.index
    e.result_n += 1


cdef void due(EngineC *e, CheckC *c) noexcept nogil:
    if c.phase != P_IDLE:
        play_expired(e, c)
        settled(e, c)
    elif c.paused or not c.target.n:
        next_at(e, c, e.now + c.inter)
    elif c.asks and not span_given(c.own):
        e.results[e.result_n] = c.index     # outcome O_UNK: what is to be sent?
        e.result_n += 1
    else:
        play_begin(e, c)
        settled(e, c)


# ---------------------------------------------------------------- the loop

cdef void handle(EngineC *e, epoll_event *event) noexcept nogil:
    cdef uint64_t drained
    cdef CheckC *c
    if event.data.ptr == &e.wake_kind:
        eventfd_read(e.wake_fd, &drained)
        e.woken = 1
    elif event.data.ptr == &e.alarm_kind:
        eventfd_read(e.alarm_fd, &drained)
        e.alarmed = 1
    else:
        c = <CheckC *>event.data.ptr
        if c.fd < 0:
            return      # closed by what came before it in the same batch
        play_event(e, c, (event.events & <uint32_t>(EPOLLERR | EPOLLHUP)) != 0)
        settled(e, c)


cdef void run(EngineC *e, int64_t until) noexcept nogil:
    cdef epoll_event events[EVENTS]
    cdef int n, i
    cdef int64_t wait
    cdef CheckC *c
    while True:
        wait = until - e.now
        if e.heap_n and e.heap[0].due - e.now < wait:
            wait = e.heap[0].due - e.now
        n = epoll_wait(e.epfd, events, EVENTS, <int>wait if wait > 0 else 0)
        e.now = clock_ms()
        for i in range(n):
            handle(e, &events[i])
        while True:
            c = timer_next(e)
            if c == NULL:
                break
            due(e, c)
        if e.result_n or e.woken or e.alarmed or e.now >= until:
            return


# ---------------------------------------------------------------- the object

cdef class CheckEngine:
    """All checks of a process. One thread calls `turn` for ever; every other method but `wake`, `found`, `busy` is its own.

    `spread` is spread-checks in percent, `alarm` a descriptor of others that ends a turn when it is rung.
    """

    def __cinit__(self, int bufsize=16384, int spread=0, int alarm=-1, unsigned int seed=1):
        memset(&self.e, 0, sizeof(self.e))
        self.e.epfd = self.e.wake_fd = self.e.alarm_fd = -1
        self.checks = []
        self.own = []
        self.e.bufsize = bufsize
        self.e.spread = spread
        self.e.rng = seed or 1
        cdef void *memory = malloc(bufsize)
        if memory == NULL:
            raise MemoryError
        buf_give(&self.e.scratch, memory, bufsize)
        if room_open(&self.e.hex, bufsize) < 0:
            raise MemoryError
        self.grow()
        regex_open(&self.e.regex)
        self.e.epfd = epoll_create1(EPOLL_CLOEXEC)
        self.e.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.e.epfd < 0 or self.e.wake_fd < 0:
            raise OSError("no descriptors left for the checks")
        fd_opened(self.e.epfd, FD_EPOLL)
        fd_opened(self.e.wake_fd, FD_WAKE)
        watch_input(self.e.epfd, self.e.wake_fd, &self.e.wake_kind, 0)
        if alarm >= 0:
            self.e.alarm_fd = alarm
            watch_input(self.e.epfd, alarm, &self.e.alarm_kind, 0)
        self.e.now = clock_ms()

    def __dealloc__(self):
        cdef int i
        # all of them first: to take one out of the heap of timers is to look at others
        for i in range(self.count):
            if self.all[i] != NULL:
                play_drop(&self.e, self.all[i])
        for i in range(self.count):
            free(self.all[i])
        for i in range(self.e.free_n):
            free(self.e.free_bufs[i])
        free(self.all)
        free(self.e.heap)
        free(self.e.results)
        free(self.e.free_bufs)
        free(buf_take_back(&self.e.scratch))
        room_close(&self.e.hex)
        regex_close(&self.e.regex)
        if self.e.epfd >= 0:
            close_fd(self.e.epfd)
        if self.e.wake_fd >= 0:
            close_fd(self.e.wake_fd)

    cdef int grow(self) except -1:
        # Room for twice as many; results hold one entry of each check at most.
        cdef int room = self.room * 2 if self.room else 64
        cdef void *grown
        grown = realloc(self.all, room * sizeof(void *))
        if grown == NULL:
            raise MemoryError
        self.all = <CheckC **>grown
        grown = realloc(self.e.heap, room * sizeof(void *))
        if grown == NULL:
            raise MemoryError
        self.e.heap = <CheckC **>grown
        grown = realloc(self.e.results, room * sizeof(int))
        if grown == NULL:
            raise MemoryError
        self.e.results = <int *>grown
        grown = realloc(self.e.free_bufs, room * sizeof(void *))
        if grown == NULL:
            raise MemoryError
        self.e.free_bufs = <void **>grown
        self.room = room
        return 0

    cdef CheckC *one(self, int index) except NULL:
        if not 0 <= index < self.count or self.all[index] == NULL:
            raise IndexError(f"there is no check {index}")
        return self.all[index]

    # -- from the thread of `turn`

    def add(self, Steps steps, int inter_ms, int first_ms):
        """One check more, due in `first_ms`; returns its index. `aim` says where it goes."""
        cdef CheckC *c
        if self.count == self.room:
            self.grow()
        c = <CheckC *>calloc(1, sizeof(CheckC))
        if c == NULL:
            raise MemoryError
        c.index = self.count
        c.fd = c.place = -1
        c.steps, c.count = steps.steps, steps.count
        c.http, c.agent, c.tcp_texts = steps.http, steps.agent, steps.tcp_texts
        c.desc = room_over(c.desc_bytes, DESC_SIZE - 1)
        c.found.desc = room_over(c.found.desc_bytes, DESC_SIZE - 1)
        c.line = room_over(c.line_bytes, LINE_SIZE)
        c.own = span_none()
        c.inter = max(1, inter_ms)
        c.found.outcome = O_INI
        c.found.duration_ms = -1
        self.all[self.count] = c
        self.count += 1
        self.checks.append(steps)
        self.own.append(None)
        self.e.now = clock_ms()
        timer_set(&self.e, c, self.e.now + max(1, first_ms))
        return c.index

    def remove(self, int index):
        """Forget a check; what is under way is given up. Its index is not used again."""
        cdef CheckC *c = self.one(index)
        play_drop(&self.e, c)
        timer_set(&self.e, c, 0)
        self.all[index] = NULL
        self.checks[index] = self.own[index] = None
        free(c)

    def aim(self, int index, str host, int port):
        """Where a check goes from the next one on; an empty host stops it until it has one."""
        cdef CheckC *c = self.one(index)
        if host:
            address_of(&c.target, host, port)
        else:
            c.target.n = 0

    def equip(self, int index, *, int send_proxy=0, int connect_ms=0, int timeout_ms=0, bint off_404=False,
              bint asks=False, source=None):
        """How a check is made: PROXY header, time-outs (0: inter alone), `source` as (address, first port, last port)."""
        cdef CheckC *c = self.one(index)
        c.send_proxy, c.connect_timeout, c.timeout = send_proxy, connect_ms, timeout_ms
        c.off_404, c.asks = off_404, asks
        if source is not None:
            address_of(&c.source, source[0], 0)
            c.source_low, c.source_high = source[1], source[2]

    def decide(self, int index, int next_ms, *, int steady=0, int steady_ms=0, bint stopped=False):
        """After a result: when the next check is wanted, and which outcome changes nothing (0: none)."""
        cdef CheckC *c = self.one(index)
        c.steady, c.steady_ms, c.stopped = steady, max(1, steady_ms), stopped
        c.outcome = O_UNK
        if c.phase == P_IDLE and next_ms > 0:
            self.e.now = clock_ms()
            next_at(&self.e, c, max(c.ended, self.e.now - c.inter) + spread(&self.e, next_ms))

    def heed(self, int index, *, int steady=0, int steady_ms=0, bint stopped=False):
        """The server's state has changed otherwise: what changes nothing from now on."""
        cdef CheckC *c = self.one(index)
        c.steady, c.steady_ms, c.stopped = steady, max(1, steady_ms), stopped

    def hasten(self, int index, int ms):
        """The next check comes in `ms` at the latest; one that is under way comes first."""
        cdef CheckC *c = self.one(index)
        self.e.now = clock_ms()
        if c.phase == P_IDLE and c.due > self.e.now + ms:
            timer_set(&self.e, c, self.e.now + max(1, ms))

    def pause(self, int index, bint paused):
        """No more checks; one that is under way ends as it does. Or go on, in time."""
        self.one(index).paused = paused

    def send(self, int index, bytes data):
        """What a check that `asks` sends this time; it begins."""
        cdef CheckC *c = self.one(index)
        self.own[index] = data
        c.own = span_of(data)
        self.e.now = clock_ms()
        play_begin(&self.e, c)
        settled(&self.e, c)

    def turn(self, int64_t most_ms):
        """Run until something is to be decided, somebody rings, or `most_ms` are over: (indices, rung, alarmed)."""
        cdef int64_t until
        cdef int i
        self.e.now = clock_ms()
        until = self.e.now + most_ms
        if not self.e.result_n:
            with nogil:
                run(&self.e, until)
        found = [self.e.results[i] for i in range(self.e.result_n)]
        self.e.result_n = 0
        rung, alarmed = bool(self.e.woken), bool(self.e.alarmed)
        self.e.woken = self.e.alarmed = 0
        return found, rung, alarmed

    def asked(self, int index):
        """True when a result of `turn` is the question what is to be sent."""
        cdef CheckC *c = self.one(index)
        if c.asks and c.outcome != O_UNK:
            c.own = span_none()
        return c.asks and c.outcome == O_UNK

    def outcome(self, int index):
        """The number of what the check found that `turn` told of."""
        return self.one(index).outcome

    def line(self, int index):
        """The line of an agent, None when it did not say one."""
        cdef CheckC *c = self.one(index)
        return span_bytes(room_span(&c.line)) if c.outcome == CODES.index("L7OK") else None

    def show(self, int index):
        """A result that `turn` told of is to be seen by all: together with what was decided of it."""
        publish(self.one(index))

    def note(self, int index, str outcome, int code, bytes text, bint timed=True):
        """What is to be shown of a result whose meaning the control plane found (agents, observe)."""
        cdef CheckC *c = self.one(index)
        cdef int before = c.outcome
        c.outcome, c.code = CODES.index(outcome), code
        unsay(c)
        say_span(c, span_of(text))
        publish(c)
        if not timed:
            c.found.duration_ms = -1
        c.outcome = before

    def recall(self, int index, str outcome, int code, int64_t duration_ms, bytes text):
        """What was found before this process read its file again."""
        cdef CheckC *c = self.one(index)
        c.outcome, c.code = CODES.index(outcome), code
        unsay(c)
        say_span(c, span_of(text))
        publish(c)
        c.found.duration_ms = duration_ms
        c.outcome = O_UNK
        unsay(c)

    # -- from any thread

    def wake(self):
        """End the turn that is under way."""
        eventfd_write(self.e.wake_fd, 1)

    def number(self, int index):
        """Grows with each result of a check."""
        return self.one(index).found.number

    def found(self, int index):
        """(code as HAProxy names it, status of the answer, ms, text) of the last result."""
        cdef CheckC *c = self.one(index)
        cdef char copied[DESC_SIZE]
        cdef Room text = room_over(copied, DESC_SIZE)
        cdef int outcome, code
        cdef int64_t ms
        hk_lock(&c.found.lock)
        outcome, code, ms = c.found.outcome, c.found.code, c.found.duration_ms
        room_put(&text, room_span(&c.found.desc))
        hk_unlock(&c.found.lock)
        return CODES[outcome], code, ms, span_bytes(room_span(&text))

    def busy(self, int index):
        """Whether a check is under way."""
        return self.one(index).phase != P_IDLE

    def counters(self):
        """How many checks were begun, and how many of their results nobody had to hear of."""
        return {"begun": self.e.begun, "quiet": self.e.quiet}
