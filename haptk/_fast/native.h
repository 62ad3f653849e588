/* The few things that Cython cannot say: atomics, branch hints. Included by scan.pxd only. */
#ifndef HAPTK_NATIVE_H
#define HAPTK_NATIVE_H
#include <sched.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define hk_likely(x) __builtin_expect(!!(x), 1)
#define hk_unlikely(x) __builtin_expect(!!(x), 0)

/* Ask for n bytes from p, which are needed soon. Any pointer will do. */
static inline void hk_fetch(const void *p, size_t n)
{
	for (size_t i = 0; i < n; i += 64)
		__builtin_prefetch((const char *)p + i);
}

/* A seeded hash of bytes that clients choose: multiply and fold, 16 bytes a step. Good enough that nobody who does not
 * know the seed can fill one bucket. */
static inline uint64_t hk_fold(uint64_t a, uint64_t b)
{
	unsigned __int128 v = (unsigned __int128)a * b;
	return (uint64_t)v ^ (uint64_t)(v >> 64);
}
static inline uint64_t hk_hash(const void *data, size_t n, uint64_t seed)
{
	const unsigned char *p = (const unsigned char *)data;
	uint64_t a, b, h = seed ^ (n * 0x9e3779b97f4a7c15ull);
	for (; n >= 16; n -= 16, p += 16) {
		memcpy(&a, p, 8);
		memcpy(&b, p + 8, 8);
		h = hk_fold(a ^ 0xa0761d6478bd642full ^ seed, b ^ h ^ 0xe7037ed1a0b428dbull);
	}
	a = b = 0;
	memcpy(&a, p, n < 8 ? n : 8);
	if (n > 8)
		memcpy(&b, p + 8, n - 8);
	return hk_fold(h ^ a ^ 0x8ebc6af09c88c6e3ull, b ^ seed ^ 0x589965cc75374cc3ull);
}

static inline int hk_load(const int *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void hk_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline int hk_acquire(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void hk_release(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
/* For a few instructions only: who finds it taken gives the core away, because its owner may have lost its own. */
static inline void hk_lock(int *p)
{
	while (__atomic_exchange_n(p, 1, __ATOMIC_ACQUIRE))
		sched_yield();
}
static inline void hk_unlock(int *p) { __atomic_store_n(p, 0, __ATOMIC_RELEASE); }
static inline void *hk_load_ptr(void **p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void hk_store_ptr(void **p, void *v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline int hk_add(int *p, int v) { return __atomic_add_fetch(p, v, __ATOMIC_RELAXED); }
/* hk_add for what only `sharers` threads change: alone one needs no locked instruction, which waits for all stores before
 * it, also for those to memory that is not in the cache. */
static inline int hk_count(int sharers, int *p, int v)
{
	if (sharers > 1)
		return hk_add(p, v);
	v += hk_load(p);
	hk_store(p, v);
	return v;
}
static inline uint64_t hk_add64(uint64_t *p, uint64_t v) { return __atomic_add_fetch(p, v, __ATOMIC_RELAXED); }

static inline void hk_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* A list that one side pushes to and another empties whole (newest first), without locks. */
static inline void hk_push(void **list, void **next, void *node)
{
	void *first = __atomic_load_n(list, __ATOMIC_RELAXED);
	do
		*next = first;
	while (!__atomic_compare_exchange_n(list, &first, node, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}
static inline void *hk_take_all(void **list) { return __atomic_exchange_n(list, NULL, __ATOMIC_ACQUIRE); }
#endif
