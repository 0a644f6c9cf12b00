/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Starting a node. Everything that can fail on one rank alone is followed by
 * an agreement, so that no rank waits for another that has given up.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "group/group.h"
#include "group/view.h"
#include "link/session.h"
#include "message/pool.h"
#include "mpi/finalize.h"
#include "mpi/requests.h"
#include "name/directory.h"
#include "node/node.h"
#include "node/options.h"
#include "node/report.h"
#include "os/signals.h"
#include "tensor/state.h"
#include "tensor/tensor.h"
#include "transport/carrier.h"

#define SPIN_US 20u
/* With more ranks than cores, yielding lets the sender run; see
 * doc/performance.md. */
#define YIELDS 50u
#define YIELDS_CROWDED 200u

troupe_t *_Atomic tri_node_running;

/* --- steps ---------------------------------------------------------------- */

static enum tri_log_level log_level_of(const char *text)
{
    static const char *const names[] = { "error", "warn", "info", "debug" };

    for (size_t i = 0; i < tri_array_len(names); i++)
        if (strcmp(text, names[i]) == 0)
            return (enum tri_log_level)i;
    return TRI_LOG_WARN;
}

static uint64_t random_id(void)
{
    uint64_t id = 0;

    while (id == 0)
        if (getrandom(&id, sizeof(id), 0) != sizeof(id))
            id = tri_mix64(tri_now_ns() ^ ((uint64_t)getpid() << 32));
    return id;
}

static int agree(troupe_t *troupe, int rc)
{
    int all = rc;

    if (troupe->job != NULL)
        all = tri_job_agree(troupe->job, rc);
    if (rc == 0 && all != 0)
        tri_error("another rank could not start: %s", troupe_strerror(all));
    return rc != 0 ? rc : all;
}

static int gather(troupe_t *troupe, const void *own, void *all, size_t bytes)
{
    if (troupe->job != NULL)
        return tri_job_allgather(troupe->job, own, all, bytes);
    memcpy(all, own, bytes);
    return 0;
}

const char *const tri_security_names[TRI_SECURITY_NAMES] = {
    [TRI_SEAL_NONE] = "none",
    [TRI_SEAL_AUTH] = "auth",
    [TRI_SEAL_ENCRYPT] = "encrypt",
};

static enum tri_seal_mode security_of(const char *text)
{
    for (size_t i = 0; i < TRI_SECURITY_NAMES; i++)
        if (strcmp(text, tri_security_names[i]) == 0)
            return (enum tri_seal_mode)i;
    return TRI_SEAL_AUTH;
}

/* Room for the job's key, and on rank 0 the key. */
static int prepare_key(troupe_t *troupe)
{
    const char *file = troupe->runtime.options.key_file;

    troupe->security = security_of(troupe->runtime.options.security);
    if (troupe->security == TRI_SEAL_NONE) {
        if (file != NULL && troupe->runtime.rank == 0)
            tri_warn("option security is \"none\": the key file is not used");
        return 0;
    }
    troupe->key = tri_key_create();
    if (troupe->key == NULL)
        return TROUPE_ENOMEM;
    if (troupe->runtime.rank != 0)
        return 0;
    if (troupe->welcome != NULL) {
        memcpy(troupe->key, troupe->welcome->key, TRI_KEY_BYTES);
        return 0;
    }
    return file != NULL ? tri_key_read(file, troupe->key)
                        : tri_key_random(troupe->key);
}

