/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The core of a session: numbers, acknowledgements, losses and credit. See
 * session_core.h for the protocol. tri_session_check walks the invariants.
 *
 * Sending, for each lane:
 *  T1 The store holds the frames that are not acknowledged, and no others, in
 *     order of number. Those never handed over are its end, from first_new.
 *  T2 acked + 1 is the first number in the store (or next_number), and
 *     next_number <= acked + 1 + 64: ack and sack can name all of the store.
 *  T3 store_len + back_len <= 64, and bytes <= credit.
 *  T4 A frame is in flight at most once, and freed only when it is
 *     acknowledged and not in flight.
 *  T5 lost_len counts what is lost and not in flight; new_len what was never
 *     handed over. next has nothing stored to offer when both are 0.
 *  T6 While a frame that was handed over is in the store, or credit is
 *     wanted, probe_due_ns is a time; else it is never.
 * Receiving, for each lane:
 *  R1 bit i of arrived is set when held[(next_number + i) % 64] is. Bit 0 is
 *     set only between a DELIVER and the end of the caller's next_held calls.
 *  R2 consumed <= delivered, delivered + held <= consumed + window: a peer
 *     that ignores its credit is not taken from.
 *  R3 News that were not told yet (arrivals, consumption, an echo owed) have
 *     a time in ack_due_ns.
 * Both:
 *  B1 What is told only grows: ack, credit, and a frame that was told in sack
 *     stays held until it is delivered. What is heard moves nothing backwards.
 *
 * Why a loss is found. A frame that was handed over and not acknowledged keeps
 * a probe coming (T6), always with the same number until its echo arrives. The
 * echo comes with the acknowledgement of the lane as it was when the probe, or
 * a repetition, arrived: whatever was handed over before the probe's first
 * time and is not in it was lost, or is late. A frame handed over behind the
 * probe waits for the next one. Judging needs no round-trip time, so a stopped
 * peer or a slow path makes no retransmissions, only probes, at most one a
 * lane and probe_max.
 *
 * Why nobody waits for ever (no deadlock). Suppose frames of a lane wait at
 * the sender, both live, and the line works from now on.
 *  - ACK frames need neither credit nor window nor memory that was not there,
 *    so probes and their answers always go.
 *  - Frames handed over are acknowledged, or found lost and handed over again:
 *    the first of the store is the receiver's next_number or was taken in, so
 *    it is delivered without needing room among the held, and within credit
 *    (R2 holds for it as T3 did when it was stored). So the store drains, and
 *    window and store (T2, T3) do not block.
 *  - Credit lacks only while delivered frames are not consumed, or the news of
 *    it was lost; the window probe fetches it. Control and reply frames are
 *    consumed as they come, by a node that waits for nothing to do so; so
 *    these lanes always go on. Data frames are consumed when the link takes
 *    their records; it waits for mailboxes at most, these for handlers, and
 *    handlers never for credit (a tell returns FULL). No cycle leads back here.
 *  - Each lane has windows, store and numbers of its own, and next asks them
 *    in order of priority: data never holds up replies or control.
 *
 * Every call is O(64) at most; tri_session_next and due_ns without losses,
 * store, handed and in-order arrivals O(1).
 */
#include "link/session_core.h"

#include "base/clock.h"

#define FRAMES TRI_SESSION_FRAMES_MAX

/*
 * Data: 16 full frames of 64 KiB, 64 of 16 KiB. It fills 10 Gb/s at a round
 * trip of 0.8 ms. Replies: a quarter, as they are consumed as they come.
 * Control: small things; a full frame. Together they bound what a peer can
 * make a node keep. ack_frames: a quarter of the 64,
 * as ack_bytes of the window, so that news arrive well before a sender stops.
 * ack_delay: long enough for an answer to carry it, short against probe_min.
 * probe_min: longer than a scheduler's turn on a busy core, or each of those
 * would be answered by a probe.
 */
