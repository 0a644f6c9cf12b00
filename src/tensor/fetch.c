/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Who has just come gets the replicated state: it asks all that have it, for
 * some chunks each at a time, and writes what comes to where it belongs. A
 * chunk that a source does not give out now is asked for again, of the next
 * one; so is one that a source owes which says nothing any more. Chunks that
 * are there stay when the view changes, as long as it is the state after the
 * same step that is wanted.
 *
 * What is asked for waits at the sources, past the bound of their outboxes. On
 * a slow link it waits long, and what is asked for twice makes that longer. So
 * a source that is slow, but answers, is waited for; it owes a few answers at
 * most, and those that it owes still count when another was asked meanwhile.
 *
 * Memory of the program is written by whoever polls, but only while the thread
 * that began the step is in here: `is_active` says so, under the mutex.
 */

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "tensor/training.h"

/* In question at once, of all sources and of each: 8 MiB come in a second over
 * the slowest link that there is time for (settle.c). */
#define WANTS_MAX 16u
#define WANTS_PER_SOURCE 4u
/* Until a source that owes answers, and gives none, is passed over: at first.
 * It becomes twice as long as any was seen to take. */
#define ANSWER_NS (500 * TRI_NS_PER_MS)
/* ... but no longer than this: what it owes is taken for lost. */
#define LOST_NS (10000 * TRI_NS_PER_MS)
/* Until a chunk that nobody gave out is asked for again. */
#define AGAIN_NS (1 * TRI_NS_PER_MS)
#define LOOK_NS (2 * TRI_NS_PER_MS)

enum chunk_state {
    CHUNK_WANTED,
    CHUNK_ASKED,
    CHUNK_HERE,
};

struct source {
    uint64_t node;
    uint64_t heard_ns; /* while it owes: its last answer, or since when */
    uint32_t owed;     /* answers, also of what another gave meanwhile */
};

struct chunk {
    uint64_t offset;
    uint64_t due_ns; /* WANTED: not before */
    uint32_t source; /* ASKED: of sources */
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
    struct source *sources; /* while it is active */
    uint32_t sources_len;
    uint64_t patience_ns; /* with a source that says nothing */
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
    fetch->patience_ns = ANSWER_NS;
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
    struct source *sources;
    uint32_t sources_len;
    uint32_t changes; /* seen */
};

static bool is_silent(const struct tri_fetch *fetch,
                      const struct source *source, uint64_t now_ns)
{
    return source->owed > 0 && now_ns - source->heard_ns >= fetch->patience_ns;
}

/* The next one from `at` on that has answered so far. */
static struct source *pick_locked(struct tri_fetch *fetch, uint64_t at,
                                  uint64_t now_ns)
{
    for (uint32_t i = 0; i < fetch->sources_len; i++) {
        struct source *source =
            &fetch->sources[(at + i) % fetch->sources_len];

        if (source->owed > 0 && now_ns - source->heard_ns >= LOST_NS)
            source->owed = 0;
        if (source->owed < WANTS_PER_SOURCE &&
            !is_silent(fetch, source, now_ns))
            return source;
    }
    return NULL;
}

static void ask_for_locked(const struct asking *asking, uint32_t i,
                           uint64_t now_ns)
{
    struct tri_fetch *fetch = asking->fetch;
    struct chunk *chunk = &fetch->chunks[i];
    /* The first time spread over all, then on to the next. */
    struct source *source = pick_locked(fetch, (uint64_t)i + chunk->asked,
                                        now_ns);
    struct tri_state_head want = {
        .group = asking->training->group_id,
        .step = fetch->step,
        .offset = chunk->offset,
        .what = TRI_STATE_WANT,
        .index = chunk->index,
        .bytes = chunk->bytes,
        .fetch = fetch->number,
    };

    if (source == NULL)
        return; /* what was asked for may still come */
    chunk->asked++;
    if (tri_state_send(asking->training->runtime, source->node, &want, NULL,
                       TRI_SEND_FORCED) == 0) {
        chunk->state = CHUNK_ASKED;
        chunk->source = (uint32_t)(source - fetch->sources);
        if (source->owed++ == 0)
            source->heard_ns = now_ns;
    } else {
        chunk->state = CHUNK_WANTED;
        chunk->due_ns = now_ns + AGAIN_NS;
    }
}

