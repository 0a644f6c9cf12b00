/* SPDX-License-Identifier: BSD-3-Clause */

/* Records of a peer that says what it likes, in any order: pieces, messages
 * to be pulled, answers. The link must not lose memory or write beside its
 * messages. */

#include "fuzz.h"

#include "base/log.h"
#include "link/link.h"
#include "message/pool.h"

enum { MESSAGE_BYTES_MAX = 1 << 16, POOL_BYTES_MAX = 80 << 20 };

static int pull_error; /* chosen by the input */

static void on_record(void *context, struct tri_peer *peer,
                      const struct tri_record *record, const void *payload)
{
    (void)context, (void)peer;
    fuzz_touch(payload, record->bytes);
}

static void on_message(void *context, struct tri_peer *peer,
                       struct tri_message *message)
{
    (void)context, (void)peer;
    FUZZ_CHECK(message->bytes <= MESSAGE_BYTES_MAX);
    tri_message_free(message);
}

static bool on_unpark(void *context, struct tri_peer *peer,
                      struct tri_message *message)
{
    (void)context, (void)peer;
    tri_message_free(message);
    return true;
}

static void on_room(void *context)
{
    (void)context;
}

static void on_refused(void *context, struct tri_peer *peer,
                       const struct tri_record *record, int reason)
{
    (void)context, (void)peer, (void)record;
    FUZZ_CHECK(reason == TROUPE_ETOOBIG || reason == TROUPE_ENOMEM);
}

static void on_undelivered(void *context, struct tri_peer *peer,
                           struct tri_message *message, int reason)
{
    (void)context, (void)peer, (void)reason;
    tri_message_free(message);
}

static void on_died(void *context, struct tri_peer *peer)
{
    (void)context, (void)peer;
}

static int no_connect(struct tri_transport *transport, uint64_t node,
                      const struct tri_address *address, void *peer,
                      struct tri_channel **channel_p)
{
    (void)transport, (void)node, (void)address, (void)peer, (void)channel_p;
    return TROUPE_ELIMIT;
}

static int fake_pull(struct tri_transport *transport, uint64_t node,
                     uint64_t address, void *into, size_t bytes)
{
    (void)transport, (void)node;
    memset(into, (int)address, bytes);
    return pull_error;
}

static const struct tri_transport_ops ops = {
    .name = "fuzz",
    .connect = no_connect,
    .pull = fake_pull,
};

static void feed(struct tri_link *link, struct tri_peer *peer,
                 const uint8_t *data, size_t bytes)
{
    struct tri_transport_events events = tri_link_transport_events(link);
    struct tri_record record;

    while (bytes >= sizeof(record)) {
        memcpy(&record, data, sizeof(record));
        data += sizeof(record);
        bytes -= sizeof(record);
        if (!tri_record_check(&record, bytes))
            return;
        if (record.kind != TRI_PULL)
            events.record(link, peer, tri_lane_of(record.kind), &record,
                          data);
        else
            while (!events.pull(link, peer, &record, data))
                ;
        data += record.bytes;
        bytes -= record.bytes;
        if (record.slot == 0xffffffff)
            events.ended(link, peer);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const int errors[] = { 0, TROUPE_ENODE, TROUPE_ETRANSPORT, 0 };
    struct tri_transport transport = { .ops = &ops,
                                       .record_bytes_max = 32768 };
    struct tri_link_config config = {
        .node = 1,
        .peers_len = 2,
        .outbox_bytes_max = 4096,
        .parked_bytes_max = 1 << 20,
        .message_bytes_max = MESSAGE_BYTES_MAX,
        .events = { NULL, on_record, on_message, on_unpark, on_room, on_refused,
                    on_undelivered, NULL, on_died, NULL, NULL,
                    NULL },
    };
    struct tri_address address = { .bytes = 0 };
    struct tri_link link;

    if (bytes == 0 || tri_link_init(&link, &config) != 0)
        return 0;
    tri_log_init(TRI_LOG_ERROR, -1);
    pull_error = errors[data[0] % tri_array_len(errors)];
    tri_link_set_peer(&link, 1, 2, &transport, &address);
    feed(&link, &link.peers[1], data + 1, bytes - 1);
    tri_link_fini(&link);
    /* What is kept for reuse; a leak would grow beyond it. */
    FUZZ_CHECK(tri_pool_bytes() <= POOL_BYTES_MAX);
    return 0;
}