static int prepare(troupe_t *troupe, const troupe_options_t *options)
{
    struct tri_runtime *runtime = &troupe->runtime;
    int rc;

    if (options != NULL)
        runtime->options = *options;
    else
        troupe_options_init(&runtime->options);
    rc = tri_options_resolve(&runtime->options);
    if (rc != 0) {
        memset(&runtime->options, 0, sizeof(runtime->options));
        return rc;
    }
    if (troupe->welcome != NULL && tri_grow_options(troupe) != 0)
        return TROUPE_ENOMEM;
    tri_log_init(log_level_of(runtime->options.log),
                 runtime->size > 1 ? runtime->rank : -1);
    tri_report_open(troupe);
    tri_signals_undo_foreign();
    tri_signals_ignore_pipe();
    tri_pool_init(runtime->options.memory_bytes_max);
    troupe->cards = calloc((size_t)runtime->size, sizeof(*troupe->cards));
    troupe->members = calloc((size_t)runtime->size, sizeof(*troupe->members));
    if (troupe->cards == NULL || troupe->members == NULL)
        return TROUPE_ENOMEM;
    rc = tri_topology_read(&troupe->topology);
    if (rc == 0)
        rc = tri_bell_init(&runtime->bell);
    troupe->bell_open = rc == 0;
    if (rc == 0)
        rc = tri_cluster_check_options(&runtime->options);
    return rc == 0 ? prepare_key(troupe) : rc;
}

/* Ranks that disagree would take each other's frames for forged ones. */
static int check_security(const troupe_t *troupe, int rank)
{
    uint32_t theirs = troupe->cards[rank].security;

    if (theirs == troupe->security)
        return 0;
    tri_error("option security is \"%s\" here, but \"%s\" on rank %d; all "
              "ranks must have the same (Open MPI's mpirun passes a variable "
              "on to other hosts with -x)",
              tri_security_names[troupe->security],
              theirs < TRI_SECURITY_NAMES ? tri_security_names[theirs]
                                                     : "unknown",
              rank);
    return TROUPE_EOPTION;
}

static int exchange_cards(troupe_t *troupe)
{
    struct tri_runtime *runtime = &troupe->runtime;
    struct tri_card own = {
        .node = runtime->node,
        .host = troupe->topology.host,
        .nonce = random_id(),
        .cluster_name = tri_cluster_name_hash(runtime->options.cluster),
        .interface = TRI_INTERFACE_VERSION,
        .security = troupe->security,
        .flags = tri_cluster_flags(troupe),
        .cores = troupe->topology.bound,
    };
    int rc = gather(troupe, &own, troupe->cards, sizeof(own));

    for (int i = 0; rc == 0 && i < runtime->size; i++) {
        troupe->host_ranks += troupe->cards[i].host == own.host;
        troupe->is_open |= (troupe->cards[i].flags &
                            (TRI_CARD_OPEN | TRI_CARD_GROWABLE)) != 0;
        if (troupe->cards[i].interface != own.interface) {
            tri_error("rank %d runs another version of troupe", i);
            rc = TROUPE_EPROTO;
        }
        if (rc == 0)
            rc = check_security(troupe, i);
    }
    return rc == 0 ? tri_cluster_check_cards(troupe) : rc;
}

/* After all ranks know that all want a key. */
static int share_key(troupe_t *troupe)
{
    if (troupe->job == NULL || troupe->security == TRI_SEAL_NONE)
        return 0;
    return tri_job_broadcast(troupe->job, troupe->key, TRI_KEY_BYTES);
}

static bool is_same_host(const troupe_t *troupe, int rank)
{
    return troupe->cards[rank].host == troupe->topology.host;
}

static enum tri_cma cma_of(const char *text)
{
    if (strcmp(text, "on") == 0)
        return TRI_CMA_ON;
    return strcmp(text, "off") == 0 ? TRI_CMA_OFF : TRI_CMA_AUTO;
}

static int open_transport(troupe_t *troupe, const struct tri_transport_ops *ops,
                          struct tri_transport **transport_p)
{
    struct tri_runtime *runtime = &troupe->runtime;
    struct tri_transport_config config = {
        .node = runtime->node,
        .job_nonce = troupe->cluster,
        .peers_max = runtime->link.config.peers_max - 1,
        .peers_len = ops == &tri_transport_ring ? troupe->host_ranks - 1
                                                : (uint32_t)runtime->size - 1,
        .bell = &runtime->bell,
        .provider = runtime->options.provider,
        .interface = runtime->options.interface,
        .cma = cma_of(runtime->options.cma),
        .carrier = &tri_carrier_fabric,
        .seal = troupe->security,
        .key = troupe->key,
        .events = tri_link_transport_events(&runtime->link),
    };
    int rc;

