/* Scans over 16 bytes at a time. Every function reads p[0..n) and nothing else, whatever n is, and has a plain twin for
 * machines without SSE2, which is also what it means. Included by span.h and scan.pxd only. */
#ifndef HAPTK_VECTOR_H
#define HAPTK_VECTOR_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>

/* The bytes p[0..n) of fewer than 16, zeroes behind them. */
static inline __m128i hk_part(const char *p, size_t n)
{
	uint64_t low = 0, high = 0;
	uint32_t a, b;
	if (n >= 8) {
		memcpy(&low, p, 8);
		memcpy(&high, p + n - 8, 8);
		high = high >> 8 >> (8 * (15 - n));
	} else if (n >= 4) {
		memcpy(&a, p, 4);
		memcpy(&b, p + n - 4, 4);
		low = a | (uint64_t)b << (8 * (n - 4));
	} else if (n) {
		low = (uint64_t)(uint8_t)p[0] | (uint64_t)(uint8_t)p[n >> 1] << (8 * (n >> 1)) |
		      (uint64_t)(uint8_t)p[n - 1] << (8 * (n - 1));
	}
	return _mm_set_epi64x((long long)high, (long long)low);
}

/* Index of the first byte for which MASK_OF(v), a vector of bytes, is set; n when there is none. */
#define HK_SCAN(p, n, MASK_OF)                                                                                         \
	do {                                                                                                           \
		size_t hk_i = 0;                                                                                       \
		for (; hk_i + 16 <= (n); hk_i += 16) {                                                                 \
			__m128i v = _mm_loadu_si128((const __m128i *)((p) + hk_i));                                    \
			unsigned hk_mask = (unsigned)_mm_movemask_epi8(MASK_OF(v));                                    \
			if (hk_mask)                                                                                   \
				return hk_i + (size_t)__builtin_ctz(hk_mask);                                          \
		}                                                                                                      \
		if (hk_i < (n)) {                                                                                      \
			__m128i v = hk_part((p) + hk_i, (n) - hk_i);                                                   \
			unsigned hk_mask = (unsigned)_mm_movemask_epi8(MASK_OF(v)) & ((1u << ((n) - hk_i)) - 1);       \
			if (hk_mask)                                                                                   \
				return hk_i + (size_t)__builtin_ctz(hk_mask);                                          \
		}                                                                                                      \
		return (n);                                                                                            \
	} while (0)
#endif

/* Index of the first NUL, CR or LF, the bytes that RFC 9110 5.5 calls invalid and dangerous in a field value; n when
 * there is none. Other control characters are kept, as HAProxy keeps them. */
static inline size_t hk_value_end(const char *p, size_t n)
{
#if defined(__SSE2__)
	const __m128i nul = _mm_setzero_si128(), lf = _mm_set1_epi8('\n'), cr = _mm_set1_epi8('\r');
#define HK_ENDS(v) _mm_or_si128(_mm_cmpeq_epi8(v, nul), _mm_or_si128(_mm_cmpeq_epi8(v, cr), _mm_cmpeq_epi8(v, lf)))
	HK_SCAN(p, n, HK_ENDS);
#undef HK_ENDS
#else
	size_t i = 0;
	while (i < n && p[i] != '\0' && p[i] != '\n' && p[i] != '\r')
		i++;
	return i;
#endif
}

/* Index of the first byte that is a, b or c; n when there is none. */
static inline size_t hk_any_of(const char *p, size_t n, char a, char b, char c)
{
#if defined(__SSE2__)
	const __m128i va = _mm_set1_epi8(a), vb = _mm_set1_epi8(b), vc = _mm_set1_epi8(c);
#define HK_IS(v) _mm_or_si128(_mm_cmpeq_epi8(v, va), _mm_or_si128(_mm_cmpeq_epi8(v, vb), _mm_cmpeq_epi8(v, vc)))
	HK_SCAN(p, n, HK_IS);
#undef HK_IS
#else
	size_t i = 0;
	while (i < n && p[i] != a && p[i] != b && p[i] != c)
		i++;
	return i;
#endif
}

/* Index of the first byte that cannot stand in a request's target: a blank, a control character, `#`, DEL or one beyond
 * ASCII; n when there is none. */
