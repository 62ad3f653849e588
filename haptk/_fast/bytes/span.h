/* Bytes that know their bounds. Included by span.pxd only, which is also the documentation of what is here.
 *
 * Two builds. As shipped, a step out of bounds ends the process at once (__builtin_trap): a wrong offset is how requests
 * are smuggled, so going on with it is worse than ending. With HAPTK_CHECKED the same checks name the source line, and
 * the invariants of rooms and buffers are verified at each use as well. */
#ifndef HAPTK_SPAN_H
#define HAPTK_SPAN_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vector.h"

#ifdef HAPTK_CHECKED
#define HK_AT , const char *hk_file, int hk_line
#define HK_HERE , __FILE__, __LINE__
#define HK_ON , hk_file, hk_line
static __attribute__((noreturn, cold, noinline, unused)) void hk_broken(const char *file, int line, const char *what)
{
	fprintf(stderr, "haptk: bounds: %s:%d: %s does not hold\n", file, line, what);
	fflush(stderr);
	abort();
}
#define HK_MUST(x)                                                                                                     \
	do {                                                                                                           \
		if (__builtin_expect(!(x), 0))                                                                         \
			hk_broken(hk_file, hk_line, #x);                                                               \
	} while (0)
#define HK_INVARIANT(x) HK_MUST(x)
#else
#define HK_AT
#define HK_HERE
#define HK_ON
#define HK_MUST(x)                                                                                                     \
	do {                                                                                                           \
		if (__builtin_expect(!(x), 0))                                                                         \
			__builtin_trap();                                                                              \
	} while (0)
#define HK_INVARIANT(x) (void)0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define HK_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HK_ASAN 1
#endif
#endif
#ifdef HK_ASAN
#include <sanitizer/asan_interface.h>
#define HK_POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define HK_UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define HK_POISON(p, n) (void)0
#define HK_UNPOISON(p, n) (void)0
#endif

#define HK_NOWHERE UINT32_MAX

/* The structure that has `member` at `offset`. */
static inline void *hk_outer(void *member, size_t offset) { return (char *)member - offset; }

/* ------------------------------------------------------------------ spans: what may be read */

typedef struct {
	const char *p;
	uint32_t n;
} hk_span;

/* The one way from a pointer to a span; p[0..n) must be readable. */
static inline hk_span hk_span_over(const void *p, size_t n HK_AT)
{
	hk_span s = {(const char *)p, (uint32_t)n};
	HK_MUST(n <= UINT32_MAX);
	return s;
}
static inline hk_span hk_word(const char *literal)
{
	hk_span s = {literal, (uint32_t)__builtin_strlen(literal)};
	return s;
}
static inline hk_span hk_span_none(void)
{
	hk_span s = {NULL, 0};
	return s;
}
static inline const char *hk_span_raw(hk_span s) { return s.p; }
static inline int hk_span_given(hk_span s) { return s.p != NULL; }
static inline uint32_t hk_span_len(hk_span s) { return s.n; }

static inline uint8_t hk_span_at(hk_span s, uint32_t i HK_AT)
{
	HK_MUST(i < s.n);
	return (uint8_t)s.p[i];
}
static inline hk_span hk_span_sub(hk_span s, uint32_t at, uint32_t n HK_AT)
{
	hk_span out = {s.p + at, n};
	HK_MUST(at <= s.n && n <= s.n - at);
	return out;
}
static inline hk_span hk_span_from(hk_span s, uint32_t at HK_AT)
{
	hk_span out = {s.p + at, s.n - at};
	HK_MUST(at <= s.n);
	return out;
}
static inline hk_span hk_span_first(hk_span s, uint32_t n HK_AT)
{
	hk_span out = {s.p, n};
	HK_MUST(n <= s.n);
	return out;
}
static inline hk_span hk_span_last(hk_span s, uint32_t n HK_AT)
{
	hk_span out = {s.p + (s.n - n), n};
	HK_MUST(n <= s.n);
	return out;
}
static inline hk_span hk_span_between(hk_span s, uint32_t start, uint32_t end HK_AT)
{
	hk_span out = {s.p + start, end - start};
	HK_MUST(start <= end && end <= s.n);
	return out;
}
static inline hk_span hk_span_cut(hk_span s, uint32_t most)
{
	if (s.n > most)
		s.n = most;
	return s;
}
/* Where `part`, which was taken from `s`, begins in it. */
static inline uint32_t hk_span_offset(hk_span s, hk_span part HK_AT)
{
	uintptr_t whole = (uintptr_t)s.p, at = (uintptr_t)part.p;
	HK_MUST(at >= whole && at - whole <= s.n && part.n <= s.n - (at - whole));
	return (uint32_t)(at - whole);
}

/* Into memory of the operating system's structures, which is as long as the span. */
static inline void hk_put_octets(void *out, hk_span s) { memcpy(out, s.p, s.n); }
/* Into an array of 16 that keeps addresses. */
static inline void hk_octets_16(uint8_t *out, hk_span s HK_AT)
{
	HK_MUST(s.n <= 16);
	memcpy(out, s.p, s.n);
}
static inline uint32_t hk_span_big16(hk_span s, uint32_t i HK_AT)
{
	HK_MUST(i < s.n && s.n - i >= 2);
	return (uint32_t)(uint8_t)s.p[i] << 8 | (uint8_t)s.p[i + 1];
}

/* A structure of ours that was put there as bytes. */
static inline void hk_span_get(hk_span s, uint32_t at, void *out, size_t n HK_AT)
{
	HK_MUST(at <= s.n && n <= s.n - at);
	memcpy(out, s.p + at, n);
}

/* ------------------------------------------------------------------ comparing */

static inline int hk_same(const char *a, const char *b, uint32_t n) { return n == 0 || memcmp(a, b, n) == 0; }

static inline int hk_span_eq(hk_span a, hk_span b) { return a.n == b.n && hk_same(a.p, b.p, a.n); }
static inline int hk_span_begins(hk_span s, hk_span with) { return with.n <= s.n && hk_same(s.p, with.p, with.n); }
static inline int hk_span_ends(hk_span s, hk_span with)
{
	return with.n <= s.n && hk_same(s.p + (s.n - with.n), with.p, with.n);
}
/* These are macros as well so that the length of a literal is a constant and short comparisons need no call. */
static inline int hk_span_is(hk_span s, const char *literal)
{
	return s.n == __builtin_strlen(literal) && memcmp(s.p, literal, __builtin_strlen(literal)) == 0;
}
static inline int hk_span_opens(hk_span s, const char *literal)
{
	return s.n >= __builtin_strlen(literal) && memcmp(s.p, literal, __builtin_strlen(literal)) == 0;
}
static inline uint8_t hk_lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c; }
/* `lower` has no capitals. */
static inline int hk_same_ci(const char *p, const char *lower, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (hk_lower((uint8_t)p[i]) != (uint8_t)lower[i])
			return 0;
	return 1;
}
static inline int hk_span_eq_ci(hk_span s, hk_span lower) { return s.n == lower.n && hk_same_ci(s.p, lower.p, s.n); }
static inline int hk_span_is_ci(hk_span s, const char *lower)
{
	/* mostly it comes as it is written here, and that is one comparison */
	return s.n == __builtin_strlen(lower) &&
	       (memcmp(s.p, lower, __builtin_strlen(lower)) == 0 || hk_same_ci(s.p, lower, s.n));
}
static inline int hk_span_opens_ci(hk_span s, const char *lower)
{
	uint32_t n = (uint32_t)__builtin_strlen(lower);
	return s.n >= n && hk_same_ci(s.p, lower, n);
}

