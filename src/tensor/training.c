/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A training: its options, its life, people who ask members to leave, and what
 * is told of it all.
 */

#include "tensor/training.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "os/notice.h"

/* How long a member that leaves waits for the others' boundary, when all of
 * them know. */
#define LEAVE_MS 10000

void troupe_training_options_init(troupe_training_options_t *options)
{
    if (options == NULL)
        return;
    *options = (troupe_training_options_t){
        .batch = 1,
        .last_batch = TROUPE_LAST_DROP,
        .pause_timeout_ms = 600000,
        .retries_max = 16,
        .drain_signals = 1,
    };
    troupe_group_options_init(&options->group);
}

int tri_training_check(const struct troupe_training *training)
{
    if (training == NULL)
        return TROUPE_EINVAL;
    return tri_worker_current() == NULL &&
                   pthread_equal(pthread_self(), training->runtime->starter)
               ? 0
               : TROUPE_ECONTEXT;
}

/* --- open ------------------------------------------------------------------- */

/* Nodes with seeds come to a cluster that is there: they join. Others are the
 * ranks that make it. */
static bool is_joiner(const struct tri_runtime *runtime)
{
    const char *seeds = runtime->options.seeds;

    return seeds != NULL && seeds[0] != '\0';
}

static int check_options(const troupe_training_options_t *options)
{
    if (!options->group.elastic) {
        tri_error("a training's group is elastic");
        return TROUPE_EINVAL;
    }
    if (options->step_timeout_ms < 0 || options->retries_max < 0 ||
        options->pause_timeout_ms < TROUPE_FOREVER)
        return TROUPE_EINVAL;
    /* Who waits for a step that does not come is not to hear EPAUSED first. */
    if (options->pause_timeout_ms >= 0 &&
        options->step_timeout_ms > options->pause_timeout_ms) {
        tri_error("step_timeout_ms (%d) is longer than pause_timeout_ms (%d)",
                  options->step_timeout_ms, options->pause_timeout_ms);
        return TROUPE_EINVAL;
    }
    return 0;
}

static int open_group(struct troupe_training *training, const char *name)
{
    const troupe_group_options_t *options = &training->options.group;
    bool joins = is_joiner(training->runtime);
    int rc = joins ? troupe_group_join(training->troupe, name, options,
                                       &training->group)
                   : troupe_group_create(training->troupe, name, options,
                                         &training->group);

    if (rc == 0) {
        training->group_id = tri_view_group_id(training->group);
        tri_step_core_init(&training->core, !joins);
    }
    return rc;
}

static void free_training(struct troupe_training *training)
{
    if (training->has_notices)
        tri_notice_release();
    tri_state_fini(&training->states);
    /* Of a step that was left open: the group's end has ended them. */
    for (uint32_t i = 0; i < training->reductions_len; i++)
        if (training->reductions[i].bucket != NULL)
            tri_bucket_release(training->reductions[i].bucket);
    for (uint32_t i = 0; i < training->reductions_max; i++)
        free(training->reductions[i].result);
    free(training->reductions);
    free(training->events);
    free(training->nodes);
    free(training->hosts);
    free(training->has_state_at);
    free(training);
}

static int prepare(struct troupe_training *training,
                   const troupe_training_options_t *options)
{
    int rc = 0;

    if (options != NULL)
        training->options = *options;
    else
        troupe_training_options_init(&training->options);
    training->events =
        calloc(TROUPE_TRAINING_EVENTS_MAX, sizeof(*training->events));
    if (training->events == NULL)
        return TROUPE_ENOMEM;
    rc = check_options(&training->options);
    if (rc == 0)
        rc = tri_sampler_init(&training->sampler, &training->options);
    if (rc == 0 && training->options.drain_signals) {
        rc = tri_notice_hold(&training->notices_seen);
        training->has_notices = rc == 0;
    }
    return rc;
}

int troupe_training_open(troupe_t *troupe, const char *name,
                         const troupe_training_options_t *options,
                         troupe_training_t **training_p)
{
    struct troupe_training *training;
    troupe_self_t *self;
    int rc;

    if (troupe == NULL || name == NULL || training_p == NULL)
        return TROUPE_EINVAL;
    training = calloc(1, sizeof(*training));
    if (training == NULL)
        return TROUPE_ENOMEM;
    training->troupe = troupe;
    training->runtime =
        tri_runtime_of((troupe_from_t){ .troupe_ = troupe }, &self);
    if (training->runtime == NULL) {
        free(training);
        return TROUPE_EINVAL;
    }
    rc = tri_training_check(training);
    if (rc == 0)
        rc = prepare(training, options);
    if (rc == 0)
        rc = open_group(training, name);
    if (rc != 0) {
        free_training(training);
        return rc;
    }
    tri_state_add(training);
    *training_p = training;
    return 0;
}

