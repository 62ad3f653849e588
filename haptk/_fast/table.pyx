# The list that an entry stands in says about how much of the table's time it has left: what was used here stands in the
# first one, what a peer sent with less time stands in a later one. Each list is in order of use, so the next entry to
# expire is at one of sixteen fronts, exactly for our own and to a sixteenth of the time for others'.

import os
import threading

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from haptk._fast.scan cimport hk_load, hk_store
from haptk._fast.sockets cimport clock_ms

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *m, const void *attr)
    int pthread_mutex_destroy(pthread_mutex_t *m)
    int pthread_mutex_lock(pthread_mutex_t *m)
    int pthread_mutex_unlock(pthread_mutex_t *m)

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *t)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_condattr_init(pthread_condattr_t *a)
    int pthread_condattr_setclock(pthread_condattr_t *a, int clock)
    int pthread_cond_init(pthread_cond_t *c, pthread_condattr_t *a)
    int pthread_cond_destroy(pthread_cond_t *c)
    int pthread_cond_signal(pthread_cond_t *c)
    int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, timespec *until)

cdef enum:
    BUCKETS_MAX = 1 << 24
    RING_MAX = 1 << 16
    NAMES_MAX = 65535
    COPY_MAX = 1 << 20      # bytes that one call of entries() copies under the lock
    SWEEP = 2               # expired entries that one insertion clears away

_TYPES = {"string": KEY_STRING, "ip": KEY_IP, "ipv6": KEY_IPV6, "integer": KEY_INTEGER, "binary": KEY_BINARY}
_FIXED = {"ip": 4, "ipv6": 16, "integer": 4}


