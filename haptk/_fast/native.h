/* The few things that Cython cannot say: vector scans, atomics, branch hints. Included by scan.pxd only. */
#ifndef HAPTK_NATIVE_H
#define HAPTK_NATIVE_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define hk_likely(x) __builtin_expect(!!(x), 1)
#define hk_unlikely(x) __builtin_expect(!!(x), 0)

/* Index of the first byte of p[0..n) that cannot stand inside a field value (RFC 9110 5.5): a control character other
 * than HTAB, or DEL. n when there is none. Reads only p[0..n). */
static inline size_t hk_value_end(const char *p, size_t n)
{
	size_t i = 0;
#if defined(__SSE2__)
	const __m128i top = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t'), del = _mm_set1_epi8(0x7f);
	for (; i + 16 <= n; i += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(p + i));
		__m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, top), v);
		__m128i bad = _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(v, tab), low), _mm_cmpeq_epi8(v, del));
		int mask = _mm_movemask_epi8(bad);
		if (mask)
			return i + (size_t)__builtin_ctz((unsigned)mask);
	}
#endif
	for (; i < n; i++) {
		unsigned char c = (unsigned char)p[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			break;
	}
	return i;
}

static inline int hk_load(const int *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void hk_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline int hk_acquire(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void hk_release(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline int hk_add(int *p, int v) { return __atomic_add_fetch(p, v, __ATOMIC_RELAXED); }
static inline uint64_t hk_add64(uint64_t *p, uint64_t v) { return __atomic_add_fetch(p, v, __ATOMIC_RELAXED); }
#endif
