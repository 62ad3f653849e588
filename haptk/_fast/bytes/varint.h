/* Numbers of HAProxy's peers protocol in spans and rooms. Included by varint.pxd only. */
#ifndef HAPTK_VARINT_H
#define HAPTK_VARINT_H
#include "span.h"

/* Below 240 one byte; else four bits in the first and seven in each that follows, of which the last is below 128. */
static inline int hk_room_varint(hk_room *r, uint64_t v HK_AT)
{
	char text[11];
	hk_span s = {text, 1};
	text[0] = (char)(v < 240 ? v : v | 240);
	if (v >= 240) {
		for (v = (v - 240) >> 4; v >= 128; v = (v - 128) >> 7)
			text[s.n++] = (char)(v | 128);
		text[s.n++] = (char)v;
	}
	return hk_room_put(r, s HK_ON);
}
/* 1 and the number, with `at` behind it; 0 when it is not all there; -1 for more than 64 bits. */
static inline int hk_span_varint(hk_span s, uint32_t *at, uint64_t *out HK_AT)
{
	uint32_t i = *at;
	uint64_t v, add;
	HK_MUST(i <= s.n);
	if (i == s.n)
		return 0;
	v = (uint8_t)s.p[i++];
	if (v >= 240) {
		for (int shift = 4;; shift += 7) {
			if (i == s.n)
				return 0;
			if (shift > 60)
				return -1;
			add = (uint64_t)(uint8_t)s.p[i] << shift;
			if (add >> shift != (uint8_t)s.p[i] || v + add < add)
				return -1;
			v += add;
			if ((uint8_t)s.p[i++] < 128)
				break;
		}
	}
	*at = i;
	*out = v;
	return 1;
}
static inline int hk_room_big32(hk_room *r, uint32_t v HK_AT)
{
	char text[4] = {(char)(v >> 24), (char)(v >> 16), (char)(v >> 8), (char)v};
	hk_span s = {text, 4};
	return hk_room_put(r, s HK_ON);
}
static inline uint32_t hk_span_big32(hk_span s, uint32_t i HK_AT)
{
	HK_MUST(i <= s.n && s.n - i >= 4);
	return (uint32_t)(uint8_t)s.p[i] << 24 | (uint32_t)(uint8_t)s.p[i + 1] << 16 |
	       (uint32_t)(uint8_t)s.p[i + 2] << 8 | (uint8_t)s.p[i + 3];
}
#define room_varint(r, v) hk_room_varint(r, v HK_HERE)
#define span_varint(s, at, v) hk_span_varint(s, at, v HK_HERE)
#define room_big32(r, v) hk_room_big32(r, v HK_HERE)
#define span_big32(s, i) hk_span_big32(s, i HK_HERE)
#endif
