/* A paced load: sends requests at a fixed rate, whether or not answers come in time, and measures each answer from the
 * moment its request was due. What wrk cannot do. pace PORT CONNECTIONS RATE SECONDS prints: done p50_us p99_us max_us
 * late. Requests are due in bursts of a millisecond. For bench_proxy.py only. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\nCookie: JSESSIONID=A~0123456789abcdef; theme=dark\r\n\r\n";

struct conn {
	int fd;
	double due; /* of the request under way, 0 when idle */
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int count, one = 1, idle = 0;
	long sent = 0, done = 0, late = 0, most;
	double rate, seconds, start, end;
	struct conn *conns, **free_list;
	static char buffer[65536];
	struct epoll_event events[256];
	float *taken;

	if (argc != 5)
		return 2;
	a.sin_port = htons(atoi(argv[1]));
	count = atoi(argv[2]);
	rate = atof(argv[3]);
	seconds = atof(argv[4]);
	most = (long)(rate * seconds) + 16;
	conns = calloc(count, sizeof *conns);
	free_list = calloc(count, sizeof *free_list);
	taken = calloc(most, sizeof *taken);
	int ep = epoll_create1(0);
	for (int i = 0; i < count; i++) {
		conns[i].fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(conns[i].fd, (struct sockaddr *)&a, sizeof a) < 0)
			return 1;
		setsockopt(conns[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		struct epoll_event e = { .events = EPOLLIN, .data.ptr = &conns[i] };
		epoll_ctl(ep, EPOLL_CTL_ADD, conns[i].fd, &e);
		free_list[idle++] = &conns[i];
	}
	start = now();
	end = start + seconds;
	for (double t = start; t < end + 0.5 && (t < end || done < sent); t = now()) {
		long want = t < end ? (long)((long)((t - start) * 1000) * rate / 1000) : sent;
		while (sent < want && idle) {
			struct conn *c = free_list[--idle];
			c->due = start + (long)(sent / rate * 1000) / 1000.0 + 0.001;
			if (t - c->due > 0.001)
				late++;
			if (send(c->fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0)
				return 1;
			sent++;
		}
		int n = epoll_wait(ep, events, 256, 1);
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;
			if (recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT) <= 0)
				return 1;
			if (done < most)
				taken[done++] = (now() - c->due) * 1e6;
			c->due = 0;
			free_list[idle++] = c;
		}
	}
	if (!done)
		return 1;
	qsort(taken, done, sizeof *taken, by_value);
	printf("%ld %.0f %.0f %.0f %ld\n", done, taken[done / 2], taken[done * 99 / 100], taken[done - 1], late);
	return 0;
}
