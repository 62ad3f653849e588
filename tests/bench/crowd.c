/* Many lasting connections: a server that answers every message with itself, and the clients of a proxy before it. A
 * connection whose first bytes are "GET " is upgraded with 101 first, as a WebSocket is; then both ends say lines of 64
 * bytes. crowd serve PORT; crowd load PORT IDLE ACTIVE SECONDS tcp|ws prints "ready", waits for a line, sends on the active
 * ones as soon as an answer is there, and prints the number of answers and of connections that were lost. For lasting.py. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64 };
static const char upgraded[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
	"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"; /* of the key in RFC 6455, which every client here sends */

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int serve(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0), one = 1, i, n, fd;
	struct epoll_event e = { .events = EPOLLIN, .data.fd = l }, got[256];
	static char buf[65536];

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(l, (struct sockaddr *)&a, sizeof a) < 0 || listen(l, 8192) < 0)
		return 1;
	epoll_ctl(ep, EPOLL_CTL_ADD, l, &e);
	for (;;) {
		n = epoll_wait(ep, got, 256, -1);
		for (i = 0; i < n; i++) {
			fd = got[i].data.fd;
			if (fd == l) {
				while ((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
					setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
					e.data.fd = fd;
					epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
				}
				continue;
			}
			ssize_t size = read(fd, buf, sizeof buf);
			if (size <= 0)
				close(fd);
			else if (size > 4 && !memcmp(buf, "GET ", 4))
				size = write(fd, upgraded, sizeof upgraded - 1);
			else
				size = write(fd, buf, size);
		}
	}
}

/* One client that has had its first answer, from an address of its own; -1 when that did not work. */
static int join(int port, int number, int ws)
{
	struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000100 + number % 50000) };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	static const char ask[] = "GET /play HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
	struct timeval patience = { 10, 0 };
	char buf[4096];
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	ssize_t n = 0, got;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		return -1;
	if (ws) {
		if (write(fd, ask, sizeof ask - 1) < 0)
			return -1;
		while (n < 4 || memcmp(buf + n - 4, "\r\n\r\n", 4)) {
			got = read(fd, buf + n, sizeof buf - n);
			if (got <= 0)
				return -1;
			n += got;
		}
		if (memcmp(buf, "HTTP/1.1 101", 12))
			return -1;
	}
	memset(buf, 'x', SIZE);
	if (write(fd, buf, SIZE) != SIZE)
		return -1;
	for (n = 0; n < SIZE; n += got) {
		got = read(fd, buf, SIZE - n);
		if (got <= 0)
			return -1;
	}
	return fd;
}

static int load(int port, int idle, int active, double seconds, int ws)
{
	int ep = epoll_create1(0), i, n, lost = 0, *fds = calloc(idle + active, sizeof *fds), *have;
	struct epoll_event e = { .events = EPOLLIN }, got[256];
	static char buf[65536];
	long answers = 0;
	double end;

	for (i = 0; i < idle + active; i++) {
		fds[i] = join(port, i, ws);
		lost += fds[i] < 0;
	}
	printf("ready %d\n", lost);
	fflush(stdout);
	if (!fgets(buf, sizeof buf, stdin))
		return 1;
	have = calloc(65536, sizeof *have);
	memset(buf, 'y', sizeof buf);
	for (i = idle; i < idle + active; i++) {
		if (fds[i] < 0 || fds[i] > 65535)
			continue;
		e.data.fd = fds[i];
		epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &e);
		lost += write(fds[i], buf, SIZE) != SIZE;
	}
	for (end = now() + seconds; now() < end;) {
		n = epoll_wait(ep, got, 256, 10);
		for (i = 0; i < n; i++) {
			int fd = got[i].data.fd;
			ssize_t size = read(fd, buf, sizeof buf);
			if (size <= 0) {
				lost++;
				close(fd);
				continue;
			}
			have[fd] += size;
			if (have[fd] >= SIZE) {
				have[fd] -= SIZE;
				answers++;
				if (now() < end)
					lost += write(fd, buf, SIZE) != SIZE;
			}
		}
	}
	/* the idle ones are still there */
	for (i = 0; i < idle; i++)
		lost += fds[i] >= 0 && recv(fds[i], buf, 1, MSG_DONTWAIT) >= 0;
	printf("%ld %d\n", answers, lost);
	fflush(stdout);
	return !fgets(buf, sizeof buf, stdin);
}

int main(int argc, char **argv)
{
	struct rlimit most;

	getrlimit(RLIMIT_NOFILE, &most);
	most.rlim_cur = most.rlim_max;
	setrlimit(RLIMIT_NOFILE, &most);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(atoi(argv[2]));
	if (argc == 7 && !strcmp(argv[1], "load"))
		return load(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atof(argv[5]), !strcmp(argv[6], "ws"));
	return 2;
}