const struct tri_session_config tri_session_config_default = {
    .window_bytes = {
        [TRI_LANE_CONTROL] = 64u << 10,
        [TRI_LANE_REPLY] = 256u << 10,
        [TRI_LANE_DATA] = 1u << 20,
    },
    .ack_bytes = 256u << 10,
    .ack_frames = FRAMES / 4,
    .ack_delay_ns = 1 * TRI_NS_PER_MS,
    .probe_min_ns = 20 * TRI_NS_PER_MS,
    .probe_max_ns = 1000 * TRI_NS_PER_MS,
};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void tri_session_init(struct tri_session *session,
                      const struct tri_session_config *config)
{
    assert(config->ack_frames > 0 && config->ack_frames <= FRAMES);
    assert(config->probe_min_ns > 0 &&
           config->probe_min_ns <= config->probe_max_ns);
    *session = (struct tri_session){ .config = *config };
    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        struct tri_session_tx *tx = &session->tx[lane];
        struct tri_session_rx *rx = &session->rx[lane];

        STAILQ_INIT(&tx->store);
        tx->next_number = rx->next_number = 1;
        tx->credit = rx->told_credit = config->window_bytes[lane];
        tx->probe_due_ns = TRI_NS_NEVER;
        rx->ack_due_ns = TRI_NS_NEVER;
    }
}

/* --- sending ------------------------------------------------------------- */

/* True while the peer owes an answer about the lane (T6). */
static bool is_waiting(const struct tri_session_tx *tx)
{
    return tx->store_len > tx->new_len || tx->wants_credit;
}

/* Starts the wait for an answer, if none is on, or ends it. */
static void update_probe(struct tri_session *session,
                         struct tri_session_tx *tx, uint64_t now_ns)
{
    if (!is_waiting(tx)) {
        tx->probe_due_ns = TRI_NS_NEVER;
        return;
    }
    if (tx->probe_due_ns != TRI_NS_NEVER)
        return;
    tx->probe_pause_ns = session->config.probe_min_ns;
    tx->probe_due_ns = now_ns + tx->probe_pause_ns;
}

bool tri_session_may_store(struct tri_session *session, enum tri_lane lane,
                           uint32_t bytes, uint64_t now_ns)
{
    struct tri_session_tx *tx = &session->tx[lane];

    assert(lane < TRI_LANES);
    assert(bytes <= session->config.window_bytes[lane]);
    if (tx->store_len + tx->back_len >= FRAMES ||
        tx->next_number > tx->acked + FRAMES)
        return false;
    if (bytes <= tx->credit - tx->bytes)
        return true;
    tx->wants_credit = true;
    update_probe(session, tx, now_ns);
    return false;
}

void tri_session_store(struct tri_session *session, enum tri_lane lane,
                       struct tri_stored *stored, uint32_t bytes,
                       uint64_t now_ns)
{
    struct tri_session_tx *tx = &session->tx[lane];

    (void)now_ns; /* handing it over starts the clock */
    assert(bytes <= tx->credit - tx->bytes);
    assert(tx->store_len + tx->back_len < FRAMES &&
           tx->next_number <= tx->acked + FRAMES);
    *stored = (struct tri_stored){
        .number = tx->next_number++,
        .bytes = bytes,
        .lane = (uint8_t)lane,
    };
    STAILQ_INSERT_TAIL(&tx->store, stored, next);
    if (!tx->first_new)
        tx->first_new = stored;
    tx->store_len++;
    tx->new_len++;
    tx->bytes += bytes;
}

static struct tri_stored *first_lost(const struct tri_session_tx *tx)
{
    struct tri_stored *stored;

    assert(tx->lost_len > 0);
    STAILQ_FOREACH(stored, &tx->store, next)
        if (stored->is_lost && !stored->in_flight)
            return stored;
    assert(!"lost_len counts what is lost");
    return NULL;
}

