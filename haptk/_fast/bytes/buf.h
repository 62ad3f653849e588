/* Buffers of a session. Included by buf.pxd only. */
#ifndef HAPTK_BUF_H
#define HAPTK_BUF_H
#include "span.h"

typedef struct {
	char *d;
	uint32_t r;
	uint32_t f;
	uint32_t p;
	uint32_t n;
	uint32_t size;
} hk_buf;

#define HK_BUF(b) HK_INVARIANT((b)->r <= (b)->n && (b)->p <= (b)->n && (b)->f <= (b)->n && (b)->n <= (b)->size)

static inline int hk_buf_held(const hk_buf *b) { return b->d != NULL; }
static inline hk_span hk_buf_part(const hk_buf *b, uint32_t start, uint32_t end HK_AT)
{
	hk_span s = {b->d + start, end - start};
	HK_BUF(b);
	HK_MUST(start <= end && end <= b->size);
	return s;
}
/* A buffer over what was written to a room, all of it unseen. */
static inline void hk_buf_over(hk_buf *b, const hk_room *r)
{
	b->d = r->p;
	b->r = b->f = b->p = 0;
	b->n = r->n;
	b->size = r->size;
}
static inline int hk_buf_put(hk_buf *b, hk_span s HK_AT)
{
	HK_BUF(b);
	if (s.n > b->size - b->n)
		return -1;
	HK_UNPOISON(b->d + b->n, s.n);
	if (s.n)
		memcpy(b->d + b->n, s.p, s.n);
	b->n += s.n;
	return 0;
}
static inline hk_room hk_buf_room(hk_buf *b HK_AT)
{
	hk_room r = {b->d, b->n, b->size, 0};
	HK_BUF(b);
	return r;
}
/* Only a room that was not refused anything, and that is this buffer's. */
static inline void hk_buf_wrote(hk_buf *b, const hk_room *r HK_AT)
{
	HK_MUST(r->p == b->d && !r->full && r->n <= b->size);
	b->n = r->n;
}
/* Without what stands from `start` to `end`. */
static inline void hk_buf_cut(hk_buf *b, uint32_t start, uint32_t end HK_AT)
{
	HK_MUST(start <= end && end <= b->n && b->n <= b->size);
	memmove(b->d + start, b->d + end, b->n - end);
	b->n -= end - start;
}
static inline void hk_buf_keep(hk_buf *b, uint32_t count HK_AT)
{
	HK_BUF(b);
	HK_MUST(b->f <= b->p && b->p <= b->n && count <= b->n - b->p);
	if (b->f != b->p)
		memmove(b->d + b->f, b->d + b->p, count);
	b->f += count;
	b->p += count;
}
/* What stands from `start` on moves to the beginning. */
static inline void hk_buf_compact(hk_buf *b, uint32_t start HK_AT)
{
	HK_BUF(b);
	HK_MUST(start <= b->n && b->n <= b->size);
	if (start != b->n)
		memmove(b->d, b->d + start, b->n - start);
	if (b->r == b->f)
		b->r = b->f = b->p = 0;
	else {
		HK_MUST(start <= b->r && start <= b->f && start <= b->p);
		b->r -= start;
		b->f -= start;
		b->p -= start;
	}
	b->n -= start;
	HK_POISON(b->d + b->n, b->size - b->n);
}
/* The first `count` bytes are exchanged for a span: 0, or -1 when the result does not fit. */
static inline int hk_buf_front(hk_buf *b, uint32_t count, hk_span s HK_AT)
{
	uint32_t rest = b->n - count;
	HK_BUF(b);
	HK_MUST(count <= b->n && b->n <= b->size);
	if (s.n > b->size - rest)
		return -1;
	HK_UNPOISON(b->d, s.n + rest);
	memmove(b->d + s.n, b->d + count, rest);
	if (s.n)
		memcpy(b->d, s.p, s.n);
	b->n = s.n + rest;
	HK_POISON(b->d + b->n, b->size - b->n);
	return 0;
}
/* Memory from the pool, empty; and out again. */
static inline void hk_buf_give(hk_buf *b, void *memory, uint32_t size)
{
	b->d = (char *)memory;
	b->size = size;
	b->r = b->f = b->p = b->n = 0;
	HK_POISON(b->d, size);
}
static inline void *hk_buf_take_back(hk_buf *b)
{
	void *memory = b->d;
	HK_POISON(b->d, b->size);
	b->d = NULL;
	b->r = b->f = b->p = b->n = 0;
	return memory;
}
/* Everything that `from` holds, as it stands there, in other memory. */
static inline void hk_buf_move(hk_buf *b, void *memory, uint32_t size HK_AT)
{
	HK_MUST(b->n <= size);
	HK_UNPOISON((char *)memory, b->n);
	memcpy(memory, b->d, b->n);
	b->d = (char *)memory;
	b->size = size;
	HK_POISON(b->d + b->n, b->size - b->n);
}
static inline void hk_buf_empty(hk_buf *b)
{
	b->r = b->f = b->p = b->n = 0;
	if (b->d != NULL)
		HK_POISON(b->d, b->size);
}
static inline void hk_buf_skip(hk_buf *b, uint32_t count HK_AT)
{
	HK_MUST(b->p <= b->n && count <= b->n - b->p);
	b->p += count;
}
/* In place, of what has arrived: a byte, and `count` bytes from one place to another. */
static inline void hk_buf_set(hk_buf *b, uint32_t at, uint8_t c HK_AT)
{
	HK_MUST(at < b->n && b->n <= b->size);
	b->d[at] = (char)c;
}
static inline void hk_buf_shift(hk_buf *b, uint32_t to, uint32_t from, uint32_t count HK_AT)
{
	HK_MUST(b->n <= b->size && from <= b->n && count <= b->n - from && to <= b->n && count <= b->n - to);
	memmove(b->d + to, b->d + from, count);
}
/* `token` is scan's TOKEN. */
static inline uint32_t hk_buf_lower_token(hk_buf *b, uint32_t at, const uint8_t *token HK_AT)
{
	HK_MUST(at <= b->n && b->n <= b->size);
	return (uint32_t)hk_lower_token(b->d + at, b->n - at, token);
}
/* A header line at `at` in the form that almost every line has: "name: value" CR LF, a value without blanks around it, the
 * next line begun and not folded into this one. One proof for the whole line; name_len is also set where it is not so. */
