/* Bytes between spans, buffers and sockets. Included by wire.pxd only. */
#ifndef HAPTK_WIRE_H
#define HAPTK_WIRE_H
#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "buf.h"

/* recv(2) and send(2) without glibc's wrappers, which are cancellation points and pay for that in every process that
 * has threads. errno as usual. */
static inline long hk_transfer(long number, int fd, const void *p, size_t n, int flags)
{
#if defined(__x86_64__) && defined(__LP64__)
	register long r10 __asm__("r10") = flags;
	register long r8 __asm__("r8") = 0;
	register long r9 __asm__("r9") = 0;
	long got;
	__asm__ volatile("syscall"
			 : "=a"(got)
			 : "a"(number), "D"((long)fd), "S"(p), "d"(n), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	if (__builtin_expect(got >= 0, 1))
		return got;
	errno = (int)-got;
	return -1;
#else
	return syscall(number, fd, p, n, flags, NULL, NULL);
#endif
}

/* Into what is free behind b; as recv(2), but interrupted calls are repeated. */
static inline long hk_buf_receive(hk_buf *b, int fd HK_AT)
{
	long got;
	HK_BUF(b);
	HK_MUST(b->n <= b->size);
	HK_UNPOISON(b->d + b->n, b->size - b->n);
	do
		got = hk_transfer(SYS_recvfrom, fd, b->d + b->n, b->size - b->n, 0);
	while (got < 0 && errno == EINTR);
	if (got > 0)
		b->n += (uint32_t)got;
	HK_POISON(b->d + b->n, b->size - b->n);
	return got;
}

/* One after the other, as send(2); one call for both. */
static inline long hk_span_send(int fd, hk_span a, hk_span b)
{
	long put;
	struct iovec v[2];
	struct msghdr m;
	if (a.n && b.n) {
		memset(&m, 0, sizeof(m));
		v[0].iov_base = (void *)a.p;
		v[0].iov_len = a.n;
		v[1].iov_base = (void *)b.p;
		v[1].iov_len = b.n;
		m.msg_iov = v;
		m.msg_iovlen = 2;
	}
	do {
		if (a.n && b.n)
			put = sendmsg(fd, &m, MSG_NOSIGNAL);
		else if (a.n)
			put = hk_transfer(SYS_sendto, fd, a.p, a.n, MSG_NOSIGNAL);
		else
			put = hk_transfer(SYS_sendto, fd, b.p, b.n, MSG_NOSIGNAL);
	} while (put < 0 && errno == EINTR);
	return put;
}
#define buf_receive(b, fd) hk_buf_receive(b, fd HK_HERE)
#endif