static struct tri_stored *next_stored(const struct tri_session *session,
                                      uint64_t now_ns)
{
    if (session->resume_ns > now_ns)
        return NULL;
    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        const struct tri_session_tx *tx = &session->tx[lane];

        if (tx->lost_len > 0)
            return first_lost(tx);
        if (tx->new_len > 0)
            return tx->first_new;
    }
    return NULL;
}

/* The lane whose news have waited longest; the next in turn when none has. */
static uint8_t lane_to_tell(const struct tri_session *session)
{
    uint8_t best = session->ack_turn;

    for (uint8_t lane = 0; lane < TRI_LANES; lane++)
        if (session->rx[lane].ack_due_ns < session->rx[best].ack_due_ns)
            best = lane;
    return best;
}

/*
 * A probe that is due goes first: it is rare, and an endless row of new frames
 * must not keep it. So does an acknowledgement before a frame that went out
 * before, which carries none; a new frame carries one itself.
 */
struct tri_session_out tri_session_next(struct tri_session *session,
                                        uint64_t now_ns)
{
    struct tri_session_out out = { .what = TRI_SESSION_SEND_ACK };

    for (uint8_t lane = 0; lane < TRI_LANES; lane++) {
        if (session->tx[lane].probe_due_ns > now_ns)
            continue;
        out.ack_lane = lane;
        out.is_probe = true;
        return out;
    }
    out.stored = next_stored(session, now_ns);
    out.ack_lane = lane_to_tell(session);
    if (out.stored && out.stored->handed == 0) {
        out.what = TRI_SESSION_SEND_STORED;
    } else if (session->rx[out.ack_lane].ack_due_ns <= now_ns) {
        out.stored = NULL;
    } else {
        out.what = out.stored ? TRI_SESSION_SEND_STORED
                              : TRI_SESSION_SEND_NOTHING;
    }
    return out;
}

/* A probe keeps its number until its echo came. */
static uint32_t probe_number(const struct tri_session *session,
                             const struct tri_session_tx *tx)
{
    if (tx->is_probing)
        return tx->probe;
    return session->probe + 1 != 0 ? session->probe + 1 : 1;
}

static uint64_t credit_of(const struct tri_session *session, unsigned lane)
{
    return session->rx[lane].consumed + session->config.window_bytes[lane];
}

void tri_session_fill(const struct tri_session *session,
                      const struct tri_session_out *out,
                      struct tri_frame *frame)
{
    const struct tri_session_rx *rx = &session->rx[out->ack_lane];

    assert(out->what != TRI_SESSION_SEND_NOTHING);
    assert(out->ack_lane < TRI_LANES);
    if (out->what == TRI_SESSION_SEND_STORED) {
        frame->kind = TRI_FRAME_DATA;
        frame->lane = out->stored->lane;
        frame->number = out->stored->number;
    } else {
        frame->kind = TRI_FRAME_ACK;
        frame->lane = 0;
        frame->number = session->ack_number + 1;
    }
    frame->ack_lane = out->ack_lane;
    frame->ack = rx->next_number - 1;
    frame->sack = rx->arrived >> 1;
    frame->credit = credit_of(session, out->ack_lane);
    frame->echo = rx->echo_owed;
    frame->probe = 0;
    if (out->is_probe)
        frame->probe = probe_number(session, &session->tx[out->ack_lane]);
}

/* What a frame told of a lane is owed no more, if it is still all. */
static void told(struct tri_session *session, const struct tri_frame *frame)
{
    struct tri_session_rx *rx = &session->rx[frame->ack_lane];

    assert(frame->ack < rx->next_number);
    session->ack_turn = (uint8_t)((frame->ack_lane + 1) % TRI_LANES);
    rx->told_credit = max_u64(rx->told_credit, frame->credit);
    if (rx->echo_owed == frame->echo)
        rx->echo_owed = 0;
    if (frame->ack != rx->next_number - 1 || frame->sack != rx->arrived >> 1 ||
        frame->credit != credit_of(session, frame->ack_lane) ||
        rx->echo_owed != 0)
        return;
    rx->unacked_frames = 0;
    rx->unacked_bytes = 0;
    rx->ack_due_ns = TRI_NS_NEVER;
}

