# Header forms were compared with HAProxy 2.6 byte by byte (tests/diff/test_diff_logs.py).

import os
import stat
from array import array

cimport cython

from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from haptk._fast.conf cimport Image
from haptk._fast.descriptors cimport FD_LANE, FD_LOG, fd_opened, fd_ring, fd_used
from haptk._fast.inet cimport AF_UNIX, sockaddr
from haptk._fast.journal cimport Record, lane_next
from haptk._fast.scan cimport hk_fence, hk_load, hk_release, hk_store, put_decimal
from haptk._fast.sockets cimport clock_ms, close_fd
from haptk._fast.worker cimport DataWorker
from haptk.formats.haproxy_cfg.logs import FACILITIES, LEVELS
from haptk.io.descriptors import inherited
from haptk.proxy.logformats import HEADERS, header_of

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <pthread.h>
    #include <poll.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    """

cdef extern from "<sys/socket.h>" nogil:
    cdef struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int SOCK_DGRAM, SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL, SOL_SOCKET, SO_RCVBUF
    int socket(int family, int kind, int protocol)
    int connect(int fd, const sockaddr *addr, unsigned int n)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int n)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int n, int flags)

cdef extern from "<sys/uio.h>" nogil:
    long writev(int fd, const iovec *pieces, int n)

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    short POLLIN, POLLOUT
    int poll(pollfd *fds, unsigned long n, int timeout_ms)

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *m, void *attr)
    int pthread_mutex_lock(pthread_mutex_t *m)
    int pthread_mutex_unlock(pthread_mutex_t *m)
    int pthread_mutex_destroy(pthread_mutex_t *m)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd_read(int fd, uint64_t *value)

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct tm:
        int tm_sec, tm_min, tm_hour, tm_mday, tm_mon, tm_year
        long tm_gmtoff
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    tm *localtime_r(const time_t *t, tm *out)
    int nanosleep(const timespec *wanted, timespec *left)
    void tzset()

cdef extern from "<stdio.h>" nogil:
    int snprintf(char *out, size_t n, const char *form, ...)

cdef enum:
    PIPE_WHOLE = 4096       # PIPE_BUF: a write up to here is not torn
    RETRY_MS = 1000         # between two attempts to open a place that is not there
    WAIT_MS = 20            # for a slow reader, several times until it counts as stalled
    WAITS = 5
    QUICK_NS = 1000000      # naps while lines come quickly, and while they come slowly
    SLOW_NS = 5000000
    MANY = 8                # so many lines in a nap are quickly
    EMPTY_ROUNDS = 3        # then the thread sleeps until a worker wakes it
    SLEEP_MS = 10000

cdef const char *MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"


# ---------------------------------------------------------------- rings in memory

cdef void copy_in(EventsC *e, uint64_t at, const char *p, uint32_t n) noexcept nogil:
    cdef uint32_t start = <uint32_t>(at % e.size), first = n if n <= e.size - start else e.size - start
    memcpy(e.d + start, p, first)
    memcpy(e.d, p + first, n - first)


cdef void copy_out(EventsC *e, uint64_t at, char *p, uint32_t n) noexcept nogil:
    cdef uint32_t start = <uint32_t>(at % e.size), first = n if n <= e.size - start else e.size - start
    memcpy(p, e.d + start, first)
    memcpy(p + first, e.d, n - first)


cdef void events_put(EventsC *e, Line *line) noexcept nogil:
    cdef uint32_t n = line.length if line.length <= e.most else e.most, gone = 0, part
    cdef uint32_t left = n
    cdef int i
    pthread_mutex_lock(&e.lock)
    if n + 4 > e.size:
        e.dropped += 1
        pthread_mutex_unlock(&e.lock)
        return
    while e.end + n + 4 - e.first > e.size:
        copy_out(e, e.first, <char *>&gone, 4)
        e.first += gone + 4
    copy_in(e, e.end, <char *>&n, 4)
    e.end += 4
    for i in range(line.pieces):
        part = <uint32_t>line.piece[i].iov_len if line.piece[i].iov_len <= left else left
        copy_in(e, e.end, <char *>line.piece[i].iov_base, part)
        e.end += part
        left -= part
    pthread_mutex_unlock(&e.lock)


