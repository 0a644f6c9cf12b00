/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Broken connections between two living nodes, under full load: all bytes go
 * through a proxy for each direction, which cuts, stalls, refuses and delays
 * at random. Nothing is lost, repeated or reordered, and traffic goes on after
 * each fault. TROUPE_TEST_FAULT_ROUNDS: how many faults.
 *
 * ofi_rxm gets so few receives to lose that the carrier renews its endpoint a
 * few times even in a short run (transport/fabric_renew.c).
 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "../lib/proxy.h"
#include "base/random.h"
#include "flood.h"

enum {
    ENDS = 2,
    ROUNDS = 60,
    BETWEEN_MS_MAX = 60,
    STALL_MS_MAX = 400,
    REFUSE_MS_MAX = 150,
    DELAY_US_MAX = 3000,
    FLOW_RECORDS = 500, /* that must arrive before traffic counts as flowing */
    SOON_MS = 20000,    /* until it flows again, and until all is there */
};

/* proxies[i] stands before end i. */
static struct proxy *proxies[ENDS];

static void turn(void)
{
    proxy_turn(proxies, ENDS, 1);
}

static void turn_for(struct flood_board *board, unsigned ms)
{
    uint64_t until = tri_deadline_ns((int)ms);

    while (tri_now_ns() < until) {
        turn();
        flood_check(board);
    }
}

/* Each end is reached through its proxy alone. */
static void connect_through_proxies(struct flood_board *board)
{
    for (unsigned i = 0; i < ENDS; i++) {
        struct tri_address *address = &board->addresses[1 - i][i];
        struct sockaddr_in in;

        *address = board->seats[i].address;
        flood_address_get(address, &in);
        proxies[i] = proxy_create(ntohs(in.sin_port));
        in.sin_port = htons(proxy_port(proxies[i]));
        flood_address_set(address, &in);
    }
    /* Not before: they begin at once, with the addresses there are. */
    for (unsigned i = 0; i < ENDS; i++)
        atomic_store(&board->ways[1 - i][i], FLOOD_WAY_OPEN);
}

/* Both ends receive. Returns after how many milliseconds. */
static unsigned wait_for_flow(struct flood_board *board)
{
    uint64_t begin = tri_now_ns();
    uint64_t wanted[ENDS];

    for (unsigned i = 0; i < ENDS; i++)
        wanted[i] = flood_received(board, i) + FLOW_RECORDS;
    FLOOD_WAIT(board, turn(),
               flood_received(board, 0) >= wanted[0] &&
                   flood_received(board, 1) >= wanted[1],
               SOON_MS);
    return (unsigned)((tri_now_ns() - begin) / TRI_NS_PER_MS);
}

/* Something happens to one proxy, or to both. */
static void one_fault(struct tri_random *random)
{
    unsigned which = tri_random_below(random, 3);
    unsigned what = tri_random_below(random, 8);
    int stall_ms = (int)tri_random_below(random, STALL_MS_MAX);
    int refuse_ms = (int)tri_random_below(random, REFUSE_MS_MAX);
    uint64_t delay_ns = tri_random_below(random, DELAY_US_MAX) * 1000ull;

    for (unsigned i = 0; i < ENDS; i++) {
        if (which == i)
            continue;
        switch (what) {
        case 0:
        case 1:
        case 2:
            proxy_cut(proxies[i], PROXY_RESET);
            break;
        case 3:
            proxy_cut(proxies[i], PROXY_CLOSE);
            break;
        case 4: /* connections stay */
            proxy_stall(proxies[i], tri_deadline_ns(stall_ms));
            break;
        case 5: /* a black hole that ends with a reset */
            proxy_cut(proxies[i], PROXY_RESET);
            proxy_stall(proxies[i], tri_deadline_ns(stall_ms));
            break;
        case 6:
            proxy_cut(proxies[i], PROXY_CLOSE);
            proxy_refuse(proxies[i], tri_deadline_ns(refuse_ms));
            break;
        default:
            proxy_delay(proxies[i], delay_ns);
        }
    }
}

static void faults(struct flood_board *board, unsigned rounds)
{
    struct tri_random random;
    unsigned longest_ms = 0;

    tri_random_init(&random, board->seed);
    for (unsigned i = 0; i < rounds; i++) {
        one_fault(&random);
        turn_for(board, tri_random_below(&random, BETWEEN_MS_MAX));
        /* Now and then a further one before traffic is back. */
        if (tri_random_below(&random, 4) != 0) {
            unsigned ms = wait_for_flow(board);

            longest_ms = ms > longest_ms ? ms : longest_ms;
        }
    }
    printf("%u faults, traffic was back after at most %u ms; %llu and %llu "
           "connections, %llu MiB\n",
           rounds, longest_ms,
           (unsigned long long)proxy_connections(proxies[0]),
           (unsigned long long)proxy_connections(proxies[1]),
           (unsigned long long)(proxy_bytes(proxies[0]) +
                                proxy_bytes(proxies[1])) >>
               20);
}

int main(void)
{
    struct flood_options options = { .interface = "127.0.0.1",
                                     .provider = getenv("TROUPE_PROVIDER"),
                                     .pauses = true };
    struct flood_board *board = flood_board_create("cut", ENDS);

    setenv("FI_OFI_RXM_RX_SIZE", "40", 0);
    setenv("FI_OFI_RXM_MSG_RX_SIZE", "16", 0);
    for (unsigned i = 0; i < ENDS; i++)
        flood_start(board, i, &options);
    FLOOD_WAIT(board, flood_nap(), flood_all_open(board), FLOOD_SOON_MS);
    connect_through_proxies(board);
    wait_for_flow(board);
    faults(board, flood_rounds(ROUNDS));

    for (unsigned i = 0; i < ENDS; i++)
        proxy_delay(proxies[i], 0);
    atomic_store(&board->phase, FLOOD_LAST);
    FLOOD_WAIT(board, turn(), flood_all_done(board), SOON_MS);
    /* Acknowledgements are on their way yet. */
    turn_for(board, 100);
    flood_check(board);
    flood_print(board);
    flood_leave(board);
    for (unsigned i = 0; i < ENDS; i++)
        proxy_destroy(&proxies[i]);
    flood_board_destroy(&board);
    return EXIT_SUCCESS;
}
