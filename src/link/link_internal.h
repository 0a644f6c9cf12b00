/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_LINK_INTERNAL_H
#define TRI_LINK_INTERNAL_H

/* What link.c (channels, outboxes, pieces) and pull.c (messages that the
 * receiver reads from the sender's memory) know of each other. */

#include "link/link.h"

/* --- link.c ----------------------------------------------------------------- */

/* Has the outbox looked at, by us or by who holds the lock. */
void tri_peer_kick(struct tri_peer *peer);

struct tri_message *tri_peer_pop_outbox_locked(struct tri_peer *peer);

/* The header of a queued message, as it is written now. */
void tri_peer_header(const struct tri_message *message,
                     struct tri_record *record_p);

/* A message begins: one that came before and is not whole was cut off. */
void tri_peer_begin(struct tri_peer *peer);

void tri_link_garbage(struct tri_link *link, const char *reason);

/* Both counters have one writer at a time. */
static inline void tri_count_one(_Atomic uint64_t *counter)
{
    atomic_store_explicit(
        counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
        memory_order_relaxed);
}

/* --- pull.c ----------------------------------------------------------------- */

/* True while the peer may read the outbox's first message. */
static inline bool tri_pull_is_exposed(const struct tri_peer *peer)
{
    return atomic_load_explicit(&peer->exposed, memory_order_relaxed) != 0;
}

/* True when the outbox's first message should be pulled. */
bool tri_pull_is_wanted_locked(struct tri_peer *peer);

/* Offers the outbox's first message to the peer. Errors: EFULL, ENODE. */
int tri_pull_expose_locked(struct tri_peer *peer);

/* Ends the exposure if the peer has answered. */
void tri_pull_settle_locked(struct tri_peer *peer);

/* Takes an exposed message back: what the peer reads of it is worthless. */
void tri_pull_withdraw_locked(struct tri_peer *peer);

static inline bool tri_pull_has_answer(const struct tri_peer *peer)
{
    return atomic_load_explicit(&peer->answer, memory_order_relaxed) != 0;
}

/* Writes the answer to a PULL, if one is due. Errors: EFULL, ENODE. */
int tri_pull_answer_locked(struct tri_peer *peer);

/* The peer has answered. Poll lock held. */
void tri_pull_on_pulled(struct tri_peer *peer, const struct tri_record *record);

/* The peer offers a message; as tri_transport_events.pull. */
bool tri_pull_on_pull(void *context, void *peer,
                      const struct tri_record *record, const void *payload);

#endif