@cython.no_gc_clear
cdef class EventRing:
    """Log lines in memory: a `ring` section. The oldest make room for new ones."""

    def __cinit__(self, str name, unsigned int size, unsigned int maxlen, str format, str description):
        self.name, self.description, self.format = name, description, format
        pthread_mutex_init(&self.c.lock, NULL)
        self.c.d = <char *>malloc(size)
        if self.c.d == NULL:
            raise MemoryError
        self.c.size = size
        self.c.most = min(maxlen, size)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.c.lock)
        free(self.c.d)

    @property
    def dropped(self):
        """Lines that were larger than the ring."""
        return self.c.dropped

    @property
    def end(self):
        """The place behind the newest line, for `read`."""
        return self.c.end

    def read(self, unsigned long long after=0):
        """The lines from place `after` on (0: all that are there), and the place for the next call."""
        cdef bytes whole
        cdef uint64_t at, end
        cdef uint32_t n
        cdef char *p
        pthread_mutex_lock(&self.c.lock)
        at = self.c.first if after < self.c.first else after
        end = self.c.end
        try:
            whole = bytes(end - at) if end > at else b""
            p = whole
            copy_out(&self.c, at, p, <uint32_t>len(whole))
        finally:
            pthread_mutex_unlock(&self.c.lock)
        lines = []
        p = whole
        at = 0
        while at < <uint64_t>len(whole):
            memcpy(&n, p + at, 4)
            lines.append(whole[at + 4:at + 4 + n])
            at += 4 + n
        return lines, end


# ---------------------------------------------------------------- headers

cdef inline void add(Line *line, const char *p, uint32_t n) noexcept nogil:
    # To the header, which is the first piece.
    if line.length + n > HEADER_MAX:
        n = HEADER_MAX - line.length
    memcpy(line.header + line.length, p, n)
    line.length += n


