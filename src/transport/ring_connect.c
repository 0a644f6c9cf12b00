/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * How rings come to be and how a peer's death is seen.
 *
 *     caller                                   called (control)
 *     connect, check uid
 *     hello + [segment, bell page, eventfd] ->
 *                                              check uid, version, nonce,
 *                                              shape, seals; ask `accept`;
 *                                              map, let poll see the ring
 *          <- welcome + [bell page, eventfd]
 *     (control) attach the bell, ring it       close
 *     close
 *
 * The caller writes records from the first moment on; nobody rings for them
 * until the welcome, so the called node looks by itself once, and the caller
 * rings without condition when it has the bell. Who is not welcome finds the
 * socket closed, and calls again for some seconds (ring_retry.c). The nonce is
 * only told to a process of our own user. A pidfd then watches each peer's
 * process; where the kernel has none the sockets stay open, and their end is a
 * strong hint.
 */

#define _GNU_SOURCE
#include "transport/ring.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "os/process.h"
#include "os/shm.h"

#define HELLO 0x6f6c6c6568697274ull   /* "trihello" */
#define WELCOME 0x6d6f636c65776974ull /* "tiwelcom" */
#define HELLO_FDS 3
#define WELCOME_FDS 2
#define KEEP_SOCKET 1u /* a flag: the sender has no pidfd */
/* Handled in one control call; the rest keeps the epoll set readable. */
#define EVENTS_MAX 32
/* Inbound rings of one peer: its current one, and those it disconnected that
 * poll has not drained. */
#define INS_OF_PEER_MAX 4

struct greeting {
    uint64_t magic;
    uint32_t version;
    uint32_t flags;
    uint64_t node;
    uint64_t nonce;
    struct tri_ring_shape shapes[RING_QUEUES]; /* in a hello; else zero */
};

_Static_assert(sizeof(struct greeting) == 56, "a greeting's layout");

