# Stick tables: the store behind table.pyx.
#
# The list that an entry stands in says about how much of the table's time it has left: what was used here stands in the
# first one, what a peer sent with less time stands in a later one. Each list is in order of use, so the next entry to
# expire is at one of sixteen fronts, exactly for our own and to a sixteenth of the time for others'.
#
# A version orders the contents that a key ever had on any node: Unix milliseconds, 12 bits that count within one, and the
# node's number. It is greater than every version that its node has seen, so what was learned later by somebody who
# knew wins, and between those who did not know of each other all nodes choose the same one, whatever order they hear
# them in. Only a change of content makes a new version; a use does not.

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from haptk._fast.counts cimport (D_CONN_CUR, D_SERVER_ID, KINDS, counts_add, counts_get,
                                 counts_rate, counts_set, counts_take)
from haptk._fast.scan cimport hk_load, hk_store

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_lock(pthread_mutex_t *m)
    int pthread_mutex_unlock(pthread_mutex_t *m)

cdef extern from "<pthread.h>" nogil:
    int pthread_cond_signal(pthread_cond_t *c)

cdef enum:
    BUCKETS_MAX = 1 << 24
    NO_AGE = 255            # stands in no list, because a session holds it
    SWEEP = 2               # expired entries that one insertion clears away

