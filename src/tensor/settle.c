/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * From one view to the next: adopts it, and finds out with its members what
 * becomes of the step that was under way (step_core.h). Here spares wait until
 * they are needed, and all while they are too few.
 */

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "tensor/front.h"
#include "tensor/training.h"

/* A wait, after which it is looked whether the wait still makes sense. */
#define SLICE_MS 200
/* The least time for a collective without a death that is known of. */
#define STEP_TIMEOUT_MS 5000
#define STEP_TIMEOUT_TIMES 10u
/* While a member fetches the state, so many bytes of that take a millisecond
 * more: 10 MB/s, a link of 100 Mbit/s that is no worse than it should be. */
#define FETCH_BYTES_MS 10000u
/* Two losses of a host's last member in so long a time block it: */
#define BLOCK_WINDOW_NS (300000 * TRI_NS_PER_MS)
#define BLOCK_FIRST_MS 10000u
#define BLOCK_MAX_MS 3600000u
/* How often that was is forgotten so long after the last loss, and block. */
#define BLOCK_FORGET_NS (3600000 * TRI_NS_PER_MS)

/* What members of a new view tell each other. */
struct report {
    uint64_t node;
    uint64_t registered; /* hash of what is registered, and of the options */
    uint64_t state_hash; /* before the first step; else 0 */
    uint64_t blocked;    /* bits of the last places whose host is to be kept
                            out; the last member is bit 0 */
    uint64_t undone;     /* of the step that comes next; training.h */
    struct tri_step_report step;
    uint32_t disputed; /* orphans that another one may have, too, */
    uint32_t orphans;  /* and with those that this one owns */
};

_Static_assert(sizeof(struct report) == 72, "the layout of a report");

/* --- time ------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static uint64_t median_ns(const struct tri_step_times *times)
{
    uint64_t sorted[TRI_STEP_TIMES_LEN];
    size_t len = tri_min(times->len, TRI_STEP_TIMES_LEN);

    if (len == 0)
        return 0;
    memcpy(sorted, times->ns, len * sizeof(sorted[0]));
    qsort(sorted, len, sizeof(sorted[0]), by_value);
    return sorted[len / 2];
}

int tri_training_fetch_ms(const struct troupe_training *training)
{
    uint64_t ms = training->states.replicated_bytes / FETCH_BYTES_MS;

    return training->is_fetched ? (int)tri_min(ms, INT32_MAX / 2) : 0;
}

int tri_training_timeout_ms(const struct troupe_training *training)
{
    uint64_t ms = (uint64_t)training->options.step_timeout_ms;

    if (ms == 0)
        ms = tri_max(STEP_TIMEOUT_MS, STEP_TIMEOUT_TIMES *
                                          median_ns(&training->times) /
                                          TRI_NS_PER_MS);
    /* A member that computes for long is not wedged: each time twice as long.
     */
    ms <<= tri_min(training->patience, 10);
    ms += (uint64_t)tri_training_fetch_ms(training);
    return (int)tri_min(ms, INT32_MAX);
}

int tri_training_failed(struct troupe_training *training, int rc)
{
    if (rc == TROUPE_ETIMEDOUT) {
        tri_warn("step %llu waits for more than %d ms, and nobody is known to "
                 "have died: it is tried again in another view",
                 (unsigned long long)training->core.committed,
                 tri_training_timeout_ms(training));
        training->patience++;
        tri_view_renew(training->group);
        rc = TROUPE_EVIEW;
    }
    if (tri_coll_is_failure(rc) && tri_front_was_told(training->group)) {
        tri_warn("step %llu is tried again in another view, without who cannot "
                 "go on",
                 (unsigned long long)training->core.committed);
        tri_view_renew(training->group);
        rc = TROUPE_EVIEW;
    }
    if (rc == TROUPE_EVIEW && training->lost_ns == 0)
        training->lost_ns = tri_now_ns();
    return rc;
}

/* --- hosts that are kept out -------------------------------------------------- */

struct tri_block *tri_training_block_of(struct troupe_training *training,
                                        uint64_t host)
{
    struct tri_block *place = &training->blocks[0];

    for (uint32_t i = 0; i < TRI_BLOCKS_MAX; i++) {
        struct tri_block *block = &training->blocks[i];

        if (block->host == host)
            return block;
        if (block->host == 0 ||
            (place->host != 0 && block->until_ns < place->until_ns))
            place = block;
    }
    *place = (struct tri_block){ .host = host };
    return place;
}

