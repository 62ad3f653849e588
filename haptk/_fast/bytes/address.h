/* Addresses as text and as four or sixteen octets in network order. Included by address.pxd of this package only. */
#ifndef HAPTK_ADDRESS_H
#define HAPTK_ADDRESS_H
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include "span.h"

/* Family of the address that a text is, whose octets go to `out` (16 of them); 0 when it is none. */
static inline int hk_span_address(hk_span s, uint8_t *out)
{
	char text[INET6_ADDRSTRLEN];
	if (s.n == 0 || s.n >= sizeof(text) || memchr(s.p, 0, s.n) != NULL)
		return 0;
	memcpy(text, s.p, s.n);
	text[s.n] = 0;
	if (inet_pton(AF_INET, text, out) == 1)
		return AF_INET;
	return inet_pton(AF_INET6, text, out) == 1 ? AF_INET6 : 0;
}
static inline int hk_room_address(hk_room *r, int family, const uint8_t *octets HK_AT)
{
	char text[INET6_ADDRSTRLEN];
	hk_span s;
	if (inet_ntop(family, octets, text, sizeof(text)) == NULL)
		return -1;
	s.p = text;
	s.n = (uint32_t)strlen(text);
	return hk_room_put(r, s HK_ON);
}
#define room_address(r, family, octets) hk_room_address(r, family, octets HK_HERE)
#endif