/* ------------------------------------------------------------------ finding */

static inline uint32_t hk_span_find(hk_span s, uint8_t c, uint32_t from HK_AT)
{
	const char *at;
	HK_MUST(from <= s.n);
	if (from == s.n)
		return HK_NOWHERE;
	at = (const char *)memchr(s.p + from, c, s.n - from);
	return at == NULL ? HK_NOWHERE : (uint32_t)(at - s.p);
}
/* The first place from `from` on whose byte has a zero in `table`; the length when there is none. */
static inline uint32_t hk_span_while(hk_span s, uint32_t from, const uint8_t *table HK_AT)
{
	HK_MUST(from <= s.n);
	while (from < s.n && table[(uint8_t)s.p[from]])
		from++;
	return from;
}
static inline int hk_span_blank(uint8_t c) { return c == ' ' || c == '\t'; }
/* The first place from `i` on that is no blank; the length when there is none. */
static inline uint32_t hk_span_skip(hk_span s, uint32_t i)
{
	while (i < s.n && hk_span_blank((uint8_t)s.p[i]))
		i++;
	return i;
}
static inline hk_span hk_span_trim(hk_span s)
{
	while (s.n && hk_span_blank((uint8_t)s.p[s.n - 1]))
		s.n--;
	while (s.n && hk_span_blank((uint8_t)s.p[0])) {
		s.p++;
		s.n--;
	}
	return s;
}
static inline hk_span hk_span_trim_end(hk_span s)
{
	while (s.n && hk_span_blank((uint8_t)s.p[s.n - 1]))
		s.n--;
	return s;
}

