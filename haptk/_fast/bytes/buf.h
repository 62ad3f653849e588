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
static inline void hk_buf_skip(hk_buf *b, uint32_t count HK_AT)
{
	HK_MUST(b->p <= b->n && count <= b->n - b->p);
	b->p += count;
}
/* `token` is scan's TOKEN. */
static inline uint32_t hk_buf_lower_token(hk_buf *b, uint32_t at, const uint8_t *token HK_AT)
{
	HK_MUST(at <= b->n && b->n <= b->size);
	return (uint32_t)hk_lower_token(b->d + at, b->n - at, token);
}

#define buf_part(b, start, end) hk_buf_part(b, start, end HK_HERE)
#define buf_put(b, s) hk_buf_put(b, s HK_HERE)
#define buf_room(b) hk_buf_room(b HK_HERE)
#define buf_wrote(b, r) hk_buf_wrote(b, r HK_HERE)
#define buf_cut(b, start, end) hk_buf_cut(b, start, end HK_HERE)
#define buf_keep(b, count) hk_buf_keep(b, count HK_HERE)
#define buf_skip(b, count) hk_buf_skip(b, count HK_HERE)
#define buf_lower_token(b, at, token) hk_buf_lower_token(b, at, token HK_HERE)
#endif
