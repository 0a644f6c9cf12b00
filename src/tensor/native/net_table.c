/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Which algorithm for which size: the cheapest by the usual model of latency
 * and bytes (Thakur, Rabenseifner and Gropp), with figures that place 0
 * measures with place 1 at the first use in a process, and tells all. Only
 * integers, so that all come to the same result.
 *
 *     place 0                           place 1        others
 *     MEASURING  PING ->                AWAITING       AWAITING
 *                        <- PONG
 *     TELLING    TABLE ->               OPEN           OPEN
 *     OPEN
 */

#include <stdlib.h>
#include <string.h>

#include "tensor/native/net_internal.h"

/* Round trips of each size; the fastest counts. */
#define ROUNDS 8u
#define SEGMENT_BYTES_MIN 64u
#define LARGE_BYTES (256u << 10)
#define NS_MAX (1000ull * 1000 * 1000)
#define MIB (1ull << 20)

/* TCP between two hosts, for who cannot measure. */
static const struct tri_net_table table_default = {
    .version = 1,
    .segment_bytes = TRI_NET_SEGMENT_BYTES,
    .latency_ns = 20 * 1000,
    .mib_ns = 800 * 1000,
};

/* --- costs ---------------------------------------------------------------- */

struct cost_in {
    const struct tri_net_table *table;
    uint64_t members;
    uint64_t power;  /* of two, not above members */
    uint64_t rounds; /* its logarithm */
    uint64_t bytes;  /* of the vector; at most 2^40 */
};

/* bytes_256: in 1/256 of the vector. */
static uint64_t cost(const struct cost_in *in, uint64_t messages,
                     uint64_t bytes_256)
{
    uint64_t kib = in->bytes / 1024 + 1;

    return messages * in->table->latency_ns +
           kib * in->table->mib_ns / 1024 * bytes_256 / 256;
}

static uint64_t part_256(uint64_t parts)
{
    return 256 * (parts - 1) / parts;
}

static uint64_t cost_of(const struct cost_in *in, uint8_t kind,
                        enum tri_net_algorithm algorithm)
{
    bool is_power = in->power == in->members;
    uint64_t around = in->members - 1;
    uint64_t up = in->rounds + !is_power; /* of a tree of all */
    uint64_t fold = is_power ? 0 : 256;
    bool both = kind == TRI_COLL_ALLREDUCE;
    bool twice = both || kind == TRI_COLL_REDUCE;

    switch (algorithm) {
    case TRI_NET_DOUBLING:
        return cost(in, in->rounds + (is_power ? 0 : 1 + both),
                    256 * in->rounds + fold * (1 + both));
    case TRI_NET_HALVING:
        return cost(in, in->rounds * (1 + twice) + (is_power ? 0 : 1 + both),
                    part_256(in->power) * (1 + twice) + fold * (1 + both));
    case TRI_NET_RING:
        return cost(in, around * (1 + both),
                    part_256(in->members) * (1 + both));
    case TRI_NET_TREE:
        return cost(in, up, 256 * up);
    case TRI_NET_SCATTER:
        return cost(in, up + around, 2 * part_256(in->members));
    default:
        return cost(in, up, part_256(in->members));
    }
}

/* --- choice --------------------------------------------------------------- */

static bool is_allowed(const struct tri_net *net, uint8_t kind,
                       enum tri_net_algorithm algorithm)
{
    return tri_net_plan_exists(kind, algorithm, net->config.len) &&
           !(net->config.canonical && algorithm == TRI_NET_RING &&
             kind != TRI_COLL_ALLGATHER);
}

static enum tri_net_algorithm cheapest(const struct tri_net *net, uint8_t kind,
                                       const struct cost_in *in)
{
    enum tri_net_algorithm best = TRI_NET_AUTO;
    uint64_t best_cost = UINT64_MAX;

    for (unsigned i = TRI_NET_DOUBLING; i < TRI_NET_ALGORITHMS; i++) {
        uint64_t its;

        if (!is_allowed(net, kind, (enum tri_net_algorithm)i))
            continue;
        its = cost_of(in, kind, (enum tri_net_algorithm)i);
        if (its >= best_cost)
            continue;
        best = (enum tri_net_algorithm)i;
        best_cost = its;
    }
    return best;
}

/*
 * What a segment may be so that a member that is far behind is not sent more
 * than it can keep. Of doubling and trees up each of its partners may send it
 * the whole vector; of what is cut among members it gets one vector in all, or
 * two.
 */
static size_t segment_bytes_max(const struct tri_net *net,
                                enum tri_net_algorithm algorithm)
{
    size_t units = TRI_NET_SEGMENTS_AHEAD +
                   (TRI_NET_AHEAD_LEN_MAX - 1) * TRI_NET_SEGMENTS_EARLY;
    size_t vectors = 2;

