/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Another life at the same address: a node is killed under load, and the next
 * one, of another node id, is found at its address while the peer still sends
 * to the old one. Nothing of the old session reaches the new life as valid,
 * what comes is counted; and the new one's own session has everything.
 *
 * First behind a proxy, whose port stays and leads to the life of the day;
 * then at the port itself, which each life binds. The peer has a proxy, too:
 * ofi_rxm takes a connection from an address that it connects to itself for a
 * crossing one, and would refuse it for ever if only one side had one.
 */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../lib/proxy.h"
#include "base/random.h"
#include "flood.h"

enum {
    PEER = 0,
    LIVES = 4, /* seats 1 to LIVES */
    FLOW_RECORDS = 2000,
    SOON_MS = 30000,
    PORT_FIRST = 16384,
    PORTS = 16384,
    PORT_TRIES = 1000,
};

/* Before the peer, before the lives. NULL: the lives have one port. */
static struct proxy *proxies[2];

static void turn(void)
{
    if (proxies[0])
        proxy_turn(proxies, 2, 1);
    else
        flood_nap();
}

/* A port that nobody has, nor gets between two lives: from 32768 on the kernel
 * gives them to who asks for any, or connects. */
static uint16_t port_free(void)
{
    struct tri_random random;

    tri_random_init(&random, tri_mix64(tri_now_ns()));
    for (int i = 0; i < PORT_TRIES; i++) {
        uint16_t port =
            (uint16_t)(PORT_FIRST + tri_random_below(&random, PORTS));
        struct sockaddr_in address = { .sin_family = AF_INET,
                                       .sin_addr = { htonl(INADDR_LOOPBACK) },
                                       .sin_port = htons(port) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool is_free = bind(fd, (void *)&address, sizeof(address)) == 0;

        close(fd);
        if (is_free)
            return port;
    }
    fprintf(stderr, "no free port\n");
    exit(EXIT_FAILURE);
}

static uint16_t port_of(const struct tri_address *address)
{
    struct sockaddr_in in;

    flood_address_get(address, &in);
    return ntohs(in.sin_port);
}

/* Begins a life and leads its address to it. */
static void life_begin(struct flood_board *board, unsigned life,
                       const struct flood_options *options, bool is_proxied)
{
    uint16_t port;

    flood_start(board, life, options);
    FLOOD_WAIT(board, turn(), flood_all_open(board), FLOOD_SOON_MS);
    port = port_of(&board->seats[life].address);
    if (!is_proxied) {
        if (port != options->port)
            flood_fail(board, "bound port %u, not %u", port, options->port);
    } else if (!proxies[0]) {
        proxies[0] = proxy_create(port_of(&board->seats[PEER].address));
        proxies[1] = proxy_create(port);
    } else {
        proxy_retarget(proxies[1], port);
    }
}

/* The way from one to another, through the other's proxy. */
static void way_open(struct flood_board *board, unsigned from, unsigned to)
{
    struct tri_address *address = &board->addresses[from][to];
    const struct proxy *proxy = proxies[to != PEER];
    struct sockaddr_in in;

    *address = board->seats[to].address;
    if (proxy) {
        flood_address_get(address, &in);
        in.sin_port = htons(proxy_port(proxy));
        flood_address_set(address, &in);
    }
    atomic_store(&board->ways[from][to], FLOOD_WAY_OPEN);
}

static void life_connect(struct flood_board *board, unsigned life)
{
    way_open(board, PEER, life);
    way_open(board, life, PEER);
}

static void wait_for_flow(struct flood_board *board, unsigned life)
{
    uint64_t there = board->seats[life].received_from[PEER] + FLOW_RECORDS;
    uint64_t here = board->seats[PEER].received_from[life] + FLOW_RECORDS;

    FLOOD_WAIT(board, turn(),
               board->seats[life].received_from[PEER] >= there &&
                   board->seats[PEER].received_from[life] >= here,
               SOON_MS);
}

static void life_end(struct flood_board *board, unsigned life)
{
    atomic_store(&board->ways[PEER][life], FLOOD_WAY_GONE);
    flood_kill(board, life, SIGKILL);
    if (proxies[0])
        proxy_cut(proxies[1], PROXY_RESET);
}

static void lives(bool is_proxied)
{
    struct flood_options options = { .interface = "127.0.0.1",
                                     .provider = getenv("TROUPE_PROVIDER"),
                                     .seal = TRI_SEAL_AUTH };
    struct flood_board *board = flood_board_create("restart", LIVES + 1);

    flood_start(board, PEER, &options);
    options.port = is_proxied ? 0 : port_free();
    life_begin(board, 1, &options, is_proxied);
    life_connect(board, 1);
    wait_for_flow(board, 1);
    for (unsigned life = 2; life <= LIVES; life++) {
        life_end(board, life - 1);
        life_begin(board, life, &options, is_proxied);
        /* What is meant for the dead comes here, and nothing else does. */
        FLOOD_WAIT(board, turn(),
                   flood_garbage(board, life, "another node") > 0, SOON_MS);
        if (flood_received(board, life) != 0)
            flood_fail(board, "life %u has the dead one's messages", life);
        /* The peer knows of the death before or after the new one. */
        if (life % 2 == 0)
            atomic_store(&board->ways[PEER][life - 1], FLOOD_WAY_CLOSED);
        life_connect(board, life);
        wait_for_flow(board, life);
        atomic_store(&board->ways[PEER][life - 1], FLOOD_WAY_CLOSED);
        wait_for_flow(board, life);
    }
    atomic_store(&board->phase, FLOOD_LAST);
    FLOOD_WAIT(board, turn(), flood_all_done(board), SOON_MS);
    flood_print(board);
    flood_leave(board);
    for (unsigned i = 0; i < 2 && proxies[i]; i++)
        proxy_destroy(&proxies[i]);
    flood_board_destroy(&board);
}

int main(void)
{
    lives(true);
    lives(false);
    return EXIT_SUCCESS;
}
