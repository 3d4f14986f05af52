/* Loaded by LD_PRELOAD: shifts CLOCK_REALTIME by what a mapped file says, at run time. The monotonic clock stays.

   ATOLL_CLOCK_FILE names 16 bytes:  | offset in ns, int64, written by the test | calls answered, uint64, written here |

   A wrong or missing file means no shift, and no count: the test takes a fault that was not counted for none. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct steering {
    volatile int64_t offset_ns;
    volatile uint64_t answered;
};

static struct steering *steering;

__attribute__((constructor)) static void map_steering(void)
{
    const char *path = getenv("ATOLL_CLOCK_FILE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct steering), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        steering = mapped;
}

static void shift(struct timespec *at)
{
    if (!steering)
        return;
    int64_t ns = (int64_t)at->tv_sec * 1000000000 + at->tv_nsec + steering->offset_ns;
    at->tv_sec = ns / 1000000000;
    at->tv_nsec = ns % 1000000000;
    __atomic_fetch_add(&steering->answered, 1, __ATOMIC_RELAXED);
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        shift(at);
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return (time_t)-1;
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
