/* SPDX-License-Identifier: BSD-3-Clause */

/* The public calls about the node: who, how many, serving. */

#include "actor/runtime.h"
#include "base/clock.h"
#include "message/pool.h"
#include "node/node.h"

static struct tri_runtime *runtime_of(troupe_from_t from)
{
    troupe_self_t *self;

    return tri_runtime_of(from, &self);
}

int troupe_rank(troupe_from_t from)
{
    return runtime_of(from)->rank;
}

int troupe_size(troupe_from_t from)
{
    return runtime_of(from)->size;
}

uint64_t troupe_node_id(troupe_from_t from)
{
    return runtime_of(from)->node;
}

int troupe_rank_of(troupe_from_t from, uint64_t node)
{
    struct tri_runtime *runtime = runtime_of(from);
    struct tri_peer *peer;

    if (node == runtime->node)
        return runtime->rank;
    peer = tri_link_find(&runtime->link, node);
    return peer != NULL ? peer->rank : -1;
}

int troupe_rank_alive(troupe_from_t from, int rank)
{
    struct tri_runtime *runtime = runtime_of(from);

    if (rank < 0 || rank >= runtime->size)
        return 0;
    return rank == runtime->rank ||
           !tri_peer_is_dead(&runtime->link.peers[rank]);
}

/* --- serving -------------------------------------------------------------- */

struct condition {
    int (*done)(void *arg);
    void *arg;
};

static bool is_met(void *arg)
{
    struct condition *condition = arg;

    return condition->done != NULL && condition->done(condition->arg) != 0;
}

int troupe_serve_until(troupe_t *troupe, int (*done)(void *arg), void *arg,
                       int timeout_ms)
{
    struct condition condition = { done, arg };
    struct tri_seat seat;
    int rc;

    if (troupe == NULL || timeout_ms < TROUPE_FOREVER)
        return TROUPE_EINVAL;
    if (tri_worker_current() != NULL)
        return TROUPE_ECONTEXT;
    tri_seat_take(&troupe->runtime, &seat);
    if (timeout_ms == 0) {
        tri_serve_once(&seat);
        rc = is_met(&condition) ? 0 : TROUPE_ETIMEDOUT;
    } else {
        rc = tri_wait(&seat, is_met, &condition, tri_deadline_ns(timeout_ms));
    }
    tri_seat_leave(&seat);
    return rc;
}

int troupe_serve(troupe_t *troupe, int timeout_ms)
{
    int rc = troupe_serve_until(troupe, NULL, NULL, timeout_ms);

    return rc == TROUPE_ETIMEDOUT ? 0 : rc;
}

void troupe_wake(troupe_from_t from)
{
    tri_wake_guest(runtime_of(from));
}

/* --- looking -------------------------------------------------------------- */

size_t troupe_dead_letters_take(troupe_t *troupe, troupe_dead_letter_t *letters,
                                size_t letters_len_max)
{
    return tri_dead_letters_take(&troupe->runtime.dead_letters, letters,
                                 letters_len_max);
}

uint64_t troupe_dead_letters_count(const troupe_t *troupe)
{
    return atomic_load_explicit(
        (_Atomic uint64_t *)(uintptr_t)&troupe->runtime.dead_letters.count,
        memory_order_relaxed);
}

void troupe_stats(troupe_from_t from, troupe_stats_t *stats_p)
{
    struct tri_runtime *runtime = runtime_of(from);
    struct tri_link_census census = tri_link_census(&runtime->link);
    troupe_stats_t stats = {
        .actors = tri_scheduler_actors(&runtime->scheduler),
        .messages_bytes = tri_pool_bytes(),
        .sent_remote = census.sent,
        .received_remote = census.received,
        .refused = tri_refusals_total(&runtime->link.refusals),
        .dead_letters = atomic_load(&runtime->dead_letters.count),
        .dropped = atomic_load(&runtime->dropped),
        .workers = runtime->scheduler.workers_len,
    };

    for (uint32_t i = 0; i < tri_link_peers_len(&runtime->link); i++) {
        struct tri_peer *peer = &runtime->link.peers[i];

        stats.parked += atomic_load(&peer->parked_len);
        if (atomic_load(&peer->state) != TRI_PEER_UP)
            continue;
        if (peer->transport->ops == &tri_transport_ring)
            stats.peers_ring++;
        else
            stats.peers_fabric++;
    }
    *stats_p = stats;
}

size_t troupe_refused(troupe_from_t from, troupe_refusal_t *refusals_p,
                      size_t len_max)
{
    return tri_refusals_read(&runtime_of(from)->link.refusals, refusals_p,
                             len_max);
}

const char *troupe_version(void)
{
    return "0.1.0";
}
