# The Python side of a stick table; store.pyx does the work.

import os
import threading

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from haptk._fast.counts cimport (D_SERVER_ID, D_SERVER_KEY, KINDS, counts_get, counts_lay_out, counts_rate,
                                 counts_told)
from haptk._fast.scan cimport hk_store
from haptk._fast.sockets cimport clock_ms
from haptk._fast.store cimport (AGES, CHUNK, Entry, FOR_KIN, FOR_OTHERS, Found, Heard, KEY_BINARY, KEY_INTEGER, KEY_IP,
                                KEY_IPV6, KEY_STRING, data_of, dead, forget, held, hk_hash, key_of, lookup, make_room,
                                oldest, power_above, pthread_cond_t, pthread_mutex_t, ring, store_at, store_changes,
                                store_copy, store_count, store_find, store_learn, store_merge, store_put,
                                store_release, store_seek, store_track, sweep, trimmed, version_of)

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *m, const void *attr)
    int pthread_mutex_destroy(pthread_mutex_t *m)
    int pthread_mutex_lock(pthread_mutex_t *m)
    int pthread_mutex_unlock(pthread_mutex_t *m)

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC, CLOCK_REALTIME
    int clock_gettime(int clock, timespec *t)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_condattr_init(pthread_condattr_t *a)
    int pthread_condattr_setclock(pthread_condattr_t *a, int clock)
    int pthread_cond_init(pthread_cond_t *c, pthread_condattr_t *a)
    int pthread_cond_destroy(pthread_cond_t *c)
    int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, timespec *until)

cdef enum:
    RING_MAX = 1 << 16
    NAMES_MAX = 65535
    NAMES_SHARE = 49152     # of them for names that peers tell
    NAME_BYTES = 2 << 20    # of such names together
    LOOK_MS = 5000          # between two looks for names that nobody uses
    COPY_MAX = 1 << 20      # bytes that one call of entries() copies under the lock

_TYPES = {"string": KEY_STRING, "ip": KEY_IP, "ipv6": KEY_IPV6, "integer": KEY_INTEGER, "binary": KEY_BINARY}
_FIXED = {"ip": 4, "ipv6": 16, "integer": 4}


cdef class Bell:
    """Rung by workers, which have no descriptors in common with anybody; waited for by a thread without the GIL."""

    def __cinit__(self):
        cdef pthread_condattr_t how
        memset(&self.bell, 0, sizeof(BellC))
        pthread_condattr_init(&how)
        pthread_condattr_setclock(&how, CLOCK_MONOTONIC)
        if pthread_mutex_init(&self.bell.lock, NULL) != 0 or pthread_cond_init(&self.bell.rung, &how) != 0:
            raise MemoryError

    def __dealloc__(self):
        pthread_cond_destroy(&self.bell.rung)
        pthread_mutex_destroy(&self.bell.lock)

    def arm(self):
        """The next change rings."""
        hk_store(&self.bell.armed, 1)

    def ring(self):
        """Ring it by hand."""
        with nogil:
            ring(&self.bell)

    def wait(self, int timeout_ms):
        """True when it was rung since the last call, False after `timeout_ms`."""
        cdef BellC *b = &self.bell
        cdef timespec until
        cdef int rung
        with nogil:
            clock_gettime(CLOCK_MONOTONIC, &until)
            until.tv_sec += timeout_ms // 1000
            until.tv_nsec += (timeout_ms % 1000) * 1000000
            if until.tv_nsec >= 1000000000:
                until.tv_sec += 1
                until.tv_nsec -= 1000000000
            pthread_mutex_lock(&b.lock)
            while not b.pending:
                if pthread_cond_timedwait(&b.rung, &b.lock, &until) != 0:
                    break
            rung = b.pending
            b.pending = 0
            pthread_mutex_unlock(&b.lock)
        return bool(rung)


