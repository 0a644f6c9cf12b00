/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Sending. A frame is in one place at a time: the pool, a remote's `filling`,
 * or the core's store, where it may be at the carrier as well. It is sealed
 * when it is first handed over, and never again: what is sent again is the
 * same bytes under the same number.
 *
 * Coalescing. The link flushes after a lone message, at the end of a turn and
 * when it polls. A flush stores what is being filled, unless sends are under
 * way: what piles up meanwhile leaves with the next one. Each send that ends
 * lets the link flush again.
 */
#include "link/session_internal.h"

#include "base/clock.h"
#include "base/log.h"

static struct session_remote *remote_of(struct tri_channel *channel)
{
    return tri_container_of(channel, struct session_remote, base);
}

static struct session_buffer *buffer_of(struct tri_stored *stored)
{
    return tri_container_of(stored, struct session_buffer, stored);
}

static size_t tag_bytes(const struct session_remote *remote)
{
    return remote->seal ? TRI_FRAME_TAG_BYTES : 0;
}

/* --- handing frames to the carrier ---------------------------------------- */

/* Makes the frame's bytes final. Errors: ESYSTEM: it must not leave so. */
static int seal_locked(struct session_remote *remote,
                       struct session_buffer *buffer, struct tri_frame *frame)
{
    const struct tri_transport_config *config = &remote->transport->config;
    size_t body_bytes = buffer->bytes - TRI_FRAME_HEADER_BYTES;
    int rc = 0;

    frame->version = remote->version;
    frame->flags = tri_session_flags(remote->transport);
    frame->records = buffer->records;
    frame->bytes = (uint32_t)(buffer->bytes + tag_bytes(remote));
    frame->source = config->node;
    frame->destination = remote->node;
    frame->nonce = config->job_nonce;
    tri_frame_encode(buffer->frame.data, frame);
    buffer->frame.bytes = frame->bytes;
    if (remote->seal)
        rc = tri_seal_close(remote->seal, tri_frame_seal_number(frame),
                            buffer->frame.data, TRI_FRAME_HEADER_BYTES,
                            body_bytes);
    buffer->is_sealed = rc == 0;
    return rc;
}

/* Hands one frame over. False: not now, or not at all. */
static bool hand_locked(struct session_remote *remote,
                        struct session_buffer *buffer,
                        const struct tri_session_out *out, uint64_t now_ns)
{
    struct tri_line *line = remote->line;
    struct tri_frame frame = { .kind = 0 };
    bool is_new = !buffer->is_sealed;

    if (is_new) {
        tri_session_fill(&remote->core, out, &frame);
        if (seal_locked(remote, buffer, &frame) != 0) {
            tri_error("a frame could not be sealed");
            return false;
        }
    }
    /* A frame that is refused here is sealed already. A stored one goes as it
     * is later; the number of a header alone is used again, for other bytes,
     * which nobody can tell: the first ones never left. */
    if (line->carrier->ops->send(line, &buffer->frame) != 0) {
        remote->is_stuck = true;
        return false;
    }
    remote->is_stuck = false;
    remote->in_flight_len++;
    tri_session_handed(&remote->core, out, is_new ? &frame : NULL, now_ns);
    return true;
}

static bool hand_ack_locked(struct session_remote *remote,
                            const struct tri_session_out *out, uint64_t now_ns)
{
    struct session_buffer *buffer =
        tri_session_buffer_take(remote, TRI_LANES);

    if (!buffer)
        return false;
    if (hand_locked(remote, buffer, out, now_ns))
        return true;
    tri_session_buffer_give(buffer);
    return false;
}

void tri_session_pump_locked(struct session_remote *remote, uint64_t now_ns)
{
    struct tri_session_out out;
    bool more = !remote->is_ended;

    while (more) {
        out = tri_session_next(&remote->core, now_ns);
        if (out.what == TRI_SESSION_SEND_NOTHING)
            break;
        more = out.what == TRI_SESSION_SEND_STORED
                   ? hand_locked(remote, buffer_of(out.stored), &out, now_ns)
                   : hand_ack_locked(remote, &out, now_ns);
    }
    if (!remote->is_ended && !remote->is_stuck)
        tri_session_schedule(remote, tri_session_due_ns(&remote->core));
}

