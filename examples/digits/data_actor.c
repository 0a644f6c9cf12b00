/* SPDX-License-Identifier: BSD-3-Clause */
/* The data actor: shuffled samples, handed out on request. */
#include <string.h>

#include "actors.h"
#include "random.h"

struct data {
    data_config_t config;
    uint64_t random;
    uint32_t step;      /* the one being handed out */
    uint32_t next, end; /* what is left of it, in `order` */
    uint32_t order[DATASET_SAMPLES_MAX];
    uint32_t samples_of_rank[RANKS_MAX];
};

/* Which samples a step has depends on the seed alone, never on who takes
 * them. */
static void begin_step(struct data *d, uint32_t step)
{
    uint32_t steps_an_epoch =
        (d->config.samples_len + d->config.batch - 1) / d->config.batch;

    if (step % steps_an_epoch == 0)
        random_shuffle(&d->random, d->order, d->config.samples_len);
    d->step = step;
    d->next = step % steps_an_epoch * d->config.batch;
    d->end = d->next + d->config.batch;
    if (d->end > d->config.samples_len)
        d->end = d->config.samples_len;
}

static int on_start(troupe_self_t *self, struct data *d)
{
    (void)self;
    d->random = d->config.seed;
    for (uint32_t i = 0; i < d->config.samples_len; i++)
        d->order[i] = i;
    begin_step(d, 0);
    return 0;
}

/* The allreduce at the end of a step lets no rank be further ahead than one
 * step; who asks for another is mistaken and is told, and the actor goes on. */
static int on_next(troupe_self_t *self, struct data *d, const data_next_t *m)
{
    uint32_t len;
    size_t bytes;
    data_next_result_t *result;
    int rc;

    if (m->rank < 0 || m->rank >= RANKS_MAX)
        return troupe_reply_error(self, TROUPE_EINVAL);
    if (m->step == d->step + 1)
        begin_step(d, m->step);
    if (m->step != d->step)
        return troupe_reply_error(self, TROUPE_EINVAL);

    len = d->end - d->next;
    if (len > d->config.range)
        len = d->config.range;
    bytes = len * sizeof(d->order[0]);
    result = data_next_result_new(self, bytes);
    if (!result)
        return troupe_reply_error(self, TROUPE_ENOMEM);
    result->samples_len = len;
    result->left = d->end - d->next - len;
    memcpy(result->samples, &d->order[d->next], bytes);
    rc = troupe_reply_send(self, result);
    if (rc != 0) {
        troupe_drop(result);
        return rc;
    }
    d->next += len;
    d->samples_of_rank[m->rank] += len;
    return 0;
}

static int on_shares(troupe_self_t *self, struct data *d,
                     const data_shares_t *m)
{
    int ranks = troupe_size(self);
    size_t bytes = ranks * sizeof(d->samples_of_rank[0]);
    data_shares_result_t *result = data_shares_result_new(self, bytes);
    int rc;

    (void)m;
    if (!result)
        return troupe_reply_error(self, TROUPE_ENOMEM);
    result->ranks = ranks;
    memcpy(result->samples, d->samples_of_rank, bytes);
    rc = troupe_reply_send(self, result);
    if (rc != 0)
        troupe_drop(result);
    return rc;
}

TROUPE_ACTOR(data, struct data, .on_start = on_start, .next = on_next,
             .shares = on_shares)

int data_actor_spawn(troupe_t *troupe, const data_config_t *config,
                     data_ref_t *ref_p)
{
    struct data initial = { .config = *config };

    if (config->samples_len > DATASET_SAMPLES_MAX || config->batch == 0 ||
        config->range == 0)
        return TROUPE_EINVAL;
    return data_spawn(troupe, "data", &initial, ref_p);
}
