/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Large messages read straight from the sender's memory ("cross-memory
 * attach", process_vm_readv), and whether that pays.
 *
 * Pulling is one copy, by the kernel, page by page; pieces through the ring
 * are two. Sender and receiver do theirs at the same time when each has a
 * core, and then take about as long as one; otherwise they take turns, once
 * for each filling of the ring. Which is faster depends on processor, kernel
 * and virtual machine, so a probe measures both once, on memory of our own.
 * Whether a peer may be read is another question (Yama, namespaces, seccomp),
 * and answered by the first PULL.
 */

#include "transport/ring.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "os/process.h"

/* Below it the round trip costs more than a copy. */
#define PULL_BYTES_MIN (64u << 10)
/* With its copy more than most second-level caches hold: large messages come
 * from memory and go to it, and a copy within a cache would promise too much.
 * The probe takes less than a millisecond with it. */
#define PROBE_BYTES (512u << 10)
#define PROBE_ROUNDS 3
/* From one process to another on the same core: to the receiver and back, each
 * time the ring is full. */
#define SWITCH_NS 20000u
/* By how much pulling has to be faster, in percent. */
#define GAIN_MIN 10

/* Nanoseconds of the fastest copy; 0: it failed. */
static uint64_t time_copies(void *to, const void *from, bool pulling)
{
    uint64_t best_ns = UINT64_MAX;

    for (int i = 0; i < PROBE_ROUNDS; i++) {
        uint64_t begin_ns = tri_now_ns();

        if (!pulling)
            memcpy(to, from, PROBE_BYTES);
        else if (tri_process_read(getpid(), (uintptr_t)from, to, PROBE_BYTES))
            return 0;
        __asm__ __volatile__("" ::: "memory"); /* a copy for nothing, but do */
        best_ns = tri_min(best_ns, tri_now_ns() - begin_ns);
    }
    return best_ns;
}

static enum tri_cma probe(const struct ring *ring)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    bool overlap = (long)ring_peers_len(ring) + 1 <= cores;
    const struct tri_ring_shape *shape = &ring->shapes[RING_DATA];
    uint64_t fills =
        PROBE_BYTES / ((uint64_t)shape->slot_count * shape->slot_bytes);
    unsigned char *from = malloc(2 * PROBE_BYTES);
    uint64_t copy_ns, pull_ns;
    bool pays;

    if (!from)
        return TRI_CMA_OFF;
    memset(from, 1, 2 * PROBE_BYTES); /* no page faults while we measure */
    copy_ns = time_copies(from + PROBE_BYTES, from, false);
    pull_ns = time_copies(from + PROBE_BYTES, from, true);
    free(from);
    if (!overlap)
        copy_ns = 2 * copy_ns + 2 * fills * SWITCH_NS;
    pays = pull_ns > 0 && pull_ns * (100 + GAIN_MIN) < copy_ns * 100;
    tri_info("ring: large messages are %s: 512 KiB take %llu ns in pieces, "
             "%llu ns pulled (0: not possible)",
             pays ? "pulled" : "sent in pieces", (unsigned long long)copy_ns,
             (unsigned long long)pull_ns);
    return pays ? TRI_CMA_ON : TRI_CMA_OFF;
}

size_t ring_pull_bytes_min(struct tri_transport *transport)
{
    struct ring *ring = tri_container_of(transport, struct ring, base);
    int cma = atomic_load_explicit(&ring->cma, memory_order_relaxed);

    if (cma == TRI_CMA_AUTO && !atomic_exchange(&ring->probing, true)) {
        cma = (int)probe(ring);
        atomic_store_explicit(&ring->cma, cma, memory_order_relaxed);
    }
    /* While another thread probes, its message goes in pieces. */
    return cma == TRI_CMA_ON ? PULL_BYTES_MIN : 0;
}

int ring_pull(struct tri_transport *transport, uint64_t node, uint64_t address,
              void *into, size_t bytes)
{
    struct ring *ring = tri_container_of(transport, struct ring, base);
    pid_t pid;
    int error;

    /* Another rank may have been told otherwise. */
    if (ring->config.cma == TRI_CMA_OFF)
        return TROUPE_ETRANSPORT;
    error = ring_peer_pid(ring, node, &pid);
    if (!error)
        error = tri_process_read(pid, address, into, bytes);
    if (error == TROUPE_ESYSTEM)
        tri_info("ring: process %d cannot be read: %m", (int)pid);
    return error == TROUPE_ESYSTEM ? TROUPE_ETRANSPORT : error;
}