cdef class Table:
    """One stick table. Keys are bytes as core.sticktable makes them; times are milliseconds.

    Every method may be called from any thread, also while workers use the table.
    """

    def __cinit__(self, str name, str type, int length, long long size, expire_s=None, bint nopurge=False, stored=()):
        cdef timespec wall
        memset(&self.store, 0, sizeof(Store))
        if pthread_mutex_init(&self.store.lock, NULL) != 0:
            raise MemoryError
        self.name = name
        self.type = type
        self.length = length
        self.names = [b""]
        self.numbers = {b"": 0}
        self.naming = threading.Lock()
        self.pinned, self.unused, self.vacant = {0}, set(), []
        self.store.type = _TYPES[type]
        self.store.key_size = _FIXED.get(type, length)
        self.stored = tuple(stored)
        for kind, elements, period_ms in self.stored:
            if not 0 <= kind < KINDS or kind in (D_SERVER_ID, D_SERVER_KEY) or not 0 < elements <= 100 or period_ms < 0:
                raise ValueError(f"kind {kind} of {elements} elements over {period_ms} ms")
            self.store.layout.stored |= <uint32_t>1 << <int>kind
            self.store.layout.elements[<int>kind] = elements
            self.store.layout.period_ms[<int>kind] = max(period_ms, 1)
        if counts_lay_out(&self.store.layout) < 0:
            raise ValueError("too much data for one entry")
        self.store.entry_size = sizeof(Entry) + self.store.layout.size + self.store.key_size
        self.store.entry_size = (self.store.entry_size + (7 if self.stored else 3)) & ~(7 if self.stored else 3)
        clock_gettime(CLOCK_REALTIME, &wall)
        self.store.wall_ms = <int64_t>wall.tv_sec * 1000 + wall.tv_nsec // 1000000 - clock_ms()
        self.store.seed = int.from_bytes(os.urandom(8), "little")
        self.reshape(size, expire_s, nopurge)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range((self.store.made + CHUNK - 1) // CHUNK):
            free(self.store.chunks[i])
        free(self.store.chunks)
        free(self.store.buckets)
        free(self.store.ring)
        pthread_mutex_destroy(&self.store.lock)

    def reshape(self, long long size, expire_s=None, bint nopurge=False):
        """Change what a new configuration may change; a smaller table keeps the entries that were used last."""
        cdef Store *t = &self.store
        cdef uint32_t limit = <uint32_t>min(max(size, 1), 1 << 31), first, before, i
        cdef uint32_t expire_ms = 0 if expire_s is None else max(1, round(expire_s * 1000))
        cdef uint32_t now = <uint32_t>clock_ms()
        cdef int failed
        cdef Entry *e
        with nogil:
            pthread_mutex_lock(&t.lock)
            failed = make_room(t, limit)
            if failed == 0:
                before = t.expire_ms
                if before != expire_ms:
                    # a used entry keeps the moment of its last use and ends by the new rule
                    for i in range(t.made):
                        e = store_at(t, i)
                        if e.used:
                            e.expire = (now if before == 0 else e.expire - before) + expire_ms
                t.limit = limit
                t.expire_ms = expire_ms
                t.nopurge = nopurge
                while t.used > limit:
                    first = oldest(t, now)
                    if first == 0:
                        break
                    forget(t, first - 1)
            pthread_mutex_unlock(&t.lock)
        if failed:
            raise MemoryError

    # ---- names of servers

    cpdef int number_of(self, bytes name, bint pin=False) except -1:
        """The number under which entries of this table name a server; 0 when there are too many names.

        `pin`: it stays that name's for ever, whatever peers say meanwhile.
        """
        with self.naming:
            found = self.numbers.get(name)
            if found is None:
                if not pin and self.crowded(len(name)):
                    self.reclaim()
                    if self.crowded(len(name)):
                        return 0
                if self.vacant:
                    found = self.vacant.pop()
                    self.names[found] = name
                elif len(self.names) > NAMES_MAX:
                    return 0
                else:
                    found = len(self.names)
                    self.names.append(name)
                self.numbers[name] = found
                self.name_bytes += len(name)
            self.unused.discard(found)
            if pin and found not in self.pinned:
                self.pinned.add(found)
                self.name_bytes -= len(name)
            return found

    cdef bint crowded(self, size_t more):
        return self.name_bytes + more > NAME_BYTES or (len(self.names) > NAMES_SHARE and not self.vacant)

    cdef int reclaim(self) except -1:
        # Names that entries had and have no more. Whoever has copied an entry may still be about to look its name up, so
        # a number is taken back when two looks that are seconds apart have not found it.
        cdef Store *t = &self.store
        cdef int64_t now = clock_ms()
        cdef char *found
        cdef uint32_t i, count = <uint32_t>len(self.names)
        cdef Entry *e
        if self.looked_ms and now - self.looked_ms < LOOK_MS:
            return 0
        self.looked_ms = now
        found = <char *>calloc(count + 1, 1)
        if found == NULL:
            return 0
        with nogil:
            pthread_mutex_lock(&t.lock)
            for i in range(t.made):
                e = store_at(t, i)
                if e.used and not dead(t, e, <uint32_t>now) and e.name < count:
                    found[e.name] = 1
            pthread_mutex_unlock(&t.lock)
        gone = set()
        for i in range(1, count):
            if not found[i] and self.names[i] and i not in self.pinned:
                gone.add(i)
        free(found)
        for number in gone & self.unused:
            name = self.names[number]
            del self.numbers[name]
            self.name_bytes -= len(name)
            self.names[number] = b""
            self.vacant.append(number)
            self.renamed += 1
        self.unused = gone - set(self.vacant)
        return 0

    def name_of(self, int number):
        """The name behind a number."""
        return self.names[number] if 0 <= number < len(self.names) else b""

    # ---- reading

    @property
    def size(self):
        """The most entries."""
        return self.store.limit

    @property
    def expire_ms(self):
        """How long an unused entry stays; 0 for ever."""
        return self.store.expire_ms

    @property
    def nopurge(self):
        """Whether a full table learns nothing new."""
        return bool(self.store.nopurge)

    @property
    def used(self):
        """Entries that are in use now; expired ones are cleared away first."""
        cdef Store *t = &self.store
        cdef uint32_t now = <uint32_t>clock_ms(), count
        with nogil:
            pthread_mutex_lock(&t.lock)
            sweep(t, now, 1 << 30)
            count = t.used
            pthread_mutex_unlock(&t.lock)
        return count

    @property
    def memory(self):
        """Bytes allocated for entries and buckets."""
        cdef Store *t = &self.store
        return <size_t>((t.made + CHUNK - 1) // CHUNK) * CHUNK * t.entry_size + <size_t>(t.mask + 1) * 4

    cdef tuple row(self, Entry *e, int64_t now):
        cdef int32_t left = <int32_t>(e.expire - <uint32_t>now) if self.store.expire_ms else 0
        cdef bytes key = key_of(&self.store, e)[:e.length]
        return key, max(left, 0), e.server_id, self.names[e.name], version_of(e), self.told(e, now)

    cdef tuple told(self, Entry *e, int64_t now):
        # What goes over the wire of an entry's data, kind by kind.
        cdef uint64_t told[3]
        cdef int kind, i, k
        cdef list out = []
        for kind in range(KINDS if self.stored else 0):
            if not self.store.layout.stored >> kind & 1:
                continue
            for i in range(self.store.layout.elements[kind]):
                for k in range(counts_told(&self.store.layout, data_of(e), kind, i, <uint32_t>now, told)):
                    out.append(told[k])
        return tuple(out)

    def entries(self, int start=0, int count=4096):
        """(next start, rows) of up to `count` places from `start` on; start 0 is the end. A row is
        (key, ms left, server id, server name, version, data as it goes over the wire)."""
        cdef Store *t = &self.store
        cdef uint32_t i, end, kept = 0, most, begin = start
        cdef int64_t now = clock_ms()
        cdef char *copy
        # Copied under the lock, read without it: Python code under the lock could be switched to another thread that
        # waits for the lock with the GIL in its hands.
        most = max(1, min(<uint32_t>count, COPY_MAX // t.entry_size))
        copy = <char *>malloc(<size_t>most * t.entry_size)
        if copy == NULL:
            raise MemoryError
        with nogil:
            kept = store_copy(t, begin, most, now, copy)
        end = begin + most
        try:
            return (end if end < t.made else 0), [self.row(<Entry *>(copy + <size_t>i * t.entry_size), now) for i in range(kept)]
        finally:
            free(copy)

    cdef Entry *copy_of(self, bytes key, int64_t now) except? NULL:
        # To be freed; NULL when there is no such entry.
        cdef Store *t = &self.store
        cdef const char *p = key
        cdef uint32_t n = trimmed(t, p, <uint32_t>len(key)), got
        cdef Entry *copy = <Entry *>malloc(t.entry_size)
        if copy == NULL:
            raise MemoryError
        with nogil:
            pthread_mutex_lock(&t.lock)
            got = lookup(t, p, n, <uint32_t>hk_hash(p, n, t.seed))
            if got and dead(t, store_at(t, got - 1), <uint32_t>now):
                got = 0
            if got:
                memcpy(copy, store_at(t, got - 1), t.entry_size)
            pthread_mutex_unlock(&t.lock)
        if got == 0:
            free(copy)
            return NULL
        return copy

    def get(self, bytes key):
        """The row of one key, or None; its time goes on."""
        cdef int64_t now = clock_ms()
        cdef Entry *copy = self.copy_of(key, now)
        if copy == NULL:
            return None
        try:
            return self.row(copy, now)
        finally:
            free(copy)

    # ---- changes, for peers

    def listen(self, Bell bell, int room=RING_MAX):
        """Number the changes from now on, remember the last `room` of them, and ring the bell."""
        cdef Store *t = &self.store
        cdef uint32_t count = power_above(min(t.limit, <uint32_t>room), RING_MAX)
        cdef uint32_t *numbers = <uint32_t *>calloc(count, sizeof(uint32_t))
        if numbers == NULL:
            raise MemoryError
        self.bell = bell
        with nogil:
            pthread_mutex_lock(&t.lock)
            if t.ring == NULL:
                t.ring, numbers = numbers, NULL
                t.ring_mask = count - 1
            t.bell = &bell.bell
            pthread_mutex_unlock(&t.lock)
        free(numbers)

    @property
    def seq(self):
        """The number of the last change, modulo 2^32."""
        return self.store.seq

    def changes(self, unsigned int after, int count, bint kin=True):
        """(last number, [(number, row)]) of what changed after a number; None when that is too long ago.

        A peer that is not `kin` does not hear what another one of its own sort has told us.
        """
        cdef Store *t = &self.store
        cdef uint32_t upto = 0
        cdef int64_t now = clock_ms()
        cdef int room = max(1, min(count, COPY_MAX // <int>t.entry_size)), got, i
        cdef char *copy = <char *>malloc(<size_t>room * t.entry_size)
        cdef Entry *e
        if copy == NULL:
            raise MemoryError
        with nogil:
            got = store_changes(t, after, FOR_KIN if kin else FOR_OTHERS, copy, room, &upto)
        try:
            if got < 0:
                return None
            out = []
            for i in range(got):
                e = <Entry *>(copy + <size_t>i * t.entry_size)
                out.append((e.seq, self.row(e, now)))
            return upto, out
        finally:
            free(copy)

    # ---- changing

    def find(self, bytes key):
        """(server id, name) of a key whose time begins anew, or None: what a worker does for a `stick match`."""
        cdef Found found
        if store_find(&self.store, key, <uint32_t>len(key), clock_ms(), &found):
            return found.server_id, self.names[found.name]
        return None

    def learn(self, bytes key, int server_id, bytes name=b""):
        """Set the server of a key; False when the table is full and does not purge."""
        cdef int number = self.number_of(name)
        return bool(store_learn(&self.store, key, <uint32_t>len(key), clock_ms(), server_id, <uint16_t>number))

    def teach(self, bytes key, unsigned int left_ms, int server_id, bytes name=b""):
        """The same with the time that is left, as something learned elsewhere: no peer is told."""
        return self.merge(key, left_ms, server_id, name, acked=self.store.seq, quiet=True)

    def audience(self, int tag, bint kin, int others):
        """The number of this node among its peers (0 to 255), whether one of them is haptk, and how many are not."""
        cdef Store *t = &self.store
        with nogil:
            pthread_mutex_lock(&t.lock)
            t.tag, t.kin, t.others = <uint8_t>tag, kin, others
            pthread_mutex_unlock(&t.lock)

    def merge(
        self, bytes key, unsigned int left_ms, int server_id, bytes name, unsigned int acked=0, unsigned long long version=0,
        tuple data=(), bint quiet=False, kinds=None,
    ):
        """Take what a peer says, which has confirmed our changes up to `acked`; see store_merge.

        `data` is a row's last part, or as much of it as belongs to `kinds`.
        """
        cdef Heard heard
        cdef uint64_t *told = NULL
        cdef int i
        cdef const char *p = key
        heard.left_ms, heard.server_id, heard.name = left_ms, server_id, <uint16_t>self.number_of(name)
        heard.quiet, heard.acked, heard.version, heard.kinds, heard.data = quiet, acked, version, 0, NULL
        if data and self.stored:
            heard.kinds = self.store.layout.stored
            if kinds is not None:
                heard.kinds &= <uint32_t>sum(1 << kind for kind in kinds)
            if len(data) != self.told_count(heard.kinds):
                raise ValueError(f"{len(data)} numbers of data")
            told = <uint64_t *>malloc(len(data) * sizeof(uint64_t))
            if told == NULL:
                raise MemoryError
            for i in range(len(data)):
                told[i] = data[i]
            heard.data = told
        try:
            return bool(store_merge(&self.store, p, <uint32_t>len(key), clock_ms(), &heard))
        finally:
            free(told)

    cdef int told_count(self, uint32_t kinds):
        cdef int kind, count = 0
        for kind in range(KINDS):
            if kinds >> kind & 1:
                count += self.store.layout.elements[kind] * (3 if counts_rate(kind) else 1)
        return count

    # ---- data

    def hold(self, bytes key):
        """Track a key as a session does: a number for the calls below, 0 without room. `release` it."""
        return store_track(&self.store, key, <uint32_t>len(key), clock_ms())

    def release(self, unsigned int tracked):
        """The end of what `hold` began."""
        store_release(&self.store, tracked, clock_ms())

    def count(self, unsigned int tracked, kinds, long long n=1, int element=0):
        """Add to the kinds that are stored."""
        cdef uint32_t bits = 0
        for kind in kinds:
            bits |= <uint32_t>1 << <int>kind
        store_count(&self.store, tracked, bits, element, n, clock_ms())

    def put(self, bytes key, int kind, unsigned long long value, int element=0):
        """Set one element; the entry is made when there is none. False without room, or when nothing such is stored."""
        cdef uint32_t got
        if not 0 <= kind < KINDS or not self.store.layout.stored >> kind & 1:
            return False
        got = store_track(&self.store, key, <uint32_t>len(key), clock_ms())
        store_put(&self.store, got, kind, element, value, clock_ms())
        store_release(&self.store, got, clock_ms())
        return got != 0

    def seek(self, bytes key, int kind, int element=0):
        """The value of a key, or None without such an entry; its time goes on."""
        cdef uint64_t value = 0
        if store_seek(&self.store, key, <uint32_t>len(key), kind, element, clock_ms(), &value):
            return value
        return None

    def values(self, bytes key):
        """(holders, [(kind, element, value)]) of a key, as `show table` wants them; None when there is no such entry."""
        cdef Store *t = &self.store
        cdef int64_t now = clock_ms()
        cdef Entry *copy = self.copy_of(key, now)
        cdef int kind, i
        if copy == NULL:
            return None
        found = []
        for kind in range(KINDS if self.stored else 0):
            if t.layout.stored >> kind & 1:
                for i in range(t.layout.elements[kind]):
                    found.append((kind, i, counts_get(&t.layout, data_of(copy), kind, i, <uint32_t>now)))
        holders = (<uint32_t *>data_of(copy))[0] if self.stored else 0
        free(copy)
        return holders, found

    def delete(self, bytes key):
        """Forget one key; False when it is not there, or a session tracks it."""
        cdef Store *t = &self.store
        cdef const char *p = key
        cdef uint32_t n = trimmed(t, p, <uint32_t>len(key)), got
        with nogil:
            pthread_mutex_lock(&t.lock)
            got = lookup(t, p, n, <uint32_t>hk_hash(p, n, t.seed))
            if got and held(t, store_at(t, got - 1)):
                got = 0
            if got:
                forget(t, got - 1)
            pthread_mutex_unlock(&t.lock)
        return got != 0

    def clear(self):
        """Forget everything but what sessions track."""
        cdef Store *t = &self.store
        cdef int i
        with nogil:
            pthread_mutex_lock(&t.lock)
            for i in range(AGES):
                while t.front[i]:
                    forget(t, t.front[i] - 1)
            pthread_mutex_unlock(&t.lock)
