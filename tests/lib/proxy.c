/* SPDX-License-Identifier: BSD-3-Clause */
#include "proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/base.h"
#include "base/clock.h"

#define CHUNK_BYTES (16u * 1024)
#define CHUNKS_MAX 16u /* on their way in one direction */
#define BACKLOG 64
#define FDS_MAX 256u

struct chunk {
    STAILQ_ENTRY(chunk) next;
    uint64_t due_ns;
    size_t at, bytes;
    unsigned char data[CHUNK_BYTES];
};

/* One direction of a connection. */
struct flow {
    int from, to;
    STAILQ_HEAD(, chunk) chunks;
    unsigned chunks_len;
    bool is_ended; /* `from` sends no more */
};

struct connection {
    TAILQ_ENTRY(connection) next;
    struct flow flows[2]; /* from the client, from the server */
    bool is_connecting;
    bool is_broken;
};

struct proxy {
    int listen_fd;
    uint16_t port, to_port;
    TAILQ_HEAD(, connection) connections;
    uint64_t stalled_until_ns, refused_until_ns, delay_ns;
    uint64_t connections_len, bytes;
};

static struct sockaddr_in local(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr = { htonl(INADDR_LOOPBACK) },
    };
}

static int must(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "proxy: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
    return rc;
}

struct proxy *proxy_create(uint16_t to_port)
{
    struct proxy *proxy = calloc(1, sizeof(*proxy));
    struct sockaddr_in address = local(0);
    socklen_t len = sizeof(address);

    must(proxy ? 0 : -1, "memory");
    TAILQ_INIT(&proxy->connections);
    proxy->to_port = to_port;
    proxy->listen_fd =
        must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
             "socket");
    must(bind(proxy->listen_fd, (const void *)&address, sizeof(address)),
         "bind");
    must(listen(proxy->listen_fd, BACKLOG), "listen");
    must(getsockname(proxy->listen_fd, (void *)&address, &len), "getsockname");
    proxy->port = ntohs(address.sin_port);
    return proxy;
}

uint16_t proxy_port(const struct proxy *proxy)
{
    return proxy->port;
}

void proxy_retarget(struct proxy *proxy, uint16_t to_port)
{
    proxy->to_port = to_port;
}

void proxy_stall(struct proxy *proxy, uint64_t until_ns)
{
    proxy->stalled_until_ns = until_ns;
}

void proxy_refuse(struct proxy *proxy, uint64_t until_ns)
{
    proxy->refused_until_ns = until_ns;
}

void proxy_delay(struct proxy *proxy, uint64_t delay_ns)
{
    proxy->delay_ns = delay_ns;
}

uint64_t proxy_connections(const struct proxy *proxy)
{
    return proxy->connections_len;
}

uint64_t proxy_bytes(const struct proxy *proxy)
{
    return proxy->bytes;
}

/* --- the end of connections ---------------------------------------------- */

static void fd_end(int fd, enum proxy_cut how)
{
    struct linger linger = { .l_onoff = 1, .l_linger = 0 };

    if (how == PROXY_RESET)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    else
        shutdown(fd, SHUT_RDWR);
    close(fd);
}

static void connection_end(struct proxy *proxy, struct connection *connection,
                           enum proxy_cut how)
{
    for (int i = 0; i < 2; i++) {
        struct flow *flow = &connection->flows[i];
        struct chunk *chunk;

        while ((chunk = STAILQ_FIRST(&flow->chunks)) != NULL) {
            STAILQ_REMOVE_HEAD(&flow->chunks, next);
            free(chunk);
        }
        fd_end(flow->from, how);
    }
    TAILQ_REMOVE(&proxy->connections, connection, next);
    free(connection);
}

unsigned proxy_cut(struct proxy *proxy, enum proxy_cut how)
{
    struct connection *connection;
    unsigned len = 0;

    while ((connection = TAILQ_FIRST(&proxy->connections)) != NULL) {
        connection_end(proxy, connection, how);
        len++;
    }
    return len;
}

void proxy_destroy(struct proxy **proxy_p)
{
    struct proxy *proxy = *proxy_p;

    proxy_cut(proxy, PROXY_RESET);
    close(proxy->listen_fd);
    free(proxy);
    *proxy_p = NULL;
}

/* --- forwarding ---------------------------------------------------------- */

static void accept_one(struct proxy *proxy)
{
    struct sockaddr_in address = local(proxy->to_port);
    struct connection *connection;
    int one = 1, client, server;

    client =
        accept4(proxy->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0)
        return;
    if (tri_now_ns() < proxy->refused_until_ns) {
        fd_end(client, PROXY_RESET);
        return;
    }
    server =
        must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
             "socket");
    connection = calloc(1, sizeof(*connection));
    must(connection ? 0 : -1, "memory");
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    connection->flows[0].from = connection->flows[1].to = client;
    connection->flows[1].from = connection->flows[0].to = server;
    STAILQ_INIT(&connection->flows[0].chunks);
    STAILQ_INIT(&connection->flows[1].chunks);
    TAILQ_INSERT_TAIL(&proxy->connections, connection, next);
    proxy->connections_len++;
    connection->is_connecting = true;
    if (connect(server, (const void *)&address, sizeof(address)) != 0 &&
        errno != EINPROGRESS)
        connection->is_broken = true;
}

/* Takes in one chunk. */
static void flow_read(struct proxy *proxy, struct connection *connection,
                      struct flow *flow)
{
    struct chunk *chunk = malloc(sizeof(*chunk));
    ssize_t n;

