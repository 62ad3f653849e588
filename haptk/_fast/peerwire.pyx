# A message is written behind room for its length, which is known last and then moved to its place. Numbers are read
# with bounds: what the other side says is never trusted.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset

from haptk._fast.counts cimport D_SERVER_ID, D_SERVER_KEY, KINDS, Layout, counts_told
from haptk._fast.sockets cimport clock_ms
from haptk._fast.store cimport (Entry, FOR_KIN, FOR_OTHERS, Heard, KEY_INTEGER, KEY_STRING, Store, data_of, key_of,
                                store_changes, store_copy, store_merge, version_of)

from haptk.core.peers.wire import CONTENT_VERSION, MESSAGE_MAX, VERSION_MAX, Bad, common_kinds, skip_data

cdef enum:
    ROOM = 48               # of a message beyond its key and name
    NAME_MAX = 4096
    BATCH = 1024            # entries copied at once
    NUMBER = 11             # bytes of a number at most
    NUMBERS_MAX = 1024      # of one entry, from a peer
    VERSION = 62            # wire.CONTENT_VERSION

assert VERSION == CONTENT_VERSION


cdef inline size_t put_int(uint8_t *out, uint64_t v) noexcept nogil:
    cdef size_t n = 1
    if v < 240:
        out[0] = <uint8_t>v
        return 1
    out[0] = <uint8_t>(v | 240)
    v = (v - 240) >> 4
    while v >= 128:
        out[n] = <uint8_t>(v | 128)
        v = (v - 128) >> 7
        n += 1
    out[n] = <uint8_t>v
    return n + 1


cdef inline int get_int(const uint8_t *p, size_t n, size_t *at, uint64_t *v) noexcept nogil:
    # 1 and the number; 0 when it is not all there; -1 for more than 64 bits.
    cdef int shift = 4
    cdef uint64_t add
    cdef size_t i = at[0]
    if i >= n:
        return 0
    v[0] = p[i]
    i += 1
    if v[0] >= 240:
        while True:
            if i >= n:
                return 0
            if shift > 60:
                return -1
            add = <uint64_t>p[i] << shift
            if add >> shift != p[i] or v[0] + add < add:
                return -1
            v[0] += add
            shift += 7
            i += 1
            if p[i - 1] < 128:
                break
    at[0] = i
    return 1


cdef uint64_t need(const uint8_t *p, size_t n, size_t *at) except? 0xffffffffffffffff:
    cdef uint64_t v = 0
    cdef int got = get_int(p, n, at, &v)
    if got == 0:
        raise Bad("a message ends inside a number")
    if got < 0:
        raise Bad("a number of more than 64 bits")
    return v


cdef uint8_t *put_data(Layout *x, Entry *e, uint8_t *p, int first, int end, uint32_t now) noexcept nogil:
    # The kinds from `first` to before `end`, in order; the place behind them.
    cdef uint64_t told[3]
    cdef int kind, i, k, count
    for kind in range(first, end):
        if not x.stored >> kind & 1:
            continue
        for i in range(x.elements[kind]):
            count = counts_told(x, data_of(e), kind, i, now, told)
            for k in range(count):
                p += put_int(p, told[k])
    return p


cdef class Names:
    """Server names of one connection, in both directions."""

    def __cinit__(self):
        memset(self.owner, 0, sizeof(self.owner))
        memset(self.changed, 0, sizeof(self.changed))
        self.received = [None] * SLOTS