troupe_group_t *troupe_training_group(troupe_training_t *training)
{
    return training != NULL ? training->group : NULL;
}

/* --- close ------------------------------------------------------------------ */

int tri_training_leave(struct troupe_training *training, int why)
{
    int rc = 0;

    tri_state_close_window(training);
    if (training->group != NULL)
        rc = troupe_group_leave(&training->group, LEAVE_MS);
    if (rc != 0)
        tri_warn("left the training without the others' knowledge: %s",
                 troupe_strerror(rc));
    training->ended = why;
    return why;
}

int troupe_training_close(troupe_training_t **training_p, int timeout_ms)
{
    struct troupe_training *training;
    int rc;

    if (training_p == NULL || *training_p == NULL)
        return 0;
    training = *training_p;
    rc = tri_training_check(training);
    if (rc != 0)
        return rc;
    *training_p = NULL;
    tri_state_close_window(training);
    if (training->ended == TROUPE_FINISHED)
        troupe_group_close(&training->group);
    else if (training->group != NULL)
        rc = troupe_group_leave(&training->group, timeout_ms);
    tri_step_drop(training); /* of a step that was not ended */
    tri_state_remove(training);
    free_training(training);
    return rc;
}

/* --- people ----------------------------------------------------------------- */

bool tri_training_wants_out(struct troupe_training *training)
{
    bool asked = atomic_load_explicit(&training->drain, memory_order_relaxed);

    if (!asked && training->has_notices &&
        tri_notices() != training->notices_seen) {
        atomic_store_explicit(&training->drain, true, memory_order_relaxed);
        asked = true;
    }
    if (asked && !training->is_drain_told) {
        training->is_drain_told = true;
        tri_training_event(training, TROUPE_TRAINING_DRAINING, 0);
    }
    return asked;
}

int troupe_training_drain(troupe_training_t *training, uint64_t node)
{
    struct tri_state_head head = { .what = TRI_STATE_DRAIN };

    if (training == NULL)
        return TROUPE_EINVAL;
    if (node == 0 || node == training->runtime->node) {
        atomic_store_explicit(&training->drain, true, memory_order_relaxed);
        return 0;
    }
    head.group = training->group_id;
    return tri_state_send(training->runtime, node, &head, NULL,
                          TRI_SEND_FORCED);
}

int troupe_training_block(troupe_training_t *training, uint64_t host,
                          uint32_t ms)
{
    int rc = tri_training_check(training);

    if (rc != 0)
        return rc;
    if (host == 0)
        return TROUPE_EINVAL;
    tri_training_block_of(training, host)->until_ns = tri_deadline_ns((int)ms);
    if (ms == 0)
        tri_training_block_of(training, host)->times = 0;
    else
        tri_training_event(training, TROUPE_TRAINING_BLOCKED, host);
    return 0;
}

/* --- what is told ----------------------------------------------------------- */

void tri_training_event(struct troupe_training *training,
                        enum troupe_training_what what, uint64_t node)
{
    uint64_t i = training->events_last++ % TROUPE_TRAINING_EVENTS_MAX;

    if (training->events_last - training->events_first >
        TROUPE_TRAINING_EVENTS_MAX) {
        training->events_first++;
        training->events_lost++;
    }
    training->events[i] = (troupe_training_event_t){
        .what = what,
        .step = training->core.committed,
        .node = node,
        .time_ns = tri_now_ns(),
        .view = training->view,
    };
}

size_t troupe_training_events_take(troupe_training_t *training,
                                   troupe_training_event_t *events,
                                   size_t events_len_max)
{
    size_t len = 0;

    if (training == NULL || events == NULL)
        return 0;
    (void)tri_training_wants_out(training); /* tells, if it is news */
    while (len < events_len_max &&
           training->events_first < training->events_last) {
        events[len] = training->events[training->events_first++ %
                                       TROUPE_TRAINING_EVENTS_MAX];
        events[len++].lost = training->events_lost;
        training->events_lost = 0;
    }
    return len;
}

void troupe_training_stats(const troupe_training_t *training,
                           troupe_training_stats_t *stats_p)
{
    if (training == NULL || stats_p == NULL)
        return;
    *stats_p = training->stats;
    stats_p->copies = tri_buddy_copies(&training->states);
}
