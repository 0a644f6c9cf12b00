/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_STATE_H
#define TRI_STATE_H

/*
 * Registered state, and how it gets from member to member.
 *
 * Replicated state is the same on all members between commit and begin, so who
 * is new asks them for it, all at once, chunk by chunk (fetch.c). Its peers
 * answer from the thread that polls, in a window that opens with begin and
 * closes before commit returns: there the program does not change it. Outside
 * they say NOT_YET.
 *
 * Private state is copied in begin and sent to a buddy (buddy.c), which keeps
 * the last two whole copies.
 *
 * Records: a struct tri_state_head as it lies in memory, which is little-endian
 * (wire/record.h asserts it), and data behind it. Those with data are STATE,
 * others STATE_CONTROL. A record about a training that there is not is dropped.
 * Any node of the cluster may ask and tell: members adopt views at different
 * times, so who polls cannot know who is one, and a drain may come from anybody.
 * Data is taken only of the members that are asked for it, while they are, and
 * copies only where there is room.
 */

#include <troupe/training.h>

#include "actor/runtime.h"

#define TRI_STATES_MAX 64u
#define TRI_STATE_NAME_MAX 63u
/* Of a chunk: a copy that nobody waits for long. */
#define TRI_STATE_CHUNK_BYTES (512u * 1024)

enum tri_state_what {
    TRI_STATE_WANT = 1, /* index, offset, bytes; of step */
    TRI_STATE_HAVE,     /* the same, and data */
    TRI_STATE_NOT_YET,  /* to a WANT: ask again */
    TRI_STATE_COPY,     /* of private state, after step; total bytes, data */
    TRI_STATE_COPIED,   /* the whole of it has come */
    TRI_STATE_DRAIN,    /* whoever gets it is to leave */
    TRI_STATE_FINISHED, /* to spares: all steps are done */
    TRI_STATE_REFUSED,  /* to a COPY: there is no room for it */
    TRI_STATE_DROP,     /* another buddy has the asker's copies now */
    TRI_STATE_WHAT_LAST = TRI_STATE_DROP,
};

struct tri_state_head {
    uint64_t group;
    uint64_t step;
    uint64_t offset;
    uint64_t total;
    uint64_t hash; /* of data */
    uint32_t what; /* enum tri_state_what */
    uint32_t index;
    uint32_t bytes;
    uint32_t fetch; /* number of the asker's fetch */
};

_Static_assert(sizeof(struct tri_state_head) == 56, "the layout of a STATE");

struct tri_state {
    char name[TRI_STATE_NAME_MAX + 1];
    unsigned char *data;
    size_t bytes;
    enum troupe_state_kind kind;
};

struct tri_fetch;
struct tri_buddy;

struct tri_states {
    struct tri_state list[TRI_STATES_MAX];
    uint32_t len;
    size_t replicated_bytes;
    size_t private_bytes;
    bool is_sealed; /* a step was begun: no more are registered */

    /* mutex */
    bool is_window_open;
    uint64_t window_step;
    uint64_t served_bytes;
    struct tri_fetch *fetch; /* under way; NULL: none */
    struct tri_buddy *buddy; /* NULL: no private state */
};

/* --- state.c --------------------------------------------------------------- */

/* Records of runtime->state_record and state_message. Poll lock held. */
void tri_state_record(struct tri_runtime *runtime, struct tri_peer *peer,
                      const struct tri_record *record, const void *payload);
void tri_state_message(struct tri_runtime *runtime, struct tri_peer *peer,
                       struct tri_message *message);

/* The mutex of all trainings, and their list. */
void tri_state_lock(void);
void tri_state_unlock(void);
void tri_state_add(struct troupe_training *training);
void tri_state_remove(struct troupe_training *training);

/* Peers are answered from now on, and from now on not any more. */
void tri_state_open_window(struct troupe_training *training, uint64_t step);
void tri_state_close_window(struct troupe_training *training);

/* Sends a record to a node; data NULL: a small one. Errors: ENODE, ENOMEM,
 * EFULL (with data, when it should wait). */
int tri_state_send(struct tri_runtime *runtime, uint64_t to,
                   const struct tri_state_head *head, const void *data,
                   enum tri_send_how how);

/* Of names, sizes and kinds. */
uint64_t tri_state_registered(const struct tri_states *states, uint64_t hash);

/* Of all replicated state; of a part of it that is another one each step. */
uint64_t tri_state_hash_all(const struct tri_states *states);
uint64_t tri_state_hash_part(const struct tri_states *states, uint64_t step);

/* Which part that is, and its hash: each member says so when they differ. */
void tri_state_log_part(const struct tri_states *states, uint64_t node,
                        uint64_t step);

/* Of bytes; eight at a time, on four lanes. Not for secrets. */
uint64_t tri_state_hash(uint64_t hash, const void *data, size_t bytes);

void tri_state_fini(struct tri_states *states);

/* --- fetch.c ----------------------------------------------------------------- */

/*
 * Fetches all replicated state, as of the core's `committed`, from the members
 * of the view that have it; `sources`, len of them. What had come in a view
 * before, of the same step, is kept, unless one of its members may have
 * withdrawn from the step. Serves actors meanwhile. Lasts until all is there or
 * the view is over: a source that does not answer is passed over, one that dies
 * ends the view, and who is asked to leave does so when it has taken a step.
 * Errors: EVIEW, ENODE (no sources), ENOMEM.
 */
int tri_fetch_run(struct troupe_training *training, const uint64_t *sources,
                  uint32_t len);

/* A HAVE or NOT_YET for a fetch. Mutex. */
void tri_fetch_record_locked(struct troupe_training *training, uint64_t from,
                             const struct tri_state_head *head,
                             const void *data);

void tri_fetch_fini(struct tri_states *states);

/* --- buddy.c ----------------------------------------------------------------- */

/* Another view was adopted: who is whose buddy, who died. */
void tri_buddy_view(struct troupe_training *training);

#define TRI_BUDDY_WARDS_MAX 32u
/* Those that are here, and those that were. */
#define TRI_ORPHANS_MAX (2 * TRI_BUDDY_WARDS_MAX)
#define TRI_ORPHAN_IS_OWNED UINT64_MAX

/* What a dead member left, as members tell each other of it. */
struct tri_orphan {
    uint64_t node; /* 0: nobody */
    uint64_t rank; /* the highest one's is the owner: the step of the copy */
};

/* The orphans of this member, those first that others may have, too
 * (*disputed_p of them). Returns how many. */
uint32_t tri_buddy_orphans(const struct tri_states *states,
                           struct tri_orphan orphans[TRI_ORPHANS_MAX],
                           uint32_t *disputed_p);

/* All members' orphans, `each` of each of them: this one's from `place` on.
 * Those that nobody else has a better copy of are owned now; others go. */
void tri_buddy_settle(struct tri_states *states, const struct tri_orphan *all,
                      uint32_t each, uint32_t len, uint32_t place);

/* A step begins: copies private state, if the copy before has arrived, and
 * sends what the link takes; tri_buddy_pump sends more. */
void tri_buddy_begin(struct troupe_training *training);
void tri_buddy_pump(struct troupe_training *training);

/* A COPY, COPIED, REFUSED or DROP. Mutex. */
void tri_buddy_record_locked(struct troupe_training *training, uint64_t from,
                             const struct tri_state_head *head,
                             const void *data);

/* Copies of this member's private state that have arrived. */
uint64_t tri_buddy_copies(const struct tri_states *states);

void tri_buddy_fini(struct tri_states *states);

#endif
