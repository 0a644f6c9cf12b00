/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Registered state: the list, its hashes, and the records about it.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "message/pool.h"
#include "tensor/training.h"

/* What is hashed of the state in each step. */
#define PART_BYTES (16u * 1024)

/* All trainings of this process. Records come to whoever polls. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct troupe_training *trainings;

void tri_state_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void tri_state_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

void tri_state_add(struct troupe_training *training)
{
    tri_state_lock();
    training->next = trainings;
    trainings = training;
    tri_state_unlock();
}

void tri_state_remove(struct troupe_training *training)
{
    struct troupe_training **at = &trainings;

    tri_state_lock();
    while (*at != NULL && *at != training)
        at = &(*at)->next;
    if (*at != NULL)
        *at = training->next;
    tri_state_unlock();
}

static struct troupe_training *find_locked(const struct tri_runtime *runtime,
                                           uint64_t group)
{
    struct troupe_training *training = trainings;

    while (training != NULL && (training->runtime != runtime ||
                                training->group_id != group))
        training = training->next;
    return training;
}

/* --- hashes ------------------------------------------------------------------- */

#define LANES 4u

uint64_t tri_state_hash(uint64_t hash, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    uint64_t lanes[LANES] = { hash, ~hash, hash + 1, bytes };
    size_t i = 0;

    for (; i + LANES * 8 <= bytes; i += LANES * 8)
#pragma GCC unroll 4
        for (size_t k = 0; k < LANES; k++) {
            uint64_t word;

            memcpy(&word, p + i + k * 8, sizeof(word));
            lanes[k] = (lanes[k] ^ word) * 0x9fb21c651e98df25ull;
            lanes[k] ^= lanes[k] >> 35;
        }
    for (; i < bytes; i++)
        lanes[0] = (lanes[0] ^ p[i]) * 0x100000001b3ull;
    for (size_t k = 0; k < LANES; k++)
        hash = tri_mix64(hash + lanes[k] + k);
    return hash;
}

uint64_t tri_state_registered(const struct tri_states *states, uint64_t hash)
{
    for (uint32_t i = 0; i < states->len; i++) {
        const struct tri_state *state = &states->list[i];
        const uint64_t words[] = { state->bytes, (uint64_t)state->kind };

        hash = tri_state_hash(hash, state->name, sizeof(state->name));
        hash = tri_state_hash(hash, words, sizeof(words));
    }
    return hash;
}

uint64_t tri_state_hash_all(const struct tri_states *states)
{
    uint64_t hash = 0;

    for (uint32_t i = 0; i < states->len; i++)
        if (states->list[i].kind == TROUPE_REPLICATED)
            hash = tri_state_hash(hash, states->list[i].data,
                                  states->list[i].bytes);
    return hash;
}

/* The state that the step's part is of, and where it begins; NULL: it is behind
 * them all. */
static const struct tri_state *part_of(const struct tri_states *states,
                                       uint64_t step, size_t *offset_p)
{
    uint64_t parts = states->replicated_bytes / PART_BYTES + 1;
    uint64_t offset = step % parts * PART_BYTES;

    for (uint32_t i = 0; i < states->len; i++) {
        const struct tri_state *state = &states->list[i];

        if (state->kind != TROUPE_REPLICATED)
            continue;
        if (offset < state->bytes) {
            *offset_p = offset;
            return state;
        }
        offset -= state->bytes;
    }
    return NULL;
}

uint64_t tri_state_hash_part(const struct tri_states *states, uint64_t step)
{
    size_t offset;
    const struct tri_state *state = part_of(states, step, &offset);

    return state != NULL
               ? tri_state_hash(step, state->data + offset,
                                tri_min(PART_BYTES, state->bytes - offset))
               : 0;
}

