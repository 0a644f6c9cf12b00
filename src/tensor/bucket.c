/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Buckets: tensors that are reduced together, in the order in which they were
 * added, as soon as all of a bucket are ready and the buckets before it have
 * been started. So the order is the same on all members, whatever gets ready
 * first where.
 */

#include <stdlib.h>
#include <string.h>

#include "tensor/training.h"

#define TENSORS_MAX 1048576u

struct tensor {
    unsigned char *data;
    size_t count;
    uint32_t bucket;
    bool ready;
};

struct tri_bucket {
    struct troupe_buckets *buckets;
    uint32_t first, len; /* of its tensors */
    uint32_t ready_len;
    size_t count; /* elements */
    unsigned char *fused; /* what is reduced; NULL: its only tensor itself */
};

struct troupe_buckets {
    struct troupe_training *training;
    enum troupe_datatype type;
    enum troupe_op op;
    size_t bucket_bytes;
    struct tensor *tensors;
    uint32_t tensors_len, tensors_max;
    struct tri_bucket *list;
    uint32_t len;
    uint32_t started;
    uint64_t attempt; /* that `ready` is about */
    bool is_sealed;
    uint32_t uses;     /* by reductions of the step under way */
    bool is_destroyed; /* when they are over */
};

int troupe_buckets_create(troupe_training_t *training,
                          enum troupe_datatype type, enum troupe_op op,
                          size_t bucket_bytes, troupe_buckets_t **buckets_p)
{
    struct troupe_buckets *buckets;
    int rc = tri_training_check(training);

    if (rc != 0)
        return rc;
    if (buckets_p == NULL || troupe_datatype_bytes(type) == 0 ||
        bucket_bytes == 0 || op < TROUPE_SUM || op > TROUPE_OP_LAST)
        return TROUPE_EINVAL;
    buckets = calloc(1, sizeof(*buckets));
    if (buckets == NULL)
        return TROUPE_ENOMEM;
    buckets->training = training;
    buckets->type = type;
    buckets->op = op;
    buckets->bucket_bytes = bucket_bytes;
    *buckets_p = buckets;
    return 0;
}

int troupe_buckets_add(troupe_buckets_t *buckets, void *data, size_t count)
{
    if (buckets == NULL || data == NULL || count == 0 || buckets->is_sealed)
        return TROUPE_EINVAL;
    if (buckets->tensors_len == TENSORS_MAX)
        return TROUPE_ELIMIT;
    if (buckets->tensors_len == buckets->tensors_max) {
        uint32_t max = buckets->tensors_max * 2 + 16;
        struct tensor *tensors =
            realloc(buckets->tensors, max * sizeof(*tensors));

        if (tensors == NULL)
            return TROUPE_ENOMEM;
        buckets->tensors = tensors;
        buckets->tensors_max = max;
    }
    buckets->tensors[buckets->tensors_len++] =
        (struct tensor){ .data = data, .count = count };
    return 0;
}

/* Whether a tensor begins another bucket. */
static bool begins_bucket(const struct troupe_buckets *buckets, uint32_t tensor)
{
    const struct tri_bucket *last = &buckets->list[buckets->len - 1];
    size_t element = troupe_datatype_bytes(buckets->type);

    return (last->count + buckets->tensors[tensor].count) * element >
               buckets->bucket_bytes;
}

static void free_list(struct troupe_buckets *buckets)
{
    for (uint32_t i = 0; i < buckets->len; i++)
        free(buckets->list[i].fused);
    free(buckets->list);
    buckets->list = NULL;
    buckets->len = 0;
}

static void free_buckets(struct troupe_buckets *buckets)
{
    assert(buckets->uses == 0);
    free_list(buckets);
    free(buckets->tensors);
    free(buckets);
}

