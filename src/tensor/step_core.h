/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_STEP_CORE_H
#define TRI_STEP_CORE_H

/*
 * The step transaction: all members of a view commit a step, or none of those
 * that go on (research: elastic training, 3.4). Two rounds, and neither has a
 * leader that could be lost:
 *
 *   vote        the last collective of a step. It ends well only when every
 *               member has called it, and a member calls it only when it holds
 *               the results of all reductions, in memory of the library: it is
 *               prepared. So who sees the vote's end may commit.
 *   reconcile   the first collective of each view, when something changed: each
 *               member reports how far it is. From the same reports all draw
 *               the same conclusion.
 *
 *            adopt                     begin              prepared
 *   UNKNOWN -------> (reports) -> IDLE -----> OPEN ------------------> PREPARED
 *      ^   reconcile  |                         |                         |
 *      |              +- COMMIT, SKIP, RETRY    | over                    | voted
 *      +----------------------------------------+-- over: still prepared -+-> IDLE
 *
 * What the reports of those that have the state say, C being the most steps
 * that one of them has committed:
 *   - somebody has committed a step that others have not: then all were
 *     prepared for it, and hold its results: they commit it.
 *   - all are prepared for step C: one who died may have committed it, or none;
 *     all commit it. Nothing is computed again, and the dead one's part stays.
 *   - else nobody, alive or dead, has committed C: who saw its vote end would
 *     have known all to be prepared. It is retried.
 * It does not matter who has not got as far as its reports before the next
 * death: it reports again, the same. And no step is begun in a view without its
 * reports, so none that is not prepared for C is gone when C is prepared anew.
 *
 * Why this and not the mark of the view (group/agree_core.h): spares and who
 * has just joined hold no results, and a thread may adopt a view late, or never,
 * when the next is there already. Reports are exchanged among those, and at
 * that time, that the step is begun with.
 *
 * Invariants:
 *   1. A member acts for the newest view that it has adopted only.
 *   2. Committed(k) at one member of a view implies prepared(k) at all of its
 *      members that have the state.
 *   3. After reconciliation all members have the same number of committed
 *      steps and, of replicated state, the same bits.
 *   4. A commit has each member's contribution exactly once, all of one view.
 *   5. Inputs of a step that is not committed are what the program gave.
 *   6. Results lie in the library's memory until the commit.
 *   7. The results of a step are kept until it is committed or given up here;
 *      before that no other is begun.
 *   8. A step that was committed is never begun again: samples are used once.
 *   9. Whoever has no state does not count: it cannot have been prepared.
 *
 * Pure: no clock, no I/O, no memory.
 */

#include "base/base.h"

enum tri_step_phase {
    TRI_STEP_UNKNOWN, /* another view; reports are to be exchanged */
    TRI_STEP_IDLE,
    TRI_STEP_OPEN,
    TRI_STEP_PREPARED,
};

enum tri_step_outcome {
    TRI_STEP_NOTHING, /* no step was under way here */
    TRI_STEP_COMMIT,
    TRI_STEP_SKIP,  /* as committed, but there are no results */
    TRI_STEP_RETRY,
    TRI_STEP_SYNC,  /* this member has no state: it fetches that of
                       `committed` */
    TRI_STEP_LOST,  /* nobody has the state any more */
    TRI_STEP_BROKEN, /* reports that cannot be */
};

enum {
    TRI_STEP_HAS_STATE = 1,
    TRI_STEP_CANCELS = 2,     /* withdraws from step `committed` */
    TRI_STEP_SKIPS = 4,       /* the same, for good */
    TRI_STEP_WAS_SKIPPED = 8, /* the last of the committed */
};

/* How far a member is. */
struct tri_step_report {
    uint64_t committed; /* steps: the next one has this number */
    uint64_t prepared;  /* epoch of the view in which it became so, for step
                           `committed`; 0: it is not */
    uint64_t flags;
};

struct tri_step_core {
    enum tri_step_phase phase;
    uint64_t epoch;     /* of the adopted view */
    uint64_t committed;
    uint64_t prepared;  /* as in the report */
    uint64_t flags;
    bool under_way;     /* a step was begun and is not decided */
};

void tri_step_core_init(struct tri_step_core *core, bool has_state);

/* Another view was adopted, or the same one is to be reconciled again. */
void tri_step_adopt(struct tri_step_core *core, uint64_t epoch);

/* It has no part in the view: what state it has is that of steps long ago. */
void tri_step_left_out(struct tri_step_core *core);

void tri_step_report(const struct tri_step_core *core,
                     struct tri_step_report *report_p);

/*
 * The reports of all members of the adopted view, this one's among them. IDLE
 * then, but for LOST and BROKEN; or still UNKNOWN, on all members: there is one
 * more round of reports.
 */
enum tri_step_outcome tri_step_reconcile(struct tri_step_core *core,
                                         const struct tri_step_report *reports,
                                         uint32_t len);

/* State was fetched: it is that of `committed`. */
void tri_step_synced(struct tri_step_core *core);

void tri_step_begin(struct tri_step_core *core);

/* All reductions hold. */
void tri_step_prepared(struct tri_step_core *core);

/* Withdraws from the step: said in the next report. Not when prepared. */
void tri_step_cancel(struct tri_step_core *core, bool skip);

/* The vote has ended well. */
void tri_step_voted(struct tri_step_core *core);

/*
 * The view is over. True: the step is given up, by all. False: only the reports
 * of the next view can tell.
 */
bool tri_step_over(struct tri_step_core *core);

#endif