cdef void restamp(Target *t, int64_t second) noexcept nogil:
    # The part of the header that changes once a second. HAProxy writes local time.
    cdef tm when
    cdef time_t moment = <time_t>second
    t.second = second
    memset(&when, 0, sizeof(when))
    localtime_r(&moment, &when)
    if t.format == LF_LOCAL or t.format == LF_RFC3164:
        t.stamp_n = <uint32_t>snprintf(t.stamp, sizeof(t.stamp), b"%.3s %2d %02d:%02d:%02d ", MONTHS + 3 * when.tm_mon,
                                       when.tm_mday, when.tm_hour, when.tm_min, when.tm_sec)
        return
    t.stamp_n = <uint32_t>snprintf(
        t.stamp, sizeof(t.stamp), b"%04d-%02d-%02dT%02d:%02d:%02d.000000%c%02d:%02d ", when.tm_year + 1900, when.tm_mon + 1,
        when.tm_mday, when.tm_hour, when.tm_min, when.tm_sec, 45 if when.tm_gmtoff < 0 else 43,
        <int>((-when.tm_gmtoff if when.tm_gmtoff < 0 else when.tm_gmtoff) // 3600),
        <int>((-when.tm_gmtoff if when.tm_gmtoff < 0 else when.tm_gmtoff) // 60 % 60))


cdef void stamp(Target *t, Line *line, int64_t wall_us) noexcept nogil:
    cdef int64_t second = wall_us // 1000000
    cdef int64_t us = wall_us % 1000000
    cdef int i
    if t.second != second:
        restamp(t, second)
    if t.format != LF_LOCAL and t.format != LF_RFC3164:
        for i in range(6):
            t.stamp[25 - i] = <char>(48 + us % 10)
            us //= 10
    add(line, t.stamp, t.stamp_n)


cdef void head_line(LogWriter self, Target *t, Line *line, int level, Record *r) noexcept nogil:
    cdef char number[24]
    cdef int priority = level
    line.length = 0
    if t.format == LF_LOCAL or t.format == LF_RFC3164 or t.format == LF_RFC5424 or t.format == LF_PRIORITY:
        priority += t.facility * 8
    if t.format != LF_ISO and t.format != LF_RAW:
        add(line, b"<", 1)
        add(line, number, <uint32_t>put_decimal(number, priority))
        add(line, b">", 1)
    if t.format == LF_RFC5424:
        add(line, b"1 ", 2)
    if t.format <= LF_RFC5424 or t.format == LF_TIMED or t.format == LF_ISO:
        stamp(t, line, r.wall_us)
    if t.format == LF_RFC3164 or t.format == LF_RFC5424:
        add(line, t.host, t.host_n)
        add(line, b" ", 1)
    if t.format <= LF_RFC5424:
        add(line, t.tag, t.tag_n)
        add(line, b" " if t.format == LF_RFC5424 else b"[", 1)
        add(line, self.pid, self.pid_n)
        add(line, b" - " if t.format == LF_RFC5424 else b"]: ", 3)


cdef inline void piece(Line *line, const char *p, uint32_t n, uint32_t *room) noexcept nogil:
    if n > room[0]:
        n = room[0]
    if n == 0:
        return
    line.piece[line.pieces].iov_base = <void *>p
    line.piece[line.pieces].iov_len = n
    line.pieces += 1
    line.length += n
    room[0] -= n


cdef void build(LogWriter self, Target *t, Line *line, Record *r) noexcept nogil:
    # Datagrams are cut with their header, what goes elsewhere only counts its text.
    cdef const char *text = <const char *>r + sizeof(Record)
    cdef uint32_t room = t.length, n = r.structured, header
    cdef int level = r.level if r.level > t.least else t.least
    head_line(self, t, line, level, r)
    header = line.length
    line.length = 0
    line.pieces = 0
    if t.sink.kind != SINK_SOCKET:
        room += header
    piece(line, line.header, header, &room)
    if t.format == LF_RFC5424:
        while n and text[n - 1] == 32:
            n -= 1
        if t.sink.kind != SINK_SOCKET:
            room += n + 2
        if n:
            piece(line, text, n, &room)
            text_end(line, &room)
        else:
            piece(line, b"- ", 2, &room)
        if t.sink.kind != SINK_SOCKET:
            room = t.length
    n = r.length if r.length < room else room
    if t.sink.kind == SINK_RING:
        piece(line, text + r.structured, n, &room)
        return
    # the line end stands behind the text already, but for a line that is cut
    if n == r.length:
        room += 1
        piece(line, text + r.structured, n + 1, &room)
    else:
        piece(line, text + r.structured, n, &room)
        room = 1
        if line.pieces == PIECES:
            line.pieces -= 1
        piece(line, b"\n", 1, &room)


cdef void text_end(Line *line, uint32_t *room) noexcept nogil:
    # The blank behind structured data.
    piece(line, b" ", 1, room)


# ---------------------------------------------------------------- places

cdef bint open_sink(Sink *s) noexcept nogil:
    # A datagram socket that is connected: the kernel looks its way up once. 0 when it cannot be had now.
    cdef int none = 0
    if s.fd >= 0:
        return 1
    if s.place == NULL or clock_ms() < s.again_ms:
        return 0
    s.again_ms = clock_ms() + RETRY_MS
    s.fd = socket(s.place.family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if s.fd < 0:
        return 0
    fd_opened(s.fd, FD_LOG)
    setsockopt(s.fd, SOL_SOCKET, SO_RCVBUF, &none, sizeof(none))
    if connect(s.fd, <const sockaddr *>&s.place.addr, s.place.addr_len) == 0:
        return 1
    close_fd(s.fd)
    s.fd = -1
    return 0


cdef bint writable(int fd, int wait_ms) noexcept nogil:
    cdef pollfd p
    p.fd, p.events, p.revents = fd, POLLOUT, 0
    return poll(&p, 1, wait_ms) > 0


cdef bint worth_waiting(LogWriter self, Sink *s, int *waited) noexcept nogil:
    # For a reader that is slow: while no lane is half full, and not again for one that has stalled.
    cdef int i, used
    if s.stalled:
        return 0
    for i in range(self.lane_count):
        used = hk_load(&self.lanes[i].head) - self.lanes[i].tail
        if used < 0:
            used += <int>self.lanes[i].size
        if used > <int>self.lanes[i].size // 2:
            return 0
    waited[0] += 1
    return waited[0] <= WAITS


cdef void send_batch(LogWriter self, Sink *s) noexcept nogil:
    cdef mmsghdr messages[BATCH]
    cdef int i, at = 0, got, waited = 0, again = 0
    if not open_sink(s):
        s.dropped += s.count
        return
    memset(messages, 0, sizeof(mmsghdr) * s.count)
    for i in range(s.count):
        messages[i].msg_hdr.msg_iov = s.lines[i].piece
        messages[i].msg_hdr.msg_iovlen = s.lines[i].pieces
    while at < s.count:
        fd_used(s.fd, FD_LOG, b"written")
        got = sendmmsg(s.fd, messages + at, s.count - at, MSG_DONTWAIT | MSG_NOSIGNAL)
        if got > 0:
            at += got
            s.stalled = 0
            s.sent += got
            again = waited = 0
            continue
        if errno == EINTR:
            continue
        if errno == EAGAIN or errno == ENOBUFS:
            if worth_waiting(self, s, &waited):
                writable(s.fd, WAIT_MS)
                continue
            s.stalled = 1
            s.dropped += s.count - at
            return
        # UDP tells of an earlier datagram that nobody wanted, a unix socket of a reader that has gone
        if again == 0 and s.place.family != AF_UNIX:
            again = 1
            s.dropped += 1
            continue
        close_fd(s.fd)
        s.fd = -1
        if again or not open_sink(s):
            s.dropped += s.count - at
            return
        again = 1


cdef void write_batch(LogWriter self, Sink *s) noexcept nogil:
    # Whole lines as far as they fit one write; a pipe that has no room for one is left alone.
    cdef iovec pieces[BATCH * PIECES + 1]
    cdef int at = 0, n, k, i, waited = 0, first
    cdef size_t total
    cdef long put
    while at < s.count:
        n, total, first = 0, 0, at
        if s.torn:
            pieces[0].iov_base = <void *>b"\n"
            pieces[0].iov_len = total = 1
            n = 1
        while at < s.count and (not s.pipe or at == first or total + s.lines[at].length <= PIPE_WHOLE):
            for i in range(s.lines[at].pieces):
                pieces[n] = s.lines[at].piece[i]
                n += 1
            total += s.lines[at].length
            at += 1
        if s.pipe and not writable(s.fd, 0):
            if worth_waiting(self, s, &waited):
                writable(s.fd, WAIT_MS)
                at = first
                continue
            s.stalled = 1
            s.dropped += s.count - first
            return
        put = writev(s.fd, pieces, n)
        if put < 0 and errno == EINTR:
            at = first
            continue
        if put == <long>total:
            s.torn = s.stalled = waited = 0
            s.sent += at - first
            continue
        k = first
        put -= s.torn
        while k < at and put >= <long>s.lines[k].length:
            put -= s.lines[k].length
            k += 1
        if put > 0:
            s.torn = 1
        s.sent += k - first
        s.dropped += at - k


cdef void flush(LogWriter self, Sink *s) noexcept nogil:
    cdef int i
    if s.count == 0:
        return
    if s.kind == SINK_SOCKET:
        send_batch(self, s)
    elif s.kind == SINK_STREAM:
        write_batch(self, s)
    else:
        for i in range(s.count):
            events_put(s.events, &s.lines[i])
    s.count = 0


cdef bint in_sample(Target *t) noexcept nogil:
    # `sample 2,5:8`: of every 8 lines the second and the fifth.
    cdef int *range_ = t.ranges + 2 * t.range_at
    cdef bint wanted = range_[0] <= t.sample_at + 1 <= range_[1]
    if wanted:
        t.range_used += 1
        if t.range_used > range_[1] - range_[0]:
            t.range_used = 0
            t.range_at = (t.range_at + 1) % t.range_count
    t.sample_at = (t.sample_at + 1) % t.sample_size
    return wanted


cdef void hand_out(LogWriter self, Record *r) noexcept nogil:
    cdef int i
    cdef Target *t
    if r.plan >= self.plan_count:
        return
    for i in range(self.plans[r.plan].count):
        t = &self.plans[r.plan].items[i]
        if r.level > t.level or (t.ranges != NULL and not in_sample(t)):
            continue
        if t.sink.count == BATCH:
            flush(self, t.sink)
        build(self, t, &t.sink.lines[t.sink.count], r)
        t.sink.count += 1


cdef int drain(LogWriter self) noexcept nogil:
    # Everything that is there; returns how many lines that were.
    cdef int i, k, n, at, all_of_it = 0
    cdef Record *r
    for i in range(self.lane_count):
        while True:
            at = self.lanes[i].tail
            n = 0
            while n < 4 * BATCH:
                r = lane_next(self.lanes[i], &at)
                if r == NULL:
                    break
                hand_out(self, r)
                n += 1
            for k in range(self.sink_count):
                flush(self, &self.sinks[k])
            hk_release(&self.lanes[i].tail, at)
            all_of_it += n
            if n < 4 * BATCH:
                break
    return all_of_it


# ---------------------------------------------------------------- the thread

cdef bint empty(LogWriter self) noexcept nogil:
    cdef int i
    for i in range(self.lane_count):
        if hk_load(&self.lanes[i].head) != self.lanes[i].tail:
            return 0
    return 1


cdef void sleep_on(LogWriter self) noexcept nogil:
    # Until a worker has a line, or somebody stops us.
    cdef pollfd fds[256]
    cdef uint64_t drained
    cdef int i
    for i in range(self.lane_count):
        hk_store(&self.lanes[i].asleep, 1)
        fds[i].fd, fds[i].events, fds[i].revents = self.lanes[i].wake_fd, POLLIN, 0
    hk_fence()
    if empty(self) and not hk_load(&self.stopping):
        poll(fds, self.lane_count, SLEEP_MS)
    for i in range(self.lane_count):
        hk_store(&self.lanes[i].asleep, 0)
        eventfd_read(self.lanes[i].wake_fd, &drained)


cdef void loop(LogWriter self) noexcept nogil:
    cdef timespec nap
    cdef int n, rounds = 0
    nap.tv_sec = 0
    while True:
        n = drain(self)
        if hk_load(&self.stopping):
            drain(self)
            return
        rounds = 0 if n else rounds + 1
        if rounds > EMPTY_ROUNDS:
            sleep_on(self)
            rounds = 0
            continue
        nap.tv_nsec = QUICK_NS if n >= MANY else SLOW_NS
        nanosleep(&nap, NULL)


@cython.no_gc_clear
cdef class LogWriter:
    """Sends what `workers` (of one image) log. `rings` are EventRings by name; sockets are opened here, before rights go."""

    def __cinit__(self, Image image, list workers, dict rings):
        cdef DataWorker worker
        cdef int i, k
        self.kept, self.blocks = [], array("Q")
        self.image, self.workers, self.rings = image, workers, rings
        for worker in workers:
            if worker.w.lane != NULL and self.lane_count < 256:
                self.lanes[self.lane_count] = worker.w.lane
                self.lane_count += 1
        tables = image.tables
        addresses = sorted({target.address for fe in tables.frontends for target in fe.log.targets})
        self.sinks = <Sink *>self.block(len(addresses), sizeof(Sink))
        for i, address in enumerate(addresses):
            self.fill_sink(&self.sinks[i], address)
        self.sink_count = len(addresses)
        numbers = {address: i for i, address in enumerate(addresses)}
        self.plan_count = len(tables.frontends)
        self.plans = <Targets *>self.block(self.plan_count, sizeof(Targets))
        for i, fe in enumerate(tables.frontends):
            self.plans[i].count = len(fe.log.targets)
            self.plans[i].items = <Target *>self.block(self.plans[i].count, sizeof(Target))
            for k, target in enumerate(fe.log.targets):
                self.fill_target(&self.plans[i].items[k], target, fe.log, numbers)
        tzset()

    def __dealloc__(self):
        cdef int i
        for i in range(self.sink_count):
            if self.sinks[i].owned and self.sinks[i].fd >= 0:
                close_fd(self.sinks[i].fd)
        for address in self.blocks or ():
            free(<void *><size_t>address)

    cdef void *block(self, size_t count, size_t size) except NULL:
        cdef void *got = calloc(count if count else 1, size)
        if got == NULL:
            raise MemoryError
        self.blocks.append(<size_t>got)
        return got

    cdef char *bytes_of(self, value, uint32_t *n) except NULL:
        raw = value.encode("utf-8", "surrogateescape")[:255]
        self.kept.append(raw)
        n[0] = len(raw)
        return <bytes>raw

    cdef int fill_sink(self, Sink *out, str address) except -1:
        cdef Image image = self.image
        cdef EventRing ring
        out.fd = -1
        if address.startswith("ring@"):
            ring = self.rings[address[5:]]
            out.kind, out.events = SINK_RING, &ring.c
        elif address in ("stdout", "stderr") or address.startswith("fd@"):
            out.kind = SINK_STREAM
            out.fd = {"stdout": 1, "stderr": 2}.get(address) or int(address[3:])
            if not inherited(out.fd):
                out.fd = -1     # one of ours may have that number by now
            try:
                out.pipe = not stat.S_ISREG(os.fstat(out.fd).st_mode)
            except OSError:
                out.pipe = 1
        else:
            out.kind, out.owned = SINK_SOCKET, 1
            if address.startswith(("/", "\0")):
                out.place = image.place("", 0, address)
            else:
                host, _, port = address.rpartition(":")
                out.place = image.place(host.strip("[]") or "127.0.0.1", int(port), "")
            open_sink(out)
        return 0

    cdef int fill_target(self, Target *out, target, plan, dict sinks) except -1:
        cdef int i
        form = target.format
        if target.address.startswith("ring@"):
            form = self.rings[target.address[5:]].format
        out.sink = &self.sinks[<int>sinks[target.address]]
        out.format = HEADERS.index(header_of(form, plan.hostname))
        out.facility, out.level = FACILITIES.index(target.facility), LEVELS.index(target.level)
        out.least = LEVELS.index(target.min_level)
        out.length = target.length
        host = plan.hostname or ("localhost" if out.format == LF_RFC3164 else "-")
        out.host = self.bytes_of(host, &out.host_n)
        out.tag = self.bytes_of(plan.tag, &out.tag_n)
        if target.sample:
            out.range_count, out.sample_size = len(target.sample), target.sample_size
            out.ranges = <int *>self.block(2 * out.range_count, sizeof(int))
            for i, (low, high) in enumerate(target.sample):
                out.ranges[2 * i], out.ranges[2 * i + 1] = low, high
        return 0

    def run(self):
        """Send until stopped; call once, from the thread that shall do it."""
        self.pid_n = <uint32_t>put_decimal(self.pid, os.getpid())   # a daemon has forked by now
        with nogil:
            loop(self)

    def stop(self):
        """Ask run() to send what is there and to return; call after the workers have ended."""
        hk_store(&self.stopping, 1)
        if self.lane_count:
            fd_ring(self.lanes[0].wake_fd, FD_LANE)

    def counts(self):
        """(lines sent, lines dropped) of all places together; what full lanes dropped is counted by the workers."""
        sent = sum(self.sinks[i].sent for i in range(self.sink_count))
        return sent, sum(self.sinks[i].dropped for i in range(self.sink_count))