static bool has_member_of(const struct tri_view *view, uint64_t host)
{
    for (uint32_t i = 0; i < view->active; i++)
        if (view->members[i].host == host)
            return true;
    return false;
}

bool tri_training_block_loss(struct tri_block *block, uint64_t now_ns)
{
    uint64_t quiet_ns = tri_max(block->losses_ns[1], block->until_ns);
    uint64_t ms;

    if (quiet_ns != 0 && now_ns > quiet_ns &&
        now_ns - quiet_ns > BLOCK_FORGET_NS)
        block->times = 0;
    block->losses_ns[0] = block->losses_ns[1];
    block->losses_ns[1] = now_ns;
    if (block->losses_ns[0] == 0 ||
        now_ns - block->losses_ns[0] > BLOCK_WINDOW_NS)
        return false;
    ms = (uint64_t)BLOCK_FIRST_MS << tri_min(block->times++, 9);
    block->until_ns = now_ns + tri_min(ms, BLOCK_MAX_MS) * TRI_NS_PER_MS;
    return true;
}

/* None of its members is left: whether one of them has died. */
static bool is_host_lost(struct troupe_training *training,
                         const struct tri_view *view, uint64_t host)
{
    for (uint32_t i = 0; i < training->nodes_len; i++)
        if (training->hosts[i] == host &&
            tri_buddy_has_died(training, view, training->nodes[i]))
            return true;
    return false;
}

static bool is_blocked(const struct troupe_training *training, uint64_t host,
                       uint64_t now_ns)
{
    for (uint32_t i = 0; i < TRI_BLOCKS_MAX; i++)
        if (training->blocks[i].host == host &&
            training->blocks[i].until_ns > now_ns)
            return true;
    return false;
}

/* Who is new has one of the last places. */
#define PLACES_MAX 64u

static uint64_t blocked_places(const struct troupe_training *training)
{
    const uint32_t len = training->nodes_len;
    uint64_t now_ns = tri_now_ns(), places = 0;

    for (uint32_t i = 0; i < len && i < PLACES_MAX; i++)
        if (is_blocked(training, training->hosts[len - 1 - i], now_ns))
            places |= 1ull << i;
    return places;
}

/* A host is lost once, however its members' places are mixed with others'. */
static bool is_first_of_host(const struct troupe_training *training, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++)
        if (training->hosts[k] == training->hosts[i])
            return false;
    return true;
}

static void note_host_loss(struct troupe_training *training, uint64_t host)
{
    if (tri_training_block_loss(tri_training_block_of(training, host),
                                tri_now_ns()))
        tri_training_event(training, TROUPE_TRAINING_BLOCKED, host);
}

/* Nodes and hosts of a view are kept for when the next one comes. */
static void note_members(struct troupe_training *training,
                         const struct tri_view *view)
{
    uint64_t *nodes = calloc(view->active + 1, sizeof(*nodes));
    uint64_t *hosts = calloc(view->active + 1, sizeof(*hosts));
    bool *has_state_at = calloc(view->active + 1, sizeof(*has_state_at));
    bool good = nodes != NULL && hosts != NULL && has_state_at != NULL;

    if (view->losses > 0)
        for (uint32_t i = 0; i < training->nodes_len; i++)
            if (!has_member_of(view, training->hosts[i]) &&
                is_first_of_host(training, i) &&
                is_host_lost(training, view, training->hosts[i]))
                note_host_loss(training, training->hosts[i]);
    for (uint32_t i = 0; good && i < view->active; i++) {
        nodes[i] = view->members[i].node;
        hosts[i] = view->members[i].host;
    }
    free(training->nodes);
    free(training->hosts);
    free(training->has_state_at);
    training->nodes = nodes;
    training->hosts = hosts;
    training->has_state_at = has_state_at;
    training->nodes_len = good ? view->active : 0;
}

/* --- adopting ----------------------------------------------------------------- */

static bool is_spare(const struct troupe_training *training)
{
    return training->view.index >= (int32_t)training->view.active;
}