    must(chunk ? 0 : -1, "memory");
    n = read(flow->from, chunk->data, sizeof(chunk->data));
    if (n <= 0) {
        if (n == 0)
            flow->is_ended = true;
        else if (errno != EAGAIN && errno != EINTR)
            connection->is_broken = true;
        free(chunk);
        return;
    }
    chunk->at = 0;
    chunk->bytes = (size_t)n;
    chunk->due_ns = tri_now_ns() + proxy->delay_ns;
    STAILQ_INSERT_TAIL(&flow->chunks, chunk, next);
    flow->chunks_len++;
}

static void flow_write(struct proxy *proxy, struct connection *connection,
                       struct flow *flow)
{
    struct chunk *chunk;

    while ((chunk = STAILQ_FIRST(&flow->chunks)) != NULL &&
           chunk->due_ns <= tri_now_ns()) {
        ssize_t n = send(flow->to, chunk->data + chunk->at,
                         chunk->bytes - chunk->at, MSG_NOSIGNAL);

        if (n < 0) {
            connection->is_broken = errno != EAGAIN && errno != EINTR;
            return;
        }
        proxy->bytes += (uint64_t)n;
        chunk->at += (size_t)n;
        if (chunk->at < chunk->bytes)
            return;
        STAILQ_REMOVE_HEAD(&flow->chunks, next);
        flow->chunks_len--;
        free(chunk);
    }
    if (!chunk && flow->is_ended)
        shutdown(flow->to, SHUT_WR);
}

static bool is_stalled(const struct proxy *proxy)
{
    return tri_now_ns() < proxy->stalled_until_ns;
}

/* What poll is to look for on a connection's two sockets. */
static void events_of(const struct connection *connection, short events[2],
                      uint64_t *due_ns_p)
{
    events[0] = events[1] = 0;
    if (connection->is_connecting) {
        events[1] = POLLOUT;
        return;
    }
    for (int i = 0; i < 2; i++) {
        const struct flow *flow = &connection->flows[i];
        const struct chunk *chunk = STAILQ_FIRST(&flow->chunks);

        if (!flow->is_ended && flow->chunks_len < CHUNKS_MAX)
            events[i] |= POLLIN;
        if (!chunk)
            continue;
        if (chunk->due_ns <= tri_now_ns())
            events[1 - i] |= POLLOUT;
        else if (chunk->due_ns < *due_ns_p)
            *due_ns_p = chunk->due_ns;
    }
}

static void connection_turn(struct proxy *proxy, struct connection *connection,
                            const short revents[2])
{
    if (connection->is_connecting) {
        int error = 0;
        socklen_t len = sizeof(error);

        if (revents[1] == 0)
            return;
        getsockopt(connection->flows[1].from, SOL_SOCKET, SO_ERROR, &error,
                   &len);
        connection->is_connecting = false;
        connection->is_broken = error != 0;
    }
    for (int i = 0; i < 2 && !connection->is_broken; i++) {
        struct flow *flow = &connection->flows[i];

        if (revents[i] & (POLLIN | POLLHUP | POLLERR) && !flow->is_ended &&
            flow->chunks_len < CHUNKS_MAX)
            flow_read(proxy, connection, flow);
        if (!connection->is_broken)
            flow_write(proxy, connection, flow);
    }
    if (connection->flows[0].is_ended && connection->flows[1].is_ended &&
        connection->flows[0].chunks_len + connection->flows[1].chunks_len == 0)
        connection->is_broken = true;
}

/* Adds a proxy's sockets. Returns the new length. */
static unsigned fds_add(struct proxy *proxy, struct pollfd *fds, unsigned len,
                        uint64_t *due_ns_p)
{
    struct connection *connection;

    if (is_stalled(proxy)) {
        if (proxy->stalled_until_ns < *due_ns_p)
            *due_ns_p = proxy->stalled_until_ns;
        return len;
    }
    fds[len++] = (struct pollfd){ .fd = proxy->listen_fd, .events = POLLIN };
    TAILQ_FOREACH(connection, &proxy->connections, next)
    {
        short events[2];

        if (len + 2 > FDS_MAX)
            break;
        events_of(connection, events, due_ns_p);
        for (int i = 0; i < 2; i++)
            fds[len++] = (struct pollfd){
                .fd = events[i] != 0 ? connection->flows[i].from : -1,
                .events = events[i],
            };
    }
    return len;
}

/* Acts on what poll said, in the order of fds_add. */
static unsigned fds_handle(struct proxy *proxy, const struct pollfd *fds,
                           unsigned at)
{
    struct connection *connection, *following;
    bool accepts = fds[at++].revents != 0;

    for (connection = TAILQ_FIRST(&proxy->connections); connection;
         connection = following) {
        short revents[2];

        following = TAILQ_NEXT(connection, next);
        if (at + 2 > FDS_MAX)
            break;
        revents[0] = fds[at++].revents;
        revents[1] = fds[at++].revents;
        connection_turn(proxy, connection, revents);
        if (connection->is_broken)
            connection_end(proxy, connection, PROXY_RESET);
    }
    if (accepts)
        accept_one(proxy);
    return at;
}

void proxy_turn(struct proxy *const *proxies, unsigned len, int timeout_ms)
{
    struct pollfd fds[FDS_MAX];
    bool looked[FDS_MAX];
    uint64_t due_ns = tri_deadline_ns(timeout_ms), now;
    unsigned fds_len = 0, at = 0;

    for (unsigned i = 0; i < len; i++) {
        unsigned before = fds_len;

        fds_len = fds_add(proxies[i], fds, fds_len, &due_ns);
        looked[i] = fds_len > before;
    }
    now = tri_now_ns();
    if (poll(fds, fds_len, (int)tri_ms_left(due_ns, now)) < 0)
        return;
    for (unsigned i = 0; i < len; i++)
        if (looked[i])
            at = fds_handle(proxies[i], fds, at);
}