static void handed_probe(struct tri_session *session,
                         const struct tri_frame *frame, uint64_t now_ns)
{
    struct tri_session_tx *tx = &session->tx[frame->ack_lane];

    assert(frame->probe != 0);
    if (!tx->is_probing) {
        tx->is_probing = true;
        tx->probe = session->probe = frame->probe;
        tx->probe_handed = session->handed;
    }
    tx->probe_pause_ns = min_u64(2 * tx->probe_pause_ns,
                                 session->config.probe_max_ns);
    tx->probe_due_ns = now_ns + tx->probe_pause_ns;
}

static void handed_stored(struct tri_session *session,
                          struct tri_stored *stored, uint64_t now_ns)
{
    struct tri_session_tx *tx = &session->tx[stored->lane];

    assert(!stored->in_flight && !stored->is_acked);
    if (stored->handed == 0) {
        assert(stored == tx->first_new);
        tx->first_new = STAILQ_NEXT(stored, next);
        tx->new_len--;
    } else {
        assert(stored->is_lost);
        stored->is_lost = false;
        tx->lost_len--;
        tx->resent_len += !stored->is_resent;
        stored->is_resent = true;
    }
    stored->handed = session->handed;
    stored->in_flight = true;
    session->resume_ns = 0;
    update_probe(session, tx, now_ns);
}

void tri_session_handed(struct tri_session *session,
                        const struct tri_session_out *out,
                        const struct tri_frame *frame, uint64_t now_ns)
{
    assert(out->what != TRI_SESSION_SEND_NOTHING);
    assert(frame || out->what == TRI_SESSION_SEND_STORED);
    session->handed++;
    if (out->what == TRI_SESSION_SEND_STORED)
        handed_stored(session, out->stored, now_ns);
    else
        session->ack_number = frame->number;
    if (out->is_probe)
        handed_probe(session, frame, now_ns);
    if (frame)
        told(session, frame);
}

static void lose(struct tri_session_tx *tx, struct tri_stored *stored)
{
    assert(stored->handed != 0 && !stored->is_acked);
    if (stored->is_lost)
        return;
    stored->is_lost = true;
    tx->lost_len += !stored->in_flight;
}

/*
 * The line fails. What failed goes out again at once the first time; when more
 * fails and nothing was heard in between, after growing pauses, so that a line
 * that cannot be made is not stormed. What was handed over before the failure
 * that was counted last belongs to that one.
 */
static void count_failure(struct tri_session *session, uint64_t handed,
                          uint64_t now_ns)
{
    if (handed <= session->failed_handed)
        return;
    session->failed_handed = session->handed;
    session->resume_ns = now_ns + session->failed_pause_ns;
    session->failed_pause_ns =
        max_u64(session->config.probe_min_ns,
                min_u64(2 * session->failed_pause_ns,
                        session->config.probe_max_ns));
}

bool tri_session_given_back(struct tri_session *session,
                            struct tri_stored *stored, bool ok,
                            uint64_t now_ns)
{
    struct tri_session_tx *tx = &session->tx[stored->lane];

    assert(stored->in_flight);
    stored->in_flight = false;
    if (stored->is_acked) {
        assert(tx->back_len > 0);
        tx->back_len--;
        return true;
    }
    if (!ok)
        count_failure(session, stored->handed, now_ns);
    if (stored->is_lost)
        tx->lost_len++;
    else if (!ok)
        lose(tx, stored);
    return false;
}

/* Probes that are on their way are forgotten: the next one is a new question,
 * that covers what is handed over again. */
