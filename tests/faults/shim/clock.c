/* A wall clock that can be put: an LD_PRELOAD library for glibc.
 *
 * CLOCK_SHIM_OFFSET is a file that both sides map; its 8 bytes are the nanoseconds by which wall time is off.
 * Clocks that only measure spans go on undisturbed. Waits until a wall time are moved back by as much, since
 * the kernel, which ends them, knows nothing of the offset. `clock_gettime(CLOCK_REALTIME)` and its likes are
 * counted in the 8 bytes behind, so that a test can see that they came this way.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
struct shared {
    int64_t offset;
    uint64_t looks;
};
static struct shared nothing, *shared = &nothing;

/* Of functions that changed within glibc the newer `version` is wanted where there is one. */
static void *find(const char *name, const char *version) {
    void *found = dlvsym(RTLD_NEXT, name, version);
    return found ? found : dlsym(RTLD_NEXT, name);
}

#define REAL(result, name, ...)                 \
    static result (*real)(__VA_ARGS__);         \
    if (!real)                                  \
    real = (result(*)(__VA_ARGS__))find(#name, "GLIBC_2.3.2")

__attribute__((constructor)) static void set_up(void) {
    const char *path = getenv("CLOCK_SHIM_OFFSET");
    if (!path) return;
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    void *found = descriptor < 0
                      ? MAP_FAILED
                      : mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (found == MAP_FAILED) {
        perror("clock shim");
        _exit(70);
    }
    close(descriptor);
    shared = found;
}

static struct timespec moved(struct timespec time, int64_t nanoseconds) {
    int64_t whole = (int64_t)time.tv_sec * SECOND + time.tv_nsec + nanoseconds;
    return (struct timespec){whole / SECOND, whole % SECOND};
}

static int64_t offset(void) {
    return __atomic_load_n(&shared->offset, __ATOMIC_RELAXED);
}

static int look(clockid_t clock, struct timespec *now) {
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        *now = moved(*now, offset());
        __atomic_fetch_add(&shared->looks, 1, __ATOMIC_RELAXED);
    }
    return failed;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    return look(clock, now);
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone; /* obsolete, and not filled by Linux either */
    struct timespec found;
    if (look(CLOCK_REALTIME, &found)) return -1;
    *now = (struct timeval){found.tv_sec, found.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *now) {
    struct timespec found;
    if (look(CLOCK_REALTIME, &found)) return (time_t)-1;
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}

/* Whether a condition waits by wall time is in its attributes, which it does not tell: a time near that of the
 * moved wall clock is one of it. */
static int is_wall_time(const struct timespec *until) {
    struct timespec uptime;
    clock_gettime(CLOCK_MONOTONIC, &uptime);
    return until->tv_sec > uptime.tv_sec + 10LL * 365 * 86400;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    REAL(int, pthread_cond_timedwait, pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec there = is_wall_time(until) ? moved(*until, -offset()) : *until;
    return real(condition, mutex, &there);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    REAL(int, sem_timedwait, sem_t *, const struct timespec *);
    struct timespec there = moved(*until, -offset());
    return real(semaphore, &there);
}
