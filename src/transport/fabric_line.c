/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * Lines: sending, what poll tells of them, their end.
 *
 * A frame that was taken is known to libfabric only, until its completion puts
 * it on `done`, from where poll gives it back. fi_close of the endpoint is the
 * only other way to get it back.
 *
 * A send that the provider refuses for now (-FI_EAGAIN: no connection yet, no
 * room, a dead peer that rxm tries to reach for ever) is not repeated here:
 * the caller hears EFULL at once until the line's pause is over, and then
 * `writable`. Pauses grow with the time the line has been stalled.
 *
 * A line outlives its connections, and the endpoint. When sends fail, those that were sent
 * before the first failure was seen are failures of one connection: `broke` is
 * raised once for them all. The next send makes a connection anew.
 *
 *     connected --disconnect--> closing --poll--> zombie --last frame--> freed
 *                                  |                                       ^
 *                                  +------------ no frames ----------------+
 */
#include "transport/fabric_internal.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "os/bell.h"

static struct fabric *line_fabric(const struct fabric_line *line)
{
    return (struct fabric *)line->base.carrier;
}

/* --- sending -------------------------------------------------------------- */

int tri_fabric_line_create(struct fabric *fabric, uint64_t node,
                           fi_addr_t address, void *peer,
                           struct fabric_line **line_p)
{
    struct fabric_line *line = calloc(1, sizeof(*line));
    bool full;

    if (!line)
        return TROUPE_ENOMEM;
    line->base.carrier = &fabric->base;
    line->peer = peer;
    line->node = node;
    line->address = address;
    tri_lock_acquire(&fabric->queue_lock);
    full = fabric->lines_len >= fabric->config.peers_max;
    if (!full) {
        fabric->lines_len++;
        TAILQ_INSERT_TAIL(&fabric->lines, line, all);
    }
    tri_lock_release(&fabric->queue_lock);
    if (full) {
        free(line);
        return TROUPE_ELIMIT;
    }
    *line_p = line;
    return 0;
}

/* `broke` is owed, unless it was raised for this connection. */
static void line_broke_locked(struct fabric *fabric, struct fabric_line *line)
{
    line->connection++;
    tri_lock_acquire(&fabric->queue_lock);
    if (!line->is_broke && !line->is_zombie) {
        line->is_broke = true;
        TAILQ_INSERT_TAIL(&fabric->broke, line, broke);
    }
    tri_lock_release(&fabric->queue_lock);
}

static void line_stalled_locked(struct fabric *fabric,
                                struct fabric_line *line)
{
    uint64_t now = tri_now_ns();
    uint64_t pause;

    if (line->stalled_since_ns == 0)
        line->stalled_since_ns = now;
    /* A quarter of the time it has lasted: soon after a connection that is
     * being made, seldom to a peer that is gone. */
    pause = (now - line->stalled_since_ns) / 4;
    if (pause < FABRIC_RETRY_MIN_NS)
        pause = FABRIC_RETRY_MIN_NS;
    if (pause > FABRIC_RETRY_MAX_NS)
        pause = FABRIC_RETRY_MAX_NS;
    tri_lock_acquire(&fabric->queue_lock);
    line->retry_at_ns = now + pause;
    tri_lock_release(&fabric->queue_lock);
}

/* The line's pause is over before its time: there may be room now. */
static void line_hurry_locked(struct fabric *fabric, struct fabric_line *line)
{
    if (line->retry_at_ns == 0)
        return;
    tri_lock_acquire(&fabric->queue_lock);
    line->retry_at_ns = 0;
    if (line->is_waiting)
        fabric->waiting_due_ns = 0;
    tri_lock_release(&fabric->queue_lock);
}

/* True when libfabric took the frame. */
static bool line_send_locked(struct fabric *fabric, struct fabric_line *line,
                             struct tri_carrier_frame *frame)
{
    struct fabric_private *private = (void *)frame->carrier_private;
    void *descriptor = frame->memory ? frame->memory->descriptor : NULL;
    ssize_t rc;

