# store: a stick table in memory, shared by all workers and the control plane. Key -> server (its name by number, and its
# id), found again by whoever asks with the same bytes. One lock per table, held for one short operation at a time;
# memory grows with the entries, in chunks, up to `size`. Nothing here knows of HTTP, servers or sockets.
#
# A Store lives as long as the Python object that made it; images keep those objects, so workers may keep pointers.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from haptk._fast.counts cimport Layout

cdef extern from "native.h" nogil:
    uint64_t hk_hash(const void *p, size_t n, uint64_t seed) noexcept

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_cond_t:
        pass

ctypedef struct BellC:      # rung at the next change of any of its tables, once it was armed
    pthread_mutex_t lock
    pthread_cond_t rung
    int armed               # atomic
    int pending

cdef enum KeyType:          # numbers are our own
    KEY_STRING = 0, KEY_IP, KEY_IPV6, KEY_INTEGER, KEY_BINARY

cdef enum:
    AGES = 16               # lists by remaining time: the front of each is the next of its kind to expire
    CHUNK = 1024            # entries allocated at once
    NO_NAME = 0
    FOR_KIN = 1             # of a noted change: peers that are haptk are to hear it
    FOR_OTHERS = 2          # and those that are not
    FOR_ALL = 3

ctypedef struct Entry:      # followed by its data and the key's bytes: 44 bytes, the data and the key's longest length
    uint32_t hash
    uint32_t next           # of the bucket, or of the free list; index + 1, 0 for none
    uint32_t older          # neighbours in the list of its age; index + 1
    uint32_t newer
    uint32_t expire         # ms of the monotonic clock modulo 2^32; meaningless in a table without expiry
    uint32_t seq            # number of its last noted change, 0 for none
    int32_t server_id       # HAProxy's server_id, 0 for none
    uint16_t name           # number of the server's name in the table, NO_NAME for none
    uint16_t length         # of the key
    uint8_t age             # which list it stands in
    uint8_t used            # 0: on the free list
    uint8_t flags           # whom the last noted change is for
    uint32_t version_high   # of its content, see store.pyx; the greatest one wins wherever haptk nodes disagree
    uint32_t version_low

ctypedef struct Store:
    pthread_mutex_t lock
    int type                # KeyType
    uint32_t key_size       # longest key, bytes
    uint32_t entry_size
    uint32_t limit          # entries at most
    uint32_t expire_ms      # 0 for never
    int nopurge
    uint64_t seed
    uint32_t used
    uint32_t made           # entries ever allocated: indices below this exist
    uint32_t mask           # of the buckets
    uint32_t *buckets       # index + 1
    char **chunks
    uint32_t chunk_room     # places in chunks
    uint32_t free
    uint32_t front[AGES]    # oldest of each list; index + 1
    uint32_t back[AGES]
    # changes for peers; ring is NULL when nobody listens
    uint32_t *ring          # ring[seq & ring_mask] = index of the entry that changed then
    uint32_t ring_mask
    uint32_t seq            # of the last change
    uint32_t pushed         # somebody has copied the changes up to this one
    BellC *bell
    Layout layout           # of the entries' data
    uint64_t version        # the greatest one ever given or seen
    int64_t wall_ms         # Unix time minus the monotonic clock when the table was made
    uint8_t tag             # number of this node among its peers: no two nodes give the same version
    int kin                 # some peer is haptk: it hears what comes from others
    int others              # how many peers are not, as far as is known

ctypedef struct Found:
    int32_t server_id
    uint16_t name

# 1 and `out` when there is an entry; its time begins anew.
cdef bint store_find(Store *t, const char *key, uint32_t n, int64_t now_ms, Found *out) noexcept nogil
# Remember a server. A full table forgets what is nearest to its end, or with nopurge learns nothing new (0).
cdef bint store_learn(Store *t, const char *key, uint32_t n, int64_t now_ms, int32_t server_id, uint16_t name) noexcept nogil
# The same for what a peer says: with the time that is left, and without noting a change for those who hear it anyway.
# Another haptk tells the version of its content, and the greater one wins. One that has no versions (0) is believed
# unless it cannot have known our last change (we have one after `acked`, the last that this peer has confirmed): then we
# keep our own and say it again. `quiet`: we asked for it because we knew nothing, so nobody else hears it from us.
# `data` holds what counts_told made, kind by kind, for the bits of `kinds`; NULL for none.
ctypedef struct Heard:
    uint32_t left_ms
    int32_t server_id
    uint16_t name
    bint quiet
    uint32_t acked
    uint64_t version
    uint32_t kinds
    const uint64_t *data

cdef bint store_merge(Store *t, const char *key, uint32_t n, int64_t now_ms, Heard *heard) noexcept nogil
cdef char *data_of(Entry *e) noexcept nogil
cdef char *key_of(Store *t, Entry *e) noexcept nogil

# What a session tracks: index + 1 of the entry of a key, made when there is none; it is neither expired nor thrown out
# until store_release. 0 when there is no room, the table stores no data, or (in store_seek) there is no such entry.
cdef uint32_t store_track(Store *t, const char *key, uint32_t n, int64_t now_ms) noexcept nogil
cdef void store_release(Store *t, uint32_t tracked, int64_t now_ms) noexcept nogil
# Add `n` to every kind of `kinds` (bits) that the table stores: element 0 unless it is an array. A use like any other.
cdef void store_count(Store *t, uint32_t tracked, uint32_t kinds, int element, int64_t n, int64_t now_ms) noexcept nogil
cdef void store_put(Store *t, uint32_t tracked, int kind, int element, uint64_t value, int64_t now_ms) noexcept nogil
cdef uint64_t store_value(Store *t, uint32_t tracked, int kind, int element, int64_t now_ms) noexcept nogil
# 1 and the value of a key that nobody needs to track; its time goes on. Kind D_SERVER_ID gives the server.
cdef bint store_seek(Store *t, const char *key, uint32_t n, int kind, int element, int64_t now_ms,
                     uint64_t *out) noexcept nogil

# Numbers of the changes after `after`, oldest first, at most `room`; writes copies of entries (entry_size apart) to
# `rows` and returns how many; *upto is the last number looked at; `audience` is who asks, FOR_KIN or FOR_OTHERS.
# -1 when `after` is too long ago.
cdef int store_changes(Store *t, uint32_t after, uint8_t audience, char *rows, int room, uint32_t *upto) noexcept nogil
# Copies of the entries at places start..start+count, dead ones left out; returns how many.
cdef int store_copy(Store *t, uint32_t start, uint32_t count, int64_t now_ms, char *rows) noexcept nogil

# For table.pyx, under the lock:
cdef Entry *store_at(Store *t, uint32_t index) noexcept nogil
cdef bint held(Store *t, Entry *e) noexcept nogil
cdef bint dead(Store *t, Entry *e, uint32_t now) noexcept nogil
cdef uint64_t version_of(Entry *e) noexcept nogil
cdef uint32_t trimmed(Store *t, const char *key, uint32_t n) noexcept nogil
cdef uint32_t lookup(Store *t, const char *key, uint32_t n, uint32_t hash) noexcept nogil
cdef uint32_t oldest(Store *t, uint32_t now) noexcept nogil
cdef void forget(Store *t, uint32_t index) noexcept nogil
cdef void sweep(Store *t, uint32_t now, int most) noexcept nogil
cdef uint32_t power_above(uint32_t n, uint32_t most) noexcept nogil
cdef int make_room(Store *t, uint32_t limit) noexcept nogil
cdef void ring(BellC *b) noexcept nogil
