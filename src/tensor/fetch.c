/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Who has just come gets the replicated state: it asks all that have it, for
 * some chunks each at a time, and writes what comes to where it belongs. A
 * chunk that does not come in time, or that a source does not give out now, is
 * asked for again, of the next one. Chunks that are there stay when the view
 * changes, as long as it is the state after the same step that is wanted.
 *
 * Memory of the program is written by whoever polls, but only while the thread
 * that began the step is in here: `is_active` says so, under the mutex.
 */

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "tensor/training.h"

/* Under way at each source. */
#define WANTS_PER_SOURCE 4u
/* Until a source that has not answered is passed over. */
#define ANSWER_NS (500 * TRI_NS_PER_MS)
/* Until a chunk that nobody gave out is asked for again. */
#define AGAIN_NS (1 * TRI_NS_PER_MS)
#define LOOK_NS (2 * TRI_NS_PER_MS)

enum chunk_state {
    CHUNK_WANTED,
    CHUNK_ASKED,
    CHUNK_HERE,
};

struct chunk {
    uint64_t offset;
    uint64_t due_ns; /* WANTED: not before; ASKED: answer */
    uint64_t source; /* node */
    uint32_t index;  /* of the state */
    uint32_t bytes;
    uint32_t asked; /* times */
    uint8_t state;
};

struct tri_fetch {
    uint64_t step;
    uint32_t number; /* comes back in answers */
    bool is_active;
    uint32_t chunks_len;
    uint32_t here_len;
    uint32_t first; /* those before are all here */
    _Atomic uint32_t changes;
    struct chunk chunks[];
};

static uint32_t chunks_of(const struct tri_states *states)
{
    uint64_t len = 0;

    for (uint32_t i = 0; i < states->len; i++)
        if (states->list[i].kind == TROUPE_REPLICATED)
            len += (states->list[i].bytes + TRI_STATE_CHUNK_BYTES - 1) /
                   TRI_STATE_CHUNK_BYTES;
    return len <= UINT32_MAX ? (uint32_t)len : UINT32_MAX;
}

static void fill_chunks(struct tri_fetch *fetch,
                        const struct tri_states *states)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < states->len; i++) {
        const struct tri_state *state = &states->list[i];

        if (state->kind != TROUPE_REPLICATED)
            continue;
        for (size_t at = 0; at < state->bytes; at += TRI_STATE_CHUNK_BYTES)
            fetch->chunks[n++] = (struct chunk){
                .offset = at,
                .index = i,
                .bytes = (uint32_t)tri_min(TRI_STATE_CHUNK_BYTES,
                                           state->bytes - at),
            };
    }
    assert(n == fetch->chunks_len);
}

/* The one that was begun before, of the same step, or another. */
static struct tri_fetch *take_up(struct troupe_training *training)
{
    struct tri_states *states = &training->states;
    const uint32_t len = chunks_of(states);
    const uint32_t number = states->fetch != NULL ? states->fetch->number : 0;
    struct tri_fetch *fetch;

    if (states->fetch != NULL &&
        states->fetch->step == training->core.committed)
        return states->fetch;
    fetch = calloc(1, sizeof(*fetch) + len * sizeof(fetch->chunks[0]));
    if (fetch == NULL)
        return NULL;
    fetch->step = training->core.committed;
    fetch->number = number + 1;
    fetch->chunks_len = len;
    fill_chunks(fetch, states);
    tri_state_lock();
    free(states->fetch);
    states->fetch = fetch;
    tri_state_unlock();
    return fetch;
}

/* --- asking ------------------------------------------------------------------- */

struct asking {
    struct troupe_training *training;
    struct tri_fetch *fetch;
    const uint64_t *sources;
    uint32_t sources_len;
    uint32_t changes; /* seen */
};

static void ask_for_locked(const struct asking *asking, uint32_t i,
                           uint64_t now_ns)
{
    struct tri_fetch *fetch = asking->fetch;
    struct chunk *chunk = &fetch->chunks[i];
    /* The first time spread over all, then on to the next. */
    uint32_t at = (uint32_t)((i + chunk->asked) % asking->sources_len);
    struct tri_state_head want = {
        .group = asking->training->group_id,
        .step = fetch->step,
        .offset = chunk->offset,
        .what = TRI_STATE_WANT,
        .index = chunk->index,
        .bytes = chunk->bytes,
        .fetch = fetch->number,
    };

    chunk->asked++;
    chunk->source = asking->sources[at];
    if (tri_state_send(asking->training->runtime, chunk->source, &want, NULL,
                       TRI_SEND_FORCED) == 0) {
        chunk->state = CHUNK_ASKED;
        chunk->due_ns = now_ns + ANSWER_NS;
    } else {
        chunk->state = CHUNK_WANTED;
        chunk->due_ns = now_ns + AGAIN_NS;
    }
}

