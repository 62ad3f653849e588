/* LD_PRELOAD: fsync as a sick disk does it. $SLOW_DISK names a file with "SECONDS" or "EIO"; absent or empty is well. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  const char *path = getenv("SLOW_DISK");
  char words[32] = "";
  FILE *file = path ? fopen(path, "r") : NULL;
  if (file) {
    if (!fgets(words, sizeof words, file)) words[0] = 0;
    fclose(file);
  }
  if (!strncmp(words, "EIO", 3)) {
    errno = EIO;
    return -1;
  }
  double seconds = atof(words);
  if (seconds > 0) usleep((useconds_t)(seconds * 1e6));
  return real(fd);
}