/* The scans of vector.h, from an index on; the length when there is no such byte. */
static inline uint32_t hk_span_value_end(hk_span s, uint32_t from HK_AT)
{
	HK_MUST(from <= s.n);
	return from + (uint32_t)hk_value_end(s.p + from, s.n - from);
}
static inline uint32_t hk_span_target_end(hk_span s, uint32_t from HK_AT)
{
	HK_MUST(from <= s.n);
	return from + (uint32_t)hk_target_end(s.p + from, s.n - from);
}
static inline uint32_t hk_span_any_of(hk_span s, uint32_t from, uint8_t a, uint8_t b, uint8_t c HK_AT)
{
	HK_MUST(from <= s.n);
	return from + (uint32_t)hk_any_of(s.p + from, s.n - from, (char)a, (char)b, (char)c);
}
static inline uint32_t hk_span_find_span(hk_span s, hk_span needle)
{
	const char *at = hk_find(s.p, s.n, needle.p, needle.n);
	return at == NULL ? HK_NOWHERE : (uint32_t)(at - s.p);
}
static inline int hk_span_blank_at_equals(hk_span s) { return hk_blank_at_equals(s.p, s.n); }

/* ------------------------------------------------------------------ numbers */

/* Decimal digits and nothing else, 18 of them at most; -1 for everything else. */
static inline int64_t hk_span_decimal(hk_span s)
{
	uint64_t v = 0;
	if (s.n == 0 || s.n > 18)
		return -1;
	for (uint32_t i = 0; i < s.n; i++) {
		uint8_t digit = (uint8_t)((uint8_t)s.p[i] - '0');
		if (digit > 9)
			return -1;
		v = v * 10 + digit;
	}
	return (int64_t)v;
}

/* ------------------------------------------------------------------ rooms: where is written */

typedef struct {
	char *p;
	uint32_t n;    /* written */
	uint32_t size;
	int full;      /* something was refused; everything after it is, too */
} hk_room;

static inline hk_room hk_room_over(void *p, size_t size HK_AT)
{
	hk_room r = {(char *)p, 0, (uint32_t)size, 0};
	HK_MUST(size <= INT32_MAX);
	return r;
}
/* Memory of its own; 0, or -1 without. */
static inline int hk_room_open(hk_room *r, uint32_t size)
{
	r->p = (char *)malloc(size ? size : 1);
	r->n = 0;
	r->size = r->p == NULL ? 0 : size;
	r->full = 0;
	if (r->p != NULL)
		HK_POISON(r->p, r->size);
	return r->p == NULL ? -1 : 0;
}
static inline void hk_room_close(hk_room *r)
{
	if (r->p != NULL)
		HK_UNPOISON(r->p, r->size);
	free(r->p);
	r->p = NULL;
	r->n = r->size = 0;
}
static inline int hk_room_given(const hk_room *r) { return r->p != NULL; }
static inline uint32_t hk_room_len(const hk_room *r) { return r->n; }
static inline uint32_t hk_room_size(const hk_room *r) { return r->size; }
static inline uint32_t hk_room_left(const hk_room *r) { return r->full ? 0 : r->size - r->n; }
static inline int hk_room_full(const hk_room *r) { return r->full; }

