/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "conf.h"

#define NODES_MAX 8
#define PATTERN_PERIOD 251 /* a prime: shifted payloads do not look alike */

static unsigned char pattern[TRI_RECORD_BYTES_MAX + PATTERN_PERIOD];

static void make_pattern(void)
{
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (unsigned char)(i % PATTERN_PERIOD);
}

static void *on_accept(void *context, uint64_t node)
{
    struct conf_end *end = context;

    assert_int_not_equal(node, 0);
    atomic_fetch_add(&end->accepted, 1);
    return end;
}

static bool on_record(void *context, void *peer, enum tri_lane lane,
                      const struct tri_record *record, const void *payload)
{
    struct conf_end *end = context;

    if (peer != context || lane != TRI_LANE_DATA || record->ask < end->next ||
        record->bytes != record->total_bytes ||
        memcmp(payload, pattern + record->ask % PATTERN_PERIOD,
               record->bytes) != 0)
        atomic_fetch_add(&end->wrong, 1);
    end->next = record->ask + 1;
    atomic_fetch_add(&end->received, 1);
    return true;
}

static void on_lost(void *context, uint64_t node, enum tri_evidence evidence)
{
    struct conf_end *end = context;

    end->lost_node = node;
    if (evidence == TRI_EVIDENCE_PROOF)
        atomic_fetch_add(&end->proofs, 1);
    else
        atomic_fetch_add(&end->hints, 1);
}

static void on_garbage(void *context, const char *reason)
{
    struct conf_end *end = context;

    assert_non_null(reason);
    atomic_fetch_add(&end->garbage, 1);
}

static void on_writable(void *context, void *peer)
{
    struct conf_end *end = context;

    assert_ptr_equal(peer, end);
    atomic_fetch_add(&end->writable, 1);
}

uint64_t conf_node_id(void)
{
    uint64_t node;

    assert_int_equal(getrandom(&node, sizeof(node), 0), sizeof(node));
    return node | 1;
}

uint64_t conf_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void conf_end_open(struct conf_end *end,
                   const struct conf_transport *transport, uint64_t nonce)
{
    struct tri_transport_config config = {
        .node = conf_node_id(),
        .job_nonce = nonce,
        .peers_max = NODES_MAX,
        .bell = &end->bell,
        .provider = transport->provider,
        .interface = transport->interface,
        .events = { .context = end,
                    .accept = on_accept,
                    .record = on_record,
                    .lost = on_lost,
                    .garbage = on_garbage,
                    .writable = on_writable },
    };

    make_pattern();
    *end = (struct conf_end){ .under_test = transport, .node = config.node };
    assert_int_equal(tri_bell_init(&end->bell), 0);
    assert_int_equal(transport->ops->open(&config, &end->transport), 0);
    assert_ptr_equal(end->transport->ops, transport->ops);
    assert_true(end->transport->record_bytes_max > 0);
    assert_true(end->transport->record_bytes_max <= TRI_RECORD_BYTES_MAX);
}

void conf_end_close(struct conf_end *end)
{
    assert_int_equal(end->wrong, 0);
    end->transport->ops->close(end->transport);
    tri_bell_fini(&end->bell);
}

void conf_end_connect(struct conf_end *end, struct conf_end *to)
{
    const struct tri_transport_ops *ops = end->transport->ops;
    struct tri_address address = { 0 };

    ops->address(to->transport, &address);
    assert_in_range(address.bytes, 1, TRI_ADDRESS_BYTES_MAX);
    assert_int_equal(
        ops->connect(end->transport, to->node, &address, end, &end->channel),
        0);
}

int conf_end_send(struct conf_end *end, size_t bytes)
{
    const struct tri_transport_ops *ops = end->transport->ops;
    struct tri_span span;
    int error = ops->reserve(end->channel, TRI_LANE_DATA, bytes, &span);

    if (error)
        return error;
    assert_int_equal((uintptr_t)span.payload % 8, 0);
    *span.record = (struct tri_record){ .kind = TRI_TELL,
                                        .bytes = (uint32_t)bytes,
                                        .total_bytes = (uint32_t)bytes,
                                        .ask = end->sent };
    memcpy(span.payload, pattern + end->sent % PATTERN_PERIOD, bytes);
    ops->commit(end->channel);
    end->sent++;
    return 0;
}

void conf_end_pump(struct conf_end *end)
{
    const struct tri_transport_ops *ops = end->transport->ops;

    if (ops->control)
        ops->control(end->transport);
    if (ops->flush && end->channel)
        ops->flush(end->channel);
    ops->poll(end->transport, 64);
}

size_t conf_size(const struct conf_end *end, uint64_t number)
{
    uint64_t random = tri_mix64(number + 1);
    size_t max = end->transport->record_bytes_max;

    if (random % 64 == 0)
        return max;
    if (random % 16 == 0)
        return (random >> 32) % (max + 1);
    return (random >> 32) % 200;
}