    if (algorithm == TRI_NET_DOUBLING)
        for (size_t members = 2; members < net->config.len; members *= 2)
            vectors++;
    return TRI_NET_EARLY_BYTES_MAX / units / vectors;
}

/* Elements of a segment, of a block where blocks are members'. Vectors that
 * are little longer stay whole. */
static size_t segment_len_of(const struct tri_net *net,
                             const struct tri_net_request *request,
                             size_t element_bytes, size_t blocks,
                             enum tri_net_algorithm algorithm)
{
    size_t bytes = net->table.segment_bytes, len;

    /* messages of a vector that is cut among many shall not be small */
    if (algorithm != TRI_NET_DOUBLING && algorithm != TRI_NET_TREE)
        bytes *= tri_min(tri_max(net->config.len / 4, 1), 8);
    bytes = tri_min(bytes, segment_bytes_max(net, algorithm));
    len = tri_max(bytes / element_bytes / blocks, 1);
    if (request->count <= len + len / 2)
        len = tri_max(request->count, 1);
    while ((request->count + len - 1) / len > TRI_NET_SEGMENTS_MAX)
        len *= 2;
    return len;
}

struct tri_net_choice tri_net_choose(const struct tri_net *net,
                                     const struct tri_net_request *request,
                                     size_t acc_bytes)
{
    uint8_t kind = request->kind;
    size_t blocks = kind == TRI_COLL_REDUCE_SCATTER ||
                            kind == TRI_COLL_ALLGATHER
                        ? net->config.len
                        : 1;
    struct cost_in in = { .table = &net->table, .members = net->config.len };
    struct tri_net_choice choice;

    in.power = tri_pow2_up(in.members);
    if (in.power > in.members)
        in.power /= 2;
    in.rounds = (uint64_t)__builtin_ctzll(in.power);
    in.bytes = tri_min(request->count * acc_bytes * blocks, 1ull << 40);
    choice.algorithm = net->config.force;
    if (!is_allowed(net, kind, choice.algorithm))
        choice.algorithm = cheapest(net, kind, &in);
    /* Bruck's sends many blocks at once: one piece only of a whole vector */
    if (kind == TRI_COLL_ALLGATHER && net->config.force == TRI_NET_AUTO &&
        in.bytes > 2ull * net->table.segment_bytes &&
        is_allowed(net, kind, TRI_NET_RING))
        choice.algorithm = TRI_NET_RING;
    choice.segment_len = segment_len_of(net, request, acc_bytes, blocks,
                                        choice.algorithm);
    return choice;
}

/* --- measuring ------------------------------------------------------------ */

static bool is_sane(const struct tri_net_table *table)
{
    return table->version == table_default.version &&
           table->segment_bytes >= SEGMENT_BYTES_MIN &&
           table->segment_bytes <= 8 * MIB &&
           table->latency_ns > 0 && table->latency_ns <= NS_MAX &&
           table->mib_ns > 0 && table->mib_ns <= NS_MAX;
}

void tri_net_trial_open(struct tri_net *net)
{
    struct tri_net_trial *trial = &net->trial;

    trial->pong_bytes = UINT32_MAX;
    trial->small_ns = trial->large_ns = UINT64_MAX;
    net->table = table_default;
    if (net->config.len == 1)
        trial->state = TRI_NET_OPEN;
    else if (net->config.index != 0)
        trial->state = TRI_NET_AWAITING;
    else if (net->config.table == NULL)
        trial->state = TRI_NET_MEASURING;
    else
        trial->state = TRI_NET_TELLING;
    if (net->config.segment_bytes_max > 0)
        net->table.segment_bytes = (uint32_t)tri_max(
            tri_min(net->table.segment_bytes, net->config.segment_bytes_max),
            SEGMENT_BYTES_MIN);
    if (net->config.table != NULL && is_sane(net->config.table))
        net->table = *net->config.table;
}

/* No message is larger than a segment may be. */
static uint32_t large_bytes(const struct tri_net *net)
{
    return (uint32_t)tri_min(net->table.segment_bytes, LARGE_BYTES);
}

static int send_ball(struct tri_net *net, uint32_t member, uint16_t what,
                     uint32_t round, uint32_t bytes)
{
    struct tri_coll_head head = { .what = what, .tag = round };
    struct tri_piece piece = { NULL, bytes };

    if (net->trial.memory == NULL)
        net->trial.memory = calloc(1, LARGE_BYTES);
    if (net->trial.memory == NULL)
        return TROUPE_ENOMEM;
    piece.data = net->trial.memory;
    return tri_net_send(net, member, TRI_COLL, &head, NULL, &piece, 1);
}

