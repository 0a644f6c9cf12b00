/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "os/bell.h"

#include <linux/membarrier.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "os/shm.h"

/* A page on most machines, and the same number whatever the machine's. */
#define BELL_BYTES 4096

static int membarrier(int command)
{
    return (int)syscall(SYS_membarrier, command, 0, 0);
}

/* Makes barriers of others reach this process's threads. Idempotent. */
static bool has_membarrier(void)
{
#if defined(TRI_SANITIZE_THREAD)
    return false; /* it would see races where there are none */
#else
    return membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0 &&
           membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED) == 0;
#endif
}

int tri_bell_init(struct tri_bell *bell)
{
    void *map;
    int error;

    bell->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell->event_fd < 0) {
        tri_error("eventfd: %m");
        return TROUPE_ESYSTEM;
    }
    error = tri_shm_create("troupe-bell", BELL_BYTES, &bell->page_fd, &map);
    if (error) {
        close(bell->event_fd);
        return error;
    }
    bell->page = map;
    bell->needs_fence = !has_membarrier();
    bell->page->needs_fence = bell->needs_fence;
    return 0;
}

int tri_bell_attach(struct tri_bell *bell, int page_fd, int event_fd)
{
    void *map;
    int error = tri_shm_attach(page_fd, BELL_BYTES, &map);

    if (error)
        return error;
    /* The mapping holds the page; peers cost one descriptor, not two. */
    close(page_fd);
    bell->page = map;
    bell->needs_fence = !has_membarrier() || bell->page->needs_fence;
    bell->page_fd = -1;
    bell->event_fd = event_fd;
    return 0;
}

void tri_bell_fini(struct tri_bell *bell)
{
    tri_shm_unmap(bell->page, BELL_BYTES);
    close(bell->event_fd);
    if (bell->page_fd >= 0)
        close(bell->page_fd);
}

void tri_bell_arm(struct tri_bell *bell)
{
    atomic_store_explicit(&bell->page->asleep, 1, memory_order_relaxed);
    /* Pairs with the fences, or compiler fences, of tri_bell_ring. */
    if (bell->needs_fence ||
        membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED) != 0)
        tri_fence_full();
}

void tri_bell_disarm(struct tri_bell *bell)
{
    uint64_t count;

    atomic_store_explicit(&bell->page->asleep, 0, memory_order_relaxed);
    /* Always: it may have been rung by ring_always, which leaves no trace in
     * the page. */
    if (read(bell->event_fd, &count, sizeof(count)) < 0)
        return;
}

void tri_bell_ring_always(struct tri_bell *bell)
{
    uint64_t one = 1;

    /* Fails only when 2^64 - 2 rings wait: then it is readable anyway. A
     * foreign descriptor may also refuse: its owner then sleeps on. */
    if (write(bell->event_fd, &one, sizeof(one)) < 0)
        return;
}