void tri_session_broke(struct tri_session *session, uint64_t now_ns)
{
    count_failure(session, session->handed, now_ns);
    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        struct tri_session_tx *tx = &session->tx[lane];
        struct tri_stored *stored;

        for (stored = STAILQ_FIRST(&tx->store); stored != tx->first_new;
             stored = STAILQ_NEXT(stored, next))
            lose(tx, stored);
        tx->is_probing = false;
        update_probe(session, tx, now_ns);
    }
}

void tri_session_end(struct tri_session *session,
                     struct tri_stored_list *rest_p)
{
    STAILQ_INIT(rest_p);
    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        struct tri_session_tx *tx = &session->tx[lane];
        struct tri_stored *stored;

        STAILQ_FOREACH(stored, &tx->store, next) {
            stored->is_acked = true;
            tx->back_len += stored->in_flight;
        }
        STAILQ_CONCAT(rest_p, &tx->store);
        tx->first_new = NULL;
        tx->store_len = tx->new_len = tx->lost_len = tx->resent_len = 0;
        tx->acked = tx->next_number - 1;
        tx->wants_credit = tx->is_probing = false;
        tx->probe_due_ns = TRI_NS_NEVER;
        session->rx[lane].ack_due_ns = TRI_NS_NEVER;
        session->rx[lane].echo_owed = 0;
        session->rx[lane].unacked_frames = 0;
        session->rx[lane].told_credit = credit_of(session, lane);
        assert(!is_waiting(tx));
    }
}

/* --- acknowledgements heard ---------------------------------------------- */

/* The highest number that the frame acknowledges. */
static uint64_t last_named(const struct tri_frame *frame)
{
    if (frame->sack == 0)
        return frame->ack;
    return frame->ack + 2 + 63 - (unsigned)__builtin_clzll(frame->sack);
}

static bool is_named(const struct tri_frame *frame, uint64_t number)
{
    if (number <= frame->ack)
        return true;
    number -= frame->ack + 1; /* 0: the one that was missing */
    return number >= 1 && number <= 64 && frame->sack >> (number - 1) & 1;
}

/* False: it tells of frames that were never handed over, which no honest peer
 * can. */
static bool is_possible(const struct tri_session_tx *tx,
                        const struct tri_frame *frame)
{
    uint64_t never = tx->first_new ? tx->first_new->number : tx->next_number;

    return frame->ack < never && last_named(frame) < never;
}

/* A frame is acknowledged. It has left the store's list. */
static void retire(struct tri_session_tx *tx, struct tri_stored *stored,
                   struct tri_stored_list *freed)
{
    assert(stored->handed != 0 && !stored->is_acked);
    tx->arrived_handed = max_u64(tx->arrived_handed, stored->handed);
    tx->store_len--;
    tx->lost_len -= stored->is_lost && !stored->in_flight;
    tx->resent_len -= stored->is_resent;
    stored->is_acked = true;
    if (stored->in_flight)
        tx->back_len++;
    else
        STAILQ_INSERT_TAIL(freed, stored, next);
}

static void retire_named(struct tri_session_tx *tx,
                         const struct tri_frame *frame,
                         struct tri_stored_list *freed)
{
    uint64_t last = last_named(frame);
    struct tri_stored_list kept = STAILQ_HEAD_INITIALIZER(kept);
    struct tri_stored *stored;

    while ((stored = STAILQ_FIRST(&tx->store)) && stored->number <= last) {
        STAILQ_REMOVE_HEAD(&tx->store, next);
        if (is_named(frame, stored->number))
            retire(tx, stored, freed);
        else
            STAILQ_INSERT_TAIL(&kept, stored, next);
    }
    STAILQ_CONCAT(&kept, &tx->store);
    STAILQ_CONCAT(&tx->store, &kept);
    stored = STAILQ_FIRST(&tx->store);
    tx->acked = (stored ? stored->number : tx->next_number) - 1;
}

