/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Calls that were not accepted. A node that joins hears of all members at once,
 * and they hear of it some milliseconds later: until then its calls are refused
 * as a stranger's. So a call is tried again for a while, and what was written
 * into the channel waits in its segment.
 *
 *     called --closed without a welcome--> waiting --timer--> called
 *                                             |
 *                  nobody has the name: dead, `lost` (proof)
 *                  GIVE_UP_NS since connect: dead, `lost` (strong)
 *
 * A name is one life's: who has it no more is gone, as it is for connect. Its
 * process may take a while longer until its pidfd tells.
 */

#include "transport/ring.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define PAUSE_MIN_NS (5 * TRI_NS_PER_MS)
#define PAUSE_MAX_NS (100 * TRI_NS_PER_MS)
#define GIVE_UP_NS (10000 * TRI_NS_PER_MS)

int ring_retry_open(struct ring *ring)
{
    ring->retry_fd =
        timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (ring->retry_fd >= 0 &&
        ring_watch(ring, ring->retry_fd, RING_RETRIES) == 0)
        return 0;
    tri_error("ring: a timer: %m");
    if (ring->retry_fd >= 0)
        close(ring->retry_fd);
    return TROUPE_ESYSTEM;
}

static void arm_locked(struct ring *ring)
{
    uint64_t due_ns = UINT64_MAX;
    struct itimerspec at = { 0 };

    for (struct ring_channel *c = ring->channels; c; c = c->next)
        if (c->retry_at_ns != 0 && c->retry_at_ns < due_ns)
            due_ns = c->retry_at_ns;
    if (due_ns != UINT64_MAX)
        at.it_value = (struct timespec){
            .tv_sec = (time_t)(due_ns / (1000 * TRI_NS_PER_MS)),
            .tv_nsec = (long)(due_ns % (1000 * TRI_NS_PER_MS)),
        };
    timerfd_settime(ring->retry_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

bool ring_retry_later_locked(struct ring *ring, struct ring_channel *channel)
{
    uint64_t now_ns = tri_now_ns();

    if (channel->retry_pause_ns == 0) {
        channel->retry_pause_ns = PAUSE_MIN_NS;
        channel->give_up_at_ns = now_ns + GIVE_UP_NS;
    }
    if (channel->segment_fd < 0 || now_ns >= channel->give_up_at_ns)
        return false;
    channel->retry_at_ns = now_ns + channel->retry_pause_ns;
    channel->retry_pause_ns =
        tri_min(2 * channel->retry_pause_ns, PAUSE_MAX_NS);
    arm_locked(ring);
    return true;
}

void ring_retry_end_locked(struct ring *ring, struct ring_channel *channel)
{
    channel->retry_at_ns = 0;
    if (channel->segment_fd < 0)
        return;
    close(channel->segment_fd);
    channel->segment_fd = -1;
    ring_listen_again_locked(ring);
}

static struct ring_channel *find_due_locked(struct ring *ring)
{
    uint64_t now_ns = tri_now_ns();
    struct ring_channel *c = ring->channels;

    while (c && (c->retry_at_ns == 0 || c->retry_at_ns > now_ns))
        c = c->next;
    return c;
}

void ring_retry_due_locked(struct ring *ring)
{
    struct ring_channel *channel;
    uint64_t ticks;

    if (read(ring->retry_fd, &ticks, sizeof(ticks)) < 0)
        return; /* armed anew meanwhile */
    while ((channel = find_due_locked(ring)) != NULL) {
        uint64_t node = channel->peer->node;
        int error;

        channel->retry_at_ns = 0;
        error = ring_call_again_locked(ring, channel);
        if (!error || (error != TROUPE_ENODE &&
                       ring_retry_later_locked(ring, channel)))
            continue;
        atomic_store(&channel->dead, true);
        pthread_mutex_unlock(&ring->lock);
        ring_tell_lost(ring, node, error == TROUPE_ENODE
                                       ? TRI_EVIDENCE_PROOF
                                       : TRI_EVIDENCE_STRONG);
        pthread_mutex_lock(&ring->lock);
    }
    arm_locked(ring);
}
