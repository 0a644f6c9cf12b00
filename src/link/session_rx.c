/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Receiving. A frame is checked in the order of what it costs: form, job,
 * destination, a known source, the tag, then its records. Nothing but a
 * counter changes before the tag was found good.
 *
 * Delivery of data stops when the link does not take a record; the rest waits
 * here, in order, until tri_session_resume. Its bytes are not consumed, so the
 * peer's credit, which is at most the window, bounds what waits.
 */
#include "link/session_internal.h"

#include <stdlib.h>

#include "base/clock.h"

static void garbage(struct session_transport *transport, const char *reason)
{
    const struct tri_transport_events *events = &transport->config.events;

    events->garbage(events->context, reason);
}

/* --- frames that wait ------------------------------------------------------- */

/* Makes it a copy of a frame, its records from `at` on. */
static void held_fill(struct session_held *held, const unsigned char *data,
                      const struct tri_frame *frame, uint32_t at,
                      uint16_t records)
{
    held->held.number = frame->number;
    held->held.bytes = frame->bytes;
    held->records = records;
    held->at = at;
    memcpy(held->data, data, frame->bytes);
}

/* A frame that is delivered may have to wait, and its sender will not send it
 * again: there must be memory for it before its number counts. */
static bool has_reserve(struct session_transport *transport)
{
    if (tri_unlikely(!transport->reserve))
        transport->reserve =
            malloc(sizeof(*transport->reserve) + TRI_FRAME_BYTES_MAX);
    return transport->reserve != NULL;
}

static struct session_held *held_take(struct session_transport *transport,
                                      const struct tri_frame *frame)
{
    struct session_held *held = malloc(sizeof(*held) + frame->bytes);

    if (!held) {
        held = transport->reserve;
        transport->reserve = NULL;
    }
    return held;
}

static struct session_held *held_of(struct tri_held *held)
{
    return held ? tri_container_of(held, struct session_held, held) : NULL;
}

void tri_session_drop_held(struct session_remote *remote)
{
    struct session_held *held;

    while ((held = STAILQ_FIRST(&remote->blocked)) != NULL) {
        STAILQ_REMOVE_HEAD(&remote->blocked, next);
        free(held);
    }
    while ((held = held_of(tri_session_take_held(&remote->core))) != NULL)
        free(held);
}

/* --- delivery ----------------------------------------------------------------- */

static void touch(struct session_remote *remote)
{
    struct session_transport *transport = remote->transport;

    if (remote->is_touched)
        return;
    remote->is_touched = true;
    SLIST_INSERT_HEAD(&transport->touched, remote, touched);
}

static void consumed(struct session_remote *remote, enum tri_lane lane,
                     uint32_t bytes)
{
    pthread_mutex_lock(&remote->lock);
    if (!remote->is_ended)
        tri_session_consumed(&remote->core, lane, bytes, tri_now_ns());
    pthread_mutex_unlock(&remote->lock);
}

/* Raises records; moves at and records on. False: one was not taken. */
static bool deliver_records(struct session_remote *remote, enum tri_lane lane,
                            const unsigned char *data, uint32_t *at,
                            uint16_t *records)
{
    struct session_transport *transport = remote->transport;
    const struct tri_transport_events *events = &transport->config.events;

    while (*records > 0) {
        const struct tri_record *record = (const void *)(data + *at);

        if (!events->record(events->context, remote->source, lane, record,
                            record + 1))
            return false;
        transport->delivered++;
        *at += (uint32_t)tri_frame_record_bytes(record->bytes);
        --*records;
    }
    return true;
}

/* A frame whose turn it is, in the carrier's memory. */
static void deliver_frame(struct session_remote *remote,
                          const unsigned char *data,
                          const struct tri_frame *frame)
{
    uint32_t at = TRI_FRAME_HEADER_BYTES;
    uint16_t records = frame->records;
    struct session_held *held;

    if (!remote->is_blocked || frame->lane != TRI_LANE_DATA) {
        if (deliver_records(remote, frame->lane, data, &at, &records)) {
            consumed(remote, frame->lane, frame->bytes);
            return;
        }
        assert(frame->lane == TRI_LANE_DATA);
        remote->is_blocked = true;
    }
    held = held_take(remote->transport, frame);
    assert(held);
    held_fill(held, data, frame, at, records);
    STAILQ_INSERT_TAIL(&remote->blocked, held, next);
}