static void adopted(struct troupe_training *training)
{
    const struct tri_view *view = tri_view_adopted(training->group);

    training->has_view = true;
    training->is_reconciled = false;
    training->is_refused = false;
    training->is_fetched = false;
    training->boundary_due = false;
    training->leave_due = false;
    training->stats.views++;
    training->stats.losses += training->view.losses;
    if (training->view.losses > 0 && training->lost_ns == 0)
        training->lost_ns = tri_now_ns();
    training->stats.joins += training->view.joined;
    note_members(training, view);
    tri_step_adopt(&training->core, training->view.epoch);
    if (is_spare(training)) {
        tri_step_left_out(&training->core);
        tri_fetch_fini(&training->states);
    }
    tri_buddy_view(training);
    tri_training_event(training, TROUPE_TRAINING_VIEW, 0);
}

static void pause_or_resume(struct troupe_training *training, bool pause)
{
    if (pause == training->is_paused)
        return;
    training->is_paused = pause;
    tri_training_event(training,
                       pause ? TROUPE_TRAINING_PAUSED : TROUPE_TRAINING_RESUMED,
                       0);
}

/* Adopts a view, waiting at most for a slice. collective: at a boundary. */
static int update(struct troupe_training *training, bool collective,
                  int timeout_ms)
{
    uint64_t epoch = training->has_view ? training->view.epoch : 0;
    troupe_view_t view;
    int rc = troupe_group_update(training->group, collective, timeout_ms,
                                 NULL);

    if (rc != 0 && rc != TROUPE_EPAUSED)
        return rc;
    /* A view that is too small is adopted, too: it tells who was lost. */
    troupe_group_view(training->group, &view);
    training->view = view;
    if (view.epoch != epoch)
        adopted(training);
    pause_or_resume(training,
                    rc == TROUPE_EPAUSED ||
                        view.active < training->options.group.size_min);
    return rc;
}

/* There is nothing left to do here, however few are left. */
static bool is_finished(const struct troupe_training *training)
{
    const struct tri_step_core *core = &training->core;

    return (core->flags & TRI_STEP_HAS_STATE) != 0 && !core->under_way &&
           tri_sampler_is_finished(&training->sampler, core->committed);
}

/* The others are done, and have left or will: what it would need to go on is
 * theirs. It may be a spare no more, as their leaving made another view. */
static bool is_dismissed(const struct troupe_training *training)
{
    return atomic_load(&training->finished_said) &&
           (training->core.flags & TRI_STEP_HAS_STATE) == 0;
}

/* It is alone, and prepared for the very last step, as all were that it began
 * with: what becomes of that nobody has to come for. */
static bool can_end_alone(const struct troupe_training *training)
{
    const struct tri_step_core *core = &training->core;

    return training->is_paused && training->view.active == 1 &&
           !is_spare(training) && core->prepared != 0 &&
           tri_sampler_is_finished(&training->sampler, core->committed + 1);
}

/*
 * Until there is a view that this member takes part in, and that goes on. As a
 * spare, or paused, it is at a boundary all the time.
 */
static int enter(struct troupe_training *training)
{
    const uint64_t begin_ns = tri_now_ns();
    const int pause_ms = training->options.pause_timeout_ms;
    int rc;

    for (;;) {
        bool spare = training->has_view && is_spare(training);
        bool meets = !spare && (training->boundary_due || training->is_refused);

        if (is_dismissed(training))
            return TROUPE_FINISHED;
        if (training->is_paused && is_finished(training))
            return TROUPE_FINISHED;
        if ((spare || training->is_paused || training->is_refused) &&
            tri_training_wants_out(training))
            return tri_training_leave(training, TROUPE_ECANCELED);
        /* Who meets others does so once: they count. */
        rc = update(training, spare || meets,
                    meets && !training->is_paused
                        ? tri_training_timeout_ms(training)
                        : SLICE_MS);
        if (rc == TROUPE_ETIMEDOUT && meets)
            rc = tri_training_failed(training, rc);
        if (is_dismissed(training))
            return TROUPE_FINISHED;
        if (rc == 0 && !is_spare(training) && !training->is_paused &&
            !training->is_refused) {
            training->boundary_due = false;
            return 0;
        }
        if (rc != 0 && rc != TROUPE_ETIMEDOUT && rc != TROUPE_EPAUSED &&
            rc != TROUPE_EVIEW)
            return rc;
        if (can_end_alone(training))
            return 0;
        if (pause_ms >= 0 && (training->is_paused || rc == TROUPE_ETIMEDOUT) &&
            !is_spare(training) &&
            tri_now_ns() - begin_ns > (uint64_t)pause_ms * TRI_NS_PER_MS)
            return TROUPE_EPAUSED;
        if (training->options.group.on_minority == TROUPE_MINORITY_STOP &&
            rc == TROUPE_EPAUSED)
            return rc;
    }
}