void tri_session_pump(struct session_remote *remote)
{
    pthread_mutex_lock(&remote->lock);
    tri_session_pump_locked(remote, tri_now_ns());
    pthread_mutex_unlock(&remote->lock);
}

/* --- the link's calls ------------------------------------------------------ */

/* Puts what is being filled into the store. False: no credit, or full. */
static bool store_locked(struct session_remote *remote, enum tri_lane lane,
                         uint64_t now_ns)
{
    struct session_buffer *buffer = remote->filling[lane];
    uint32_t bytes = (uint32_t)(buffer->bytes + tag_bytes(remote));

    if (!tri_session_may_store(&remote->core, lane, bytes, now_ns))
        return false;
    tri_session_store(&remote->core, lane, &buffer->stored, bytes, now_ns);
    remote->filling[lane] = NULL;
    return true;
}

static bool has_room(const struct session_remote *remote,
                     const struct session_buffer *buffer, size_t bytes)
{
    return buffer->bytes + tri_frame_record_bytes(bytes) + tag_bytes(remote) <=
           remote->transport->frame_bytes_max;
}

/* Makes room for a record in the frame being filled. */
static int refill(struct session_remote *remote, enum tri_lane lane,
                  size_t bytes)
{
    uint64_t now_ns = tri_now_ns();
    struct session_buffer *buffer;
    int rc = 0;

    pthread_mutex_lock(&remote->lock);
    buffer = remote->filling[lane];
    if (remote->is_ended)
        rc = TROUPE_ENODE;
    else if (buffer && !has_room(remote, buffer, bytes) &&
             !store_locked(remote, lane, now_ns))
        rc = TROUPE_EFULL;
    else if (!remote->filling[lane] &&
             !(remote->filling[lane] = tri_session_buffer_take(remote, lane)))
        rc = TROUPE_EFULL;
    if (rc == TROUPE_EFULL)
        remote->want |= 1u << lane;
    tri_session_pump_locked(remote, now_ns);
    pthread_mutex_unlock(&remote->lock);
    return rc;
}

int tri_session_reserve(struct tri_channel *channel, enum tri_lane lane,
                        size_t bytes, struct tri_span *span_p)
{
    struct session_remote *remote = remote_of(channel);
    struct session_buffer *buffer = remote->filling[lane];

    assert(bytes <= channel->transport->record_bytes_max);
    if (!buffer || !has_room(remote, buffer, bytes)) {
        int rc = refill(remote, lane, bytes);

        if (rc != 0)
            return rc;
        buffer = remote->filling[lane];
    }
    span_p->record =
        (struct tri_record *)(void *)(buffer->frame.data + buffer->bytes);
    span_p->payload = span_p->record + 1;
    remote->reserved_lane = lane;
    remote->reserved_bytes = bytes;
    return 0;
}

void tri_session_commit(struct tri_channel *channel)
{
    struct session_remote *remote = remote_of(channel);
    struct session_buffer *buffer = remote->filling[remote->reserved_lane];
    struct tri_record *record =
        (struct tri_record *)(void *)(buffer->frame.data + buffer->bytes);
    size_t bytes = record->bytes;

    assert(bytes <= remote->reserved_bytes);
    /* The padding is sent as well: nothing of an older frame with it. */
    memset((unsigned char *)(record + 1) + bytes, 0,
           tri_align_up(bytes, TRI_FRAME_ALIGN) - bytes);
    buffer->bytes += (uint32_t)tri_frame_record_bytes(bytes);
    buffer->records++;
}

/* True when a partly filled frame had better be filled further. */
static bool is_under_way_locked(const struct session_remote *remote)
{
    return remote->is_stuck ||
           remote->in_flight_len >= SESSION_FLUSH_FRAMES_MAX;
}