/* Delivers what waits, until the link takes no more. */
static void deliver_blocked(struct session_remote *remote)
{
    struct session_held *held;

    while ((held = STAILQ_FIRST(&remote->blocked)) != NULL) {
        if (!deliver_records(remote, TRI_LANE_DATA, held->data, &held->at,
                             &held->records))
            return;
        STAILQ_REMOVE_HEAD(&remote->blocked, next);
        consumed(remote, TRI_LANE_DATA, held->held.bytes);
        free(held);
    }
    remote->is_blocked = false;
}

/* A frame that had come before its turn. */
static void deliver_held(struct session_remote *remote, enum tri_lane lane,
                         struct session_held *held)
{
    if (lane == TRI_LANE_DATA) {
        STAILQ_INSERT_TAIL(&remote->blocked, held, next);
        if (remote->is_blocked)
            return;
        remote->is_blocked = true;
        deliver_blocked(remote);
        return;
    }
    deliver_records(remote, lane, held->data, &held->at, &held->records);
    consumed(remote, lane, held->held.bytes);
    free(held);
}

void tri_session_resume(struct tri_transport *base, void *peer)
{
    struct session_transport *transport = tri_session_transport_of(base);
    struct session_remote *remote = NULL;

    assert(!transport->in_poll);
    pthread_mutex_lock(&transport->table_lock);
    for (uint32_t i = 0; i <= transport->buckets_mask && !remote; i++)
        SLIST_FOREACH(remote, &transport->buckets[i], bucket)
            if (remote->source == peer)
                break;
    pthread_mutex_unlock(&transport->table_lock);
    if (!remote)
        return;
    if (remote->is_blocked)
        deliver_blocked(remote);
    touch(remote);
    tri_session_finish_touched(transport);
}

/* --- frames that arrive --------------------------------------------------------- */

/* What is known of a frame's source. */
struct origin {
    struct session_remote *remote; /* NULL: none yet */
    void *source;                  /* as accept returned it; NULL: a stranger */
};

static struct origin origin_of(struct session_transport *transport,
                               uint64_t node)
{
    const struct tri_transport_events *events = &transport->config.events;
    struct origin origin = { tri_session_remote_find(transport, node), NULL };

    if (tri_likely(origin.remote && origin.remote->source))
        origin.source = origin.remote->source;
    else if (node != 0)
        origin.source = events->accept(events->context, node);
    return origin;
}

/* Of a node that died or left, and may not know that we know. Not counted. */
static const char is_over[] = "a frame of a node that is gone";

static bool is_gone(const struct session_transport *transport, uint64_t node)
{
    const struct tri_transport_events *events = &transport->config.events;

    return events->is_gone && events->is_gone(events->context, node);
}

/* True when the frame was made by who has the key. Without a remote a seal is
 * made for this one look: whoever forges frames leaves nothing behind. */
static bool is_genuine(const struct session_transport *transport,
                       const struct session_remote *remote,
                       const struct tri_frame *frame, unsigned char *data)
{
    const struct tri_transport_config *config = &transport->config;
    struct tri_seal *made = NULL;
    bool ok;

    if (config->seal == TRI_SEAL_NONE)
        return true;
    if (!remote && tri_seal_create(config->key, config->seal, config->node,
                                   frame->source, &made) != 0)
        return false;
    ok = tri_seal_open(remote ? remote->seal : made,
                       tri_frame_seal_number(frame), data,
                       TRI_FRAME_HEADER_BYTES,
                       frame->bytes - TRI_FRAME_HEADER_BYTES -
                           TRI_FRAME_TAG_BYTES);
    tri_seal_destroy(&made);
    return ok;
}

/* What is wrong with a frame, before anything of it is believed; or NULL, and
 * its remote, made if need be. */
static const char *check(struct session_transport *transport,
                         unsigned char *data, size_t bytes,
                         struct tri_frame *frame,
                         struct session_remote **remote_p)
{
    const struct tri_transport_config *config = &transport->config;
    const char *reason = tri_frame_decode(data, bytes, frame);
    struct origin origin;

