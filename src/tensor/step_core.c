/* SPDX-License-Identifier: BSD-3-Clause */
#include "tensor/step_core.h"

void tri_step_core_init(struct tri_step_core *core, bool has_state)
{
    *core = (struct tri_step_core){
        .flags = has_state ? TRI_STEP_HAS_STATE : 0,
    };
}

void tri_step_adopt(struct tri_step_core *core, uint64_t epoch)
{
    assert(epoch >= core->epoch);
    core->epoch = epoch;
    core->phase = TRI_STEP_UNKNOWN;
}

void tri_step_left_out(struct tri_step_core *core)
{
    core->flags = 0;
    core->prepared = 0;
    core->under_way = false;
}

void tri_step_report(const struct tri_step_core *core,
                     struct tri_step_report *report_p)
{
    *report_p = (struct tri_step_report){
        .committed = core->committed,
        .prepared = core->prepared,
        .flags = core->flags,
    };
}

/* What the reports of those that have the state come to. */
struct tally {
    uint64_t most, least; /* committed */
    uint64_t flags;       /* of all */
    uint64_t last_flags;  /* of those with the most */
    bool all_prepared;    /* in one view */
    uint32_t len;
};

static void tally_add(struct tally *tally,
                      const struct tri_step_report *report,
                      uint64_t prepared_first)
{
    if (report->committed > tally->most) {
        tally->most = report->committed;
        tally->last_flags = 0;
    }
    if (report->committed == tally->most)
        tally->last_flags |= report->flags;
    if (report->committed < tally->least)
        tally->least = report->committed;
    if (report->prepared == 0 || report->prepared != prepared_first)
        tally->all_prepared = false;
    tally->flags |= report->flags;
    tally->len++;
}

static struct tally tally_of(const struct tri_step_report *reports,
                             uint32_t len)
{
    struct tally tally = { .least = UINT64_MAX, .all_prepared = true };
    uint64_t prepared = 0;

    for (uint32_t i = 0; i < len; i++) {
        if ((reports[i].flags & TRI_STEP_HAS_STATE) == 0)
            continue;
        if (tally.len == 0)
            prepared = reports[i].prepared;
        tally_add(&tally, &reports[i], prepared);
    }
    return tally;
}

/* To the next step; the flags are of the one that is over. */
static void advance(struct tri_step_core *core, bool skipped)
{
    core->committed++;
    core->prepared = 0;
    core->under_way = false;
    core->flags &= TRI_STEP_HAS_STATE;
    if (skipped)
        core->flags |= TRI_STEP_WAS_SKIPPED;
}

/* The step is to be done again, if there is one. */
static enum tri_step_outcome give_up(struct tri_step_core *core)
{
    bool was_under_way = core->under_way;

    core->prepared = 0;
    core->under_way = false;
    core->flags &= TRI_STEP_HAS_STATE | TRI_STEP_WAS_SKIPPED;
    return was_under_way ? TRI_STEP_RETRY : TRI_STEP_NOTHING;
}

static enum tri_step_outcome settle(struct tri_step_core *core,
                                    uint64_t target, bool skipped)
{
    if ((core->flags & TRI_STEP_HAS_STATE) == 0) {
        core->committed = target;
        core->prepared = 0;
        core->under_way = false;
        /* Others may have to hear it of this one, when it has synced. */
        core->flags = skipped ? TRI_STEP_WAS_SKIPPED : 0;
        return TRI_STEP_SYNC;
    }
    if (core->committed == target)
        return give_up(core);
    if (core->committed + 1 != target || (!skipped && core->prepared == 0))
        return TRI_STEP_BROKEN;
    advance(core, skipped);
    return skipped ? TRI_STEP_SKIP : TRI_STEP_COMMIT;
}

enum tri_step_outcome tri_step_reconcile(struct tri_step_core *core,
                                         const struct tri_step_report *reports,
                                         uint32_t len)
{
    struct tally tally = tally_of(reports, len);
    uint64_t target = tally.most;
    bool skipped = (tally.last_flags & TRI_STEP_WAS_SKIPPED) != 0;
    enum tri_step_outcome outcome;
    bool again;

    assert(core->phase == TRI_STEP_UNKNOWN);
    if (tally.len == 0)
        return TRI_STEP_LOST;
    if (tally.most - tally.least > 1)
        return TRI_STEP_BROKEN;
    if (tally.most == tally.least) {
        bool skip = (tally.flags & TRI_STEP_SKIPS) != 0;

        if (skip || (tally.all_prepared &&
                     (tally.flags & TRI_STEP_CANCELS) == 0)) {
            target++;
            skipped = skip;
        }
    }
    /* Who withdraws from a step that others have not come to yet says so again
     * when they have. */
    again = tally.most != tally.least &&
            (tally.last_flags & TRI_STEP_CANCELS) != 0;
    if (again && core->committed == target &&
        (core->flags & TRI_STEP_CANCELS) != 0)
        return TRI_STEP_NOTHING;
    outcome = settle(core, target, skipped);
    if (outcome != TRI_STEP_BROKEN && !again)
        core->phase = TRI_STEP_IDLE;
    return outcome;
}

void tri_step_synced(struct tri_step_core *core)
{
    assert(core->phase == TRI_STEP_IDLE);
    core->flags |= TRI_STEP_HAS_STATE;
}

void tri_step_begin(struct tri_step_core *core)
{
    assert(core->phase == TRI_STEP_IDLE && core->prepared == 0);
    assert(core->flags & TRI_STEP_HAS_STATE);
    core->phase = TRI_STEP_OPEN;
    core->under_way = true;
    core->flags &= TRI_STEP_HAS_STATE | TRI_STEP_WAS_SKIPPED;
}

void tri_step_prepared(struct tri_step_core *core)
{
    assert(core->phase == TRI_STEP_OPEN);
    core->phase = TRI_STEP_PREPARED;
    core->prepared = core->epoch;
}

void tri_step_cancel(struct tri_step_core *core, bool skip)
{
    assert(core->phase == TRI_STEP_OPEN);
    core->flags |= TRI_STEP_CANCELS | (skip ? TRI_STEP_SKIPS : 0);
}

void tri_step_voted(struct tri_step_core *core)
{
    assert(core->phase == TRI_STEP_PREPARED);
    assert((core->flags & TRI_STEP_CANCELS) == 0);
    core->phase = TRI_STEP_IDLE;
    advance(core, false);
}

bool tri_step_over(struct tri_step_core *core)
{
    bool is_open = core->prepared == 0 &&
                   (core->flags & TRI_STEP_CANCELS) == 0;

    core->phase = TRI_STEP_UNKNOWN;
    return is_open;
}