/* What was handed over before something that has arrived, and has not arrived
 * itself, is lost. */
static void find_lost(struct tri_session_tx *tx)
{
    struct tri_stored *stored;

    for (stored = STAILQ_FIRST(&tx->store); stored != tx->first_new;
         stored = STAILQ_NEXT(stored, next))
        if (stored->handed < tx->arrived_handed)
            lose(tx, stored);
}

/* Credit is never more than the peer's window beyond what was stored; more is
 * not believed. True: it grew. */
static bool take_credit(struct tri_session_tx *tx, uint64_t credit,
                        uint64_t window_bytes)
{
    credit = min_u64(credit, tx->bytes + window_bytes);
    if (credit <= tx->credit)
        return false;
    tx->credit = credit;
    tx->wants_credit = false;
    return true;
}

/* Losses show when numbers are missing, by an echo, or when hand-overs are not
 * in order of number; else nothing has to be looked through. */
static void take_ack(struct tri_session *session,
                     const struct tri_frame *frame, uint64_t now_ns,
                     struct tri_stored_list *freed)
{
    struct tri_session_tx *tx = &session->tx[frame->ack_lane];
    bool look = frame->sack != 0 || tx->resent_len > 0;
    uint32_t store_len = tx->store_len;
    bool grew;

    if (!is_possible(tx, frame))
        return;
    grew = take_credit(tx, frame->credit,
                       session->config.window_bytes[frame->ack_lane]);
    if (tx->is_probing && frame->echo == tx->probe) {
        tx->is_probing = false;
        tx->arrived_handed = max_u64(tx->arrived_handed, tx->probe_handed);
        look = true;
    }
    retire_named(tx, frame, freed);
    if (look)
        find_lost(tx);
    if (grew || tx->store_len < store_len) /* it goes on: patience anew */
        tx->probe_due_ns = TRI_NS_NEVER;
    update_probe(session, tx, now_ns);
}

/* --- receiving ----------------------------------------------------------- */

static void owe(struct tri_session_rx *rx, uint64_t due_ns)
{
    rx->ack_due_ns = min_u64(rx->ack_due_ns, due_ns);
}

static uint64_t ack_bytes(const struct tri_session *session, unsigned lane)
{
    return min_u64(session->config.ack_bytes,
                   session->config.window_bytes[lane] / 4);
}

/* A frame was taken in. The first behind a gap is told at once, and once. */
static void owe_for_frame(struct tri_session *session, unsigned lane,
                          uint32_t bytes, bool is_gap, uint64_t now_ns)
{
    struct tri_session_rx *rx = &session->rx[lane];
    bool now = is_gap && rx->gap_number != rx->next_number;

    if (is_gap)
        rx->gap_number = rx->next_number;
    rx->unacked_frames++;
    rx->unacked_bytes += bytes;
    now = now || rx->unacked_frames >= session->config.ack_frames ||
          rx->unacked_bytes >= ack_bytes(session, lane);
    owe(rx, now ? now_ns : now_ns + session->config.ack_delay_ns);
}

static enum tri_session_verdict take_data(struct tri_session *session,
                                          const struct tri_frame *frame,
                                          uint64_t now_ns)
{
    struct tri_session_rx *rx = &session->rx[frame->lane];
    uint64_t ahead = frame->number - rx->next_number;
    uint64_t end_bytes = rx->delivered + rx->held_bytes + frame->bytes;

    assert(!(rx->arrived & 1) && "next_held was not asked to the end");
    if (frame->number < rx->next_number ||
        (ahead < FRAMES && rx->arrived >> ahead & 1)) {
        /* The peer may not know; but a replay costs one ACK, and late. */
        owe(rx, now_ns + session->config.ack_delay_ns);
        return TRI_SESSION_DROP;
    }
    if (ahead >= FRAMES || end_bytes > credit_of(session, frame->lane))
        return TRI_SESSION_DROP;
    owe_for_frame(session, frame->lane, frame->bytes, ahead > 0, now_ns);
    if (ahead > 0)
        return TRI_SESSION_HOLD;
    rx->next_number++;
    rx->arrived >>= 1;
    rx->delivered += frame->bytes;
    return TRI_SESSION_DELIVER;
}