    if (reason)
        return reason;
    if (frame->nonce != config->job_nonce)
        return "a frame of another job";
    if (frame->destination != config->node)
        return "a frame for another node";
    if (frame->flags != tri_session_flags(transport))
        return "a frame that is not sealed as the job's are";
    origin = origin_of(transport, frame->source);
    if (!origin.source && !is_gone(transport, frame->source))
        return "a frame of a stranger";
    if (!is_genuine(transport, origin.remote, frame, data))
        return "a frame whose tag is wrong";
    if (!origin.source)
        return is_over;
    if (frame->kind == TRI_FRAME_DATA)
        reason = tri_frame_check_records(data, frame);
    if (reason)
        return reason;
    if (!origin.remote &&
        tri_session_remote_get(transport, frame->source, &origin.remote) != 0)
        return "a frame of a node that cannot be answered";
    origin.remote->source = origin.source;
    *remote_p = origin.remote;
    return NULL;
}

static enum tri_session_verdict receive(struct session_remote *remote,
                                        const struct tri_frame *frame)
{
    struct tri_stored_list freed = STAILQ_HEAD_INITIALIZER(freed);
    enum tri_session_verdict verdict = TRI_SESSION_DROP;
    struct tri_stored *stored;

    pthread_mutex_lock(&remote->lock);
    if (!remote->is_ended)
        verdict = tri_session_receive(&remote->core, frame, tri_now_ns(),
                                      &freed);
    while ((stored = STAILQ_FIRST(&freed)) != NULL) {
        STAILQ_REMOVE_HEAD(&freed, next);
        tri_session_buffer_give(
            tri_container_of(stored, struct session_buffer, stored));
    }
    pthread_mutex_unlock(&remote->lock);
    return verdict;
}

static void hold(struct session_remote *remote, const unsigned char *data,
                 const struct tri_frame *frame)
{
    struct session_held *held = malloc(sizeof(*held) + frame->bytes);

    if (!held)
        return; /* it comes again */
    held_fill(held, data, frame, TRI_FRAME_HEADER_BYTES, frame->records);
    pthread_mutex_lock(&remote->lock);
    tri_session_hold(&remote->core, frame->lane, &held->held);
    pthread_mutex_unlock(&remote->lock);
}

static struct session_held *next_held(struct session_remote *remote,
                                      enum tri_lane lane)
{
    struct tri_held *held = NULL;

    pthread_mutex_lock(&remote->lock);
    if (!remote->is_ended)
        held = tri_session_next_held(&remote->core, lane);
    pthread_mutex_unlock(&remote->lock);
    return held_of(held);
}

void tri_session_on_frame(void *context, unsigned char *data, size_t bytes)
{
    struct session_transport *transport = context;
    struct session_remote *remote = NULL;
    const struct tri_transport_events *events = &transport->config.events;
    struct session_held *held;
    struct tri_frame frame;
    const char *reason = check(transport, data, bytes, &frame, &remote);

    if (reason) {
        if (reason != is_over)
            garbage(transport, reason);
        return;
    }
    if (frame.kind == TRI_FRAME_DATA && frame.lane == TRI_LANE_DATA &&
        !has_reserve(transport))
        return; /* it comes again */
    switch (receive(remote, &frame)) {
    case TRI_SESSION_DELIVER:
        deliver_frame(remote, data, &frame);
        while ((held = next_held(remote, frame.lane)) != NULL)
            deliver_held(remote, frame.lane, held);
        break;
    case TRI_SESSION_HOLD:
        hold(remote, data, &frame);
        break;
    case TRI_SESSION_NOTHING:
        if (events->heard)
            events->heard(events->context, remote->source);
        break;
    case TRI_SESSION_DROP: /* may be somebody's recording */
        break;
    }
    touch(remote);
}

/* A node that died before the link had a channel to it. */
static bool is_forgotten(struct session_remote *remote)
{
    const struct tri_transport_events *events =
        &remote->transport->config.events;

    return !remote->is_connected &&
           !events->address(events->context, remote->node);
}

void tri_session_finish_touched(struct session_transport *transport)
{
    struct session_remote *remote;

    while ((remote = SLIST_FIRST(&transport->touched)) != NULL) {
        SLIST_REMOVE_HEAD(&transport->touched, touched);
        remote->is_touched = false;
        if (is_forgotten(remote)) {
            tri_session_remote_forget(remote);
            continue;
        }
        tri_session_pump(remote);
        tri_session_tell_writable(remote);
    }
}
