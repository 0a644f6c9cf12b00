/* SPDX-License-Identifier: BSD-3-Clause */

/* The nodes that the ring transport has to do with, and how each one's end is
 * seen. */

#include "transport/ring.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"
#include "os/process.h"

int ring_watch(struct ring *ring, int fd, uint64_t number)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = number };

    if (epoll_ctl(ring->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
        return 0;
    tri_error("ring: epoll: %m");
    return TROUPE_ESYSTEM;
}

void ring_listen_again_locked(struct ring *ring)
{
    if (ring->deaf)
        ring->deaf = ring_watch(ring, ring->listen_fd, RING_LISTENER) != 0;
}

void ring_unwatch_close(struct ring *ring, int fd)
{
    epoll_ctl(ring->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    close(fd);
}

static struct ring_peer *peer_find_locked(struct ring *ring, uint64_t node)
{
    struct ring_peer *peer = ring->peers;

    while (peer && peer->node != node)
        peer = peer->next;
    return peer;
}

struct ring_peer *ring_peer_hold_locked(struct ring *ring, uint64_t node,
                                        int socket, pid_t pid)
{
    struct ring_peer *peer = peer_find_locked(ring, node);
    int error;

    if (!peer) {
        peer = calloc(1, sizeof(*peer));
        if (!peer)
            return NULL;
        peer->node = node;
        peer->pidfd = -1;
        peer->pid = pid;
        error = tri_process_watch(socket, pid, &peer->pidfd);
        peer->dead = error == TROUPE_ENODE;
        peer->watch = ++ring->watches;
        if (!error && ring_watch(ring, peer->pidfd, peer->watch)) {
            close(peer->pidfd);
            peer->pidfd = -1;
        }
        peer->next = ring->peers;
        ring->peers = peer;
    }
    peer->refs++;
    return peer;
}

void ring_peer_release_locked(struct ring *ring, struct ring_peer *peer)
{
    struct ring_peer **link = &ring->peers;

    assert(peer->refs > 0);
    if (--peer->refs > 0)
        return;
    assert(!peer->first_in);
    while (*link != peer)
        link = &(*link)->next;
    *link = peer->next;
    if (peer->pidfd >= 0)
        ring_unwatch_close(ring, peer->pidfd);
    if (peer->has_bell)
        tri_bell_fini(&peer->bell);
    free(peer);
    ring_listen_again_locked(ring);
}

int ring_peer_pid(struct ring *ring, uint64_t node, pid_t *pid_p)
{
    struct ring_peer *peer;
    int error = 0;

    pthread_mutex_lock(&ring->lock);
    peer = peer_find_locked(ring, node);
    if (!peer || peer->dead)
        error = TROUPE_ENODE;
    else if (peer->pid <= 0)
        error = TROUPE_ETRANSPORT;
    else
        *pid_p = peer->pid;
    pthread_mutex_unlock(&ring->lock);
    return error;
}

int ring_peer_take_bell_locked(struct ring_peer *peer, int page_fd,
                               int event_fd)
{
    int error = 0;

    if (!peer->has_bell) {
        error = tri_bell_attach(&peer->bell, page_fd, event_fd);
        peer->has_bell = !error;
        if (!error)
            return 0;
    }
    close(page_fd);
    close(event_fd);
    return error;
}

void ring_peer_died_locked(struct ring *ring, struct ring_peer *peer)
{
    peer->dead = true;
    if (peer->pidfd >= 0)
        ring_unwatch_close(ring, peer->pidfd);
    peer->pidfd = -1;
    for (struct ring_channel *c = ring->channels; c; c = c->next)
        if (c->peer == peer)
            atomic_store(&c->dead, true);
    atomic_store(&ring->deaths, true);
}

void ring_tell_lost(struct ring *ring, uint64_t node,
                    enum tri_evidence evidence)
{
    const struct tri_transport_events *events = &ring->config.events;

    /* Poll has rings to end and writers to tell. */
    tri_bell_ring_always(ring->config.bell);
    events->lost(events->context, node, evidence);
}

void ring_peer_end_locked(struct ring *ring, struct ring_peer *peer)
{
    uint64_t node = peer->node;

    ring_peer_died_locked(ring, peer);
    pthread_mutex_unlock(&ring->lock);
    tri_info("ring: the process of node %016" PRIx64 " has ended", node);
    ring_tell_lost(ring, node, TRI_EVIDENCE_PROOF);
    pthread_mutex_lock(&ring->lock);
}