cdef class Stream:
    """One table on one connection; see core/peers/updates.py for what each method means."""

    def __cinit__(self, Table table, Names names, uint32_t at):
        self.table = table
        self.names = names
        self.at = self.acked = at
        names.streams += 1
        self.me = names.streams
        self.slots = bytearray(16)
        memset(self.seen, 0, sizeof(self.seen))

    def behind(self):
        """Whether something changed here that was not sent."""
        return self.at != self.table.store.seq

    cdef int remember(self) except -1:
        # Numbers of names may mean other names by now.
        if self.renamed != self.table.renamed:
            self.renamed = self.table.renamed
            self.slots = bytearray(16)
            memset(self.seen, 0, sizeof(self.seen))
        return 0

    cdef size_t names_of(self, char *rows, int count):
        # The bytes of the names of copied entries: each may have to be told in full.
        cdef int i
        cdef size_t total = 0
        for i in range(count):
            total += len(<bytes>self.table.names[(<Entry *>(rows + <size_t>i * self.table.store.entry_size)).name])
        return total

    # ---- sending

    cdef int slot_of(self, int number, bint *fresh):
        cdef Names names = self.names
        cdef int slot
        if number >= len(self.slots):
            self.slots.extend(bytes(number + 16 - len(self.slots)))
        slot = self.slots[number]
        fresh[0] = not (slot and names.owner[slot] == self.me and names.named[slot] == number)
        if fresh[0]:
            names.turn = names.turn % (SLOTS - 1) + 1
            slot = names.turn
            names.owner[slot] = self.me
            names.named[slot] = number
            self.slots[number] = slot
        return slot

    cdef size_t message(self, char *out, void *entry, uint32_t number, bint timed, uint32_t now):
        cdef Store *t = &self.table.store
        cdef Entry *e = <Entry *>entry
        cdef uint8_t *begin = <uint8_t *>out + 7     # two bytes of type, at most five of length
        cdef uint8_t *p = begin
        cdef uint8_t *key = <uint8_t *>key_of(t, e)
        cdef bint following = self.sent and number == self.sent_id + 1
        cdef bint fresh = 0
        cdef uint8_t data[16]
        cdef size_t n, head
        cdef int32_t left
        cdef int slot, i
        cdef bytes name
        self.sent, self.sent_id = 1, number
        if not following:
            for i in range(4):
                p[i] = <uint8_t>(number >> (24 - 8 * i))
            p += 4
        if timed:
            left = <int32_t>(e.expire - now)
            if left < 0:
                left = 0
            for i in range(4):
                p[i] = <uint8_t>(left >> (24 - 8 * i))
            p += 4
        if t.type == KEY_STRING:
            p += put_int(p, e.length)
            memcpy(p, key, e.length)
            p += e.length
        elif t.type == KEY_INTEGER:
            for i in range(4):
                p[i] = key[3 - i]
            p += 4
        else:
            memcpy(p, key, e.length)
            memset(p + e.length, 0, t.key_size - e.length)
            p += t.key_size
        p += put_int(p, <uint64_t><int64_t>e.server_id)
        if self.table.stored:
            p = put_data(&t.layout, e, p, D_SERVER_ID + 1, D_SERVER_KEY, now)
        if e.name == 0:
            p += put_int(p, 0)
        else:
            slot = self.slot_of(e.name, &fresh)
            n = put_int(data, slot)
            if fresh:
                name = self.table.names[e.name]
                n += put_int(data + n, len(name))
                p += put_int(p, n + len(name))
                memcpy(p, data, n)
                memcpy(p + n, <const char *>name, len(name))
                p += n + len(name)
            else:
                p += put_int(p, n)
                memcpy(p, data, n)
                p += n
        if self.table.stored:
            p = put_data(&t.layout, e, p, D_SERVER_KEY + 1, KINDS, now)
        if self.kin:
            p += put_int(p, version_of(e))
        n = p - begin
        out[0] = 10
        if timed:
            out[1] = <char>(0x86 if following else 0x85)
        else:
            out[1] = <char>(0x81 if following else 0x80)
        head = 2 + put_int(<uint8_t *>out + 2, n)
        memmove(out + head, begin, n)
        return head + n

    def push(self, bint timed, size_t limit=65536):
        """Messages of what changed here, b"" when nothing did; None when too much did to tell."""
        cdef Store *t = &self.table.store
        cdef size_t more = NUMBER * (t.layout.size // 4 + 1), each = t.key_size + NAME_MAX + ROOM + more, size = 0, used = 0
        cdef int room = max(1, min(BATCH, <int>(limit // 24))), got, i
        cdef uint32_t upto = 0, now = <uint32_t>clock_ms()
        cdef char *rows = <char *>malloc(<size_t>room * t.entry_size)
        cdef char *out = NULL
        cdef Entry *e
        self.remember()
        if rows == NULL:
            raise MemoryError
        try:
            with nogil:
                got = store_changes(t, self.at, FOR_KIN if self.kin else FOR_OTHERS, rows, room, &upto)
            if got < 0:
                return None
            size = <size_t>got * (t.key_size + ROOM + 16 + more) + each
            out = <char *>malloc(size)
            if out == NULL:
                raise MemoryError
            for i in range(got):
                e = <Entry *>(rows + <size_t>i * t.entry_size)
                if used + each > size:      # long names: the rest comes next time
                    self.at = e.seq - 1
                    return out[:used]
                used += self.message(out + used, e, e.seq, timed, now)
            self.at = upto
            return out[:used]
        finally:
            free(rows)
            free(out)

    def begin_teaching(self):
        """From now on `teach` goes through all entries."""
        self.place = 0
        self.more = 1

    def teach(self, bint timed, size_t limit=65536):
        """Messages of the next entries; b"" at the end."""
        cdef Store *t = &self.table.store
        cdef size_t more = NUMBER * (t.layout.size // 4 + 1), each = t.key_size + NAME_MAX + ROOM + more, size, used = 0
        cdef int64_t now = clock_ms()
        cdef int got = 0, i
        cdef uint32_t count = BATCH
        self.remember()
        cdef char *rows
        cdef char *out = NULL
        if <size_t>count * t.entry_size > 1 << 20:
            count = <uint32_t>max(1, (1 << 20) // t.entry_size)
        rows = <char *>malloc(<size_t>count * t.entry_size)
        if rows == NULL:
            raise MemoryError
        try:
            while self.more and got == 0:
                with nogil:
                    got = store_copy(t, self.place, count, now, rows)
                self.place += count
                self.more = self.place < t.made
            # whole batches only: a place is not gone back to
            size = <size_t>got * (t.key_size + ROOM + 16 + more) + self.names_of(rows, got) + each
            out = <char *>malloc(size)
            if out == NULL:
                raise MemoryError
            for i in range(got):
                used += self.message(out + used, rows + <size_t>i * t.entry_size, self.at, timed, <uint32_t>now)
            return out[:used]
        finally:
            free(rows)
            free(out)

    # ---- receiving

    cdef int number_in(self, const unsigned char *p, size_t n) except -1:
        # The number in our table of the name that stored data stands for.
        cdef Names names = self.names
        cdef size_t at = 0
        cdef uint64_t slot, length
        if n == 0:
            return 0
        slot = need(p, n, &at)
        if slot < 1 or slot >= SLOTS:
            raise Bad(f"a name under the number {slot}")
        if at < n:
            length = need(p, n, &at)
            if length != n - at or length > NAME_MAX:
                raise Bad("a name of another length")
            names.received[slot] = p[at:n]
            names.changed[slot] += 1
        elif names.received[slot] is None:
            raise Bad("a name that was never sent")
        self.remember()
        if self.seen[slot] != names.changed[slot]:
            self.numbers[slot] = self.table.number_of(names.received[slot])
            self.remember()
            self.seen[slot] = names.changed[slot]
        elif self.table.unused:
            self.table.unused.discard(self.numbers[slot])
        return self.numbers[slot]

    cdef int describe(self, object definition) except -1:
        self.theirs = definition.stored
        self.counts = [skip_data(definition, kind) for kind in self.theirs]
        self.common = 0
        for kind in common_kinds(definition, self.table.stored):
            self.common |= <uint32_t>1 << <int>kind
        self.described = definition
        return 0

    cdef int learn(self, int what, const unsigned char *p, size_t n, object definition, int64_t now) except -1:
        cdef Store *t = &self.table.store
        cdef size_t at = 0, length
        cdef uint64_t v = 0
        cdef uint32_t left = t.expire_ms, said
        cdef Heard heard
        cdef uint64_t told[NUMBERS_MAX]
        cdef int number = 0, i, k, kind, count = 0
        cdef uint8_t turned[4]
        cdef const uint8_t *key
        if what == 0x80 or what == 0x85:
            if n < 4:
                raise Bad("an entry that ends in its number")
            self.last_id = (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]
            at = 4
        else:
            self.last_id += 1
        if what >= 0x85:
            if at + 4 > n:
                raise Bad("an entry that ends in its time")
            said = (<uint32_t>p[at] << 24) | (<uint32_t>p[at + 1] << 16) | (<uint32_t>p[at + 2] << 8) | p[at + 3]
            if said < left:
                left = said
            at += 4
        length = t.key_size
        if t.type == KEY_STRING:
            length = need(p, n, &at)
        if length > n or at + length > n:
            raise Bad("an entry that ends in its key")
        key = p + at
        if t.type == KEY_INTEGER:
            for i in range(4):
                turned[i] = p[at + 3 - i]
            key = turned
        at += length
        if self.described is not definition:
            self.describe(definition)
        heard.version, heard.server_id = 0, 0
        for k in range(len(self.theirs)):
            kind = self.theirs[k]
            if kind == D_SERVER_KEY:
                v = need(p, n, &at)
                if v > n or at + v > n:
                    raise Bad("an entry that ends in its data")
                number = self.number_in(p + at, v)
                at += v
                continue
            for _ in range(<int>self.counts[k]):
                v = need(p, n, &at)
                if kind == D_SERVER_ID:
                    heard.server_id = <int32_t>(v & 0x7fffffff)
                elif kind == VERSION:
                    heard.version = v if v <= <uint64_t>VERSION_MAX else 0
                elif kind < KINDS and self.common >> kind & 1 and count < NUMBERS_MAX:
                    told[count] = v
                    count += 1
        heard.left_ms, heard.name, heard.quiet, heard.acked = left, <uint16_t>number, self.quiet, self.acked
        heard.kinds, heard.data = self.common, told if self.common else NULL
        self.fresh = 1
        store_merge(t, <const char *>key, <uint32_t>length, now, &heard)
        return 0

    def take(self, bytes data, size_t at, definition):
        """Learn from the update messages that begin at `at`; the place behind the last complete one. Raises Bad."""
        cdef const uint8_t *p = data
        cdef size_t n = len(data), begin
        cdef int64_t now = clock_ms()
        cdef uint64_t length = 0
        cdef int got
        self.remember()
        while at + 2 <= n and p[at] == 10 and (p[at + 1] in (0x80, 0x81, 0x85, 0x86)):
            begin = at + 2
            got = get_int(p, n, &begin, &length)
            # a length that cannot be is refused by who reads messages, after what came before it is acknowledged
            if got <= 0 or length > <uint64_t>MESSAGE_MAX or begin + length > n:
                break
            self.learn(p[at + 1], p + begin, length, definition, now)
            at = begin + length
        return at