cdef inline Entry *at(Store *t, uint32_t index) noexcept nogil:
    return <Entry *>(t.chunks[index // CHUNK] + <size_t>(index % CHUNK) * t.entry_size)


cdef Entry *store_at(Store *t, uint32_t index) noexcept nogil:
    return at(t, index)


cdef char *data_of(Entry *e) noexcept nogil:
    return <char *>e + sizeof(Entry)


cdef char *key_of(Store *t, Entry *e) noexcept nogil:
    return <char *>e + sizeof(Entry) + t.layout.size


cdef bint held(Store *t, Entry *e) noexcept nogil:
    return t.layout.size != 0 and (<uint32_t *>data_of(e))[0] != 0


cdef bint dead(Store *t, Entry *e, uint32_t now) noexcept nogil:
    return t.expire_ms != 0 and <int32_t>(e.expire - now) <= 0 and not held(t, e)


cdef uint64_t version_of(Entry *e) noexcept nogil:
    return <uint64_t>e.version_high << 32 | e.version_low


cdef inline void set_version(Entry *e, uint64_t version) noexcept nogil:
    e.version_high, e.version_low = <uint32_t>(version >> 32), <uint32_t>version


cdef inline void revise(Store *t, Entry *e, int64_t now_ms) noexcept nogil:
    # The content changes here and now.
    cdef uint64_t tick = <uint64_t>(now_ms + t.wall_ms) << 12, last = t.version >> 8
    t.version = ((last if last > tick else tick) + 1) << 8 | t.tag
    set_version(e, t.version)


# ---------------------------------------------------------------- lists by age

cdef void unlist(Store *t, uint32_t index, Entry *e) noexcept nogil:
    if e.age == NO_AGE:
        return
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
    e.newer = e.older = 0
    e.age = NO_AGE if held(t, e) else age
    if e.age == NO_AGE:
        return              # whoever holds it puts it back
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
        if e.hash == hash and e.length == n and memcmp(key_of(t, e), key, n) == 0:
            return here
        here = e.next
    return 0


cdef uint32_t living(Store *t, const char *key, uint32_t n, uint32_t hash, uint32_t now) noexcept nogil:
    # Index + 1; an expired one is cleared away.
    cdef uint32_t got = lookup(t, key, n, hash)
    if got and dead(t, at(t, got - 1), now):
        forget(t, got - 1)
        got = 0
    return got


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
    memset(e, 0, sizeof(Entry) + t.layout.size)
    e.hash = hash
    e.length = <uint16_t>n
    e.used = 1
    e.age = NO_AGE
    memcpy(key_of(t, e), key, n)
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


cdef void note_again(Store *t, uint32_t index, Entry *e, uint8_t flags) noexcept nogil:
    if t.ring == NULL:
        return
    t.seq += 1
    if t.seq == 0:
        t.seq = 1
    e.seq = t.seq
    e.flags = flags
    t.ring[t.seq & t.ring_mask] = index
    if t.bell != NULL and hk_load(&t.bell.armed):
        ring(t.bell)


cdef inline void note(Store *t, uint32_t index, Entry *e) noexcept nogil:
    # Tell the peers, unless they have not even seen the last change: then they will see both at once.
    if t.ring == NULL:
        return
    if e.seq and <int32_t>(e.seq - t.pushed) > 0 and t.seq - e.seq <= t.ring_mask:
        e.flags = FOR_ALL
        return
    note_again(t, index, e, FOR_ALL)


cdef inline void renew(Store *t, uint32_t index, Entry *e, uint32_t now) noexcept nogil:
    e.expire = now + t.expire_ms
    if t.back[0] != index + 1 and e.age != NO_AGE:
        unlist(t, index, e)
        enlist(t, index, e, 0)


cdef uint32_t trimmed(Store *t, const char *key, uint32_t n) noexcept nogil:
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
    got = living(t, key, n, hash, now)
    if got:
        e = at(t, got - 1)
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
    got = living(t, key, n, hash, now)
    if got:
        e = at(t, got - 1)
        if e.server_id != server_id or e.name != name:
            e.server_id, e.name = server_id, name
            revise(t, e, now_ms)
        renew(t, got - 1, e, now)
        note(t, got - 1, e)
    else:
        got = insert(t, key, n, hash, now)
        if got:
            e = at(t, got - 1)
            e.server_id, e.name = server_id, name
            e.expire = now + t.expire_ms
            revise(t, e, now_ms)
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


cdef void take(Store *t, Entry *e, Heard *heard, uint32_t now) noexcept nogil:
    # What the peer says of server and data; connections that are open there are its own affair.
    cdef const uint64_t *told = heard.data
    cdef int kind, i
    e.server_id, e.name = heard.server_id, heard.name
    if told == NULL:
        return
    for kind in range(KINDS):
        if not heard.kinds >> kind & 1:
            continue
        for i in range(t.layout.elements[kind]):
            if kind != D_CONN_CUR:
                counts_take(&t.layout, data_of(e), kind, i, told, now)
            told += 3 if counts_rate(kind) else 1


cdef uint8_t decide(Store *t, Entry *e, Heard *heard, int64_t now_ms, bint *keep) noexcept nogil:
    # Whether a living entry keeps its content, its version, and whom to tell (0 for nobody).
    cdef bint same = heard.kinds == 0 and (e.name == heard.name if heard.name else e.name == 0 and e.server_id == heard.server_id)
    cdef bint ours = e.seq != 0 and e.flags & FOR_OTHERS
    cdef uint64_t version = version_of(e)
    keep[0] = 0
    if heard.version:
        if heard.version < version:
            keep[0] = 1
            return 0 if same else e.flags | FOR_KIN     # it hears the better one, from whomever
        set_version(e, heard.version)
        keep[0] = heard.version == version
        # what we told the others may have reached them after what this peer told them
        return FOR_ALL if ours and t.others and not same and not keep[0] else 0
    if same:
        return 0
    if ours and <int32_t>(e.seq - heard.acked) > 0:
        keep[0] = 1
        return FOR_ALL      # the other side may have had ours before its own: it hears it once more
    revise(t, e, now_ms)
    if ours and t.others > 1:
        return FOR_ALL
    return FOR_KIN if t.kin else 0


cdef bint store_merge(Store *t, const char *key, uint32_t n, int64_t now_ms, Heard *heard) noexcept nogil:
    cdef uint32_t now = <uint32_t>now_ms, hash, got, left = heard.left_ms
    cdef int32_t own
    cdef uint8_t tell = 0
    cdef bint keep = 0
    cdef Entry *e
    if t.expire_ms and left > t.expire_ms:
        left = t.expire_ms
    n = trimmed(t, key, n)
    hash = <uint32_t>hk_hash(key, n, t.seed)
    pthread_mutex_lock(&t.lock)
    if heard.version > t.version:
        t.version = heard.version
    got = living(t, key, n, hash, now)
    if got:
        e = at(t, got - 1)
        tell = decide(t, e, heard, now_ms, &keep)
        own = <int32_t>(e.expire - now)
        if t.expire_ms and own > <int32_t>left:
            left = <uint32_t>own            # whoever used it last says how long it lives
        unlist(t, got - 1, e)
    else:
        got = insert(t, key, n, hash, now)
        if got:
            e = at(t, got - 1)
            if heard.version or heard.quiet:
                set_version(e, heard.version if heard.version else 1)
            else:
                revise(t, e, now_ms)
                tell = FOR_KIN if t.kin else 0
    if got:
        if not keep:
            take(t, e, heard, now)
        e.expire = now + left
        enlist(t, got - 1, e, age_of(t, left))
        if tell and not heard.quiet:
            note_again(t, got - 1, e, tell)
    pthread_mutex_unlock(&t.lock)
    return got != 0


# ---------------------------------------------------------------- what sessions count

cdef uint32_t store_track(Store *t, const char *key, uint32_t n, int64_t now_ms) noexcept nogil:
    cdef uint32_t now = <uint32_t>now_ms, hash, got
    cdef Entry *e
    if t.layout.size == 0:
        return 0
    n = trimmed(t, key, n)
    hash = <uint32_t>hk_hash(key, n, t.seed)
    pthread_mutex_lock(&t.lock)
    got = living(t, key, n, hash, now)
    if got == 0:
        got = insert(t, key, n, hash, now)
        if got:
            revise(t, at(t, got - 1), now_ms)
    if got:
        e = at(t, got - 1)
        unlist(t, got - 1, e)
        (<uint32_t *>data_of(e))[0] += 1
        e.expire = now + t.expire_ms
        enlist(t, got - 1, e, 0)
    pthread_mutex_unlock(&t.lock)
    return got


cdef void store_release(Store *t, uint32_t tracked, int64_t now_ms) noexcept nogil:
    cdef Entry *e
    if tracked == 0:
        return
    pthread_mutex_lock(&t.lock)
    e = at(t, tracked - 1)
    if held(t, e):
        (<uint32_t *>data_of(e))[0] -= 1
        unlist(t, tracked - 1, e)
        e.expire = <uint32_t>now_ms + t.expire_ms
        enlist(t, tracked - 1, e, 0)
    pthread_mutex_unlock(&t.lock)


cdef void store_count(Store *t, uint32_t tracked, uint32_t kinds, int element, int64_t n, int64_t now_ms) noexcept nogil:
    cdef Entry *e
    cdef int kind
    kinds &= t.layout.stored
    if tracked == 0 or kinds == 0:
        return
    pthread_mutex_lock(&t.lock)
    e = at(t, tracked - 1)
    for kind in range(KINDS):
        if kinds >> kind & 1:
            counts_add(&t.layout, data_of(e), kind, element, n, <uint32_t>now_ms)
    renew(t, tracked - 1, e, <uint32_t>now_ms)
    if kinds != <uint32_t>1 << D_CONN_CUR:
        revise(t, e, now_ms)
        note(t, tracked - 1, e)
    pthread_mutex_unlock(&t.lock)


cdef void store_put(Store *t, uint32_t tracked, int kind, int element, uint64_t value, int64_t now_ms) noexcept nogil:
    cdef Entry *e
    if tracked == 0:
        return
    pthread_mutex_lock(&t.lock)
    e = at(t, tracked - 1)
    counts_set(&t.layout, data_of(e), kind, element, value, <uint32_t>now_ms)
    renew(t, tracked - 1, e, <uint32_t>now_ms)
    revise(t, e, now_ms)
    note(t, tracked - 1, e)
    pthread_mutex_unlock(&t.lock)


cdef uint64_t store_value(Store *t, uint32_t tracked, int kind, int element, int64_t now_ms) noexcept nogil:
    cdef uint64_t value
    if tracked == 0:
        return 0
    pthread_mutex_lock(&t.lock)
    value = counts_get(&t.layout, data_of(at(t, tracked - 1)), kind, element, <uint32_t>now_ms)
    pthread_mutex_unlock(&t.lock)
    return value


cdef bint store_seek(Store *t, const char *key, uint32_t n, int kind, int element, int64_t now_ms, uint64_t *out) noexcept nogil:
    cdef uint32_t hash, got
    cdef Entry *e
    n = trimmed(t, key, n)
    hash = <uint32_t>hk_hash(key, n, t.seed)
    pthread_mutex_lock(&t.lock)
    got = lookup(t, key, n, hash)
    if got:
        e = at(t, got - 1)
        if dead(t, e, <uint32_t>now_ms):
            got = 0
        elif kind == D_SERVER_ID:
            out[0] = <uint64_t>e.server_id
        else:
            out[0] = counts_get(&t.layout, data_of(e), kind, element, <uint32_t>now_ms)
    pthread_mutex_unlock(&t.lock)
    return got != 0


cdef int store_changes(Store *t, uint32_t after, uint8_t audience, char *rows, int room, uint32_t *upto) noexcept nogil:
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
        if e != NULL and e.used and e.seq == number and e.flags & audience:
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
