# Backups serve only when no active server is up: the first one, or all of them with `option allbackups`.

from libc.stdint cimport int64_t, uint32_t

from haptk._fast.ring cimport ring_find
from haptk._fast.scan cimport hk_load
from haptk._fast.state cimport BackendW
from haptk._fast.state cimport LB_FIRST, LB_LEASTCONN, LB_RANDOM, LIVE_UP, RingPoint, WEIGHT_SCALE


cdef bint eligible(ServerC *srv) noexcept nogil:
    return hk_load(&srv.live.state) == LIVE_UP and hk_load(&srv.live.weight) > 0


cdef int limit_of(BackendC *be, ServerC *srv) noexcept nogil:
    cdef int64_t busy, limit
    if srv.minconn == 0 or srv.minconn >= srv.maxconn:
        return srv.maxconn
    busy = hk_load(be.sessions)
    if busy >= be.fullconn:
        return srv.maxconn
    limit = busy * srv.maxconn // be.fullconn
    return <int>limit if limit > srv.minconn else srv.minconn


cdef inline bint full(BackendC *be, ServerC *srv) noexcept nogil:
    return srv.maxconn > 0 and hk_load(&srv.live.sessions) >= limit_of(be, srv)


cdef bint any_eligible(BackendC *be) noexcept nogil:
    return tier(be) >= 0


cdef int tier(BackendC *be) noexcept nogil:
    # 0: an active server is up; 1: use backups; -1: nothing is up.
    cdef int i, found = -1
    for i in range(be.count):
        if eligible(&be.servers[i]):
            if not be.servers[i].backup:
                return 0
            found = 1
    return found


cdef inline bint candidate(BackendC *be, int i, int level, ServerC *avoid) noexcept nogil:
    # A hash must keep pointing at its server, be that full: there the request waits.
    cdef ServerC *srv = &be.servers[i]
    return srv != avoid and srv.backup == level and eligible(srv) and not (srv.maxconn and not be.by_hash and full(be, srv))


