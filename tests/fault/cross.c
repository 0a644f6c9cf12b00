/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crossing connects: eight processes that all send to all others first, at
 * the same moment, each time freshly started. Everything arrives, once and in
 * order. TROUPE_TEST_FAULT_ROUNDS: how many starts.
 */
#include <stdio.h>
#include <stdlib.h>

#include "flood.h"

enum {
    ENDS = 8,
    ROUNDS = 5,
    BURST = 20,
    BEGIN_MS = 50, /* after the last is open */
    SOON_MS = 20000,
};

static bool all_there(const struct flood_board *board)
{
    for (unsigned i = 0; i < ENDS; i++)
        if (flood_received(board, i) < (ENDS - 1) * TRI_LANES * BURST)
            return false;
    return flood_all_done(board);
}

/* Returns after how many milliseconds all had everything. */
static unsigned one_start(struct flood_board *board)
{
    struct flood_options options = { .interface = "127.0.0.1",
                                     .provider = getenv("TROUPE_PROVIDER"),
                                     .seal = TRI_SEAL_AUTH,
                                     .burst = BURST };
    uint64_t begin_ns;

    for (unsigned i = 0; i < ENDS; i++)
        flood_start(board, i, &options);
    FLOOD_WAIT(board, flood_nap(), flood_all_open(board), FLOOD_SOON_MS);
    /* Before anybody begins: who calls an end that has no address of it yet is
     * a stranger there. */
    for (unsigned i = 0; i < ENDS; i++)
        for (unsigned k = 0; k < ENDS; k++)
            if (i != k)
                board->addresses[i][k] = board->seats[k].address;
    begin_ns = tri_deadline_ns(BEGIN_MS);
    atomic_store(&board->begin_ns, begin_ns);
    for (unsigned i = 0; i < ENDS; i++)
        for (unsigned k = 0; k < ENDS; k++)
            if (i != k)
                atomic_store(&board->ways[i][k], FLOOD_WAY_BURST);
    FLOOD_WAIT(board, flood_nap(), all_there(board), SOON_MS);
    for (unsigned i = 0; i < ENDS; i++)
        if (board->seats[i].garbage != 0 || board->seats[i].strangers != 0)
            flood_fail(board, "end %u has received something else", i);
    flood_leave(board);
    return (unsigned)((tri_now_ns() - begin_ns) / TRI_NS_PER_MS);
}

int main(void)
{
    unsigned rounds = flood_rounds(ROUNDS);

    for (unsigned i = 0; i < rounds; i++) {
        struct flood_board *board = flood_board_create("cross", ENDS);

        printf("all there and closed after %u ms\n", one_start(board));
        flood_board_destroy(&board);
    }
    return EXIT_SUCCESS;
}