cdef inline Entry *at(Store *t, uint32_t index) noexcept nogil:
    return <Entry *>(t.chunks[index // CHUNK] + <size_t>(index % CHUNK) * t.entry_size)


cdef inline char *key_of(Entry *e) noexcept nogil:
    return <char *>e + sizeof(Entry)


cdef Entry *store_entry(Store *t, uint32_t index) noexcept nogil:
    return at(t, index)


cdef void store_lock(Store *t) noexcept nogil:
    pthread_mutex_lock(&t.lock)


cdef void store_unlock(Store *t) noexcept nogil:
    pthread_mutex_unlock(&t.lock)


cdef inline bint dead(Store *t, Entry *e, uint32_t now) noexcept nogil:
    return t.expire_ms != 0 and <int32_t>(e.expire - now) <= 0


# ---------------------------------------------------------------- lists by age

cdef void unlist(Store *t, uint32_t index, Entry *e) noexcept nogil:
    if e.older:
        at(t, e.older - 1).newer = e.newer
    else:
        t.front[e.age] = e.newer
    if e.newer:
        at(t, e.newer - 1).older = e.older
    else:
        t.back[e.age] = e.older
    e.older = e.newer = 0


cdef void enlist(Store *t, uint32_t index, Entry *e, uint8_t age) noexcept nogil:
    e.age = age
    e.newer = 0
    e.older = t.back[age]
    if e.older:
        at(t, e.older - 1).newer = index + 1
    else:
        t.front[age] = index + 1
    t.back[age] = index + 1


cdef uint32_t oldest(Store *t, uint32_t now) noexcept nogil:
    # Index + 1 of the entry that expires next, 0 when there is none.
    cdef uint32_t best = 0
    cdef int32_t left, best_left = 0
    cdef int i
    for i in range(AGES):
        if t.front[i] == 0:
            continue
        left = <int32_t>(at(t, t.front[i] - 1).expire - now) if t.expire_ms else 0
        if best == 0 or left < best_left:
            best, best_left = t.front[i], left
    return best


# ---------------------------------------------------------------- entries

cdef void forget(Store *t, uint32_t index) noexcept nogil:
    cdef Entry *e = at(t, index)
    cdef uint32_t *link = &t.buckets[e.hash & t.mask]
    while link[0] != index + 1:
        link = &at(t, link[0] - 1).next
    link[0] = e.next
    unlist(t, index, e)
    e.used = 0
    e.seq = 0
    e.next = t.free
    t.free = index + 1
    t.used -= 1


cdef void sweep(Store *t, uint32_t now, int most) noexcept nogil:
    cdef uint32_t first
    cdef int _k
    if t.expire_ms == 0:
        return
    for _k in range(most):
        first = oldest(t, now)
        if first == 0 or not dead(t, at(t, first - 1), now):
            return
        forget(t, first - 1)


cdef uint32_t lookup(Store *t, const char *key, uint32_t n, uint32_t hash) noexcept nogil:
    # Index + 1, expired or not.
    cdef uint32_t here = t.buckets[hash & t.mask]
    cdef Entry *e
    while here:
        e = at(t, here - 1)
        if e.hash == hash and e.length == n and memcmp(key_of(e), key, n) == 0:
            return here
        here = e.next
    return 0


cdef uint32_t fresh(Store *t) noexcept nogil:
    # Index + 1 of unused memory, 0 when there is none.
    cdef uint32_t got = t.free
    cdef uint32_t place
    if got:
        t.free = at(t, got - 1).next
        return got
    if t.made % CHUNK == 0:
        place = t.made // CHUNK
        if place >= t.chunk_room:
            return 0
        t.chunks[place] = <char *>malloc(<size_t>CHUNK * t.entry_size)
        if t.chunks[place] == NULL:
            return 0
    t.made += 1
    at(t, t.made - 1).used = 0
    return t.made


cdef uint32_t insert(Store *t, const char *key, uint32_t n, uint32_t hash, uint32_t now) noexcept nogil:
    # A new entry without a server, not in any list yet; index + 1, or 0 when there is no room.
    cdef uint32_t got
    cdef Entry *e
    sweep(t, now, SWEEP)
    while t.used >= t.limit:
        got = oldest(t, now)
        if got == 0 or (t.nopurge and not dead(t, at(t, got - 1), now)):
            return 0
        forget(t, got - 1)
    got = fresh(t)
    if got == 0:
        return 0
    e = at(t, got - 1)
    memset(e, 0, sizeof(Entry))
    e.hash = hash
    e.length = <uint16_t>n
    e.used = 1
    memcpy(key_of(e), key, n)
    e.next = t.buckets[hash & t.mask]
    t.buckets[hash & t.mask] = got
    t.used += 1
    return got


cdef void ring(BellC *b) noexcept nogil:
    pthread_mutex_lock(&b.lock)
    hk_store(&b.armed, 0)
    b.pending = 1
    pthread_cond_signal(&b.rung)
    pthread_mutex_unlock(&b.lock)


cdef inline void note(Store *t, uint32_t index, Entry *e) noexcept nogil:
    # Tell the peers, unless they have not even seen the last change: then they will see both at once.
    if t.ring == NULL or (e.seq and <int32_t>(e.seq - t.pushed) > 0 and t.seq - e.seq <= t.ring_mask):
        return
    note_again(t, index, e)


cdef void note_again(Store *t, uint32_t index, Entry *e) noexcept nogil:
    if t.ring == NULL:
        return
    t.seq += 1
    if t.seq == 0:
        t.seq = 1
    e.seq = t.seq
    t.ring[t.seq & t.ring_mask] = index
    if t.bell != NULL and hk_load(&t.bell.armed):
        ring(t.bell)


cdef inline void renew(Store *t, uint32_t index, Entry *e, uint32_t now) noexcept nogil:
    e.expire = now + t.expire_ms
    if t.back[0] != index + 1:
        unlist(t, index, e)
        enlist(t, index, e, 0)


cdef inline uint32_t trimmed(Store *t, const char *key, uint32_t n) noexcept nogil:
    # A binary key is padded with zeros to its size, so zeros at its end mean nothing.
    if n > t.key_size:
        n = t.key_size
    if t.type == KEY_BINARY:
        while n and key[n - 1] == 0:
            n -= 1
    return n


cdef bint store_find(Store *t, const char *key, uint32_t n, int64_t now_ms, Found *out) noexcept nogil:
    cdef uint32_t now = <uint32_t>now_ms, hash, got
    cdef Entry *e
    n = trimmed(t, key, n)
    hash = <uint32_t>hk_hash(key, n, t.seed)
    pthread_mutex_lock(&t.lock)
    got = lookup(t, key, n, hash)
    if got:
        e = at(t, got - 1)
        if dead(t, e, now):
            forget(t, got - 1)
            got = 0
        else:
            renew(t, got - 1, e, now)
            note(t, got - 1, e)
            out.server_id = e.server_id
            out.name = e.name
    pthread_mutex_unlock(&t.lock)
    return got != 0


cdef bint store_learn(Store *t, const char *key, uint32_t n, int64_t now_ms, int32_t server_id, uint16_t name) noexcept nogil:
    cdef uint32_t now = <uint32_t>now_ms, hash, got
    cdef Entry *e
    n = trimmed(t, key, n)
    hash = <uint32_t>hk_hash(key, n, t.seed)
    pthread_mutex_lock(&t.lock)
    got = lookup(t, key, n, hash)
    if got:
        e = at(t, got - 1)
        if e.server_id != server_id or e.name != name:
            e.server_id, e.name = server_id, name
        renew(t, got - 1, e, now)
        note(t, got - 1, e)
    else:
        got = insert(t, key, n, hash, now)
        if got:
            e = at(t, got - 1)
            e.server_id, e.name = server_id, name
            e.expire = now + t.expire_ms
            enlist(t, got - 1, e, 0)
            note(t, got - 1, e)
    pthread_mutex_unlock(&t.lock)
    return got != 0


cdef inline uint8_t age_of(Store *t, uint32_t left_ms) noexcept nogil:
    # Rounded to the younger side: nothing stands behind what lives longer.
    cdef uint64_t age
    if t.expire_ms == 0 or left_ms >= t.expire_ms:
        return 0
    age = <uint64_t>(t.expire_ms - left_ms) * AGES // t.expire_ms
    return <uint8_t>(age if age < AGES else AGES - 1)


cdef bint store_merge(Store *t, const char *key, uint32_t n, int64_t now_ms, uint32_t left_ms, int32_t server_id,
                      uint16_t name, uint32_t acked, bint wins) noexcept nogil:
    cdef uint32_t now = <uint32_t>now_ms, hash, got, own
    cdef bint same = 0, contested = 0
    cdef Entry *e
    if t.expire_ms and left_ms > t.expire_ms:
        left_ms = t.expire_ms
    n = trimmed(t, key, n)
    hash = <uint32_t>hk_hash(key, n, t.seed)
    pthread_mutex_lock(&t.lock)
    got = lookup(t, key, n, hash)
    if got:
        e = at(t, got - 1)
        if not dead(t, e, now):
            same = e.name == name if name else e.name == 0 and e.server_id == server_id
            contested = not same and e.seq != 0 and <int32_t>(e.seq - acked) > 0
            own = <uint32_t>(e.expire - now)
            if same and t.expire_ms and own > left_ms:
                left_ms = own       # whoever used it last says how long it lives
        if contested and wins:
            note_again(t, got - 1, e)   # the other side may have had ours before its own: it hears it once more
            pthread_mutex_unlock(&t.lock)
            return 1
        unlist(t, got - 1, e)
    else:
        got = insert(t, key, n, hash, now)
    if got:
        e = at(t, got - 1)
        e.server_id, e.name = server_id, name
        e.expire = now + left_ms
        enlist(t, got - 1, e, age_of(t, left_ms))
        if contested:
            note_again(t, got - 1, e)
    pthread_mutex_unlock(&t.lock)
    return got != 0


cdef int store_changes(Store *t, uint32_t after, char *rows, int room, uint32_t *upto) noexcept nogil:
    cdef uint32_t number = after, index
    cdef int count = 0
    cdef Entry *e
    pthread_mutex_lock(&t.lock)
    if t.ring == NULL or t.seq - after > t.ring_mask:
        count = -1
    while count >= 0 and count < room and number != t.seq:
        number += 1
        index = t.ring[number & t.ring_mask]
        e = at(t, index) if index < t.made else NULL
        if e != NULL and e.used and e.seq == number:
            memcpy(rows + <size_t>count * t.entry_size, e, t.entry_size)
            count += 1
    upto[0] = number
    if count >= 0 and <int32_t>(number - t.pushed) > 0:
        t.pushed = number       # what changes from here on is a new change
    pthread_mutex_unlock(&t.lock)
    return count


cdef int store_copy(Store *t, uint32_t start, uint32_t count, int64_t now_ms, char *rows) noexcept nogil:
    cdef uint32_t i = start, end
    cdef int kept = 0
    cdef Entry *e
    pthread_mutex_lock(&t.lock)
    end = t.made if t.made < start + count else start + count
    while i < end:
        e = at(t, i)
        if e.used and not dead(t, e, <uint32_t>now_ms):
            memcpy(rows + <size_t>kept * t.entry_size, e, t.entry_size)
            kept += 1
        i += 1
    t.pushed = t.seq
    pthread_mutex_unlock(&t.lock)
    return kept


# ---------------------------------------------------------------- size

cdef uint32_t power_above(uint32_t n, uint32_t most) noexcept nogil:
    cdef uint32_t p = 16
    while p < n and p < most:
        p <<= 1
    return p


cdef int make_room(Store *t, uint32_t limit) noexcept nogil:
    # Buckets and chunk places for `limit` entries; 0, or -1 without memory (nothing has changed then). Never shrinks.
    cdef uint32_t count = power_above(limit, BUCKETS_MAX), places = limit // CHUNK + 1, i, here, following
    cdef uint32_t *buckets
    cdef char **chunks
    cdef Entry *e
    if places > t.chunk_room:
        chunks = <char **>realloc(t.chunks, places * sizeof(char *))
        if chunks == NULL:
            return -1
        t.chunks = chunks
        t.chunk_room = places
    if t.buckets != NULL and count <= t.mask + 1:
        return 0
    buckets = <uint32_t *>calloc(count, sizeof(uint32_t))
    if buckets == NULL:
        return -1
    if t.buckets != NULL:
        for i in range(t.mask + 1):
            here = t.buckets[i]
            while here:
                e = at(t, here - 1)
                following = e.next
                e.next = buckets[e.hash & (count - 1)]
                buckets[e.hash & (count - 1)] = here
                here = following
        free(t.buckets)
    t.buckets = buckets
    t.mask = count - 1
    return 0


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

    def __cinit__(self, str name, str type, int length, long long size, expire_s=None, bint nopurge=False):
        memset(&self.store, 0, sizeof(Store))
        if pthread_mutex_init(&self.store.lock, NULL) != 0:
            raise MemoryError
        self.name = name
        self.type = type
        self.length = length
        self.names = [b""]
        self.numbers = {b"": 0}
        self.naming = threading.Lock()
        self.store.type = _TYPES[type]
        self.store.key_size = _FIXED.get(type, length)
        self.store.entry_size = (sizeof(Entry) + self.store.key_size + 3) & ~3
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
                        e = at(t, i)
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

    cpdef int number_of(self, bytes name) except -1:
        """The number under which entries of this table name a server; 0 when there are too many names."""
        with self.naming:
            found = self.numbers.get(name)
            if found is None:
                if len(self.names) > NAMES_MAX:
                    return 0
                found = len(self.names)
                self.names.append(name)
                self.numbers[name] = found
            return found

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
        return key_of(e)[:e.length], max(left, 0), e.server_id, self.names[e.name]

    def entries(self, int start=0, int count=4096):
        """(next start, rows) of up to `count` places from `start` on; start 0 is the end. A row is (key, ms left, id, name)."""
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

    def get(self, bytes key):
        """The row of one key, or None; its time goes on."""
        cdef Store *t = &self.store
        cdef int64_t now = clock_ms()
        cdef const char *p = key
        cdef uint32_t n = trimmed(t, p, <uint32_t>len(key)), got
        cdef Entry *copy = <Entry *>malloc(t.entry_size)
        if copy == NULL:
            raise MemoryError
        with nogil:
            pthread_mutex_lock(&t.lock)
            got = lookup(t, p, n, <uint32_t>hk_hash(p, n, t.seed))
            if got and dead(t, at(t, got - 1), <uint32_t>now):
                got = 0
            if got:
                memcpy(copy, at(t, got - 1), t.entry_size)
            pthread_mutex_unlock(&t.lock)
        try:
            return self.row(copy, now) if got else None
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

    def changes(self, unsigned int after, int count):
        """(last number, [(number, row)]) of what changed after a number; None when that is too long ago."""
        cdef Store *t = &self.store
        cdef uint32_t upto = 0
        cdef int64_t now = clock_ms()
        cdef int room = max(1, min(count, COPY_MAX // <int>t.entry_size)), got, i
        cdef char *copy = <char *>malloc(<size_t>room * t.entry_size)
        cdef Entry *e
        if copy == NULL:
            raise MemoryError
        with nogil:
            got = store_changes(t, after, copy, room, &upto)
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
        cdef int number = self.number_of(name)
        return bool(
            store_merge(
                &self.store, key, <uint32_t>len(key), clock_ms(), left_ms, server_id, <uint16_t>number,
                self.store.seq, 0,
            )
        )

    def merge(
        self, bytes key, unsigned int left_ms, int server_id, bytes name, unsigned int acked, bint wins
    ):
        """The same from a peer that has confirmed our changes up to `acked`; `wins` settles what both learned at once."""
        cdef int number = self.number_of(name)
        return bool(
            store_merge(
                &self.store, key, <uint32_t>len(key), clock_ms(), left_ms, server_id, <uint16_t>number, acked, wins
            )
        )

    def delete(self, bytes key):
        """Forget one key; False when it is not there."""
        cdef Store *t = &self.store
        cdef const char *p = key
        cdef uint32_t n = trimmed(t, p, <uint32_t>len(key)), got
        with nogil:
            pthread_mutex_lock(&t.lock)
            got = lookup(t, p, n, <uint32_t>hk_hash(p, n, t.seed))
            if got:
                forget(t, got - 1)
            pthread_mutex_unlock(&t.lock)
        return got != 0

    def clear(self):
        """Forget everything."""
        cdef Store *t = &self.store
        cdef int i
        with nogil:
            pthread_mutex_lock(&t.lock)
            for i in range(AGES):
                while t.front[i]:
                    forget(t, t.front[i] - 1)
            pthread_mutex_unlock(&t.lock)
