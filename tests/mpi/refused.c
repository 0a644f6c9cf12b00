/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rank 1 is also a stranger, with an endpoint of its own, who sends rank 0's
 * fabric what is no frame, frames of another job, and forged ones that name
 * rank 1: rank 0 counts them by reason and nothing else, and goes on serving.
 */
#include "test.h"

#include <unistd.h>

#include "node/node.h"
#include "os/bell.h"
#include "transport/carrier.h"
#include "wire/frame.h"

enum { EACH = 200, FRAME_BYTES = 256, SLOTS = 16, ASKS = 100 };

enum forgery { NOT_A_FRAME, OTHER_JOB, WRONG_TAG, FORGERIES };

static const char *const reasons[FORGERIES] = {
    [NOT_A_FRAME] = "not a frame",
    [OTHER_JOB] = "a frame of another job",
    [WRONG_TAG] = "a frame whose tag is wrong",
};

#define echo_messages(TELL, ASK)                                               \
    ASK(echo, back, (uint64_t value;), (uint64_t value;))
TROUPE_PROTOCOL(echo)

struct echo {
    uint64_t asked;
};

static int on_back(troupe_self_t *self, struct echo *e, const echo_back_t *m)
{
    e->asked++;
    return echo_back_reply(self, (echo_back_result_t){ m->value });
}

TROUPE_ACTOR(echo, struct echo, .back = on_back)

/* --- the stranger --------------------------------------------------------- */

struct stranger {
    struct tri_bell bell;
    struct tri_carrier *carrier;
    struct tri_line *line;
    struct tri_carrier_memory memory;
    struct tri_carrier_frame frames[SLOTS];
    bool in_flight[SLOTS];
    unsigned sent;
};

static void on_frame(void *context, unsigned char *data, size_t bytes)
{
    (void)context, (void)data, (void)bytes;
    CHECK(!"an answer to a stranger");
}

static void on_sent(void *context, struct tri_carrier_frame *frame, bool ok)
{
    struct stranger *stranger = context;

    CHECK(ok);
    stranger->in_flight[frame - stranger->frames] = false;
    stranger->sent++;
}

static void ignore(void *context, void *peer)
{
    (void)context, (void)peer;
}

static void on_garbage(void *context, const char *reason)
{
    (void)context, (void)reason;
}

/* How to reach rank 0's carrier: behind the session's own four bytes. */
static struct tri_address carrier_address(const troupe_t *troupe)
{
    const struct tri_address *whole = &troupe->runtime.link.peers[0].address;
    struct tri_address address = { .bytes = (uint16_t)(whole->bytes - 4) };

    memcpy(address.data, whole->data + 4, address.bytes);
    return address;
}

static void stranger_open(struct stranger *stranger, const troupe_t *troupe)
{
    const struct tri_carrier_ops *ops = &tri_carrier_fabric;
    struct tri_address address = carrier_address(troupe);
    struct tri_carrier_config config = {
        .node = 1,
        .peers_max = 1,
        .bell = &stranger->bell,
        .provider = troupe->runtime.options.provider,
        .interface = troupe->runtime.options.interface,
        .events = { .context = stranger,
                    .frame = on_frame,
                    .sent = on_sent,
                    .writable = ignore,
                    .broke = ignore,
                    .garbage = on_garbage },
    };

    *stranger = (struct stranger){ .memory.bytes = SLOTS * FRAME_BYTES };
    MUST(tri_bell_init(&stranger->bell));
    MUST(ops->open(&config, &stranger->carrier));
    stranger->memory.data = aligned_alloc(FRAME_BYTES, stranger->memory.bytes);
    MUST(stranger->memory.data ? 0 : TROUPE_ENOMEM);
    MUST(ops->memory_add(stranger->carrier, &stranger->memory));
    MUST(ops->connect(stranger->carrier, troupe->runtime.link.peers[0].node,
                      &address, NULL, &stranger->line));
    for (int i = 0; i < SLOTS; i++)
        stranger->frames[i] = (struct tri_carrier_frame){
            .memory = &stranger->memory,
            .data = stranger->memory.data + i * FRAME_BYTES,
            .bytes = FRAME_BYTES,
        };
}

static void stranger_close(struct stranger *stranger)
{
    stranger->carrier->ops->close(stranger->carrier);
    free(stranger->memory.data);
    tri_bell_fini(&stranger->bell);
}

