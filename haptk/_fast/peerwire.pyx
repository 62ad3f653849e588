# A message is written in a room of its own, because its length comes first and is known last. What the other side says is
# never trusted.

from libc.stdint cimport INT32_MAX, int32_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from haptk._fast.bytes.span cimport (room_char, room_close, room_cut, room_full, room_len, room_left, room_open, room_over,
                                     room_put, room_span, span_at, span_bytes, span_from, span_len, span_of, span_over,
                                     span_raw, span_sub)
from haptk._fast.bytes.varint cimport room_big32, room_varint, span_big32, span_varint
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


cdef uint64_t need(Span t, uint32_t *at) except? 0xffffffffffffffff:
    cdef uint64_t v = 0
    cdef int got = span_varint(t, at, &v)
    if got == 0:
        raise Bad("a message ends inside a number")
    if got < 0:
        raise Bad("a number of more than 64 bits")
    return v


cdef void put_data(Layout *x, Entry *e, Room *o, int first, int end, uint32_t now) noexcept nogil:
    # The kinds from `first` to before `end`, in order.
    cdef uint64_t told[3]
    cdef int kind, i, k, count
    for kind in range(first, end):
        if not x.stored >> kind & 1:
            continue
        for i in range(x.elements[kind]):
            count = counts_told(x, data_of(e), kind, i, now, told)
            for k in range(count):
                room_varint(o, told[k])


cdef void put_key(Store *t, Entry *e, Room *o) noexcept nogil:
    cdef uint32_t i
    if t.type == KEY_STRING:
        room_varint(o, e.length)
        room_put(o, span_over(key_of(t, e), e.length))
    elif t.type == KEY_INTEGER:
        for i in range(4):
            room_char(o, span_at(span_over(key_of(t, e), 4), 3 - i))
    else:
        room_put(o, span_over(key_of(t, e), e.length))
        for _ in range(e.length, t.key_size):
            room_char(o, 0)


cdef int open_rooms(Room *out, size_t size, Room *body, size_t each) except -1:
    if each > INT32_MAX or room_open(out, <uint32_t>min(size, <size_t>INT32_MAX)) < 0 or room_open(body, <uint32_t>each) < 0:
        raise MemoryError
    return 0