static bool is_due(const struct tri_fetch *fetch, const struct chunk *chunk,
                   uint64_t now_ns)
{
    const struct source *source = &fetch->sources[chunk->source];

    return chunk->state == CHUNK_ASKED
               ? source->owed == 0 || is_silent(fetch, source, now_ns)
               : now_ns >= chunk->due_ns;
}

static void ask(const struct asking *asking)
{
    struct tri_fetch *fetch = asking->fetch;
    const uint32_t most =
        tri_min(asking->sources_len * WANTS_PER_SOURCE, WANTS_MAX);
    const uint64_t now_ns = tri_now_ns();
    uint32_t in_question = 0;

    tri_state_lock();
    while (fetch->first < fetch->chunks_len &&
           fetch->chunks[fetch->first].state == CHUNK_HERE)
        fetch->first++;
    for (uint32_t i = fetch->first;
         i < fetch->chunks_len && in_question < most; i++) {
        struct chunk *chunk = &fetch->chunks[i];

        if (chunk->state == CHUNK_HERE)
            continue;
        if (is_due(fetch, chunk, now_ns))
            ask_for_locked(asking, i, now_ns);
        in_question++;
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

static struct source *source_of(struct tri_fetch *fetch, uint64_t node)
{
    for (uint32_t i = 0; i < fetch->sources_len; i++)
        if (fetch->sources[i].node == node)
            return &fetch->sources[i];
    return NULL;
}

static void heard_of_locked(struct tri_fetch *fetch, struct source *source,
                            uint64_t now_ns)
{
    if (source->owed == 0)
        return; /* asked in another view, or taken for lost */
    fetch->patience_ns = tri_min(
        tri_max(fetch->patience_ns, 2 * (now_ns - source->heard_ns)), LOST_NS);
    source->heard_ns = now_ns;
    source->owed--;
}

void tri_fetch_record_locked(struct troupe_training *training, uint64_t from,
                             const struct tri_state_head *head,
                             const void *data)
{
    struct tri_fetch *fetch = training->states.fetch;
    uint64_t now_ns = tri_now_ns();
    struct source *source;
    struct chunk *chunk;

    if (fetch == NULL || !fetch->is_active || head->fetch != fetch->number ||
        head->step != fetch->step)
        return; /* late */
    source = source_of(fetch, from);
    if (source == NULL)
        return; /* of nobody that is asked */
    heard_of_locked(fetch, source, now_ns);
    chunk = chunk_of(fetch, head);
    if (chunk == NULL || chunk->state == CHUNK_HERE)
        return;
    if (head->what == TRI_STATE_HAVE &&
        tri_state_hash(head->offset, data, head->bytes) == head->hash) {
        memcpy(training->states.list[chunk->index].data + chunk->offset, data,
               chunk->bytes);
        chunk->state = CHUNK_HERE;
        fetch->here_len++;
    } else if (chunk->state == CHUNK_ASKED &&
               &fetch->sources[chunk->source] == source) {
        chunk->state = CHUNK_WANTED;
        chunk->due_ns = now_ns + AGAIN_NS;
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

static void set_active(const struct asking *asking, bool active)
{
    struct tri_fetch *fetch = asking->fetch;

    tri_state_lock();
    fetch->is_active = active;
    fetch->sources = active ? asking->sources : NULL;
    fetch->sources_len = active ? asking->sources_len : 0;
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
    struct asking asking = { .training = training, .sources_len = len };
    int rc;

    if (len == 0)
        return TROUPE_ENODE;
    asking.fetch = take_up(training);
    asking.sources = calloc(len, sizeof(*asking.sources));
    if (asking.fetch == NULL || asking.sources == NULL) {
        free(asking.sources);
        return TROUPE_ENOMEM;
    }
    for (uint32_t i = 0; i < len; i++)
        asking.sources[i].node = sources[i];
    set_active(&asking, true);
    rc = run(&asking);
    set_active(&asking, false);
    free(asking.sources);
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