/* The replay window of ACK frames (as RFC 4303, 3.4.3). */
static bool is_new_ack(struct tri_session *session, uint64_t number)
{
    uint64_t behind = session->ack_seen - number;

    if (number > session->ack_seen) {
        uint64_t shift = number - session->ack_seen;

        session->ack_window = shift < 64 ? session->ack_window << shift : 0;
        session->ack_window |= 1;
        session->ack_seen = number;
        return true;
    }
    if (behind >= 64 || session->ack_window >> behind & 1)
        return false;
    session->ack_window |= 1ull << behind;
    return true;
}

enum tri_session_verdict tri_session_receive(struct tri_session *session,
                                             const struct tri_frame *frame,
                                             uint64_t now_ns,
                                             struct tri_stored_list *freed)
{
    enum tri_session_verdict verdict = TRI_SESSION_NOTHING;

    assert(frame->lane < TRI_LANES && frame->ack_lane < TRI_LANES);
    if (frame->kind != TRI_FRAME_DATA && frame->kind != TRI_FRAME_ACK)
        return TRI_SESSION_NOTHING;
    if (frame->kind == TRI_FRAME_ACK && !is_new_ack(session, frame->number))
        return TRI_SESSION_DROP;
    take_ack(session, frame, now_ns, freed);
    if (frame->kind == TRI_FRAME_DATA) {
        verdict = take_data(session, frame, now_ns);
    } else if (frame->probe != 0) {
        session->rx[frame->ack_lane].echo_owed = frame->probe;
        owe(&session->rx[frame->ack_lane], now_ns);
    }
    if (verdict != TRI_SESSION_DROP) {
        session->failed_pause_ns = 0;
        session->resume_ns = 0;
    }
    return verdict;
}

void tri_session_hold(struct tri_session *session, enum tri_lane lane,
                      struct tri_held *held)
{
    struct tri_session_rx *rx = &session->rx[lane];
    uint64_t ahead = held->number - rx->next_number;

    assert(ahead > 0 && ahead < FRAMES);
    assert(!(rx->arrived >> ahead & 1));
    rx->arrived |= 1ull << ahead;
    rx->held[held->number % FRAMES] = held;
    rx->held_bytes += held->bytes;
}

struct tri_held *tri_session_next_held(struct tri_session *session,
                                       enum tri_lane lane)
{
    struct tri_session_rx *rx = &session->rx[lane];
    struct tri_held **slot = &rx->held[rx->next_number % FRAMES];
    struct tri_held *held = *slot;

    if (!(rx->arrived & 1))
        return NULL;
    assert(held && held->number == rx->next_number);
    *slot = NULL;
    rx->arrived >>= 1;
    rx->next_number++;
    rx->held_bytes -= held->bytes;
    rx->delivered += held->bytes;
    /* It was counted when it came; but ack has moved now. */
    if (++rx->unacked_frames >= session->config.ack_frames ||
        rx->ack_due_ns == TRI_NS_NEVER)
        owe(rx, 0);
    return held;
}

void tri_session_consumed(struct tri_session *session, enum tri_lane lane,
                          uint64_t bytes, uint64_t now_ns)
{
    struct tri_session_rx *rx = &session->rx[lane];
    uint64_t untold;

    assert(bytes <= rx->delivered - rx->consumed);
    rx->consumed += bytes;
    untold = credit_of(session, lane) - rx->told_credit;
    if (untold >= ack_bytes(session, lane))
        owe(rx, now_ns);
    else if (untold > 0)
        owe(rx, now_ns + session->config.ack_delay_ns);
}

