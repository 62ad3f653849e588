/* The floor of what a proxy on sockets can cost: one thread, edge-triggered epoll, keep-alive on both sides, small
 * messages, one server. It cuts the "A~" out of the request's cookie, puts it into the response's, and checks nothing:
 * a message is taken to be what one read returns. For bench_proxy.py only. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct peer {
	int fd, server;
	struct peer *other;
};

static int epfd;
static struct sockaddr_in backend;

static void add(struct peer *p)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = p };
	epoll_ctl(epfd, EPOLL_CTL_ADD, p->fd, &e);
}

static void begin(int fd)
{
	struct peer *c = calloc(1, sizeof *c), *s = calloc(1, sizeof *s);
	int one = 1;

	c->fd = fd;
	s->fd = socket(AF_INET, SOCK_STREAM, 0);
	s->server = 1;
	c->other = s;
	s->other = c;
	if (connect(s->fd, (struct sockaddr *)&backend, sizeof backend) < 0) {
		perror("connect");
		exit(1);
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	add(c);
	add(s);
}

static int edit(char *b, int n, int response)
{
	char *at = memmem(b, n, "JSESSIONID=", 11);
	int off;

	if (!at)
		return n;
	off = at - b + 11;
	if (response) {
		memmove(b + off + 2, b + off, n - off);
		memcpy(b + off, "A~", 2);
		return n + 2;
	}
	if (off + 2 <= n && b[off + 1] == '~') {
		memmove(b + off, b + off + 2, n - off - 2);
		return n - 2;
	}
	return n;
}

int main(int argc, char **argv)
{
	static char b[65536];
	struct epoll_event ev[256];
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int one = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct epoll_event le = { .events = EPOLLIN, .data.ptr = NULL };

	if (argc != 3)
		return 2;
	backend = a;
	a.sin_port = htons(atoi(argv[1]));
	backend.sin_port = htons(atoi(argv[2]));
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(l, (struct sockaddr *)&a, sizeof a) < 0 || listen(l, 8192) < 0)
		return 1;
	epfd = epoll_create1(0);
	epoll_ctl(epfd, EPOLL_CTL_ADD, l, &le);
	for (;;) {
		int n = epoll_wait(epfd, ev, 256, -1);
		for (int i = 0; i < n; i++) {
			struct peer *p = ev[i].data.ptr;
			ssize_t got;
			int fd;

			if (!p) {
				while ((fd = accept4(l, NULL, NULL, 0)) >= 0)
					begin(fd);
				continue;
			}
			if (p->fd < 0)
				continue;
			got = recv(p->fd, b, sizeof b - 2, MSG_DONTWAIT);
			if (got > 0) {
				got = edit(b, got, p->server);
				if (send(p->other->fd, b, got, MSG_NOSIGNAL) == got)
					continue;
			}
			if (got < 0 && errno == EAGAIN)
				continue;
			close(p->fd); /* both memories are lost: this is a benchmark */
			close(p->other->fd);
			p->fd = p->other->fd = -1;
		}
	}
}