static inline int hk_buf_usual_line(hk_buf *b, uint32_t at, const uint8_t *token, uint32_t *name_len,
				    uint32_t *value_len HK_AT)
{
	char *p = b->d + at;
	size_t n = b->n - at, i, stop;
	HK_MUST(at <= b->n && b->n <= b->size);
	i = hk_lower_token(p, n, token);
	*name_len = (uint32_t)i;
	if (n - i < 6 || memcmp(p + i, ": ", 2) != 0 || (uint8_t)p[i + 2] <= ' ')
		return 0;
	i += 2;
	stop = i + hk_value_end(p + i, n - i);
	if (n - stop < 3 || memcmp(p + stop, "\r\n", 2) != 0 || (uint8_t)p[stop - 1] <= ' ' ||
	    hk_span_blank((uint8_t)p[stop + 2]))
		return 0;
	*value_len = (uint32_t)(stop - i);
	return 1;
}

#define buf_part(b, start, end) hk_buf_part(b, start, end HK_HERE)
#define buf_put(b, s) hk_buf_put(b, s HK_HERE)
#define buf_room(b) hk_buf_room(b HK_HERE)
#define buf_wrote(b, r) hk_buf_wrote(b, r HK_HERE)
#define buf_cut(b, start, end) hk_buf_cut(b, start, end HK_HERE)
#define buf_keep(b, count) hk_buf_keep(b, count HK_HERE)
#define buf_compact(b, start) hk_buf_compact(b, start HK_HERE)
#define buf_front(b, count, s) hk_buf_front(b, count, s HK_HERE)
#define buf_move(b, memory, size) hk_buf_move(b, memory, size HK_HERE)
#define buf_skip(b, count) hk_buf_skip(b, count HK_HERE)
#define buf_set(b, at, c) hk_buf_set(b, at, c HK_HERE)
#define buf_shift(b, to, from, count) hk_buf_shift(b, to, from, count HK_HERE)
#define buf_usual_line(b, at, token, name_len, value_len) hk_buf_usual_line(b, at, token, name_len, value_len HK_HERE)
#define buf_lower_token(b, at, token) hk_buf_lower_token(b, at, token HK_HERE)
#endif
