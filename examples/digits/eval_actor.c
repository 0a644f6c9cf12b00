/* SPDX-License-Identifier: BSD-3-Clause */
/* The evaluation actor: scores snapshots while training goes on. */
#include <stdio.h>

#include "actors.h"
#include "model.h"

enum { WAITING_MAX = 32 }; /* snapshots */

/* A pointer in a state is fine: an actor stays in its process. In a message
 * it would not be. */
struct evaluation {
    const dataset_t *dataset;
    progress_ref_t progress;
};

static int on_snapshot(troupe_self_t *self, struct evaluation *e,
                       const evaluation_snapshot_t *m)
{
    const model_t *model = (const model_t *)m->weights;
    progress_scored_t scored = { .step = m->step };
    uint32_t right = 0;
    float loss = 0;

    /* The fixed part was checked before we got it; the rest is ours to. */
    if (troupe_tail_bytes(self) != sizeof(*model)) {
        fprintf(stderr, "evaluation: a snapshot of %zu bytes, not %zu\n",
                troupe_tail_bytes(self), sizeof(*model));
        return TROUPE_EINVAL;
    }
    for (uint32_t i = 0; i < e->dataset->held_out_len; i++) {
        const sample_t *sample = &e->dataset->held_out[i];
        int correct;

        loss += model_loss(model, sample->pixels, sample->label, &correct);
        right += correct;
    }
    scored.loss = loss / e->dataset->held_out_len;
    scored.accuracy = (float)right / e->dataset->held_out_len;
    return progress_scored(self, e->progress, scored);
}

TROUPE_ACTOR(evaluation, struct evaluation, .snapshot = on_snapshot)

int evaluation_actor_spawn(troupe_t *troupe, const dataset_t *dataset,
                           progress_ref_t progress, evaluation_ref_t *ref_p)
{
    struct evaluation initial = { .dataset = dataset, .progress = progress };
    /* The latest weights count; training is not held up for older ones. */
    troupe_spawn_options_t options = { .name = "evaluation",
                                       .mailbox_len_max = WAITING_MAX,
                                       .overflow = TROUPE_DROP_OLD };

    return evaluation_spawn_with(troupe, &options, &initial, ref_p);
}