/* No more tensors: which are in which bucket is settled. */
static int seal(struct troupe_buckets *buckets)
{
    size_t element = troupe_datatype_bytes(buckets->type);
    int rc = 0;

    free_list(buckets); /* of a try that failed */
    buckets->list = calloc(buckets->tensors_len, sizeof(*buckets->list));
    if (buckets->list == NULL)
        return TROUPE_ENOMEM;
    for (uint32_t i = 0; i < buckets->tensors_len; i++) {
        struct tri_bucket *bucket;

        if (i == 0 || begins_bucket(buckets, i))
            buckets->list[buckets->len++] =
                (struct tri_bucket){ .buckets = buckets, .first = i };
        bucket = &buckets->list[buckets->len - 1];
        bucket->len++;
        bucket->count += buckets->tensors[i].count;
        buckets->tensors[i].bucket = buckets->len - 1;
    }
    for (uint32_t i = 0; i < buckets->len; i++) {
        struct tri_bucket *bucket = &buckets->list[i];

        if (bucket->len == 1)
            continue;
        bucket->fused = malloc(bucket->count * element);
        if (bucket->fused == NULL)
            rc = TROUPE_ENOMEM;
    }
    buckets->is_sealed = rc == 0;
    return rc;
}

static void begin_attempt(struct troupe_buckets *buckets)
{
    buckets->attempt = buckets->training->attempts;
    buckets->started = 0;
    for (uint32_t i = 0; i < buckets->tensors_len; i++)
        buckets->tensors[i].ready = false;
    for (uint32_t i = 0; i < buckets->len; i++)
        buckets->list[i].ready_len = 0;
}

static int start(struct troupe_buckets *buckets, struct tri_bucket *bucket)
{
    const struct tensor *tensors = &buckets->tensors[bucket->first];
    size_t element = troupe_datatype_bytes(buckets->type);
    unsigned char *at = bucket->fused;

    for (uint32_t i = 0; bucket->fused != NULL && i < bucket->len; i++) {
        memcpy(at, tensors[i].data, tensors[i].count * element);
        at += tensors[i].count * element;
    }
    return tri_step_reduce(buckets->training,
                           bucket->fused != NULL ? bucket->fused
                                                 : tensors[0].data,
                           NULL, bucket, bucket->count, buckets->type,
                           buckets->op);
}

void tri_bucket_hold(const struct tri_bucket *bucket)
{
    bucket->buckets->uses++;
}

void tri_bucket_release(const struct tri_bucket *bucket)
{
    struct troupe_buckets *buckets = bucket->buckets;

    assert(buckets->uses > 0);
    if (--buckets->uses == 0 && buckets->is_destroyed)
        free_buckets(buckets);
}

void tri_bucket_store(const struct tri_bucket *bucket, const void *result)
{
    const struct troupe_buckets *buckets = bucket->buckets;
    const unsigned char *at = result;
    size_t element = troupe_datatype_bytes(buckets->type);

    for (uint32_t i = 0; i < bucket->len; i++) {
        const struct tensor *tensor = &buckets->tensors[bucket->first + i];

        memcpy(tensor->data, at, tensor->count * element);
        at += tensor->count * element;
    }
}

int troupe_buckets_ready(troupe_buckets_t *buckets, const troupe_step_t *step,
                         uint32_t tensor)
{
    struct troupe_training *training;
    int rc;

    if (buckets == NULL || step == NULL || tensor >= buckets->tensors_len ||
        step->training != buckets->training)
        return TROUPE_EINVAL;
    training = buckets->training;
    rc = tri_training_check(training);
    if (rc == 0 && (!training->is_open || step->step != training->step.step))
        rc = TROUPE_EINVAL;
    if (rc != 0)
        return rc;
    if (!buckets->is_sealed)
        rc = seal(buckets);
    if (rc != 0)
        return tri_step_refuse(training, rc);
    if (buckets->attempt != training->attempts)
        begin_attempt(buckets);
    if (buckets->tensors[tensor].ready)
        return TROUPE_EINVAL; /* twice in a step */
    buckets->tensors[tensor].ready = true;
    buckets->list[buckets->tensors[tensor].bucket].ready_len++;
    while (rc == 0 && buckets->started < buckets->len &&
           buckets->list[buckets->started].ready_len ==
               buckets->list[buckets->started].len)
        rc = start(buckets, &buckets->list[buckets->started++]);
    return rc;
}

void troupe_buckets_destroy(troupe_buckets_t **buckets_p)
{
    struct troupe_buckets *buckets;

    if (buckets_p == NULL || *buckets_p == NULL)
        return;
    buckets = *buckets_p;
    *buckets_p = NULL;
    if (buckets->uses > 0)
        buckets->is_destroyed = true; /* reductions read and write it */
    else
        free_buckets(buckets);
}