/* From the fastest round trips to half of each. */
static void evaluate(struct tri_net *net)
{
    struct tri_net_trial *trial = &net->trial;
    uint64_t small = tri_max(trial->small_ns / 2, 1);
    uint64_t large = tri_max(trial->large_ns / 2, small + 1);
    uint64_t mib = (large - small) * MIB / large_bytes(net);

    net->table.latency_ns = tri_min(small, NS_MAX);
    net->table.mib_ns = tri_min(tri_max(mib, 1), NS_MAX);
    trial->state = TRI_NET_TELLING;
    free(trial->memory);
    trial->memory = NULL;
}

static int measure(struct tri_net *net)
{
    struct tri_net_trial *trial = &net->trial;
    uint32_t bytes = trial->round % 2 == 0 ? 0 : large_bytes(net);
    uint64_t now = net->config.now_ns(net->config.context);
    int rc;

    if (trial->round == 2 * ROUNDS) {
        evaluate(net);
        return 0;
    }
    if (trial->is_sent)
        return 0;
    rc = send_ball(net, 1, TRI_NET_PING, trial->round, bytes);
    if (rc == 0) {
        trial->is_sent = true;
        trial->sent_ns = now;
    }
    return rc == TROUPE_EFULL ? 0 : rc;
}

static int tell(struct tri_net *net)
{
    struct tri_net_trial *trial = &net->trial;
    struct tri_piece piece = { &net->table, sizeof(net->table) };
    int rc;

    for (; trial->told + 1 < net->config.len; trial->told++) {
        struct tri_coll_head head = { .what = TRI_NET_TABLE };

        rc = tri_net_send(net, trial->told + 1, TRI_COLL_CONTROL, &head, NULL,
                          &piece, 1);
        if (rc != 0)
            return rc;
    }
    trial->state = TRI_NET_OPEN;
    return 0;
}

static int send_pong(struct tri_net *net)
{
    struct tri_net_trial *trial = &net->trial;
    int rc;

    if (trial->pong_bytes == UINT32_MAX)
        return 0;
    rc = send_ball(net, 0, TRI_NET_PONG, trial->round, trial->pong_bytes);
    if (rc == 0)
        trial->pong_bytes = UINT32_MAX;
    return rc == TROUPE_EFULL ? 0 : rc;
}

int tri_net_trial_progress(struct tri_net *net)
{
    struct tri_net_trial *trial = &net->trial;
    int rc = 0;

    if (trial->state == TRI_NET_AWAITING)
        rc = send_pong(net);
    if (trial->state == TRI_NET_MEASURING)
        rc = measure(net);
    if (rc == 0 && trial->state == TRI_NET_TELLING)
        rc = tell(net);
    if (rc != 0)
        return rc;
    return trial->state == TRI_NET_OPEN ? 0 : TRI_COLL_PENDING;
}

static void on_pong(struct tri_net *net, uint32_t round, size_t bytes)
{
    struct tri_net_trial *trial = &net->trial;
    uint64_t *fastest_p = bytes == 0 ? &trial->small_ns : &trial->large_ns;
    uint64_t ns;

    if (trial->state != TRI_NET_MEASURING || !trial->is_sent ||
        round != trial->round)
        return;
    ns = net->config.now_ns(net->config.context) - trial->sent_ns;
    *fastest_p = tri_min(*fastest_p, ns);
    trial->is_sent = false;
    trial->round++;
}

static void on_table(struct tri_net *net, const char *data, size_t bytes)
{
    struct tri_net_table table;

    if (bytes != sizeof(table) || net->trial.state != TRI_NET_AWAITING)
        return;
    memcpy(&table, data, sizeof(table));
    if (!is_sane(&table))
        return;
    net->table = table;
    net->trial.state = TRI_NET_OPEN;
    free(net->trial.memory);
    net->trial.memory = NULL;
}

void tri_net_trial_received(struct tri_net *net, uint32_t member,
                            const struct tri_coll_head *head, const char *data,
                            size_t bytes)
{
    if (head->what == TRI_NET_PONG && member == 1) {
        on_pong(net, head->tag, bytes);
    } else if (head->what == TRI_NET_PING && member == 0 &&
               net->trial.state == TRI_NET_AWAITING) {
        net->trial.round = head->tag;
        net->trial.pong_bytes = (uint32_t)tri_min(bytes, LARGE_BYTES);
        (void)send_pong(net); /* else open_progress does */
    } else if (head->what == TRI_NET_TABLE && member == 0) {
        on_table(net, data, bytes);
    }
}