/* --- reconciling ---------------------------------------------------------------- */

/* Options that all members have to have alike. */
static uint64_t registered(const struct troupe_training *training)
{
    const troupe_training_options_t *options = &training->options;
    const uint64_t all[] = { options->samples, options->batch,
                             options->epochs, options->seed,
                             (uint64_t)options->last_batch,
                             (uint64_t)options->retries_max };

    return tri_state_registered(&training->states,
                                tri_state_hash(0, all, sizeof(all)));
}

static struct report report_of(const struct troupe_training *training)
{
    struct report report = {
        .node = training->runtime->node,
        .registered = registered(training),
        .blocked = blocked_places(training),
        .undone = training->undone,
    };
    struct tri_orphan orphans[TRI_ORPHANS_MAX];

    report.orphans =
        tri_buddy_orphans(&training->states, orphans, &report.disputed);
    /* What becomes of an open step is what the reports are for: if it is
     * committed, this number does not count. */
    if (training->is_open && training->outcome == TRI_STEP_NOTHING &&
        training->core.under_way)
        report.undone++;
    tri_step_report(&training->core, &report.step);
    if (training->core.committed == 0 &&
        (report.step.flags & TRI_STEP_HAS_STATE))
        report.state_hash = tri_state_hash_all(&training->states);
    return report;
}

static bool has_state(const struct report *report)
{
    return (report->step.flags & TRI_STEP_HAS_STATE) != 0;
}

/* Whether a member is to be kept out, by what the first one with state says,
 * or, of its host, any. */
static int judge(const struct report *first, const struct report *report,
                 uint32_t place, bool host_is_blocked)
{
    if (report->registered != first->registered) {
        tri_error("member %u (node %016llx) has registered other state, or "
                  "has other options, than the others",
                  place, (unsigned long long)report->node);
        return TROUPE_EMISMATCH;
    }
    if (has_state(report) && report->state_hash != first->state_hash &&
        first->step.committed == 0 && report->step.committed == 0) {
        tri_error("member %u (node %016llx) begins with other replicated "
                  "state than member 0",
                  place, (unsigned long long)report->node);
        return TROUPE_EMISMATCH;
    }
    return !has_state(report) && host_is_blocked ? TROUPE_ELIMIT : 0;
}

/* 0: go on. Who is new and does not fit goes; else nobody can go on. */
static int judge_all(struct troupe_training *training,
                     const struct report *reports, uint32_t len)
{
    const struct report *first = &reports[0];
    uint64_t blocked = 0;
    int own = 0;

    if (training->nodes_len < len)
        return TROUPE_ENOMEM; /* of when the view was adopted */
    for (uint32_t i = len; i-- > 0;) {
        training->has_state_at[i] = has_state(&reports[i]);
        if (has_state(&reports[i])) {
            first = &reports[i];
            blocked |= reports[i].blocked;
        }
    }
    for (uint32_t i = 0; i < len; i++) {
        uint32_t from_end = len - 1 - i;
        int rc = judge(first, &reports[i], i,
                       from_end < PLACES_MAX && (blocked >> from_end & 1));

        if (rc == 0)
            continue;
        if (has_state(&reports[i])) {
            /* Nobody goes before all have heard. */
            (void)troupe_barrier(training->group, TRI_TRAINING_HEARD_MS);
            return rc;
        }
        training->is_refused = true;
        if (reports[i].node == training->runtime->node)
            own = rc;
    }
    return own != 0 ? tri_training_leave(training, own) : 0;
}

/* How often the step that comes next was begun in vain: the most that a member
 * knows of, as others have come, or have begun it, later. */
static void agree_on_undone(struct troupe_training *training,
                            const struct report *reports, uint32_t len)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < len; i++)
        if (has_state(&reports[i]) &&
            reports[i].step.committed == training->core.committed)
            most = tri_max(most, reports[i].undone);
    training->undone = (uint32_t)tri_min(most, UINT32_MAX);
}