cdef ServerC *plain_turn(Worker *w, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    cdef int i, k, at = w.backends[be.index].next
    for k in range(be.count):
        i = at + k
        if i >= be.count:
            i -= be.count
        if candidate(be, i, level, avoid):
            w.backends[be.index].next = i + 1 if i + 1 < be.count else 0
            return &be.servers[i]
    return NULL


cdef ServerC *weighted_turn(Worker *w, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    # Earliest virtual deadline first. A server's next turn lies total/weight positions after its last one; what has
    # not had a turn yet enters in the holes, heaviest first. Gives HAProxy's order for the same weights.
    cdef BackendW *turn = &w.backends[be.index]
    cdef ServerW *sw
    cdef ServerW *best = NULL
    cdef int64_t total = 0
    cdef int i, weight, best_weight = 0, pick = -1
    for i in range(be.count):
        if not candidate(be, i, level, NULL):
            continue
        total += hk_load(&be.servers[i].live.weight)
    for i in range(be.count):
        sw = &w.servers[be.servers[i].gid]
        if not candidate(be, i, level, avoid) or not sw.started or sw.npos > turn.pos:
            continue
        weight = hk_load(&be.servers[i].live.weight)
        if pick < 0 or sw.npos < best.npos or (sw.npos == best.npos and weight > best_weight):
            pick, best, best_weight = i, sw, weight
    if pick < 0:
        pick = hole_turn(w, be, level, avoid)
        if pick < 0:
            return NULL
        best = &w.servers[be.servers[pick].gid]
        best_weight = hk_load(&be.servers[pick].live.weight)
    advance(turn, best, total, best_weight)
    return &be.servers[pick]


cdef int hole_turn(Worker *w, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    # No deadline has come: the heaviest server that was never used, else the one whose deadline is nearest.
    cdef int i, weight, fresh = -1, fresh_weight = 0, near = -1
    cdef ServerW *sw
    for i in range(be.count):
        if not candidate(be, i, level, avoid):
            continue
        sw = &w.servers[be.servers[i].gid]
        weight = hk_load(&be.servers[i].live.weight)
        if not sw.started:
            if weight > fresh_weight:
                fresh, fresh_weight = i, weight
        elif near < 0 or sw.npos < w.servers[be.servers[near].gid].npos:
            near = i
    return fresh if fresh >= 0 else near


cdef void advance(BackendW *turn, ServerW *sw, int64_t total, int weight) noexcept nogil:
    if not sw.started or sw.npos + total < turn.pos:
        sw.started = 1
        sw.npos = turn.pos
    sw.npos += total // weight
    sw.rweight += total % weight
    if sw.rweight >= weight:
        sw.rweight -= weight
        sw.npos += 1
    turn.pos += 1


cdef ServerC *least(Worker *w, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    # Fewest sessions per weight; equals take turns.
    cdef int i, k, at = w.backends[be.index].next, pick = -1
    cdef int64_t load, weight, best_load = 0, best_weight = 1
    for k in range(be.count):
        i = (at + k) % be.count
        if not candidate(be, i, level, avoid):
            continue
        load = hk_load(&be.servers[i].live.sessions)
        weight = hk_load(&be.servers[i].live.weight)
        if pick < 0 or load * best_weight < best_load * weight:
            pick, best_load, best_weight = i, load, weight
    if pick < 0:
        return NULL
    w.backends[be.index].next = (pick + 1) % be.count
    return &be.servers[pick]


cdef ServerC *first(BackendC *be, int level, ServerC *avoid) noexcept nogil:
    cdef int i
    for i in range(be.count):
        if candidate(be, i, level, avoid) and not full(be, &be.servers[i]):
            return &be.servers[i]
    for i in range(be.count):
        if candidate(be, i, level, avoid):
            return &be.servers[i]
    return NULL


cdef inline int places(ServerC *srv) noexcept nogil:
    # How often a server stands in the map: its weight as written; a started fraction is a whole place.
    return (hk_load(&srv.live.weight) + WEIGHT_SCALE - 1) // WEIGHT_SCALE


cdef ServerC *mapped(BackendC *be, int level, ServerC *avoid, uint32_t hash) noexcept nogil:
    # The hash counts positions in the servers that are up, each standing there as often as it weighs.
    cdef int64_t total = 0, at
    cdef int i
    for i in range(be.count):
        if candidate(be, i, level, avoid):
            total += places(&be.servers[i])
    if total <= 0:
        return NULL
    at = hash % total
    for i in range(be.count):
        if candidate(be, i, level, avoid):
            at -= places(&be.servers[i])
            if at < 0:
                return &be.servers[i]
    return NULL


cdef inline bint counts(BackendC *be, RingPoint *point, int level, ServerC *avoid) noexcept nogil:
    # A server has as many points as its weight of now allows.
    return candidate(be, point.server, level, avoid) and \
        point.node < <uint32_t>hk_load(&be.servers[point.server].live.weight)


cdef ServerC *on_ring(BackendC *be, int level, ServerC *avoid, uint32_t hash) noexcept nogil:
    # Consistent hashing: of the two points around the hash the nearer one, the lower one when they are equally near.
    cdef int n = be.ring_n, at = ring_find(be, hash), before = at, after = at, k
    cdef RingPoint *low = NULL
    cdef RingPoint *high = NULL
    for k in range(n):
        after = at + k if at + k < n else at + k - n
        if counts(be, &be.ring[after], level, avoid):
            high = &be.ring[after]
            break
    if high == NULL:
        return NULL
    for k in range(1, n + 1):
        before = at - k if at - k >= 0 else at - k + n
        if counts(be, &be.ring[before], level, avoid):
            low = &be.ring[before]
            break
    if low != NULL and hash - low.key <= high.key - hash:
        high = low
    return &be.servers[high.server]


cdef uint32_t random32(Worker *w) noexcept nogil:
    w.rng ^= w.rng << 13
    w.rng ^= w.rng >> 17
    w.rng ^= w.rng << 5
    return w.rng


cdef ServerC *drawn(Worker *w, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    cdef ServerC *best = NULL
    cdef ServerC *other
    cdef int _k
    for _k in range(be.draws if be.draws > 0 else 1):
        other = mapped(be, level, avoid, random32(w))
        if best == NULL or (other != NULL and
                            <int64_t>hk_load(&other.live.sessions) * hk_load(&best.live.weight) <
                            <int64_t>hk_load(&best.live.sessions) * hk_load(&other.live.weight)):
            best = other
    return best


cdef ServerC *by_algorithm(Worker *w, Session *s, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    if level == 1 and not be.allbackups:
        return first(be, level, avoid)
    if be.balance == LB_LEASTCONN:
        return least(w, be, level, avoid)
    if be.balance == LB_FIRST:
        return first(be, level, avoid)
    if be.balance == LB_RANDOM:
        return drawn(w, be, level, avoid)
    if s.hashed:
        return on_ring(be, level, avoid, s.hash) if be.ring_n else mapped(be, level, avoid, s.hash)
    if hk_load(&be.equal_weights):
        return plain_turn(w, be, level, avoid)
    return weighted_turn(w, be, level, avoid)


cdef bint takes_turns(BackendC *be) noexcept nogil:
    # Whether the next choice is likely to be another server: turns are taken, and there is another one.
    cdef int i, active = 0
    if be.balance == LB_LEASTCONN or be.balance == LB_FIRST or be.by_hash:
        return 0
    for i in range(be.count):
        active += not be.servers[i].backup and eligible(&be.servers[i])
    return active > 1


cdef ServerC *choose(Worker *w, Session *s, BackendC *be, ServerC *avoid) noexcept nogil:
    cdef int level = tier(be)
    cdef ServerC *got
    if level < 0:
        return NULL
    got = by_algorithm(w, s, be, level, avoid)
    if got == NULL and avoid != NULL:
        got = by_algorithm(w, s, be, level, NULL)
    return got