struct tri_held *tri_session_take_held(struct tri_session *session)
{
    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        struct tri_session_rx *rx = &session->rx[lane];
        unsigned ahead;
        struct tri_held *held;

        if (rx->arrived == 0)
            continue;
        ahead = (unsigned)__builtin_ctzll(rx->arrived);
        held = rx->held[(rx->next_number + ahead) % FRAMES];
        assert(held && held->number == rx->next_number + ahead);
        rx->held[held->number % FRAMES] = NULL;
        rx->arrived &= ~(1ull << ahead);
        rx->held_bytes -= held->bytes;
        return held;
    }
    return NULL;
}

/* --- time ---------------------------------------------------------------- */

uint64_t tri_session_due_ns(const struct tri_session *session)
{
    uint64_t due_ns = TRI_NS_NEVER;

    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        const struct tri_session_tx *tx = &session->tx[lane];

        due_ns = min_u64(due_ns, tx->probe_due_ns);
        due_ns = min_u64(due_ns, session->rx[lane].ack_due_ns);
        if (session->resume_ns > 0 && tx->lost_len + tx->new_len > 0)
            due_ns = min_u64(due_ns, session->resume_ns);
    }
    return due_ns;
}

bool tri_session_is_clear(const struct tri_session *session)
{
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        if (session->tx[lane].store_len > 0)
            return false;
    return true;
}

static const char *check_tx(const struct tri_session_tx *tx)
{
    const struct tri_stored *stored;
    uint32_t len = 0, fresh = 0, lost = 0, resent = 0;
    uint64_t number = tx->acked;

    STAILQ_FOREACH(stored, &tx->store, next) {
        if (stored->is_acked || stored->number <= number ||
            (len == 0 && stored->number != tx->acked + 1) ||
            (stored->handed == 0) != (tx->first_new &&
                stored->number >= tx->first_new->number))
            return "T1";
        number = stored->number;
        len++;
        fresh += stored->handed == 0;
        lost += stored->is_lost && !stored->in_flight;
        resent += stored->is_resent;
    }
    if (len != tx->store_len || number >= tx->next_number)
        return "T1";
    if (tx->next_number > tx->acked + 1 + FRAMES ||
        (len == 0 && tx->acked + 1 != tx->next_number))
        return "T2";
    if (len + tx->back_len > FRAMES || tx->bytes > tx->credit)
        return "T3";
    if (fresh != tx->new_len || lost != tx->lost_len ||
        resent != tx->resent_len)
        return "T5";
    return is_waiting(tx) == (tx->probe_due_ns != TRI_NS_NEVER) ? NULL : "T6";
}

static const char *check_rx(const struct tri_session *session, unsigned lane)
{
    const struct tri_session_rx *rx = &session->rx[lane];
    uint64_t held_bytes = 0;

    for (unsigned i = 0; i < FRAMES; i++) {
        const struct tri_held *held =
            rx->held[(rx->next_number + i) % FRAMES];

        if ((held != NULL) != (rx->arrived >> i & 1) ||
            (held && held->number != rx->next_number + i))
            return "R1";
        held_bytes += held ? held->bytes : 0;
    }
    if (held_bytes != rx->held_bytes || rx->consumed > rx->delivered ||
        rx->delivered + held_bytes > credit_of(session, lane))
        return "R2";
    if (rx->ack_due_ns == TRI_NS_NEVER &&
        (rx->unacked_frames > 0 || rx->echo_owed != 0 ||
         rx->told_credit < credit_of(session, lane)))
        return "R3";
    return rx->told_credit <= credit_of(session, lane) ? NULL : "B1";
}

const char *tri_session_check(const struct tri_session *session)
{
    const char *broken = NULL;

    for (unsigned lane = 0; lane < TRI_LANES && !broken; lane++) {
        broken = check_tx(&session->tx[lane]);
        if (!broken)
            broken = check_rx(session, lane);
    }
    return broken;
}