    /* Was checked with the other options. */
    (void)tri_options_ports(runtime->options.port_range, &config.port_first,
                            &config.port_last);
    /* Now, and not when the first peer is waiting for an answer. */
    rc = ops == &tri_transport_ring || config.seal == TRI_SEAL_NONE
             ? 0
             : tri_seal_prepare();
    if (rc == 0)
        rc = ops->open(&config, transport_p);
    if (rc == 0)
        tri_link_add_transport(&runtime->link, *transport_p);
    return rc;
}

/* Opens what the option and the places of the ranks ask for, and what those
 * who may join need. */
static int open_transports(troupe_t *troupe)
{
    struct tri_runtime *runtime = &troupe->runtime;
    bool want_ring = strcmp(runtime->options.transport, "fabric") != 0;
    bool want_fabric = strcmp(runtime->options.transport, "ring") != 0;
    bool all_here = troupe->host_ranks == (uint32_t)runtime->size;
    int rc = 0;

    if (!want_fabric && !all_here) {
        tri_error("option transport is \"ring\", but not all ranks are on "
                  "this host");
        return TROUPE_ETRANSPORT;
    }
    if (runtime->size == 1 && !troupe->is_open)
        return 0;
    if (want_ring && (troupe->host_ranks > 1 || troupe->is_open))
        rc = open_transport(troupe, &tri_transport_ring, &troupe->ring);
    if (rc == 0 && want_fabric &&
        (!want_ring || !all_here || troupe->is_open))
        rc = open_transport(troupe, &tri_transport_session, &troupe->fabric);
    return rc;
}

/* Who waits for an answer first, then membership. */
static void on_died(void *context, struct tri_peer *peer)
{
    tri_delivery_link_events(context).died(context, peer);
    tri_member_on_died(context, peer);
}

static int open_link(troupe_t *troupe)
{
    struct tri_runtime *runtime = &troupe->runtime;
    struct tri_link_config config = {
        .node = runtime->node,
        .peers_len = (uint32_t)runtime->size,
        .peers_max = runtime->options.nodes_max,
        .outbox_bytes_max = runtime->options.outbox_bytes_max,
        .parked_bytes_max = runtime->options.parked_bytes_max,
        .message_bytes_max = runtime->options.message_bytes_max,
        .events = tri_delivery_link_events(runtime),
    };
    int rc;

    config.events.died = on_died;
    config.events.suspect = tri_member_on_suspect;
    rc = tri_link_init(&runtime->link, &config);

    troupe->link_open = rc == 0;
    return rc;
}

static void set_peers(troupe_t *troupe)
{
    struct tri_runtime *runtime = &troupe->runtime;

    for (int i = 0; i < runtime->size; i++) {
        const struct tri_member_card *card = &troupe->members[i];
        bool by_ring = troupe->ring != NULL && is_same_host(troupe, i);

        if (i != runtime->rank)
            tri_link_set_peer(&runtime->link, i, card->node,
                              by_ring ? troupe->ring : troupe->fabric,
                              by_ring ? &card->ring : &card->fabric);
    }
}

static int connect_job(troupe_t *troupe)
{
    struct tri_member_card own;
    int rc = open_link(troupe);

    if (rc == 0)
        rc = open_transports(troupe);
    if (rc == 0)
        rc = tri_cluster_open_socket(troupe);
    if (rc == 0)
        tri_cluster_card(troupe, &own);
    else
        memset(&own, 0, sizeof(own));
    rc = agree(troupe, rc);
    if (rc == 0)
        rc = gather(troupe, &own, troupe->members, sizeof(own));
    if (rc == 0)
        set_peers(troupe);
    return rc;
}