static void ask(const struct asking *asking)
{
    struct tri_fetch *fetch = asking->fetch;
    const uint32_t most = asking->sources_len * WANTS_PER_SOURCE;
    const uint64_t now_ns = tri_now_ns();
    uint32_t under_way = 0;

    tri_state_lock();
    while (fetch->first < fetch->chunks_len &&
           fetch->chunks[fetch->first].state == CHUNK_HERE)
        fetch->first++;
    for (uint32_t i = fetch->first;
         i < fetch->chunks_len && under_way < most; i++) {
        struct chunk *chunk = &fetch->chunks[i];

        if (chunk->state == CHUNK_HERE)
            continue;
        if (now_ns >= chunk->due_ns)
            ask_for_locked(asking, i, now_ns);
        under_way++;
    }
    tri_state_unlock();
}

/* --- answers ------------------------------------------------------------------ */

static struct chunk *chunk_of(struct tri_fetch *fetch,
                              const struct tri_state_head *head)
{
    for (uint32_t i = fetch->first; i < fetch->chunks_len; i++)
        if (fetch->chunks[i].index == head->index &&
            fetch->chunks[i].offset == head->offset)
            return fetch->chunks[i].bytes == head->bytes ? &fetch->chunks[i]
                                                         : NULL;
    return NULL;
}

void tri_fetch_record_locked(struct troupe_training *training, uint64_t from,
                             const struct tri_state_head *head,
                             const void *data)
{
    struct tri_fetch *fetch = training->states.fetch;
    struct chunk *chunk;

    if (fetch == NULL || !fetch->is_active || head->fetch != fetch->number ||
        head->step != fetch->step)
        return; /* late */
    chunk = chunk_of(fetch, head);
    if (chunk == NULL || chunk->state == CHUNK_HERE)
        return;
    if (head->what == TRI_STATE_HAVE &&
        tri_state_hash(head->offset, data, head->bytes) == head->hash) {
        memcpy(training->states.list[chunk->index].data + chunk->offset, data,
               chunk->bytes);
        chunk->state = CHUNK_HERE;
        fetch->here_len++;
    } else if (chunk->state == CHUNK_ASKED && chunk->source == from) {
        chunk->state = CHUNK_WANTED;
        chunk->due_ns = tri_now_ns() + AGAIN_NS;
    }
    atomic_fetch_add(&fetch->changes, 1);
    tri_wake_guest(training->runtime);
}

/* --- the fetch ---------------------------------------------------------------- */

static bool has_news(void *arg)
{
    struct asking *asking = arg;

    return atomic_load(&asking->fetch->changes) != asking->changes ||
           tri_view_is_over(asking->training->group);
}

static bool is_whole(struct tri_fetch *fetch)
{
    bool whole;

    tri_state_lock();
    whole = fetch->here_len == fetch->chunks_len;
    tri_state_unlock();
    return whole;
}

static void set_active(struct tri_fetch *fetch, bool active)
{
    tri_state_lock();
    fetch->is_active = active;
    /* Sources may be others now, and what was asked for may be lost. */
    for (uint32_t i = 0; active && i < fetch->chunks_len; i++)
        if (fetch->chunks[i].state == CHUNK_ASKED)
            fetch->chunks[i].state = CHUNK_WANTED;
    for (uint32_t i = 0; active && i < fetch->chunks_len; i++)
        fetch->chunks[i].due_ns = 0;
    tri_state_unlock();
}

static int run(struct asking *asking)
{
    struct troupe_training *training = asking->training;
    struct tri_seat seat;
    int rc = 0;

    tri_seat_take(training->runtime, &seat);
    while (!is_whole(asking->fetch)) {
        if (tri_view_is_over(training->group)) {
            rc = TROUPE_EVIEW;
            break;
        }
        asking->changes = atomic_load(&asking->fetch->changes);
        ask(asking);
        (void)tri_wait(&seat, has_news, asking, tri_now_ns() + LOOK_NS);
    }
    tri_seat_leave(&seat);
    return rc;
}

int tri_fetch_run(struct troupe_training *training, const uint64_t *sources,
                  uint32_t len)
{
    struct asking asking = {
        .training = training,
        .fetch = take_up(training),
        .sources = sources,
        .sources_len = len,
    };
    int rc;

    if (asking.fetch == NULL || len == 0)
        return len == 0 ? TROUPE_ENODE : TROUPE_ENOMEM;
    set_active(asking.fetch, true);
    rc = run(&asking);
    set_active(asking.fetch, false);
    if (rc != 0)
        return rc;
    training->stats.synced_bytes += training->states.replicated_bytes;
    tri_fetch_fini(&training->states);
    return 0;
}

void tri_fetch_fini(struct tri_states *states)
{
    tri_state_lock();
    free(states->fetch);
    states->fetch = NULL;
    tri_state_unlock();
}
