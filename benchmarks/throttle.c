/* A disk of so many bytes a second: LD_PRELOAD it, with THROTTLE_DIR (files below it) and THROTTLE_BYTES (a second).
   Every write waits until a disk of that speed would have taken it, in turn with all others of the process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double free_at; /* when the disk is done with what it has */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int below(int fd) {
  const char *folder = getenv("THROTTLE_DIR");
  char link[64], path[4096];
  if (!folder) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strncmp(path, folder, strlen(folder)) == 0;
}

static void take(int fd, ssize_t size) {
  const char *rate = getenv("THROTTLE_BYTES");
  if (size < 65536 || !rate || !below(fd)) return; /* the small ones a disk's cache takes */
  pthread_mutex_lock(&lock);
  double begin = now() > free_at ? now() : free_at;
  free_at = begin + (double)size / atof(rate);
  double until = free_at;
  pthread_mutex_unlock(&lock);
  double left = until - now();
  if (left > 0) {
    struct timespec t = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
    nanosleep(&t, NULL);
  }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) {
  ssize_t done = REAL(write)(fd, data, size);
  take(fd, done);
  return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  ssize_t done = REAL(pwrite64)(fd, data, size, at);
  take(fd, done);
  return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  ssize_t done = REAL(writev)(fd, parts, count);
  take(fd, done);
  return done;
}