int tri_session_flush(struct tri_channel *channel)
{
    struct session_remote *remote = remote_of(channel);
    uint64_t now_ns;
    unsigned left = 0;
    bool any = false;
    int rc = 0;

    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        any |= remote->filling[lane] && remote->filling[lane]->records > 0;
    if (!any)
        return 0;
    now_ns = tri_now_ns();
    pthread_mutex_lock(&remote->lock);
    for (unsigned lane = 0; lane < TRI_LANES && !remote->is_ended; lane++) {
        struct session_buffer *buffer = remote->filling[lane];

        if (!buffer || buffer->records == 0)
            continue;
        if ((lane == TRI_LANE_DATA && is_under_way_locked(remote)) ||
            !store_locked(remote, (enum tri_lane)lane, now_ns))
            left |= 1u << lane;
    }
    remote->want |= left;
    if (left)
        rc = TROUPE_EFULL;
    if (remote->is_ended)
        rc = TROUPE_ENODE;
    tri_session_pump_locked(remote, now_ns);
    pthread_mutex_unlock(&remote->lock);
    return rc;
}

/* --- what has not arrived --------------------------------------------------- */

static uint64_t records_of(const struct session_buffer *buffer)
{
    return buffer ? buffer->records : 0;
}

uint64_t tri_session_unread(struct tri_channel *channel)
{
    struct session_remote *remote = remote_of(channel);
    struct tri_stored *stored;
    uint64_t n = 0;

    pthread_mutex_lock(&remote->lock);
    for (unsigned lane = 0; lane < TRI_LANES && !remote->is_ended; lane++) {
        n += records_of(remote->filling[lane]);
        STAILQ_FOREACH(stored, &remote->core.tx[lane].store, next)
            if (!stored->is_acked)
                n += buffer_of(stored)->records;
    }
    pthread_mutex_unlock(&remote->lock);
    return n;
}

struct unread {
    void (*call)(void *context, const struct tri_record *record,
                 const void *payload);
    void *context;
    struct tri_seal *opener; /* of our own frames; NULL: they are readable */
    /* Decrypted; the carrier may still be sending the other. */
    unsigned char copy[TRI_FRAME_BYTES_MAX]
        __attribute__((aligned(TRI_FRAME_ALIGN)));
};

static bool decrypt(const struct session_buffer *buffer, struct unread *unread)
{
    struct tri_frame frame;

    memcpy(unread->copy, buffer->frame.data, buffer->frame.bytes);
    return unread->opener &&
           tri_frame_decode(unread->copy, buffer->frame.bytes, &frame) ==
               NULL &&
           tri_seal_open(unread->opener, tri_frame_seal_number(&frame),
                         unread->copy, TRI_FRAME_HEADER_BYTES,
                         buffer->bytes - TRI_FRAME_HEADER_BYTES);
}

static void tell_unread_locked(struct session_remote *remote,
                               const struct session_buffer *buffer,
                               struct unread *unread)
{
    const unsigned char *data = buffer->frame.data;
    size_t at = TRI_FRAME_HEADER_BYTES;

    if (buffer->is_sealed &&
        remote->transport->config.seal == TRI_SEAL_ENCRYPT) {
        if (!decrypt(buffer, unread))
            return;
        data = unread->copy;
    }
    for (unsigned i = 0; i < buffer->records; i++) {
        const struct tri_record *record = (const void *)(data + at);

        unread->call(unread->context, record, record + 1);
        at += tri_frame_record_bytes(record->bytes);
    }
}

/* The link's callback runs under the remote's lock: it may not use this
 * channel. */
