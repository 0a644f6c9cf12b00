/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What the driver counts, for users. The control thread alone writes; any
 * thread reads, each number for itself, so relaxed loads and stores will do.
 */

#include "member/member_internal.h"

static void add(_Atomic uint64_t *number, uint64_t by)
{
    atomic_store_explicit(
        number, atomic_load_explicit(number, memory_order_relaxed) + by,
        memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *number)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)number,
                                memory_order_relaxed);
}

void tri_member_count_in(struct tri_member *member, size_t bytes)
{
    add(&member->counts.packets_in, 1);
    add(&member->counts.bytes_in, bytes);
}

void tri_member_count_out(struct tri_member *member, size_t bytes)
{
    add(&member->counts.packets_out, 1);
    add(&member->counts.bytes_out, bytes);
}

void tri_member_count_late(struct tri_member *member, uint64_t late_ns)
{
    add(&member->counts.ticks, 1);
    add(&member->counts.late_sum_ns, late_ns);
    if (late_ns > get(&member->counts.late_max_ns))
        atomic_store_explicit(&member->counts.late_max_ns, late_ns,
                              memory_order_relaxed);
}

void tri_member_publish(struct tri_member *member)
{
    struct tri_swim_metrics metrics = tri_swim_metrics(member->swim);
    const uint64_t values[] = {
        [TRI_MEMBER_PROBES] = metrics.probes,
        [TRI_MEMBER_PROBES_FAILED] = metrics.probes_failed,
        [TRI_MEMBER_SUSPICIONS] = metrics.suspicions,
        [TRI_MEMBER_REFUTATIONS] = metrics.refutations,
        [TRI_MEMBER_DEATHS] = metrics.deaths,
        [TRI_MEMBER_NOT_JUDGED] = metrics.dropped_by_rule_a +
                                  metrics.starved,
        [TRI_MEMBER_PAUSES] = metrics.pauses,
        [TRI_MEMBER_HEALTH] = metrics.health,
        [TRI_MEMBER_RTT_US] = metrics.rtt_us,
    };

    _Static_assert(sizeof(values) / sizeof(values[0]) == TRI_MEMBER_METRICS,
                   "all of them");
    for (unsigned i = 0; i < TRI_MEMBER_METRICS; i++)
        atomic_store_explicit(&member->counts.metrics[i], values[i],
                              memory_order_relaxed);
}

void tri_member_stats(const struct tri_member *member,
                      troupe_member_stats_t *stats_p)
{
    const struct tri_member_counts *counts = &member->counts;
    uint64_t ticks = get(&counts->ticks);

    *stats_p = (troupe_member_stats_t){
        .probes = get(&counts->metrics[TRI_MEMBER_PROBES]),
        .probes_failed = get(&counts->metrics[TRI_MEMBER_PROBES_FAILED]),
        .suspicions = get(&counts->metrics[TRI_MEMBER_SUSPICIONS]),
        .refutations = get(&counts->metrics[TRI_MEMBER_REFUTATIONS]),
        .deaths = get(&counts->metrics[TRI_MEMBER_DEATHS]),
        .not_judged = get(&counts->metrics[TRI_MEMBER_NOT_JUDGED]),
        .pauses = get(&counts->metrics[TRI_MEMBER_PAUSES]),
        .packets_out = get(&counts->packets_out),
        .bytes_out = get(&counts->bytes_out),
        .packets_in = get(&counts->packets_in),
        .bytes_in = get(&counts->bytes_in),
        .late_max_ns = get(&counts->late_max_ns),
        .late_mean_ns = ticks > 0 ? get(&counts->late_sum_ns) / ticks : 0,
        .health = (uint32_t)get(&counts->metrics[TRI_MEMBER_HEALTH]),
        .rtt_us = (uint32_t)get(&counts->metrics[TRI_MEMBER_RTT_US]),
    };
}