    if (line->retry_at_ns != 0 && line->retry_at_ns > tri_now_ns())
        return false;
    if (!fabric->ep) {
        line_stalled_locked(fabric, line);
        return false;
    }
    private->op.kind = FABRIC_OP_SEND;
    private->op.failed = false;
    private->op.connection = line->connection;
    tri_fabric_errno_clear();
    rc = fi_send(fabric->ep, frame->data, frame->bytes, descriptor,
                 line->address, &private->op.context);
    if (rc == 0) {
        LIST_INSERT_HEAD(&fabric->in_flight, private, in_flight);
        line->stalled_since_ns = 0;
        line_hurry_locked(fabric, line);
        return true;
    }
    if (rc != -FI_EAGAIN && rc != -FI_ENOMEM && line->stalled_since_ns == 0) {
        tri_info("fabric: sending to node %016llx: %s",
                 (unsigned long long)line->node, fi_strerror((int)-rc));
        line_broke_locked(fabric, line);
    }
    line_stalled_locked(fabric, line);
    return false;
}

/* Remembers that `writable` is owed. Poll has to be woken: who sleeps on the
 * CQ's descriptor alone would not come. */
static void line_wait(struct fabric *fabric, struct fabric_line *line)
{
    bool ring;

    tri_lock_acquire(&fabric->queue_lock);
    ring = !line->is_waiting;
    if (ring) {
        line->is_waiting = true;
        TAILQ_INSERT_TAIL(&fabric->waiting, line, waiting);
        if (line->retry_at_ns < fabric->waiting_due_ns)
            fabric->waiting_due_ns = line->retry_at_ns;
    }
    tri_lock_release(&fabric->queue_lock);
    if (ring && fabric->config.bell)
        tri_bell_ring(fabric->config.bell);
}

int tri_fabric_send(struct tri_line *base, struct tri_carrier_frame *frame)
{
    struct fabric_line *line = (struct fabric_line *)base;
    struct fabric *fabric = line_fabric(line);
    bool sent = false;

    assert(frame->bytes > 0 && frame->bytes <= fabric->base.frame_bytes_max);
    assert((uintptr_t)frame->carrier_private % _Alignof(uint64_t) == 0);
    frame->line = base;
    if (pthread_mutex_trylock(&fabric->domain_lock) == 0) {
        /* Its completion is only read under domain_lock. */
        sent = line_send_locked(fabric, line, frame);
        if (sent)
            atomic_fetch_add_explicit(&line->frames_len, 1,
                                      memory_order_relaxed);
        pthread_mutex_unlock(&fabric->domain_lock);
    }
    if (sent)
        return 0;
    line_wait(fabric, line);
    return TROUPE_EFULL;
}

void tri_fabric_sent_locked(struct fabric *fabric, struct fabric_private *done,
                            bool failed)
{
    struct tri_carrier_frame *frame =
        tri_container_of(done, struct tri_carrier_frame, carrier_private);
    struct fabric_line *line = (struct fabric_line *)frame->line;

    line_hurry_locked(fabric, line);
    if (failed && done->op.connection == line->connection)
        line_broke_locked(fabric, line);
    done->op.failed = failed;
    LIST_REMOVE(done, in_flight);
    STAILQ_INSERT_TAIL(&fabric->done, done, next);
}

void tri_fabric_lines_broke_locked(struct fabric *fabric)
{
    struct fabric_private *private;
    struct fabric_line *line;

    while ((private = LIST_FIRST(&fabric->in_flight)) != NULL)
        tri_fabric_sent_locked(fabric, private, true);
    tri_lock_acquire(&fabric->queue_lock);
    TAILQ_FOREACH(line, &fabric->lines, all) {
        line->connection++;
        if (line->is_broke || line->is_zombie)
            continue;
        line->is_broke = true;
        TAILQ_INSERT_TAIL(&fabric->broke, line, broke);
    }
    tri_lock_release(&fabric->queue_lock);
}

void tri_fabric_disconnect(struct tri_line *base)
{
    struct fabric_line *line = (struct fabric_line *)base;
    struct fabric *fabric = line_fabric(line);

    tri_lock_acquire(&fabric->queue_lock);
    fabric->lines_len--;
    TAILQ_INSERT_TAIL(&fabric->closing, line, closing);
    tri_lock_release(&fabric->queue_lock);
    if (fabric->config.bell)
        tri_bell_ring(fabric->config.bell);
}

/* --- events, from poll ---------------------------------------------------- */

static void line_free(struct fabric *fabric, struct fabric_line *line)
{
    tri_lock_acquire(&fabric->queue_lock);
    TAILQ_REMOVE(&fabric->lines, line, all);
    tri_lock_release(&fabric->queue_lock);
    free(line);
}

