/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CLOCK_H
#define TRI_CLOCK_H

/* Monotonic time. Nothing in troupe looks at the wall clock. */

#include <stdint.h>
#include <time.h>

static inline uint64_t tri_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* A cheap clock of a few ms resolution for deadlines of messages; wraps. */
static inline uint32_t tri_coarse_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (uint32_t)((uint64_t)ts.tv_sec * 1000u +
                      (uint64_t)ts.tv_nsec / 1000000u);
}

#define TRI_NS_PER_MS 1000000ull
#define TRI_NS_NEVER UINT64_MAX

/* The deadline that lies timeout_ms from now; never, when that is negative. */
static inline uint64_t tri_deadline_ns(int timeout_ms)
{
    return timeout_ms < 0 ? TRI_NS_NEVER
                          : tri_now_ns() + (uint64_t)timeout_ms * TRI_NS_PER_MS;
}

/* Milliseconds until a deadline, rounded up; 0 when it has passed. */
static inline uint32_t tri_ms_left(uint64_t deadline_ns, uint64_t now_ns)
{
    uint64_t ms;

    if (deadline_ns <= now_ns)
        return 0;
    ms = (deadline_ns - now_ns + TRI_NS_PER_MS - 1) / TRI_NS_PER_MS;
    return ms > INT32_MAX ? INT32_MAX : (uint32_t)ms;
}

#endif
