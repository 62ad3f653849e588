# Backups serve only when no active server is up: the first one, or all of them with `option allbackups`.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from haptk._fast.ring cimport ring_find
from haptk._fast.scan cimport hk_load
from haptk._fast.state cimport ServerTurn, SharedC
from haptk._fast.state cimport LB_FIRST, LB_LEASTCONN, LB_RANDOM, LB_STATIC_RR, LIVE_UP, RingPoint


cdef bint eligible(ServerC *srv) noexcept nogil:
    return hk_load(&srv.live.state) == LIVE_UP and hk_load(&srv.live.weight) > 0


cdef int limit_of(BackendC *be, ServerC *srv) noexcept nogil:
    cdef int64_t busy, limit = srv.maxconn
    cdef int eased = hk_load(&srv.live.eased)
    if srv.minconn and srv.minconn < srv.maxconn:
        busy = hk_load(be.sessions)
        if busy < be.fullconn:
            limit = busy * srv.maxconn // be.fullconn
            if limit < srv.minconn:
                limit = srv.minconn
    if eased and limit:
        limit = limit * (eased - 1) // 100
        if limit < 1:
            limit = 1
    return <int>limit


cdef inline bint full(BackendC *be, ServerC *srv) noexcept nogil:
    # Who would have to wait behind others is not taken either.
    return srv.maxconn > 0 and (hk_load(&srv.live.sessions) >= limit_of(be, srv) or hk_load(&srv.live.queued) > 0)


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


cdef inline bint on_duty(BackendC *be, int i, int level) noexcept nogil:
    return be.servers[i].backup == level and eligible(&be.servers[i])


cdef inline bint candidate(BackendC *be, int i, int level, ServerC *avoid) noexcept nogil:
    cdef ServerC *srv = &be.servers[i]
    return srv != avoid and on_duty(be, i, level) and not full(be, srv)


cdef ServerC *the_backup(BackendC *be) noexcept nogil:
    # The first that is up; there is no other one, be it full or just have failed.
    cdef int i
    for i in range(be.count):
        if on_duty(be, i, 1):
            return &be.servers[i]
    return NULL


cdef bint serves_anybody(BackendC *be, ServerC *srv) noexcept nogil:
    cdef int level
    if not eligible(srv):
        return 0
    if not srv.backup:
        return 1
    level = tier(be)
    return level == 1 and (be.allbackups or the_backup(be) == srv)


