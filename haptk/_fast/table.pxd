# table: a stick table in memory, shared by all workers and the control plane. Key -> server (its name by number, and its
# id), found again by whoever asks with the same bytes. One lock per table, held for one short operation at a time;
# memory grows with the entries, in chunks, up to `size`. Nothing here knows of HTTP, servers or sockets.
#
# A Store lives as long as the Python object that made it; images keep those objects, so workers may keep pointers.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

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

ctypedef struct Entry:      # followed by the key's bytes, without padding: 36 bytes and the key's longest length
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

ctypedef struct Found:
    int32_t server_id
    uint16_t name

# 1 and `out` when there is an entry; its time begins anew.
cdef bint store_find(Store *t, const char *key, uint32_t n, int64_t now_ms, Found *out) noexcept nogil
# Remember a server. A full table forgets what is nearest to its end, or with nopurge learns nothing new (0).
cdef bint store_learn(Store *t, const char *key, uint32_t n, int64_t now_ms, int32_t server_id, uint16_t name) noexcept nogil
# The same for what a peer says: with the time that is left, and without noting a change for other peers. When both
# sides learned another server at once (we have a change after `acked`, the last one that this peer has confirmed), the
# one that `wins` keeps its own, and the other one tells everybody that it has changed its mind.
cdef bint store_merge(Store *t, const char *key, uint32_t n, int64_t now_ms, uint32_t left_ms, int32_t server_id,
                      uint16_t name, uint32_t acked, bint wins) noexcept nogil
cdef Entry *store_entry(Store *t, uint32_t index) noexcept nogil
cdef void store_lock(Store *t) noexcept nogil
cdef void store_unlock(Store *t) noexcept nogil

# Numbers of the changes after `after`, oldest first, at most `room`; writes copies of entries (entry_size apart) to
# `rows` and returns how many; *upto is the last number looked at. -1 when `after` is too long ago.
cdef int store_changes(Store *t, uint32_t after, char *rows, int room, uint32_t *upto) noexcept nogil
# Copies of the entries at places start..start+count, dead ones left out; returns how many.
cdef int store_copy(Store *t, uint32_t start, uint32_t count, int64_t now_ms, char *rows) noexcept nogil

cdef class Bell:
    cdef BellC bell

cdef class Table:
    cdef Store store
    cdef readonly str name
    cdef readonly str type
    cdef readonly int length
    cdef list names             # number -> name of a server, bytes; grows only
    cdef dict numbers           # the other way round
    cdef object naming          # lock of the two
    cdef Bell bell              # kept alive

    cpdef int number_of(self, bytes name) except -1
    cdef tuple row(self, Entry *e, int64_t now)