static socklen_t socket_name(uint64_t node, struct sockaddr_un *name)
{
    int n;

    *name = (struct sockaddr_un){ .sun_family = AF_UNIX };
    /* A leading zero: an abstract name, which leaves no file. */
    n = snprintf(name->sun_path + 1, sizeof(name->sun_path) - 1,
                 "troupe-ring-%016" PRIx64, node);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

int ring_listen(struct ring *ring)
{
    struct sockaddr_un name;
    socklen_t bytes = socket_name(ring->config.node, &name);

    ring->listen_fd =
        socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (ring->listen_fd < 0)
        goto fail;
    /* The kernel lowers the backlog to what it allows. */
    if (bind(ring->listen_fd, (struct sockaddr *)&name, bytes) < 0 ||
        listen(ring->listen_fd, (int)ring->config.peers_max + 1) < 0)
        goto fail_listener;
    ring->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (ring->epoll_fd < 0)
        goto fail_listener;
    ring->watches = RING_RETRIES;
    if (ring_watch(ring, ring->listen_fd, RING_LISTENER) == 0 &&
        ring_retry_open(ring) == 0)
        return 0;

    close(ring->epoll_fd);
fail_listener:
    close(ring->listen_fd);
fail:
    tri_error("ring: listening for processes of this host: %m");
    return TROUPE_ESYSTEM;
}

static struct ring_shake *shake_add_locked(struct ring *ring, int fd)
{
    struct ring_shake *shake = calloc(1, sizeof(*shake));

    if (!shake)
        return NULL;
    shake->fd = fd;
    shake->watch = ++ring->watches;
    if (ring_watch(ring, fd, shake->watch)) {
        free(shake);
        return NULL;
    }
    shake->next = ring->shakes;
    ring->shakes = shake;
    ring->shake_count++;
    return shake;
}

static void shake_drop_locked(struct ring *ring, struct ring_shake *shake)
{
    struct ring_shake **link = &ring->shakes;

    while (*link != shake)
        link = &(*link)->next;
    *link = shake->next;
    ring->shake_count--;
    ring_unwatch_close(ring, shake->fd);
    if (shake->peer)
        ring_peer_release_locked(ring, shake->peer);
    free(shake);
    ring_listen_again_locked(ring);
}

/* A greeting of ours. */
static struct greeting greet(struct ring *ring, uint64_t magic,
                             const struct ring_peer *peer)
{
    return (struct greeting){
        .magic = magic,
        .version = RING_VERSION,
        .flags = peer->pidfd < 0 ? KEEP_SOCKET : 0,
        .node = ring->config.node,
        .nonce = ring->config.job_nonce,
    };
}

/* What is wrong with a greeting; NULL: nothing. */
static const char *fault(struct ring *ring, const struct greeting *greeting,
                         uint64_t magic)
{
    if (greeting->magic != magic)
        return "ring: not a greeting";
    if (greeting->version != RING_VERSION)
        return "ring: a peer speaks another version";
    if (greeting->nonce != ring->config.job_nonce)
        return "ring: a node of another job";
    if (greeting->flags & ~KEEP_SOCKET)
        return "ring: reserved bits in a greeting";
    for (unsigned q = 0; magic == HELLO && q < RING_QUEUES; q++)
        if (!tri_ring_shape_check(&greeting->shapes[q]))
            return "ring: sizes out of range";
    return NULL;
}

static int dial(uint64_t node, int *fd_p)
{
    struct sockaddr_un name;
    socklen_t bytes = socket_name(node, &name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = errno;

    if (fd < 0)
        goto fail;
    if (connect(fd, (struct sockaddr *)&name, bytes) == 0) {
        *fd_p = fd;
        return 0;
    }
    error = errno;
    close(fd);
    if (error == ECONNREFUSED)
        return TROUPE_ENODE; /* nobody has that name any more */
fail:
    errno = error;
    tri_error("ring: calling node %016" PRIx64 ": %m", node);
    return error == EAGAIN ? TROUPE_ELIMIT : TROUPE_ESYSTEM;
}

/* Says hello on a socket; the shake is the channel's then. */
static int hello_locked(struct ring *ring, uint64_t node, pid_t pid,
                        struct ring_channel *channel, struct ring_shake *shake)
{
    int fds[HELLO_FDS] = { channel->segment_fd, ring->config.bell->page_fd,
                           ring->config.bell->event_fd };
    struct greeting hello;

    shake->node = node;
    shake->peer = ring_peer_hold_locked(ring, node, shake->fd, pid);
    if (!shake->peer)
        return TROUPE_ENOMEM;
    if (shake->peer->dead)
        return TROUPE_ENODE;
    hello = greet(ring, HELLO, shake->peer);
    memcpy(hello.shapes, ring->shapes, sizeof(hello.shapes));
    if (tri_socket_send(shake->fd, &hello, sizeof(hello), fds, HELLO_FDS)) {
        tri_error("ring: hello to node %016" PRIx64 ": %m", node);
        return TROUPE_ESYSTEM;
    }
    shake->channel = channel;
    return 0;
}

/* The socket is the shake's, or closed. */
static int call_locked(struct ring *ring, uint64_t node, int fd,
                       struct ring_channel *channel,
                       struct ring_shake **shake_p)
{
    struct ring_shake *shake = NULL;
    pid_t pid;
    uid_t uid;
    int error = tri_process_of_socket(fd, &pid, &uid);

    if (!error && uid != geteuid())
        error = TROUPE_ETRANSPORT;
    if (!error) {
        shake = shake_add_locked(ring, fd);
        error = shake ? hello_locked(ring, node, pid, channel, shake)
                      : TROUPE_ENOMEM;
    }
    if (!shake)
        close(fd);
    else if (error)
        shake_drop_locked(ring, shake);
    else
        *shake_p = shake;
    return error;
}

int ring_call(struct ring *ring, uint64_t node, struct ring_channel *channel)
{
    struct ring_shake *shake;
    int fd;
    int error = dial(node, &fd);

    if (error)
        return error;
    pthread_mutex_lock(&ring->lock);
    error = call_locked(ring, node, fd, channel, &shake);
    if (!error) {
        channel->peer = shake->peer;
        channel->peer->refs++;
        channel->next = ring->channels;
        ring->channels = channel;
    }
    pthread_mutex_unlock(&ring->lock);
    return error;
}

int ring_call_again_locked(struct ring *ring, struct ring_channel *channel)
{
    struct ring_shake *shake;
    int fd;
    int error = channel->peer->dead ? TROUPE_ENODE
                                    : dial(channel->peer->node, &fd);

    return error ? error
                 : call_locked(ring, channel->peer->node, fd, channel, &shake);
}

/* The answer to our hello. Unlocks while it raises events. */
static void handle_welcome_locked(struct ring *ring, struct ring_shake *shake,
                                  const struct greeting *welcome,
                                  const int *fds)
{
    const struct tri_transport_events *events = &ring->config.events;
    struct ring_peer *peer = shake->peer;
    const char *reason = fault(ring, welcome, WELCOME);
    uint64_t node = shake->node;

    if (!reason && welcome->node != node)
        reason = "ring: another node answered";
    if (reason) {
        close(fds[0]);
        close(fds[1]);
    } else if (ring_peer_take_bell_locked(peer, fds[0], fds[1])) {
        reason = "ring: not a bell";
    }
    if (!reason && shake->channel) {
        /* Pairs with the acquire loads of ring_bell. */
        atomic_store_explicit(&shake->channel->bell, &peer->bell,
                              memory_order_release);
        tri_fence_full();
        tri_bell_ring_always(&peer->bell);
    }
    if (shake->channel)
        ring_retry_end_locked(ring, shake->channel);
    if (reason && shake->channel)
        atomic_store(&shake->channel->dead, true);
    shake->answered = true;
    if (reason || (peer->pidfd >= 0 && !(welcome->flags & KEEP_SOCKET)))
        shake_drop_locked(ring, shake);
    if (!reason)
        return;
    pthread_mutex_unlock(&ring->lock);
    events->garbage(events->context, reason);
    ring_tell_lost(ring, node, TRI_EVIDENCE_STRONG);
    pthread_mutex_lock(&ring->lock);
}

/* Lets poll see the ring, or queues it behind the peer's older ones. */
static int show_in_locked(struct ring *ring, struct ring_in *in)
{
    struct ring_in *last = in->peer->first_in;
    unsigned older = last != NULL, slot = 0;

    for (; last && atomic_load(&last->next); last = atomic_load(&last->next))
        older++;
    if (older >= INS_OF_PEER_MAX)
        return TROUPE_ELIMIT;
    if (last) {
        /* Pairs with the acquire load of in_of. */
        atomic_store_explicit(&last->next, in, memory_order_release);
        return 0;
    }
    while (slot < ring->ins_max && atomic_load(&ring->ins[slot]))
        slot++;
    if (slot == ring->ins_max)
        return TROUPE_ELIMIT;
    in->peer->first_in = in;
    /* Pairs with the acquire loads of ring_poll. */
    atomic_store_explicit(&ring->ins[slot], in, memory_order_release);
    if (slot >= atomic_load(&ring->ins_count))
        atomic_store_explicit(&ring->ins_count, slot + 1,
                              memory_order_release);
    return 0;
}

static int add_in_locked(struct ring *ring, struct ring_peer *peer,
                         const struct greeting *hello, int segment_fd,
                         void *context)
{
    struct ring_in *in = calloc(1, sizeof(*in));
    void *map;
    int error = TROUPE_ENOMEM;

    if (!in)
        return error;
    in->map_bytes = ring_segment_bytes(hello->shapes, RING_QUEUES);
    error = tri_shm_attach(segment_fd, in->map_bytes, &map);
    if (error)
        goto fail;
    in->map = map;
    for (unsigned q = 0; q < RING_QUEUES; q++)
        tri_ring_rx_init(&in->rx[q],
                         (char *)map + ring_segment_bytes(hello->shapes, q),
                         &hello->shapes[q],
                         q == RING_URGENT ? TRI_RING_MARK : 0);
    in->context = context;
    in->peer = peer;
    error = show_in_locked(ring, in);
    if (error)
        goto fail_map;
    peer->refs++;
    return 0;

fail_map:
    tri_shm_unmap(map, in->map_bytes);
fail:
    free(in);
    return error;
}

/* Takes over the descriptors of a good hello. */
static int admit_locked(struct ring *ring, struct ring_shake *shake,
                        const struct greeting *hello, const int *fds,
                        void *context)
{
    int own[WELCOME_FDS] = { ring->config.bell->page_fd,
                             ring->config.bell->event_fd };
    struct greeting welcome;
    pid_t pid;
    uid_t uid;
    int error = tri_process_of_socket(shake->fd, &pid, &uid);

    if (!error) {
        shake->peer = ring_peer_hold_locked(ring, hello->node, shake->fd, pid);
        error = shake->peer ? 0 : TROUPE_ENOMEM;
    }
    if (!error) {
        error = ring_peer_take_bell_locked(shake->peer, fds[1], fds[2]);
    } else {
        close(fds[1]);
        close(fds[2]);
    }
    if (!error)
        error = add_in_locked(ring, shake->peer, hello, fds[0], context);
    close(fds[0]);
    if (error)
        return error;
    if (shake->peer->dead) { /* died since: its last words are to be read */
        ring_peer_died_locked(ring, shake->peer);
        return 0;
    }
    welcome = greet(ring, WELCOME, shake->peer);
    /* A caller that cannot be answered is about to end; the pidfd tells. */
    if (tri_socket_send(shake->fd, &welcome, sizeof(welcome), own,
                        WELCOME_FDS))
        tri_debug("ring: a caller hung up: %m");
    return 0;
}

/* Somebody calls. Unlocks while it raises events. */
static void handle_hello_locked(struct ring *ring, struct ring_shake *shake,
                                const struct greeting *hello, const int *fds)
{
    const struct tri_transport_events *events = &ring->config.events;
    const char *reason = fault(ring, hello, HELLO);
    void *context = NULL;
    bool dead = false;
    int error = TROUPE_ENODE;

    pthread_mutex_unlock(&ring->lock);
    if (!reason)
        context = events->accept(events->context, hello->node);
    pthread_mutex_lock(&ring->lock);
    if (context) {
        error = admit_locked(ring, shake, hello, fds, context);
        dead = !error && shake->peer->dead;
    } else {
        for (int i = 0; i < HELLO_FDS; i++)
            close(fds[i]);
    }
    if (error == TROUPE_EPROTO)
        reason = "ring: a segment or a bell is not what the hello said";
    else if (context && error)
        tri_warn("ring: node %016" PRIx64 " refused: %s", hello->node,
                 troupe_strerror(error));
    shake->answered = true;
    if (error || dead ||
        (shake->peer->pidfd >= 0 && !(hello->flags & KEEP_SOCKET)))
        shake_drop_locked(ring, shake);
    pthread_mutex_unlock(&ring->lock);
    if (reason)
        events->garbage(events->context, reason);
    if (!error) /* what was written before the welcome rang no bell */
        tri_bell_ring_always(ring->config.bell);
    if (dead)
        ring_tell_lost(ring, hello->node, TRI_EVIDENCE_PROOF);
    pthread_mutex_lock(&ring->lock);
}

/* The other side closed the socket, or sent nonsense (then with a reason). */
static void handle_end_locked(struct ring *ring, struct ring_shake *shake,
                              const char *reason)
{
    const struct tri_transport_events *events = &ring->config.events;
    struct ring_peer *peer = shake->peer;
    bool refused = shake->node != 0 && !shake->answered;
    bool lost = refused || (peer && peer->pidfd < 0 && !peer->dead);
    uint64_t node = peer ? peer->node : 0;

    /* Without a word: we may not be known there yet. */
    if (refused && !reason && shake->channel &&
        ring_retry_later_locked(ring, shake->channel))
        lost = false;
    else if (refused && shake->channel)
        atomic_store(&shake->channel->dead, true);
    else if (lost)
        ring_peer_died_locked(ring, peer);
    shake_drop_locked(ring, shake);
    pthread_mutex_unlock(&ring->lock);
    if (reason)
        events->garbage(events->context, reason);
    if (lost)
        ring_tell_lost(ring, node, TRI_EVIDENCE_STRONG);
    pthread_mutex_lock(&ring->lock);
}

static void handle_socket_locked(struct ring *ring, struct ring_shake *shake)
{
    bool calls = shake->node != 0;
    struct greeting greeting;
    int fds[HELLO_FDS];
    int n = tri_socket_recv(shake->fd, &greeting, sizeof(greeting), fds,
                            calls ? WELCOME_FDS : HELLO_FDS);

    if (n == 0)
        return;
    if (n == TROUPE_EPROTO)
        handle_end_locked(ring, shake, "ring: malformed greeting");
    else if (n < 0)
        handle_end_locked(ring, shake, NULL);
    else if (shake->answered) {
        for (int i = 0; i < (calls ? WELCOME_FDS : HELLO_FDS); i++)
            close(fds[i]);
        handle_end_locked(ring, shake, "ring: a second greeting");
    } else if (calls)
        handle_welcome_locked(ring, shake, &greeting, fds);
    else
        handle_hello_locked(ring, shake, &greeting, fds);
}

static void handle_caller_locked(struct ring *ring)
{
    const struct tri_transport_events *events = &ring->config.events;
    unsigned shakes_max = 2 * ring->config.peers_max + 2;
    int fd = accept4(ring->listen_fd, NULL, NULL,
                     SOCK_CLOEXEC | SOCK_NONBLOCK);
    pid_t pid;
    uid_t uid;

    if (fd < 0) {
        if (errno == EAGAIN || errno == ECONNABORTED)
            return;
        tri_error("ring: accepting a peer: %m");
        /* Out of descriptors: the caller waits until we let go of one, and
         * the control thread does not spin meanwhile. */
        epoll_ctl(ring->epoll_fd, EPOLL_CTL_DEL, ring->listen_fd, NULL);
        ring->deaf = true;
        return;
    }
    if (tri_process_of_socket(fd, &pid, &uid) || uid != geteuid()) {
        close(fd);
        pthread_mutex_unlock(&ring->lock);
        events->garbage(events->context, "ring: a process of another user");
        pthread_mutex_lock(&ring->lock);
        return;
    }
    if (ring->shake_count >= shakes_max || !shake_add_locked(ring, fd)) {
        tri_warn("ring: too many open handshakes, one refused");
        close(fd);
    }
}

/* Like all it calls: unlocks while it raises events, locks again. */
static void handle_event_locked(struct ring *ring, uint64_t number)
{
    if (number == RING_LISTENER) {
        handle_caller_locked(ring);
        return;
    }
    if (number == RING_RETRIES) {
        ring_retry_due_locked(ring);
        return;
    }
    for (struct ring_shake *s = ring->shakes; s; s = s->next)
        if (s->watch == number) {
            handle_socket_locked(ring, s);
            return;
        }
    for (struct ring_peer *p = ring->peers; p; p = p->next)
        if (p->watch == number && p->pidfd >= 0) {
            ring_peer_end_locked(ring, p);
            return;
        }
}

void ring_control(struct tri_transport *transport)
{
    struct ring *ring = tri_container_of(transport, struct ring, base);
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(ring->epoll_fd, events, EVENTS_MAX, 0);

    pthread_mutex_lock(&ring->lock);
    for (int i = 0; i < n; i++)
        handle_event_locked(ring, events[i].data.u64);
    pthread_mutex_unlock(&ring->lock);
}

void ring_hang_up(struct ring *ring)
{
    pthread_mutex_lock(&ring->lock);
    while (ring->shakes)
        shake_drop_locked(ring, ring->shakes);
    pthread_mutex_unlock(&ring->lock);
    close(ring->retry_fd);
    close(ring->epoll_fd);
    close(ring->listen_fd);
}