cdef inline Entry *row_of(Store *t, void *rows, int i) noexcept nogil:
    return <Entry *>(<char *>rows + <size_t>i * t.entry_size)


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

    cdef size_t names_of(self, void *rows, int count):
        # The bytes of the names of copied entries: each may have to be told in full.
        cdef int i
        cdef size_t total = 0
        for i in range(count):
            total += len(<bytes>self.table.names[row_of(&self.table.store, rows, i).name])
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

    cdef int put_name(self, Room *o, Entry *e) except -1:
        # Under its number, with the name itself when the other side doesn't have it under that number.
        cdef bint fresh = 0
        cdef uint8_t data[22]
        cdef Room numbers = room_over(data, sizeof(data))
        cdef int slot
        cdef bytes name = b""
        if e.name == 0:
            room_varint(o, 0)
            return 0
        slot = self.slot_of(e.name, &fresh)
        room_varint(&numbers, slot)
        if fresh:
            name = self.table.names[e.name]
            room_varint(&numbers, len(name))
        room_varint(o, room_len(&numbers) + len(name))
        room_put(o, room_span(&numbers))
        room_put(o, span_of(name))
        return 0

    cdef int message(self, Room *out, Room *body, Entry *e, uint32_t number, bint timed, uint32_t now) except -1:
        cdef Store *t = &self.table.store
        cdef bint following = self.sent and number == self.sent_id + 1
        cdef int32_t left
        self.sent, self.sent_id = 1, number
        room_cut(body, 0)
        if not following:
            room_big32(body, number)
        if timed:
            left = <int32_t>(e.expire - now)
            room_big32(body, <uint32_t>left if left > 0 else 0)
        put_key(t, e, body)
        room_varint(body, <uint64_t><int64_t>e.server_id)
        if self.table.stored:
            put_data(&t.layout, e, body, D_SERVER_ID + 1, D_SERVER_KEY, now)
        self.put_name(body, e)
        if self.table.stored:
            put_data(&t.layout, e, body, D_SERVER_KEY + 1, KINDS, now)
        if self.kin:
            room_varint(body, version_of(e))
        room_char(out, 10)
        room_char(out, (5 if timed else 0) + 0x80 + following)
        room_varint(out, room_len(body))
        room_put(out, room_span(body))
        if room_full(body) or room_full(out):
            raise MemoryError
        return 0

    def push(self, bint timed, size_t limit=65536):
        """Messages of what changed here, b"" when nothing did; None when too much did to tell."""
        cdef Store *t = &self.table.store
        cdef size_t more = NUMBER * (t.layout.size // 4 + 1), each = t.key_size + NAME_MAX + ROOM + more
        cdef int most = max(1, min(BATCH, <int>(limit // 24))), got, i
        cdef uint32_t upto = 0, now = <uint32_t>clock_ms()
        cdef void *rows = malloc(<size_t>most * t.entry_size)
        cdef Room out = room_over(NULL, 0), body = room_over(NULL, 0)
        cdef Entry *e
        self.remember()
        if rows == NULL:
            raise MemoryError
        try:
            with nogil:
                got = store_changes(t, self.at, FOR_KIN if self.kin else FOR_OTHERS, <char *>rows, most, &upto)
            if got < 0:
                return None
            open_rooms(&out, <size_t>got * (t.key_size + ROOM + 16 + more) + each, &body, each)
            for i in range(got):
                e = row_of(t, rows, i)
                if room_left(&out) < each:      # long names: the rest comes next time
                    self.at = e.seq - 1
                    return span_bytes(room_span(&out))
                self.message(&out, &body, e, e.seq, timed, now)
            self.at = upto
            return span_bytes(room_span(&out))
        finally:
            free(rows)
            room_close(&out)
            room_close(&body)

    def begin_teaching(self):
        """From now on `teach` goes through all entries."""
        self.place = 0
        self.more = 1

    def teach(self, bint timed, size_t limit=65536):
        """Messages of the next entries; b"" at the end."""
        cdef Store *t = &self.table.store
        cdef size_t more = NUMBER * (t.layout.size // 4 + 1), each = t.key_size + NAME_MAX + ROOM + more
        cdef int64_t now = clock_ms()
        cdef int got = 0, i
        cdef uint32_t count = BATCH
        cdef void *rows
        cdef Room out = room_over(NULL, 0), body = room_over(NULL, 0)
        self.remember()
        if <size_t>count * t.entry_size > 1 << 20:
            count = <uint32_t>max(1, (1 << 20) // t.entry_size)
        rows = malloc(<size_t>count * t.entry_size)
        if rows == NULL:
            raise MemoryError
        try:
            while self.more and got == 0:
                with nogil:
                    got = store_copy(t, self.place, count, now, <char *>rows)
                self.place += count
                self.more = self.place < t.made
            # whole batches only: a place is not gone back to
            open_rooms(&out, <size_t>got * (t.key_size + ROOM + 16 + more) + self.names_of(rows, got) + each, &body, each)
            for i in range(got):
                self.message(&out, &body, row_of(t, rows, i), self.at, timed, <uint32_t>now)
            return span_bytes(room_span(&out))
        finally:
            free(rows)
            room_close(&out)
            room_close(&body)

    # ---- receiving

    cdef int number_in(self, Span t) except -1:
        # The number in our table of the name that stored data stands for.
        cdef Names names = self.names
        cdef uint32_t at = 0
        cdef uint64_t slot, length
        if span_len(t) == 0:
            return 0
        slot = need(t, &at)
        if slot < 1 or slot >= SLOTS:
            raise Bad(f"a name under the number {slot}")
        if at < span_len(t):
            length = need(t, &at)
            if length != span_len(t) - at or length > NAME_MAX:
                raise Bad("a name of another length")
            names.received[slot] = span_bytes(span_from(t, at))
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

    cdef int learn(self, int what, Span p, object definition, int64_t now) except -1:
        cdef Store *t = &self.table.store
        cdef uint32_t at = 0, n = span_len(p)
        cdef uint64_t v = 0, length
        cdef uint32_t left = t.expire_ms, said
        cdef Heard heard
        cdef uint64_t told[NUMBERS_MAX]
        cdef int number = 0, i, k, kind, count = 0
        cdef uint8_t turned[4]
        cdef Room integer = room_over(turned, 4)
        cdef Span key
        if what == 0x80 or what == 0x85:
            if n < 4:
                raise Bad("an entry that ends in its number")
            self.last_id = span_big32(p, 0)
            at = 4
        else:
            self.last_id += 1
        if what >= 0x85:
            if n - at < 4:
                raise Bad("an entry that ends in its time")
            said = span_big32(p, at)
            if said < left:
                left = said
            at += 4
        length = t.key_size
        if t.type == KEY_STRING:
            length = need(p, &at)
        if length > n - at:
            raise Bad("an entry that ends in its key")
        key = span_sub(p, at, <uint32_t>length)
        if t.type == KEY_INTEGER:
            for i in range(4):
                room_char(&integer, span_at(key, 3 - i))
            key = room_span(&integer)
        at += <uint32_t>length
        if self.described is not definition:
            self.describe(definition)
        heard.version, heard.server_id = 0, 0
        for k in range(len(self.theirs)):
            kind = self.theirs[k]
            if kind == D_SERVER_KEY:
                v = need(p, &at)
                if v > n - at:
                    raise Bad("an entry that ends in its data")
                number = self.number_in(span_sub(p, at, <uint32_t>v))
                at += <uint32_t>v
                continue
            for _ in range(<int>self.counts[k]):
                v = need(p, &at)
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
        store_merge(t, span_raw(key), span_len(key), now, &heard)
        return 0

    def take(self, bytes data, size_t at, definition):
        """Learn from the update messages that begin at `at`; the place behind the last complete one. Raises Bad."""
        cdef Span all = span_of(data)
        cdef uint32_t n = span_len(all), begin, here = <uint32_t>min(at, <size_t>n)
        cdef int64_t now = clock_ms()
        cdef uint64_t length = 0
        cdef int got
        self.remember()
        while n - here >= 2 and span_at(all, here) == 10 and span_at(all, here + 1) in (0x80, 0x81, 0x85, 0x86):
            begin = here + 2
            got = span_varint(all, &begin, &length)
            # a length that cannot be is refused by who reads messages, after what came before it is acknowledged
            if got <= 0 or length > <uint64_t>MESSAGE_MAX or length > n - begin:
                break
            self.learn(span_at(all, here + 1), span_sub(all, begin, <uint32_t>length), definition, now)
            here = begin + <uint32_t>length
        return here