/* The callback may send the frame anew, or free it. */
static void raise_sent(struct fabric *fabric)
{
    const struct tri_carrier_events *events = &fabric->config.events;
    struct fabric_private *done;

    while ((done = STAILQ_FIRST(&fabric->done)) != NULL) {
        struct tri_carrier_frame *frame = tri_container_of(
            done, struct tri_carrier_frame, carrier_private);
        struct fabric_line *line = (struct fabric_line *)frame->line;

        STAILQ_REMOVE_HEAD(&fabric->done, next);
        events->sent(events->context, frame, !done->op.failed);
        /* Only poll makes and frees zombies. */
        if (atomic_fetch_sub_explicit(&line->frames_len, 1,
                                      memory_order_relaxed) == 1 &&
            line->is_zombie)
            line_free(fabric, line);
    }
}

static void raise_broke(struct fabric *fabric)
{
    const struct tri_carrier_events *events = &fabric->config.events;

    for (;;) {
        struct fabric_line *line;
        void *peer = NULL;

        tri_lock_acquire(&fabric->queue_lock);
        line = TAILQ_FIRST(&fabric->broke);
        if (line) {
            TAILQ_REMOVE(&fabric->broke, line, broke);
            line->is_broke = false;
            peer = line->peer;
        }
        tri_lock_release(&fabric->queue_lock);
        if (!line)
            return;
        events->broke(events->context, peer);
    }
}

/* Raises it once for each line that was waiting when the call began: the
 * callback may make its line wait again. */
static void raise_writable(struct fabric *fabric)
{
    const struct tri_carrier_events *events = &fabric->config.events;
    uint64_t now = tri_now_ns();
    unsigned left = 0;
    struct fabric_line *line;

    tri_lock_acquire(&fabric->queue_lock);
    fabric->waiting_due_ns = UINT64_MAX;
    TAILQ_FOREACH(line, &fabric->waiting, waiting)
        left++;
    while (left-- > 0 && (line = TAILQ_FIRST(&fabric->waiting)) != NULL) {
        void *peer = line->peer;

        TAILQ_REMOVE(&fabric->waiting, line, waiting);
        if (line->retry_at_ns > now) {
            TAILQ_INSERT_TAIL(&fabric->waiting, line, waiting);
            if (line->retry_at_ns < fabric->waiting_due_ns)
                fabric->waiting_due_ns = line->retry_at_ns;
            continue;
        }
        line->is_waiting = false;
        tri_lock_release(&fabric->queue_lock);
        events->writable(events->context, peer);
        tri_lock_acquire(&fabric->queue_lock);
    }
    tri_lock_release(&fabric->queue_lock);
}

/* Frees disconnected lines, or leaves them to their last completion. */
static void bury_all(struct fabric *fabric)
{
    for (;;) {
        struct fabric_line *line;

        tri_lock_acquire(&fabric->queue_lock);
        line = TAILQ_FIRST(&fabric->closing);
        if (line) {
            TAILQ_REMOVE(&fabric->closing, line, closing);
            if (line->is_waiting)
                TAILQ_REMOVE(&fabric->waiting, line, waiting);
            if (line->is_broke)
                TAILQ_REMOVE(&fabric->broke, line, broke);
            line->is_zombie = true;
        }
        tri_lock_release(&fabric->queue_lock);
        if (!line)
            return;
        if (atomic_load_explicit(&line->frames_len, memory_order_relaxed) == 0)
            line_free(fabric, line);
    }
}

void tri_fabric_line_events(struct fabric *fabric)
{
    bool broke, waiting, closing;

    raise_sent(fabric);
    tri_lock_acquire(&fabric->queue_lock);
    broke = !TAILQ_EMPTY(&fabric->broke);
    waiting = fabric->waiting_due_ns != UINT64_MAX &&
              fabric->waiting_due_ns <= tri_now_ns();
    closing = !TAILQ_EMPTY(&fabric->closing);
    tri_lock_release(&fabric->queue_lock);
    /* Before the rest: no event of a line behind the next poll. */
    if (closing)
        bury_all(fabric);
    if (broke)
        raise_broke(fabric);
    if (waiting)
        raise_writable(fabric);
}

uint64_t tri_fabric_line_due(struct fabric *fabric)
{
    uint64_t due;

    tri_lock_acquire(&fabric->queue_lock);
    due = fabric->waiting_due_ns;
    if (!STAILQ_EMPTY(&fabric->done) || !TAILQ_EMPTY(&fabric->broke) ||
        !TAILQ_EMPTY(&fabric->closing))
        due = 0;
    tri_lock_release(&fabric->queue_lock);
    return due;
}