cdef ServerC *plain_turn(Worker *w, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    cdef int i, k, at = be.shared.next
    for k in range(be.count):
        i = at + k
        if i >= be.count:
            i -= be.count
        if candidate(be, i, level, avoid):
            be.shared.next = i + 1 if i + 1 < be.count else 0
            return &be.servers[i]
    return NULL


cdef ServerC *weighted_turn(Worker *w, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    # Earliest virtual deadline first. A server's next turn lies total/weight positions after its last one; what has
    # not had a turn yet enters in the holes, heaviest first. Gives HAProxy's order for the same weights.
    cdef SharedC *turn = be.shared
    cdef ServerTurn *sw
    cdef ServerTurn *best = NULL
    cdef int64_t total = 0
    cdef int i, weight, best_weight = 0, pick = -1
    for i in range(be.count):
        if not candidate(be, i, level, NULL):
            continue
        total += hk_load(&be.servers[i].live.weight)
    for i in range(be.count):
        sw = &be.shared.servers[i]
        if not candidate(be, i, level, avoid) or not sw.started or sw.npos > turn.pos:
            continue
        weight = hk_load(&be.servers[i].live.weight)
        if pick < 0 or sw.npos < best.npos or (sw.npos == best.npos and weight > best_weight):
            pick, best, best_weight = i, sw, weight
    if pick < 0:
        pick = hole_turn(w, be, level, avoid)
        if pick < 0:
            return NULL
        best = &be.shared.servers[pick]
        best_weight = hk_load(&be.servers[pick].live.weight)
    advance(turn, best, total, best_weight)
    return &be.servers[pick]


cdef int hole_turn(Worker *w, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    # No deadline has come: the heaviest server that was never used, else the one whose deadline is nearest.
    cdef int i, weight, fresh = -1, fresh_weight = 0, near = -1
    cdef ServerTurn *sw
    for i in range(be.count):
        if not candidate(be, i, level, avoid):
            continue
        sw = &be.shared.servers[i]
        weight = hk_load(&be.servers[i].live.weight)
        if not sw.started:
            if weight > fresh_weight:
                fresh, fresh_weight = i, weight
        elif near < 0 or sw.npos < be.shared.servers[near].npos:
            near = i
    return fresh if fresh >= 0 else near


cdef void advance(SharedC *turn, ServerTurn *sw, int64_t total, int weight) noexcept nogil:
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
    # Fewest sessions per weight; of equals the one whose number of sessions has not changed for longest.
    cdef int i, pick = -1
    cdef int64_t load, weight, here, there, best_load = 0, best_weight = 1
    for i in range(be.count):
        if not candidate(be, i, level, avoid):
            continue
        load = hk_load(&be.servers[i].live.sessions)
        weight = hk_load(&be.servers[i].live.weight)
        here, there = load * best_weight, best_load * weight
        if pick < 0 or here < there or (here == there and be.shared.servers[i].touched <
                                        be.shared.servers[pick].touched):
            pick, best_load, best_weight = i, load, weight
    return &be.servers[pick] if pick >= 0 else NULL


cdef ServerC *first(BackendC *be, int level, ServerC *avoid) noexcept nogil:
    cdef int i
    for i in range(be.count):
        if candidate(be, i, level, avoid) and not full(be, &be.servers[i]):
            return &be.servers[i]
    for i in range(be.count):
        if candidate(be, i, level, avoid):
            return &be.servers[i]
    return NULL


# ---------------------------------------------------------------- map-based: static-rr, and hashes by default

cdef void draw_map(BackendC *be, SharedC *turn, int level) noexcept nogil:
    # Each server on duty stands there as often as it weighs, spread as evenly as that goes: at every place all of them
    # gain their weight, and the one that has gathered most pays for the place with the sum of all.
    cdef int total = 0, i, k, best, most, score
    cdef int *gathered = turn.gathered
    turn.map_len = 0
    for i in range(be.count):
        if on_duty(be, i, level):
            total += map_places(be, i)
    if total > turn.map_room:
        total = turn.map_room       # never: all servers together have that many
    memset(gathered, 0, sizeof(int) * be.count)
    for k in range(total):
        best, most = -1, 0
        for i in range(be.count):
            if on_duty(be, i, level):
                gathered[i] += map_places(be, i)
                score = (gathered[i] + total) // total
                if best < 0 or score > most:
                    best, most = i, score
        if best < 0:
            break               # the last one went down meanwhile
        gathered[best] -= total
        turn.map[k] = best
        turn.map_len = k + 1


cdef int map_places(BackendC *be, int i) noexcept nogil:
    # By the weight of the file: as in HAProxy, a map knows full weight or none.
    return (be.servers[i].weight + be.weight_unit - 1) // be.weight_unit if be.servers[i].weight else 1


cdef SharedC *fresh_map(Worker *w, BackendC *be, int level) noexcept nogil:
    # Drawn again when other servers are on duty than at the last time.
    cdef SharedC *turn = be.shared
    cdef uint64_t seen = 14695981039346656037U
    cdef int i
    for i in range(be.count):
        seen = (seen ^ <uint64_t>(1 + on_duty(be, i, level))) * 1099511628211U
    if turn.map_of != seen or turn.map_len == 0:
        draw_map(be, turn, level)
        turn.map_of = seen
    return turn


cdef ServerC *mapped(Worker *w, BackendC *be, int level, uint32_t hash) noexcept nogil:
    # A hash keeps pointing at its server, even where that just failed or is full: as HAProxy has it, only a health check
    # moves its clients. With one server there is nothing to compute.
    cdef SharedC *turn = fresh_map(w, be, level)
    return &be.servers[turn.map[hash % <uint32_t>turn.map_len]] if turn.map_len else NULL


cdef ServerC *map_turn(Worker *w, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    cdef SharedC *turn = fresh_map(w, be, level)
    cdef int k, at
    for k in range(turn.map_len):
        at = (turn.map_at + k) % turn.map_len
        if not candidate(be, turn.map[at], level, avoid):
            continue
        turn.map_at = at + 1
        return &be.servers[turn.map[at]]
    return NULL


# ---------------------------------------------------------------- hash-type consistent

cdef inline bint counts(BackendC *be, RingPoint *point, int level) noexcept nogil:
    # A server has as many points as its weight of now allows.
    return on_duty(be, point.server, level) and \
        point.node < <uint32_t>hk_load(&be.servers[point.server].live.weight)


cdef int ring_step(BackendC *be, int at, int by, int level) noexcept nogil:
    # The next point that counts, from `at` on (inclusive) forwards or backwards; -1 for none.
    cdef int _k
    for _k in range(be.ring_n):
        if at >= be.ring_n:
            at = 0
        elif at < 0:
            at = be.ring_n - 1
        if counts(be, &be.ring[at], level):
            return at
        at += by
    return -1


cdef ServerC *on_ring(BackendC *be, int level, ServerC *avoid, uint32_t hash) noexcept nogil:
    # Of the two points around the hash the nearer one, the lower one when they are equally near. When that server has
    # just failed, the next one further on.
    cdef int at = ring_find(be, hash), high = ring_step(be, at, 1, level), low, _k
    if high < 0:
        return NULL
    low = ring_step(be, at - 1, -1, level)
    if low >= 0 and hash - be.ring[low].key <= be.ring[high].key - hash:
        high = low
    for _k in range(be.ring_n):
        if &be.servers[be.ring[high].server] != avoid:
            break
        at = ring_step(be, high + 1, 1, level)
        if at < 0:
            break
        high = at
    return &be.servers[be.ring[high].server]


cdef ServerC *ring_turn(Worker *w, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    # Where a request has nothing to hash: from point to point.
    cdef SharedC *turn = be.shared
    cdef int _k, at = turn.next - 1
    for _k in range(be.ring_n):
        at = ring_step(be, at + 1, 1, level)
        if at < 0:
            return NULL
        if candidate(be, be.ring[at].server, level, avoid):
            turn.next = at + 1
            return &be.servers[be.ring[at].server]
    return NULL


# ---------------------------------------------------------------- random

cdef ServerC *weighted(BackendC *be, int level, ServerC *avoid, uint32_t draw) noexcept nogil:
    cdef int64_t total = 0, at
    cdef int i
    for i in range(be.count):
        if candidate(be, i, level, avoid):
            total += hk_load(&be.servers[i].live.weight)
    if total <= 0:
        return NULL
    at = draw % total
    for i in range(be.count):
        if candidate(be, i, level, avoid):
            at -= hk_load(&be.servers[i].live.weight)
            if at < 0:
                return &be.servers[i]
    return NULL


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
        other = weighted(be, level, avoid, random32(w))
        if best == NULL or (other != NULL and
                            <int64_t>hk_load(&other.live.sessions) * hk_load(&best.live.weight) <
                            <int64_t>hk_load(&best.live.sessions) * hk_load(&other.live.weight)):
            best = other
    return best


cdef ServerC *by_algorithm(Worker *w, Session *s, BackendC *be, int level, ServerC *avoid) noexcept nogil:
    if level == 1 and not be.allbackups:
        return the_backup(be)
    if be.balance == LB_LEASTCONN:
        return least(w, be, level, avoid)
    if be.balance == LB_FIRST:
        return first(be, level, avoid)
    if be.balance == LB_RANDOM:
        return drawn(w, be, level, avoid)
    if be.ring_n:
        return on_ring(be, level, avoid, s.hash) if s.hashed else ring_turn(w, be, level, avoid)
    if s.hashed:
        return mapped(w, be, level, s.hash)
    if be.by_hash or be.balance == LB_STATIC_RR:
        return map_turn(w, be, level, avoid)
    if hk_load(&be.equal_weights):
        return plain_turn(w, be, level, avoid)
    return weighted_turn(w, be, level, avoid)


cdef bint takes_turns(BackendC *be) noexcept nogil:
    # Whether the next choice is another server: it is no hash that would point at the same one, and there is another.
    return not be.by_hash and active_servers(be) > 1


cdef int active_servers(BackendC *be) noexcept nogil:
    cdef int i, active = 0
    for i in range(be.count):
        active += not be.servers[i].backup and eligible(&be.servers[i])
    return active


cdef ServerC *choose(Worker *w, Session *s, BackendC *be, ServerC *avoid) noexcept nogil:
    cdef int level = tier(be)
    cdef ServerC *got
    if level < 0:
        return NULL
    got = by_algorithm(w, s, be, level, avoid)
    if got == NULL and avoid != NULL:
        got = by_algorithm(w, s, be, level, NULL)
    return got