static int open_actors(troupe_t *troupe)
{
    struct tri_runtime *runtime = &troupe->runtime;
    troupe_options_t *options = &runtime->options;
    struct tri_asks_events events = tri_delivery_asks_events(runtime);
    int rc = tri_actor_table_init(&runtime->actors, options->actors_max);

    if (rc != 0)
        return rc;
    rc = tri_asks_init(&runtime->asks, options->asks_max, &events);
    if (rc == 0)
        rc = tri_monitors_init(&runtime->monitors, runtime->node,
                               options->monitors_max);
    if (rc == 0)
        rc = tri_names_init(&runtime->names);
    if (rc == 0)
        rc = tri_dead_letters_init(&runtime->dead_letters,
                                   options->dead_letters_max);
    runtime->state_record = tri_state_record;
    runtime->state_message = tri_state_message;
    troupe->actors_open = true;
    return rc;
}

static uint32_t workers_of(const troupe_t *troupe)
{
    const struct tri_runtime *runtime = &troupe->runtime;
    struct tri_coreset *cores;
    uint32_t n = 0, workers;

    if (runtime->options.workers >= 0)
        return (uint32_t)runtime->options.workers;
    cores = calloc(troupe->host_ranks, sizeof(*cores));
    if (cores == NULL)
        return 1;
    for (int i = 0; i < runtime->size; i++)
        if (is_same_host(troupe, i))
            cores[n++] = troupe->cards[i].cores;
    workers = tri_topology_workers(&troupe->topology.bound, cores, n);
    free(cores);
    return workers;
}

static int open_scheduler(troupe_t *troupe)
{
    struct tri_runtime *runtime = &troupe->runtime;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    bool crowded = (long)troupe->host_ranks > cores;
    struct tri_scheduler_config config = {
        .workers_len = workers_of(troupe),
        .spin_us = crowded ? 0 : SPIN_US,
        .yields = crowded ? YIELDS_CROWDED : YIELDS,
    };
    int rc;

    if (runtime->options.spin_us >= 0)
        config.spin_us = (uint32_t)runtime->options.spin_us;
    rc = tri_scheduler_init(&runtime->scheduler, runtime, &config);
    troupe->scheduler_open = rc == 0;
    if (rc == 0)
        rc = tri_scheduler_start(&runtime->scheduler);
    return rc;
}

/* --- start ---------------------------------------------------------------- */

static int start_in_job(troupe_t *troupe, const troupe_options_t *options)
{
    struct tri_runtime *runtime = &troupe->runtime;
    int rc;

    runtime->context_kind = TRI_CONTEXT_NODE;
    runtime->starter = pthread_self();
    runtime->node = random_id();
    runtime->rank = troupe->job != NULL ? tri_job_rank(troupe->job) : 0;
    runtime->size = troupe->job != NULL ? tri_job_size(troupe->job) : 1;
    rc = agree(troupe, prepare(troupe, options));
    if (rc == 0)
        rc = agree(troupe, exchange_cards(troupe));
    if (rc == 0)
        rc = agree(troupe, share_key(troupe));
    if (rc == 0)
        rc = tri_cluster_find(troupe);
    if (rc == 0)
        rc = connect_job(troupe);
    if (rc == 0)
        rc = open_actors(troupe);
    if (rc == 0)
        rc = tri_group_open(runtime);
    if (rc == 0)
        rc = tri_cluster_open(troupe);
    if (rc == 0)
        rc = tri_directory_open(runtime);
    if (rc == 0)
        rc = tri_views_open(runtime);
    if (rc == 0 && runtime->options.strict_names != 0)
        rc = tri_claims_open(runtime, troupe->cluster, troupe->seeds.len > 0);
    if (rc == 0)
        rc = tri_tensor_open(runtime);
    if (rc == 0)
        rc = tri_report_attach(troupe);
    if (rc == 0)
        rc = open_scheduler(troupe);
    /* All ranks take part in this life before any tells others of its own. */
    if (troupe->seeds.len > 0)
        rc = agree(troupe, rc);
    if (rc == 0)
        rc = tri_cluster_join(troupe);
    if (rc == 0)
        tri_report_started(troupe);
    return rc;
}

