/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_LINK_INTERNAL_H
#define TRI_LINK_INTERNAL_H

/* What the files of src/link know of each other. */

#include "link/link.h"

/* --- link.c --------------------------------------------------------------- */

/* One writer, the poll lock. */
static inline void tri_peer_hear(struct tri_peer *peer)
{
    atomic_store_explicit(
        &peer->heard,
        atomic_load_explicit(&peer->heard, memory_order_relaxed) + 1,
        memory_order_relaxed);
}

/* Counts what was dropped. reason: static text. */
void tri_link_garbage(struct tri_link *link, const char *reason);

/* Both counters have one writer at a time. release: who sees a message counted
 * sees what was done with it before; pairs with tri_peer_count. */
static inline void tri_count_one(_Atomic uint64_t *counter)
{
    atomic_store_explicit(
        counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
        memory_order_release);
}

/* --- peers.c -------------------------------------------------------------- */

/* Errors: ENOMEM. */
int tri_link_peers_init(struct tri_link *link);
void tri_link_peers_fini(struct tri_link *link);

/* Has the transports and the poller let go of dead peers. Poll lock held. */
void tri_link_bury(struct tri_link *link);

/* --- receive.c ------------------------------------------------------------ */

/* Counts what was handed up since the last call. Poll lock held. */
void tri_link_settle(struct tri_link *link);

/* --- outbox.c ------------------------------------------------------------- */

/* Has the outboxes looked at, by us or by who holds the lock. */
void tri_peer_kick(struct tri_peer *peer);

void tri_peer_mark_dirty(struct tri_peer *peer);

/* Takes the first message out of an outbox. */
struct tri_message *tri_peer_pop_locked(struct tri_peer *peer,
                                        struct tri_outbox *outbox);

/* The header of a queued message, as it is written now. */
void tri_peer_header(const struct tri_message *message,
                     struct tri_record *record_p);

/* A goodbye behind what each lane has to send. */
void tri_peer_say_bye(struct tri_peer *peer);

void tri_peer_free_outboxes(struct tri_peer *peer);

/* --- receive.c ------------------------------------------------------------ */

/* As tri_transport_events.record and ended. */
bool tri_peer_on_record(void *context, void *peer, enum tri_lane lane,
                        const struct tri_record *record, const void *payload);
void tri_peer_on_ended(void *context, void *peer);

/* A message begins: one that came before on the lane and is not whole was cut
 * off. */
void tri_peer_begin_anew(struct tri_peer *peer, enum tri_lane lane);

static inline void tri_peer_begin(struct tri_peer *peer, enum tri_lane lane)
{
    const struct tri_arrival *arrival = &peer->arrivals[lane];

    if (tri_unlikely(arrival->partial != NULL || arrival->skip_bytes > 0))
        tri_peer_begin_anew(peer, lane);
}

void tri_peer_free_arrivals(struct tri_peer *peer);

/* --- pull.c --------------------------------------------------------------- */

/* True while the peer may read the outbox's first message. */
static inline bool tri_pull_is_exposed(const struct tri_outbox *outbox)
{
    return atomic_load_explicit(&outbox->exposed, memory_order_relaxed) != 0;
}

/* True when the outbox's first message should be pulled. */
bool tri_pull_is_wanted_locked(struct tri_peer *peer,
                               const struct tri_outbox *outbox);

/* Offers an outbox's first message to the peer. Errors: EFULL, ENODE. */
int tri_pull_expose_locked(struct tri_peer *peer, enum tri_lane lane);

/* Ends the exposures that the peer has answered. */
void tri_pull_settle_locked(struct tri_peer *peer);

/* Takes an exposed message back: what the peer reads of it is worthless. */
void tri_pull_withdraw_locked(struct tri_peer *peer, struct tri_outbox *outbox);

static inline bool tri_pull_has_answer(const struct tri_peer *peer)
{
    uint64_t any = 0;

    for (int lane = 0; lane < TRI_LANES; lane++)
        any |= atomic_load_explicit(&peer->pullings[lane].answer,
                                    memory_order_relaxed);
    return any != 0;
}

/* Writes the answers to PULLs that are due. Errors: EFULL, ENODE. */
int tri_pull_answer_locked(struct tri_peer *peer);

/* Gives the answers that were held back. Poll lock held. */
void tri_pull_answer_held(struct tri_peer *peer);

/* The peer has answered. Poll lock held. */
void tri_pull_on_pulled(struct tri_peer *peer, const struct tri_record *record);

/* The peer offers a message; as tri_transport_events.pull. */
bool tri_pull_on_pull(void *context, void *peer,
                      const struct tri_record *record, const void *payload);

#endif