/* A frame of one good record, were it not for the forgery. */
static void forge(const troupe_t *troupe, enum forgery forgery,
                  unsigned char *data)
{
    size_t payload_bytes = FRAME_BYTES - TRI_FRAME_HEADER_BYTES -
                           TRI_FRAME_TAG_BYTES - sizeof(struct tri_record);
    struct tri_record record = { .kind = TRI_TELL,
                                 .bytes = (uint32_t)payload_bytes,
                                 .total_bytes = (uint32_t)payload_bytes };
    struct tri_frame frame = {
        .version = TRI_FRAME_VERSION_MAX,
        .kind = TRI_FRAME_DATA,
        .lane = TRI_LANE_DATA,
        .flags = TRI_FRAME_SEALED,
        .records = 1,
        .bytes = FRAME_BYTES,
        .source = troupe->runtime.node,
        .destination = troupe->runtime.link.peers[0].node,
        .nonce = troupe->cards[0].nonce + (forgery == OTHER_JOB),
        .number = 1000,
        .credit = UINT64_MAX,
    };

    memset(data, 0xa5, FRAME_BYTES);
    if (forgery == NOT_A_FRAME)
        return;
    tri_frame_encode(data, &frame);
    memcpy(data + TRI_FRAME_HEADER_BYTES, &record, sizeof(record));
}

/* Sends the next one, if there is room. True: it was sent. */
static bool stranger_send(struct stranger *stranger, const troupe_t *troupe,
                          unsigned number)
{
    for (int i = 0; i < SLOTS; i++) {
        if (stranger->in_flight[i])
            continue;
        forge(troupe, (enum forgery)(number % FORGERIES),
              stranger->frames[i].data);
        stranger->in_flight[i] = stranger->carrier->ops->send(
                                     stranger->line, &stranger->frames[i]) == 0;
        return stranger->in_flight[i];
    }
    return false;
}

static void ask(troupe_t *troupe, echo_ref_t echo, unsigned n)
{
    echo_back_result_t result;

    for (uint64_t i = 0; i < n; i++) {
        MUST(
            echo_back(troupe, echo, (echo_back_t){ i }, TEST_SOON_MS, &result));
        CHECK_EQ((long long)result.value, (long long)i);
    }
}

static void visit(troupe_t *troupe, echo_ref_t echo)
{
    double end = test_now_ms() + TEST_SOON_MS;
    struct stranger stranger;
    unsigned number = 0;

    ask(troupe, echo, 1);
    stranger_open(&stranger, troupe);
    while (stranger.sent < EACH * FORGERIES && test_now_ms() < end) {
        if (number < EACH * FORGERIES &&
            stranger_send(&stranger, troupe, number))
            number++;
        stranger.carrier->ops->poll(stranger.carrier, SLOTS);
        if (number % 10 == 0)
            ask(troupe, echo, 1); /* the real one goes on */
    }
    CHECK_EQ(stranger.sent, EACH * FORGERIES);
    ask(troupe, echo, ASKS);
    MPI_Barrier(MPI_COMM_WORLD); /* rank 0 has seen them all */
    stranger_close(&stranger);
}

/* --- who is visited --------------------------------------------------------
 */

static uint64_t count_of(troupe_t *troupe, const char *reason)
{
    troupe_refusal_t all[TROUPE_REFUSALS_MAX];
    size_t len = troupe_refused(troupe, all, TROUPE_REFUSALS_MAX);

    for (size_t i = 0; i < len; i++)
        if (strcmp(all[i].reason, reason) == 0)
            return all[i].count;
    return 0;
}

static int has_all(void *arg)
{
    for (int i = 0; i < FORGERIES; i++)
        if (count_of(arg, reasons[i]) < EACH)
            return 0;
    return 1;
}

static void be_visited(troupe_t *troupe)
{
    double end = test_now_ms() + TEST_SOON_MS;
    troupe_stats_t stats;

    while (!has_all(troupe) && test_now_ms() < end)
        troupe_serve(troupe, 1);
    for (int i = 0; i < FORGERIES; i++)
        CHECK_EQ((long long)count_of(troupe, reasons[i]), EACH);
    troupe_stats(troupe, &stats);
    CHECK_EQ((long long)stats.refused, EACH * FORGERIES);
    CHECK_EQ((long long)stats.dead_letters, 0);
    MPI_Barrier(MPI_COMM_WORLD);
}

int main(void)
{
    const char *transport = getenv("TROUPE_TRANSPORT");
    troupe_options_t options;
    char address[TEST_ADDRESS_BYTES];
    troupe_stats_t stats;
    troupe_t *troupe;
    echo_ref_t echo;
    int size;

    if (transport && strcmp(transport, "ring") == 0)
        return 77;
    troupe_options_init(&options);
    options.transport = "fabric";
    options.security = "auth";
    troupe = test_start(&size, &options);
    if (size < 2 || !test_has_workers(troupe) ||
        troupe->security != TRI_SEAL_AUTH) {
        fprintf(stderr, "refused: two ranks, a worker and security=auth are "
                        "needed\n");
        return 77;
    }
    MUST(echo_spawn(troupe, "echo", NULL, &echo));
    MUST(echo_resolve(troupe, test_address(address, 0, "echo"), TEST_SOON_MS,
                      &echo));
    if (test_rank == 0)
        be_visited(troupe);
    else if (test_rank == 1)
        visit(troupe, echo);
    else
        MPI_Barrier(MPI_COMM_WORLD);
    ask(troupe, echo, ASKS);
    troupe_stats(troupe, &stats);
    CHECK(test_rank == 0 || stats.refused == 0);
    return test_end(troupe);
}