void tri_state_log_part(const struct tri_states *states, uint64_t node,
                        uint64_t step)
{
    size_t offset;
    const struct tri_state *state = part_of(states, step, &offset);

    if (state != NULL)
        tri_error("node %016llx: of \"%s\" up to %u bytes from %zu on have the "
                  "hash %016llx",
                  (unsigned long long)node, state->name, PART_BYTES, offset,
                  (unsigned long long)tri_state_hash_part(states, step));
}

/* --- registering -------------------------------------------------------------- */

static bool is_taken(const struct tri_states *states, const char *name)
{
    for (uint32_t i = 0; i < states->len; i++)
        if (strcmp(states->list[i].name, name) == 0)
            return true;
    return false;
}

/*
 * Of who has yet to get the state: all pages are there before it takes part.
 * Memory that is written for the first time costs several times what the copy
 * does, and the others wait for it in the step. A nicety; nothing is changed.
 */
static void populate(void *data, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)data & ~(page - 1);

    (void)madvise((char *)data - ((uintptr_t)data - from),
                  (uintptr_t)data + bytes - from, MADV_POPULATE_WRITE);
#else
    (void)data;
    (void)bytes;
#endif
}

int troupe_state_register(troupe_training_t *training, const char *name,
                          void *data, size_t bytes,
                          enum troupe_state_kind kind)
{
    struct tri_states *states;
    struct tri_state *state;
    int rc = tri_training_check(training);

    if (rc != 0)
        return rc;
    states = &training->states;
    if (name == NULL || name[0] == '\0' || strlen(name) > TRI_STATE_NAME_MAX ||
        data == NULL || bytes == 0 || states->is_sealed ||
        (kind != TROUPE_REPLICATED && kind != TROUPE_PRIVATE))
        return TROUPE_EINVAL;
    if (is_taken(states, name))
        return TROUPE_EEXIST;
    if (states->len == TRI_STATES_MAX)
        return TROUPE_ELIMIT;
    state = &states->list[states->len++];
    *state = (struct tri_state){ .data = data, .bytes = bytes, .kind = kind };
    memcpy(state->name, name, strlen(name));
    if (kind == TROUPE_REPLICATED)
        states->replicated_bytes += bytes;
    else
        states->private_bytes += bytes;
    if (kind == TROUPE_REPLICATED &&
        (training->core.flags & TRI_STEP_HAS_STATE) == 0)
        populate(data, bytes);
    return 0;
}

void tri_state_fini(struct tri_states *states)
{
    tri_fetch_fini(states);
    tri_buddy_fini(states);
}

/* --- sending ------------------------------------------------------------------ */

static int send_small(struct tri_peer *peer, struct tri_runtime *runtime,
                      const struct tri_state_head *head)
{
    const struct tri_record record = {
        .kind = TRI_STATE_CONTROL,
        .slot = TRI_SLOT_NODE,
        .total_bytes = sizeof(*head),
        .sender_node = runtime->node,
    };

    return tri_link_send(peer, &record, head, TRI_SEND_FORCED);
}

int tri_state_send(struct tri_runtime *runtime, uint64_t to,
                   const struct tri_state_head *head, const void *data,
                   enum tri_send_how how)
{
    struct tri_peer *peer = tri_link_find(&runtime->link, to);
    struct tri_message *message;
    int rc;

    if (peer == NULL)
        return TROUPE_ENODE;
    if (data == NULL)
        return send_small(peer, runtime, head);
    message = tri_message_alloc(sizeof(*head) + head->bytes);
    if (message == NULL)
        return TROUPE_ENOMEM;
    message->kind = TRI_STATE;
    message->slot = TRI_SLOT_NODE;
    message->sender.node = runtime->node;
    memcpy(message->payload, head, sizeof(*head));
    memcpy(message->payload + sizeof(*head), data, head->bytes);
    rc = tri_link_send_message(peer, message, how);
    if (rc != 0)
        tri_message_free(message);
    return rc;
}

/* --- answering ---------------------------------------------------------------- */

void tri_state_open_window(struct troupe_training *training, uint64_t step)
{
    tri_state_lock();
    training->states.is_window_open = true;
    training->states.window_step = step;
    tri_state_unlock();
}