static int conclude(struct troupe_training *training,
                    const struct report *reports, uint32_t len)
{
    struct tri_step_report *steps = calloc(len, sizeof(*steps));
    const uint64_t committed = training->core.committed;
    enum tri_step_outcome outcome;
    bool is_withdrawn = false;
    int rc = judge_all(training, reports, len);

    if (rc != 0 || steps == NULL) {
        free(steps);
        return rc != 0 ? rc : TROUPE_ENOMEM;
    }
    for (uint32_t i = 0; i < len; i++) {
        steps[i] = reports[i].step;
        is_withdrawn |= (steps[i].flags & TRI_STEP_CANCELS) != 0;
    }
    /* Programs may change state in between, and the step's number stays. */
    if (is_withdrawn)
        tri_fetch_fini(&training->states);
    outcome = tri_step_reconcile(&training->core, steps, len);
    free(steps);
    tri_debug("view %llu: of %u members, %u of them new; step %llu, outcome "
              "%d",
              (unsigned long long)training->view.epoch, len,
              training->view.joined,
              (unsigned long long)training->core.committed, (int)outcome);
    if (outcome == TRI_STEP_LOST) {
        tri_error("all members that had the state are gone");
        return TROUPE_ENODE;
    }
    if (outcome == TRI_STEP_BROKEN) {
        tri_error("members have committed different steps");
        return TROUPE_EMISMATCH;
    }
    training->is_reconciled = training->core.phase == TRI_STEP_IDLE;
    if (training->is_reconciled)
        agree_on_undone(training, reports, len);
    else if (training->core.committed != committed)
        training->undone = 0;
    training->is_fetched = false;
    for (uint32_t i = 0; i < len; i++)
        training->is_fetched |= !has_state(&reports[i]) &&
                                !training->is_refused;
    /* What comes after the first is not about a step of the program any more. */
    if (training->outcome == TRI_STEP_NOTHING && outcome != TRI_STEP_SYNC)
        training->outcome = outcome;
    return 0;
}

/* What each of the members has. Paused, this one is alone: see enter. */
static int gather(struct troupe_training *training, const void *own, void *all,
                  size_t bytes)
{
    if (training->is_paused) {
        memcpy(all, own, bytes);
        return 0;
    }
    return troupe_allgather(training->group, own, all, bytes, TROUPE_BYTE,
                            tri_training_timeout_ms(training));
}

/*
 * Who has what the dead have left: buddy.c. From the same reports all know
 * whether that is to be asked; in nearly all views it is not. Who is refused
 * leaves at once, and the others ask in the view that comes then.
 */
static int settle_orphans(struct troupe_training *training,
                          const struct report *reports, uint32_t len)
{
    struct tri_orphan own[TRI_ORPHANS_MAX] = { { 0 } };
    struct tri_orphan *all;
    uint32_t each = 0, disputed = 0;
    int rc;

    for (uint32_t i = 0; i < len; i++) {
        disputed |= reports[i].disputed;
        each = (uint32_t)tri_max(each, reports[i].orphans);
    }
    if (disputed == 0 || training->is_refused)
        return 0;
    each = (uint32_t)tri_min(each, TRI_ORPHANS_MAX);
    all = calloc((size_t)len * each, sizeof(*all));
    if (all == NULL)
        return TROUPE_ENOMEM;
    (void)tri_buddy_orphans(&training->states, own, &disputed);
    rc = gather(training, own, all, each * sizeof(own[0]));
    if (rc == 0)
        tri_buddy_settle(&training->states, all, each, len,
                         (uint32_t)training->view.index);
    free(all);
    return tri_training_failed(training, rc);
}

static int reconcile(struct troupe_training *training)
{
    const uint32_t len = training->view.active;
    struct report own = report_of(training);
    struct report *reports = calloc(len, sizeof(*reports));
    int rc;

    if (reports == NULL)
        return TROUPE_ENOMEM;
    rc = gather(training, &own, reports, sizeof(own));
    if (rc == 0) {
        rc = conclude(training, reports, len);
        if (rc == 0)
            rc = settle_orphans(training, reports, len);
    } else {
        /* Others may have heard that a step was withdrawn. */
        tri_fetch_fini(&training->states);
        rc = tri_training_failed(training, rc);
    }
    free(reports);
    return rc;
}

int tri_training_settle(struct troupe_training *training)
{
    int rc;

    do {
        rc = enter(training);
        if (rc == 0 && !training->is_reconciled)
            rc = reconcile(training);
    } while (rc == TROUPE_EVIEW ||
             (rc == 0 && (training->is_refused || !training->is_reconciled)));
    /* Nobody has the state any more: the word of why may have come since. */
    return rc == TROUPE_ENODE && is_dismissed(training) ? TROUPE_FINISHED : rc;
}