static int open_job(troupe_t *troupe, const troupe_options_t *options,
                    const void *comm)
{
    if (tri_options_want_mpi(options))
        return tri_job_open(comm, &troupe->job);
    if (comm == NULL)
        return 0;
    tri_error("option mpi is \"off\", but troupe_start_mpi was given a "
              "communicator");
    return TROUPE_EOPTION;
}

int tri_node_start(troupe_t **troupe_p, const troupe_options_t *options,
                   const void *comm)
{
    troupe_t *none = NULL;
    troupe_t *troupe;
    int rc;

    if (troupe_p == NULL)
        return TROUPE_EINVAL;
    troupe = aligned_alloc(TRI_CACHE_LINE,
                           tri_align_up(sizeof(*troupe), TRI_CACHE_LINE));
    if (troupe == NULL)
        return TROUPE_ENOMEM;
    memset(troupe, 0, sizeof(*troupe));
    if (!atomic_compare_exchange_strong(&tri_node_running, &none, troupe)) {
        tri_error("this process has started a node already");
        free(troupe);
        return TROUPE_EINVAL;
    }
    rc = open_job(troupe, options, comm);
    if (rc == 0) {
        rc = troupe->job != NULL ? tri_grow_receive(troupe) : 0;
        rc = agree(troupe, rc);
        if (rc == 0)
            rc = start_in_job(troupe, options);
        /* Nobody sends before all can receive. */
        rc = agree(troupe, rc);
    }
    tri_grow_forget(troupe);
    if (rc != 0) {
        if (troupe->scheduler_open)
            tri_scheduler_stop(&troupe->runtime.scheduler, TRI_NS_NEVER);
        tri_node_free(troupe, true);
        return rc;
    }
    if (troupe->job != NULL)
        tri_finalize_ask(tri_node_has_lost_ranks, troupe);
    tri_info("node %016llx: rank %d of %d, %u workers",
             (unsigned long long)troupe->runtime.node, troupe->runtime.rank,
             troupe->runtime.size, troupe->runtime.scheduler.workers_len);
    *troupe_p = troupe;
    return 0;
}

void tri_node_free(troupe_t *troupe, bool whole)
{
    struct tri_runtime *runtime = &troupe->runtime;

    tri_requests_fini(runtime);
    tri_tensor_close(runtime);
    if (troupe->scheduler_open)
        tri_scheduler_fini(&runtime->scheduler);
    tri_views_close(runtime);
    tri_group_close(runtime);
    tri_directory_close(runtime);
    tri_cluster_close(troupe);
    if (troupe->link_open)
        tri_link_fini(&runtime->link);
    if (troupe->actors_open) {
        tri_actor_table_fini(&runtime->actors);
        tri_asks_fini(&runtime->asks);
        tri_monitors_fini(&runtime->monitors);
        tri_names_fini(&runtime->names);
        tri_dead_letters_fini(&runtime->dead_letters);
    }
    if (troupe->bell_open)
        tri_bell_fini(&runtime->bell);
    tri_options_fini(&runtime->options);
    tri_key_destroy(&troupe->key);
    tri_job_close(troupe->job, whole);
    tri_pool_thread_fini();
    free(troupe->cards);
    free(troupe->members);
    free(troupe);
    atomic_store(&tri_node_running, NULL);
}

int troupe_start(troupe_t **troupe_p, const troupe_options_t *options)
{
    return tri_node_start(troupe_p, options, NULL);
}

/* Declared in troupe/mpi.h, which needs <mpi.h>; this file does not. */
int troupe_start_mpi_(troupe_t **troupe_p, const troupe_options_t *options,
                      const void *comm);

int troupe_start_mpi_(troupe_t **troupe_p, const troupe_options_t *options,
                      const void *comm)
{
    return comm != NULL ? tri_node_start(troupe_p, options, comm)
                        : TROUPE_EINVAL;
}