static inline size_t hk_target_end(const char *p, size_t n)
{
#if defined(__SSE2__)
	const __m128i space = _mm_set1_epi8(' ' + 1), hash = _mm_set1_epi8('#'), del = _mm_set1_epi8(0x7f);
	/* bytes beyond ASCII are negative, so they are below the first printable one too */
#define HK_BAD(v) _mm_or_si128(_mm_cmplt_epi8(v, space), _mm_or_si128(_mm_cmpeq_epi8(v, hash), _mm_cmpeq_epi8(v, del)))
	HK_SCAN(p, n, HK_BAD);
#undef HK_BAD
#else
	size_t i = 0;
	while (i < n && (uint8_t)p[i] > ' ' && (uint8_t)p[i] < 0x7f && p[i] != '#')
		i++;
	return i;
#endif
}

/* Length of the run of token characters at p, which are lower-cased in place; `token` is scan's TOKEN. Letters, digits and
 * hyphens go fast. */
static inline size_t hk_lower_token(char *p, size_t n, const uint8_t *token)
{
	size_t i = 0;
#if defined(__SSE2__)
	const __m128i bit = _mm_set1_epi8(0x20), order = _mm_set_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
	while (i + 16 <= n) {
		__m128i v = _mm_loadu_si128((const __m128i *)(p + i)), low = _mm_or_si128(v, bit);
		__m128i letter = _mm_and_si128(_mm_cmpgt_epi8(low, _mm_set1_epi8('a' - 1)), _mm_cmplt_epi8(low, _mm_set1_epi8('z' + 1)));
		__m128i digit = _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8('0' - 1)), _mm_cmplt_epi8(v, _mm_set1_epi8('9' + 1)));
		__m128i good = _mm_or_si128(_mm_or_si128(letter, digit), _mm_cmpeq_epi8(v, _mm_set1_epi8('-')));
		unsigned stop = (unsigned)_mm_movemask_epi8(good) ^ 0xffff;
		unsigned run = stop ? (unsigned)__builtin_ctz(stop) : 16;
		/* the bit is set in digits and hyphens already */
		__m128i mine = _mm_cmplt_epi8(order, _mm_set1_epi8((char)run));
		_mm_storeu_si128((__m128i *)(p + i), _mm_or_si128(v, _mm_and_si128(bit, mine)));
		i += run;
		if (run < 16 && token[(uint8_t)p[i]] == 0)
			return i;
		if (run < 16)
			break;
	}
#endif
	for (; i < n; i++) {
		uint8_t c = token[(uint8_t)p[i]];
		if (c == 0)
			break;
		p[i] = (char)c;
	}
	return i;
}

/* The first place of needle[0..m) in p[0..n), or NULL. */
static inline const char *hk_find(const char *p, size_t n, const char *needle, size_t m)
{
	size_t i = 0, last;
	if (m == 0 || m > n)
		return m ? NULL : p;
	last = n - m;
#if defined(__SSE2__)
	const __m128i first = _mm_set1_epi8(needle[0]), end = _mm_set1_epi8(needle[m - 1]);
	for (; i + 15 <= last; i += 16) {
		__m128i a = _mm_loadu_si128((const __m128i *)(p + i));
		__m128i b = _mm_loadu_si128((const __m128i *)(p + i + m - 1));
		unsigned mask = (unsigned)_mm_movemask_epi8(_mm_and_si128(_mm_cmpeq_epi8(a, first), _mm_cmpeq_epi8(b, end)));
		for (; mask; mask &= mask - 1) {
			const char *at = p + i + __builtin_ctz(mask);
			if (memcmp(at, needle, m) == 0)
				return at;
		}
	}
#endif
	for (; i <= last; i++)
		if (p[i] == needle[0] && memcmp(p + i, needle, m) == 0)
			return p + i;
	return NULL;
}

/* Whether some `=` has a blank (space or tab) beside it. */
static inline int hk_blank_at_equals(const char *p, size_t n)
{
#if defined(__SSE2__)
	unsigned before_blank = 0, before_equal = 0;
	for (size_t i = 0; i < n; i += 16) {
		size_t here = n - i < 16 ? n - i : 16;
		__m128i v = here == 16 ? _mm_loadu_si128((const __m128i *)(p + i)) : hk_part(p + i, here);
		unsigned equal = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('=')));
		unsigned blank = (unsigned)_mm_movemask_epi8(
			_mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(' ')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\t'))));
		if ((equal & (blank << 1 | before_blank)) || (blank & (equal << 1 | before_equal)))
			return 1;
		before_blank = blank >> 15;
		before_equal = equal >> 15;
	}
	return 0;
#else
	for (size_t i = 0; i + 1 < n; i++)
		if ((p[i] == '=' && (p[i + 1] == ' ' || p[i + 1] == '\t')) ||
		    (p[i + 1] == '=' && (p[i] == ' ' || p[i] == '\t')))
			return 1;
	return 0;
#endif
}
#endif