void tri_state_close_window(struct troupe_training *training)
{
    tri_state_lock();
    training->states.is_window_open = false;
    tri_state_unlock();
}

/* Whether it asks for what there is. */
static bool is_valid_want(const struct tri_states *states,
                          const struct tri_state_head *want)
{
    const struct tri_state *state;

    if (want->index >= states->len || want->bytes == 0 ||
        want->bytes > TRI_STATE_CHUNK_BYTES)
        return false;
    state = &states->list[want->index];
    return state->kind == TROUPE_REPLICATED &&
           want->offset < state->bytes &&
           want->bytes <= state->bytes - want->offset;
}

static void answer_locked(struct troupe_training *training, uint64_t from,
                          const struct tri_state_head *want)
{
    struct tri_states *states = &training->states;
    struct tri_state_head answer = *want;
    const unsigned char *data = NULL;

    answer.what = TRI_STATE_NOT_YET;
    if (states->is_window_open && states->window_step == want->step &&
        is_valid_want(states, want)) {
        data = states->list[want->index].data + want->offset;
        answer.what = TRI_STATE_HAVE;
        answer.hash = tri_state_hash(want->offset, data, want->bytes);
        states->served_bytes += want->bytes;
    }
    /* Forced: the asker has a few wants under way at most, and waits for the
     * answer to each. */
    if (tri_state_send(training->runtime, from, &answer, data,
                       TRI_SEND_FORCED) != TROUPE_ENOMEM || data == NULL)
        return;
    answer.what = TRI_STATE_NOT_YET;
    (void)tri_state_send(training->runtime, from, &answer, NULL,
                         TRI_SEND_FORCED);
}

static void take_locked(struct troupe_training *training, uint64_t from,
                        const struct tri_state_head *head, const void *data)
{
    switch (head->what) {
    case TRI_STATE_WANT:
        answer_locked(training, from, head);
        break;
    case TRI_STATE_HAVE:
    case TRI_STATE_NOT_YET:
        tri_fetch_record_locked(training, from, head, data);
        break;
    case TRI_STATE_COPY:
    case TRI_STATE_COPIED:
    case TRI_STATE_REFUSED:
    case TRI_STATE_DROP:
        tri_buddy_record_locked(training, from, head, data);
        break;
    case TRI_STATE_DRAIN:
        atomic_store_explicit(&training->drain, true, memory_order_relaxed);
        break;
    case TRI_STATE_FINISHED:
        atomic_store(&training->finished_said, true);
        break;
    default:
        break;
    }
}

/* Whether a head and what is behind it fit together. */
static bool is_valid(const struct tri_state_head *head, size_t bytes)
{
    bool has_data =
        head->what == TRI_STATE_HAVE || head->what == TRI_STATE_COPY;

    return head->what >= TRI_STATE_WANT &&
           head->what <= TRI_STATE_WHAT_LAST &&
           bytes == (has_data ? head->bytes : 0);
}

static void take(struct tri_runtime *runtime, uint64_t from,
                 const void *payload, size_t bytes)
{
    struct troupe_training *training;
    struct tri_state_head head;

    if (bytes < sizeof(head))
        return;
    memcpy(&head, payload, sizeof(head));
    if (!is_valid(&head, bytes - sizeof(head))) {
        tri_debug("a STATE that makes no sense");
        return;
    }
    tri_state_lock();
    training = find_locked(runtime, head.group);
    if (training != NULL)
        take_locked(training, from, &head,
                    (const char *)payload + sizeof(head));
    tri_state_unlock();
}

void tri_state_record(struct tri_runtime *runtime, struct tri_peer *peer,
                      const struct tri_record *record, const void *payload)
{
    take(runtime, peer->node, payload, record->bytes);
}

void tri_state_message(struct tri_runtime *runtime, struct tri_peer *peer,
                       struct tri_message *message)
{
    take(runtime, peer->node, message->payload, message->bytes);
    tri_message_free(message);
}