/* The next n bytes of the room, which count as written; NULL when they are refused. Only used in this file. */
static inline char *hk_room_next(hk_room *r, size_t n HK_AT)
{
	char *at = r->p + r->n;
	HK_INVARIANT(r->n <= r->size);
	if (__builtin_expect(r->full || n > r->size - r->n, 0)) {
		r->full = 1;
		return NULL;
	}
	HK_UNPOISON(at, n);
	r->n += (uint32_t)n;
	return at;
}
/* Take over what was written by room_within. */
static inline void hk_room_wrote(hk_room *r, uint32_t n HK_AT)
{
	HK_MUST(!r->full && n <= r->size - r->n);
	r->n += n;
}
/* As if something had not fit. */
static inline void hk_room_refuse(hk_room *r) { r->full = 1; }
static inline int hk_room_put(hk_room *r, hk_span s HK_AT)
{
	char *at = hk_room_next(r, s.n HK_ON);
	if (at == NULL)
		return -1;
	if (s.n)
		memcpy(at, s.p, s.n);
	return 0;
}
static inline int hk_room_word(hk_room *r, const char *literal HK_AT)
{
	char *at = hk_room_next(r, __builtin_strlen(literal) HK_ON);
	if (at == NULL)
		return -1;
	memcpy(at, literal, __builtin_strlen(literal));
	return 0;
}
static inline int hk_room_char(hk_room *r, uint8_t c HK_AT)
{
	char *at = hk_room_next(r, 1 HK_ON);
	if (at == NULL)
		return -1;
	*at = (char)c;
	return 0;
}
static inline int hk_room_decimal(hk_room *r, uint64_t v HK_AT)
{
	char text[20];
	uint32_t n = sizeof(text);
	hk_span s;
	do {
		text[--n] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	s.p = text + n;
	s.n = (uint32_t)sizeof(text) - n;
	return hk_room_put(r, s HK_ON);
}
/* Two digits of a byte, with capitals. */
static inline int hk_room_hex(hk_room *r, uint8_t v HK_AT)
{
	char *at = hk_room_next(r, 2 HK_ON);
	if (at == NULL)
		return -1;
	at[0] = "0123456789ABCDEF"[v >> 4];
	at[1] = "0123456789ABCDEF"[v & 15];
	return 0;
}
/* What was written, as a whole and from a mark (an earlier length) on. */
static inline hk_span hk_room_span(const hk_room *r)
{
	hk_span s = {r->p, r->n};
	return s;
}
static inline hk_span hk_room_since(const hk_room *r, uint32_t mark HK_AT)
{
	hk_span s = {r->p + mark, r->n - mark};
	HK_MUST(mark <= r->n);
	return s;
}
/* Back to a mark; what was refused since then is forgotten. */
static inline void hk_room_cut(hk_room *r, uint32_t mark HK_AT)
{
	HK_MUST(mark <= r->n);
	HK_POISON(r->p + mark, r->n - mark);
	r->n = mark;
	r->full = 0;
}
/* The next `most` bytes of the room, or what is left, as a room; what is written there counts by room_wrote only. */
static inline hk_room hk_room_within(hk_room *r, uint32_t most)
{
	hk_room out = {r->p + r->n, 0, 0, r->full};
	out.size = r->full ? 0 : most < r->size - r->n ? most : r->size - r->n;
	return out;
}
static inline uint8_t hk_room_last(const hk_room *r) { return r->n ? (uint8_t)r->p[r->n - 1] : 0; }
/* Overwrite a byte that was written. */
static inline void hk_room_set(hk_room *r, uint32_t i, uint8_t c HK_AT)
{
	HK_MUST(i < r->n);
	r->p[i] = (char)c;
}

#define span_over(p, n) hk_span_over(p, n HK_HERE)
#define span_at(s, i) hk_span_at(s, i HK_HERE)
#define span_sub(s, at, n) hk_span_sub(s, at, n HK_HERE)
#define span_from(s, at) hk_span_from(s, at HK_HERE)
#define span_first(s, n) hk_span_first(s, n HK_HERE)
#define span_last(s, n) hk_span_last(s, n HK_HERE)
#define span_between(s, a, b) hk_span_between(s, a, b HK_HERE)
#define span_offset(s, part) hk_span_offset(s, part HK_HERE)
#define span_get(s, at, out, n) hk_span_get(s, at, out, n HK_HERE)
#define octets_16(out, s) hk_octets_16(out, s HK_HERE)
#define span_big16(s, i) hk_span_big16(s, i HK_HERE)
#define span_while(s, from, table) hk_span_while(s, from, table HK_HERE)
#define span_find(s, c, from) hk_span_find(s, c, from HK_HERE)
#define span_value_end(s, from) hk_span_value_end(s, from HK_HERE)
#define span_target_end(s, from) hk_span_target_end(s, from HK_HERE)
#define span_any_of(s, from, a, b, c) hk_span_any_of(s, from, a, b, c HK_HERE)
#define room_over(p, n) hk_room_over(p, n HK_HERE)
#define room_put(r, s) hk_room_put(r, s HK_HERE)
#define room_wrote(r, n) hk_room_wrote(r, n HK_HERE)
#define room_word(r, s) hk_room_word(r, s HK_HERE)
#define room_char(r, c) hk_room_char(r, c HK_HERE)
#define room_decimal(r, v) hk_room_decimal(r, v HK_HERE)
#define room_hex(r, v) hk_room_hex(r, v HK_HERE)
#define room_since(r, m) hk_room_since(r, m HK_HERE)
#define room_cut(r, m) hk_room_cut(r, m HK_HERE)
#define room_set(r, i, c) hk_room_set(r, i, c HK_HERE)
#endif