void tri_session_each_unread(struct tri_channel *channel,
                             void (*call)(void *context,
                                          const struct tri_record *record,
                                          const void *payload),
                             void *context)
{
    struct session_remote *remote = remote_of(channel);
    const struct tri_transport_config *config = &remote->transport->config;
    struct unread unread = { .call = call, .context = context };
    struct tri_stored *stored;

    /* As the peer would open them. */
    if (config->seal == TRI_SEAL_ENCRYPT)
        (void)tri_seal_create(config->key, config->seal, remote->node,
                              config->node, &unread.opener);
    pthread_mutex_lock(&remote->lock);
    for (unsigned lane = 0; lane < TRI_LANES && !remote->is_ended; lane++) {
        STAILQ_FOREACH(stored, &remote->core.tx[lane].store, next)
            if (!stored->is_acked)
                tell_unread_locked(remote, buffer_of(stored), &unread);
        if (remote->filling[lane])
            tell_unread_locked(remote, remote->filling[lane], &unread);
    }
    pthread_mutex_unlock(&remote->lock);
    tri_seal_destroy(&unread.opener);
}

/* --- the carrier's events ---------------------------------------------------- */

/* True when what the lane was refused may be had now. What is being filled is
 * the link's to look into: it may be a full frame. */
static bool can_go_on_locked(struct session_remote *remote, enum tri_lane lane,
                             uint64_t now_ns)
{
    if (lane == TRI_LANE_DATA && is_under_way_locked(remote))
        return false;
    return remote->filling[lane]
               ? tri_session_may_store(&remote->core, lane,
                                       (uint32_t)remote->transport
                                           ->frame_bytes_max,
                                       now_ns)
               : tri_session_buffer_may_take(remote, lane);
}

void tri_session_tell_writable(struct session_remote *remote)
{
    const struct tri_transport_events *events =
        &remote->transport->config.events;
    bool tell = false;

    pthread_mutex_lock(&remote->lock);
    if (remote->want != 0 && !remote->is_ended && remote->is_connected) {
        uint64_t now_ns = tri_now_ns();

        for (unsigned lane = 0; lane < TRI_LANES; lane++)
            if (remote->want & 1u << lane &&
                can_go_on_locked(remote, (enum tri_lane)lane, now_ns)) {
                remote->want &= ~(1u << lane);
                tell = true;
            }
    }
    pthread_mutex_unlock(&remote->lock);
    if (tell)
        events->writable(events->context, remote->peer);
}

void tri_session_on_sent(void *context, struct tri_carrier_frame *frame,
                         bool ok)
{
    struct session_buffer *buffer =
        tri_container_of(frame, struct session_buffer, frame);
    struct session_remote *remote = buffer->remote;
    uint64_t now_ns = tri_now_ns();
    bool done;

    (void)context;
    pthread_mutex_lock(&remote->lock);
    assert(remote->in_flight_len > 0);
    remote->in_flight_len--;
    /* A header alone is forgotten: a lost one is made anew when needed. */
    done = buffer->lane == TRI_LANES ||
           tri_session_given_back(&remote->core, &buffer->stored, ok, now_ns);
    if (done)
        tri_session_buffer_give(buffer);
    if (!ok || remote->is_stuck)
        tri_session_pump_locked(remote, now_ns);
    pthread_mutex_unlock(&remote->lock);
    tri_session_tell_writable(remote);
}

void tri_session_on_writable(void *context, void *remote_)
{
    struct session_remote *remote = remote_;

    (void)context;
    pthread_mutex_lock(&remote->lock);
    remote->is_stuck = false;
    tri_session_pump_locked(remote, tri_now_ns());
    pthread_mutex_unlock(&remote->lock);
    tri_session_tell_writable(remote);
}

void tri_session_on_broke(void *context, void *remote_)
{
    struct session_remote *remote = remote_;
    const struct tri_transport_events *events =
        &remote->transport->config.events;
    uint64_t now_ns = tri_now_ns();

    (void)context;
    pthread_mutex_lock(&remote->lock);
    if (!remote->is_ended)
        tri_session_broke(&remote->core, now_ns);
    tri_session_pump_locked(remote, now_ns);
    pthread_mutex_unlock(&remote->lock);
    if (events->broke)
        events->broke(events->context, remote->node);
}
