/* A wall clock that a test can step: CLOCK_REALTIME plus the seconds in the file that HAPTK_STEP_FILE names.
 * Loaded with LD_PRELOAD. The monotonic clock and sleeping stay as they are, as when an administrator sets the date. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *step;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("HAPTK_STEP_FILE");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *found = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	step = found == MAP_FAILED ? NULL : found;
}

int clock_gettime(clockid_t which, struct timespec *out)
{
	int got = (int)syscall(SYS_clock_gettime, which, out);
	if (got == 0 && which == CLOCK_REALTIME && step)
		out->tv_sec += *step;
	return got;
}

int gettimeofday(struct timeval *out, void *zone)
{
	struct timespec now;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	out->tv_sec = now.tv_sec;
	out->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (out)
		*out = now.tv_sec;
	return now.tv_sec;
}
