/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The session transport, whole, between a link and a carrier that do what the
 * input says. Peers know the job's key and say what they like: numbers,
 * acknowledgements and records, in any order, again, spoiled. Each record
 * that they make says where it belongs, so it is seen that
 *  - what is delivered is in order, complete and unchanged, once;
 *  - nothing is delivered that has a wrong tag, or after a refusal;
 *  - what is sent is sealed, in order, and the same when it is sent again;
 *  - the core's invariants hold, and all frames come back to the pool.
 */

#include "fuzz.h"

#include <time.h>

#include "base/clock.h"
#include "carrier.h"
#include "link/session_internal.h"

enum { NODE = 1, PEERS = 4, PEERS_MAX = 3, KEPT = 8, BODY_MAX = 4096 };

#define KEY "known to all peers"
#define NONCE 0x9e3779b97f4a7c15ull

/* One lane of one peer, both directions. */
struct lane {
    uint64_t number;    /* of the frame whose records come now */
    uint32_t index;     /* of the record that comes next */
    uint32_t records;   /* of that frame */
    uint64_t made;      /* frames that the peer numbered */
    uint64_t committed; /* records of ours */
    uint64_t left;      /* records of ours that left */
    uint64_t sent;      /* the last number of ours that left */
    uint64_t hashes[TRI_SESSION_FRAMES_MAX];
    uint32_t probe; /* that we were asked */
};

struct peer {
    uint64_t node;
    struct tri_channel *channel;
    struct tri_seal *seal; /* the peer's; NULL until it is needed */
    struct lane lanes[TRI_LANES];
    uint64_t made_acks, sent_acks;
    bool is_refused; /* data, until resume */
    bool is_dead;
    bool was_connected;  /* else the session learns of its death late */
    unsigned dead_since; /* calls */
};

static struct kept {
    size_t bytes;
    unsigned char data[TRI_FRAME_BYTES_MAX];
} kept[KEPT];

static struct {
    const uint8_t *at;
    size_t left;
} input;

static struct peer peers[PEERS];
static struct tri_transport *transport;
static enum tri_seal_mode mode;
static unsigned calls; /* of poll and resume */
static unsigned kept_len;
static unsigned takes;    /* data records until one is refused */
static uint8_t on_record; /* what else happens at the next record */
static uint64_t now_ns;

/* In place of the system's: see Makefile.am. */
int clock_gettime(clockid_t clock, struct timespec *ts)
{
    (void)clock;
    ts->tv_sec = (time_t)(now_ns / 1000000000u);
    ts->tv_nsec = (long)(now_ns % 1000000000u);
    return 0;
}

/* --- the input ----------------------------------------------------------- */

static uint8_t take_u8(void)
{
    if (input.left == 0)
        return 0;
    input.left--;
    return *input.at++;
}

static uint16_t take_u16(void)
{
    uint16_t low = take_u8();

    return (uint16_t)(low | take_u8() << 8);
}

static uint64_t take_u64(void)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < 4; i++)
        value = value << 16 | take_u16();
    return value;
}

static struct peer *take_peer(void)
{
    return &peers[take_u8() % PEERS];
}

/* --- what a record says of itself ---------------------------------------- */

static uint32_t digest(const struct tri_record *record, unsigned lane)
{
    return tri_fnv32((uint32_t)(record->ask * TRI_LANES + lane), record + 1,
                     record->bytes);
}

static void stamp(unsigned char *data, const struct tri_frame *frame)
{
    size_t at = TRI_FRAME_HEADER_BYTES;

    for (unsigned i = 0; i < frame->records; i++) {
        struct tri_record *record = (void *)(data + at);

        record->sender_node = frame->source;
        record->ask = frame->number;
        record->index = (uint16_t)i;
        record->value = frame->records;
        record->type = digest(record, frame->lane);
        at += tri_frame_record_bytes(record->bytes);
    }
}

/* --- the link's side: events --------------------------------------------- */

static void send_some(struct peer *peer);
static void end(struct peer *peer);

static void *on_accept(void *context, uint64_t node)
{
    (void)context;
    for (unsigned i = 0; i < PEERS; i++)
        if (peers[i].node == node && !peers[i].is_dead)
            return &peers[i];
    return NULL;
}

static const struct tri_address *on_address(void *context, uint64_t node)
{
    static struct tri_address address;

    (void)context;
    address = (struct tri_address){ .bytes = 5 };
    address.data[0] = TRI_FRAME_VERSION_MIN;
    address.data[1] = TRI_FRAME_VERSION_MAX;
    address.data[2] = (uint8_t)mode;
    address.data[4] = (uint8_t)node;
    return node == peers[PEERS - 1].node ? NULL : &address;
}

static void check_order(struct lane *lane, const struct tri_record *record)
{
    if (lane->index == lane->records) {
        lane->number++;
        lane->index = 0;
        lane->records = (uint32_t)record->value;
    }
    FUZZ_CHECK(record->ask == lane->number && record->index == lane->index);
    FUZZ_CHECK((uint32_t)record->value == lane->records);
    lane->index++;
}

/* Something else that happens meanwhile, on another thread. */
static void run_beside(struct peer *peer)
{
    uint8_t what = on_record;

    on_record = 0;
    if (what == 1)
        end(peer);
    else if (what == 2)
        send_some(peer);
}

static bool on_record_event(void *context, void *peer_, enum tri_lane lane,
                            const struct tri_record *record,
                            const void *payload)
{
    struct peer *peer = peer_;

    (void)context;
    FUZZ_CHECK(payload == record + 1);
    FUZZ_CHECK(!peer->is_dead || peer->dead_since == calls ||
               !peer->was_connected);
    FUZZ_CHECK(lane < TRI_LANES && record->sender_node == peer->node);
    FUZZ_CHECK(record->type == digest(record, lane));
    if (lane == TRI_LANE_DATA) {
        FUZZ_CHECK(!peer->is_refused);
        peer->is_refused = takes == 0;
        if (takes == 0)
            return false;
        takes--;
    }
    check_order(&peer->lanes[lane], record);
    run_beside(peer);
    return true;
}

static void on_garbage(void *context, const char *reason)
{
    (void)context;
    FUZZ_CHECK(strlen(reason) > 0);
}

static void on_writable(void *context, void *peer_)
{
    struct peer *peer = peer_;

    (void)context;
    FUZZ_CHECK(peer->channel && !peer->is_dead);
    (void)transport->ops->flush(peer->channel);
}

/* --- the link's side: calls ---------------------------------------------- */

static uint8_t kind_on(unsigned lane)
{
    static const uint8_t kinds[TRI_LANES] = { TRI_PULLED, TRI_REPLY, TRI_TELL };

    return kinds[lane];
}

static void send_one(struct peer *peer, enum tri_lane lane, size_t bytes)
{
    struct tri_span span;
    int rc = transport->ops->reserve(peer->channel, lane, bytes, &span);

    FUZZ_CHECK(rc == 0 || rc == TROUPE_EFULL);
    if (rc != 0)
        return;
    *span.record = (struct tri_record){
        .kind = kind_on(lane),
        .bytes = (uint32_t)bytes,
        .total_bytes = (uint32_t)bytes,
        .ask = ++peer->lanes[lane].committed,
    };
    memset(span.payload, (int)peer->lanes[lane].committed, bytes);
    span.record->type = digest(span.record, lane);
    transport->ops->commit(peer->channel);
}

static void send_some(struct peer *peer)
{
    enum tri_lane lane = take_u8() % TRI_LANES;
    unsigned n = take_u8() % 32;
    size_t bytes = take_u16() % (transport->record_bytes_max + 1);

    if (!peer->channel)
        return;
    do
        send_one(peer, lane, bytes);
    while (n-- > 0);
}

static void flush(struct peer *peer)
{
    int rc;

    if (!peer->channel)
        return;
    rc = transport->ops->flush(peer->channel);
    FUZZ_CHECK(rc == 0 || rc == TROUPE_EFULL);
}

struct unread {
    uint64_t records;
    uint64_t last[TRI_LANES];
};

static void on_unread(void *context, const struct tri_record *record,
                      const void *payload)
{
    struct unread *unread = context;
    unsigned lane = tri_lane_of(record->kind);

    FUZZ_CHECK(payload == record + 1);
    FUZZ_CHECK(record->type == digest(record, lane));
    FUZZ_CHECK(record->ask > unread->last[lane]);
    unread->last[lane] = record->ask;
    unread->records++;
}

static void check_unread(struct peer *peer)
{
    struct unread unread = { 0 };

    if (!peer->channel)
        return;
    transport->ops->each_unread(peer->channel, on_unread, &unread);
    FUZZ_CHECK(unread.records == transport->ops->unread(peer->channel));
}

/* Its death, once. */
static void end(struct peer *peer)
{
    struct tri_channel *channel = peer->channel;

    if (peer->is_dead)
        return;
    peer->is_dead = true;
    peer->was_connected = channel != NULL;
    peer->dead_since = calls;
    peer->channel = NULL;
    if (channel)
        transport->ops->disconnect(channel);
}

static void take_address(struct tri_address *address_p)
{
    size_t n = take_u16() % (TRI_ADDRESS_BYTES_MAX + 8);

    address_p->bytes = (uint16_t)n;
    for (size_t i = 0; i < n && i < TRI_ADDRESS_BYTES_MAX; i++)
        address_p->data[i] = take_u8();
}

static void check_address(const struct tri_address *address)
{
    const struct tri_address *inner = fuzz_carrier_address();
    const uint8_t *data = address->data;

    FUZZ_CHECK(address->bytes == inner->bytes + 4 && data[3] == 0);
    FUZZ_CHECK(data[0] <= TRI_FRAME_VERSION_MAX && data[2] == mode &&
               data[1] >= TRI_FRAME_VERSION_MIN && data[0] <= data[1]);
    FUZZ_CHECK(memcmp(data + 4, inner->data, inner->bytes) == 0);
}

static void connect_to(struct peer *peer)
{
    struct session_transport *session = tri_session_transport_of(transport);
    bool is_good = take_u8() % 4 != 0;
    bool is_there = tri_session_remote_find(session, peer->node) != NULL;
    struct tri_address address = { 0 };
    int rc;

    if (is_good)
        transport->ops->address(transport, &address);
    else
        take_address(&address);
    if (peer->channel || peer->is_dead)
        return;
    rc = transport->ops->connect(transport, peer->node, &address, peer,
                                 &peer->channel);
    FUZZ_CHECK(rc == 0 || rc == TROUPE_ELIMIT || rc == TROUPE_EPROTO ||
               rc == TROUPE_ETRANSPORT);
    FUZZ_CHECK(rc != 0 || peer->channel);
    if (rc == 0 && !is_there)
        check_address(&address);
}

static struct tri_seal *seal_of(struct peer *peer)
{
    static const unsigned char key[TRI_KEY_BYTES] = KEY;

    if (!peer->seal)
        FUZZ_CHECK(!tri_seal_create(key, mode, peer->node, NODE, &peer->seal));
    return peer->seal;
}

/* --- the peers' side: what they hear ------------------------------------- */

/* As the peer sees it: a copy, opened. */
static void open_frame(struct peer *peer, struct tri_frame *frame,
                       unsigned char *copy, const unsigned char *data,
                       size_t bytes)
{
    memcpy(copy, data, bytes);
    FUZZ_CHECK(tri_frame_decode(copy, bytes, frame) == NULL);
    FUZZ_CHECK(frame->source == NODE && frame->destination == peer->node &&
               frame->nonce == NONCE);
    FUZZ_CHECK((mode == TRI_SEAL_NONE) == (frame->flags == 0));
    FUZZ_CHECK(tri_seal_open(seal_of(peer), tri_frame_seal_number(frame), copy,
                             TRI_FRAME_HEADER_BYTES,
                             bytes - TRI_FRAME_HEADER_BYTES -
                                 tri_frame_tag_bytes(frame)));
}

/* A frame of records goes out first in order, and again as it was. */
static void hear_data(struct lane *lane, const struct tri_frame *frame,
                      const unsigned char *data)
{
    uint64_t *hash = &lane->hashes[frame->number % TRI_SESSION_FRAMES_MAX];
    uint64_t now = tri_fnv64(frame->number, data, 64);
    size_t at = TRI_FRAME_HEADER_BYTES;

    FUZZ_CHECK(tri_frame_check_records(data, frame) == NULL);
    if (frame->number <= lane->sent) {
        FUZZ_CHECK(*hash == now);
        return;
    }
    FUZZ_CHECK(frame->number == lane->sent + 1);
    lane->sent = frame->number;
    *hash = now;
    for (unsigned i = 0; i < frame->records; i++) {
        const struct tri_record *record = (const void *)(data + at);

        FUZZ_CHECK(record->ask == ++lane->left);
        FUZZ_CHECK(record->type == digest(record, frame->lane));
        at += tri_frame_record_bytes(record->bytes);
    }
    FUZZ_CHECK(lane->left <= lane->committed);
}

static void on_carried(uint64_t node, const unsigned char *data, size_t bytes)
{
    static unsigned char copy[TRI_FRAME_BYTES_MAX]
        __attribute__((aligned(TRI_FRAME_ALIGN)));
    struct tri_frame frame;
    struct peer *peer = NULL;

    for (unsigned i = 0; i < PEERS; i++)
        if (peers[i].node == node)
            peer = &peers[i];
    FUZZ_CHECK(peer && !(peer->is_dead && peer->was_connected));
    open_frame(peer, &frame, copy, data, bytes);
    if (frame.probe != 0)
        peer->lanes[frame.ack_lane].probe = frame.probe;
    if (frame.kind == TRI_FRAME_DATA) {
        hear_data(&peer->lanes[frame.lane], &frame, copy);
        return;
    }
    FUZZ_CHECK(frame.number == peer->sent_acks + 1);
    peer->sent_acks = frame.number;
}

/* --- the peers' side: what they say -------------------------------------- */

/* Mostly the next, else one around it. */
static uint64_t take_number(uint64_t *made)
{
    uint8_t how = take_u8();

    if (how < 128 || *made == 0)
        return ++*made;
    return (*made + how % 128 > 64 ? *made + how % 128 - 64 : 1);
}

static void take_acks(struct peer *peer, struct tri_frame *frame)
{
    uint8_t how = take_u8();
    const struct lane *lane;

    frame->ack_lane = how % TRI_LANES;
    lane = &peer->lanes[frame->ack_lane];
    frame->ack = lane->sent - tri_min(lane->sent, (uint64_t)(how >> 2) % 8);
    frame->credit = UINT64_MAX >> (how >> 4) * 4;
    if (how & 0x80) {
        frame->sack = take_u8();
        frame->probe = take_u8();
        frame->echo = lane->probe + take_u8() % 2;
    }
    if (how == 0xff) {
        frame->ack = take_u64();
        frame->sack = take_u64();
        frame->credit = take_u64();
    }
}

/* Records as they should be. Returns the bytes. */
static size_t put_records(unsigned char *data, struct tri_frame *frame)
{
    unsigned n = 1 + take_u8() % 16;
    size_t payload = take_u16() % (BODY_MAX / n - sizeof(struct tri_record));
    size_t at = TRI_FRAME_HEADER_BYTES;

    for (unsigned i = 0; i < n; i++) {
        struct tri_record *record = (void *)(data + at);

        memset(record, 0, tri_frame_record_bytes(payload));
        record->kind = kind_on(frame->lane);
        record->bytes = record->total_bytes = (uint32_t)payload;
        memset(record + 1, (int)(frame->number + i), payload);
        at += tri_frame_record_bytes(payload);
    }
    frame->records = (uint16_t)n;
    return at;
}

/* Records of the input's invention. */
static size_t put_bytes(unsigned char *data, struct tri_frame *frame)
{
    size_t n = tri_min(take_u16() % BODY_MAX, input.left);

    frame->records = take_u8();
    n = tri_min(n, input.left);
    memcpy(data + TRI_FRAME_HEADER_BYTES, input.at, n);
    input.at += n;
    input.left -= n;
    return TRI_FRAME_HEADER_BYTES + n;
}

/* Ways to make a frame. */
enum { IS_DATA = 1, IS_INVENTED = 2, IS_SPOILED = 4, IS_CUT = 8 };

/* Without a seal some changes cannot be told from a frame that was meant. */
static void spoil(unsigned char *data, size_t bytes)
{
    size_t at = take_u16() % bytes;

    if (mode == TRI_SEAL_NONE && (at >= 32 || at == 6 || at / 16 == 1))
        at = 24;
    if (mode == TRI_SEAL_NONE && at >= 8 && at < 16)
        at = 0;
    data[at] ^= (unsigned char)(1u << take_u8() % 8);
}

static size_t make_frame(struct peer *peer, unsigned char *data, uint8_t how)
{
    struct tri_frame frame = { .version = TRI_FRAME_VERSION_MAX,
                               .kind = TRI_FRAME_ACK,
                               .source = peer->node,
                               .destination = NODE,
                               .nonce = NONCE };
    size_t bytes = TRI_FRAME_HEADER_BYTES;

    if (mode != TRI_SEAL_NONE)
        frame.flags = mode == TRI_SEAL_AUTH
                          ? TRI_FRAME_SEALED
                          : TRI_FRAME_SEALED | TRI_FRAME_ENCRYPTED;
    if (how & IS_DATA) {
        frame.kind = TRI_FRAME_DATA;
        frame.lane = take_u8() % TRI_LANES;
        frame.number = take_number(&peer->lanes[frame.lane].made);
    } else {
        frame.number = take_number(&peer->made_acks);
    }
    take_acks(peer, &frame);
    if (how & IS_DATA)
        bytes = how & IS_INVENTED ? put_bytes(data, &frame)
                                  : put_records(data, &frame);
    frame.bytes = (uint32_t)(bytes + tri_frame_tag_bytes(&frame));
    tri_frame_encode(data, &frame);
    if (how & IS_DATA && !tri_frame_check_records(data, &frame))
        stamp(data, &frame);
    FUZZ_CHECK(!tri_seal_close(seal_of(peer), tri_frame_seal_number(&frame),
                               data, TRI_FRAME_HEADER_BYTES,
                               bytes - TRI_FRAME_HEADER_BYTES));
    return frame.bytes;
}

static void frame_arrives(struct peer *peer)
{
    struct kept *frame = &kept[kept_len++ % KEPT];
    uint8_t how = take_u8();

    frame->bytes = make_frame(peer, frame->data, how);
    if (how & IS_SPOILED)
        spoil(frame->data, frame->bytes);
    if (how & IS_CUT && how & IS_SPOILED)
        frame->bytes = take_u16() % frame->bytes;
    fuzz_carrier_frame(frame->data, frame->bytes);
}

static void frame_arrives_again(void)
{
    const struct kept *frame = &kept[take_u8() % KEPT];

    if (frame->bytes > 0)
        fuzz_carrier_frame(frame->data, frame->bytes);
}

/* Nobody guesses the nonce, except one who reads it from the program. */
static void bytes_arrive(void)
{
    size_t n = tri_min(take_u16() % (TRI_FRAME_BYTES_MAX + 64), input.left);
    unsigned char *data = malloc(n + 1);
    struct tri_frame frame;

    if (!data)
        return;
    n = tri_min(n, input.left);
    memcpy(data, input.at, n);
    input.at += n;
    input.left -= n;
    if (!tri_frame_decode_common(data, n, &frame) && frame.nonce == NONCE)
        data[24] ^= 1;
    fuzz_carrier_frame(data, n);
    free(data);
}

/* --- the machine --------------------------------------------------------- */

static void on_poll(void)
{
    unsigned events = take_u8() % 64;

    while (events-- > 0 && input.left > 0) {
        uint8_t what = take_u8();

        switch (what % 12) {
        case 0:
            bytes_arrive();
            break;
        case 1:
            frame_arrives_again();
            break;
        case 2:
            fuzz_carrier_writable(what / 12);
            break;
        case 3:
            fuzz_carrier_broke(what / 12);
            break;
        case 4:
            fuzz_carrier_give_back(what / 12, false);
            break;
        case 5:
        case 6:
            fuzz_carrier_give_back(0, true);
            break;
        case 7:
            end(&peers[what / 12 % PEERS]);
            break;
        default:
            frame_arrives(take_peer());
            break;
        }
    }
}

static void resume(struct peer *peer)
{
    peer->is_refused = false;
    calls++;
    transport->ops->resume(transport, peer);
}

static void poll(void)
{
    calls++;
    transport->ops->poll(transport, 256);
}

static void step(void)
{
    uint8_t what = take_u8();

    switch (what % 16) {
    case 0:
        connect_to(take_peer());
        break;
    case 1:
    case 2:
        send_some(take_peer());
        break;
    case 3:
        flush(take_peer());
        break;
    case 4:
        check_unread(take_peer());
        break;
    case 5:
        takes = what / 16;
        resume(take_peer());
        break;
    case 6:
        end(take_peer());
        break;
    case 7:
        now_ns += take_u8() * TRI_NS_PER_MS / 4;
        break;
    case 8:
        takes = take_u8() % 64;
        break;
    case 9:
        on_record = what / 16 % 3;
        break;
    case 10:
        fuzz_carrier_set_sends(take_u8());
        break;
    case 11:
        (void)transport->ops->pending(transport);
        break;
    default:
        poll();
        break;
    }
}

static void check_all(void)
{
    struct session_transport *session = tri_session_transport_of(transport);
    struct session_remote *remote;

    FUZZ_CHECK(session->remotes_len <= PEERS_MAX);
    for (uint32_t i = 0; i <= session->buckets_mask; i++)
        SLIST_FOREACH(remote, &session->buckets[i], bucket)
    FUZZ_CHECK(tri_session_check(&remote->core) == NULL);
}

/* All frames are back in the pool when their remotes are gone. */
static void end_all(void)
{
    struct session_transport *session = tri_session_transport_of(transport);
    struct tri_stored *stored;
    unsigned n = 0;

    for (unsigned i = 0; i < PEERS; i++)
        end(&peers[i]);
    for (unsigned i = 0; i < 3; i++)
        poll();
    FUZZ_CHECK(STAILQ_EMPTY(&session->closing));
    if (session->remotes_len > 0)
        return; /* none ever connected to them */
    STAILQ_FOREACH(stored, &session->pool.free, next)
    n++;
    FUZZ_CHECK(n == session->pool.slabs_len * SESSION_SLAB_FRAMES);
    FUZZ_CHECK(session->pool.shared_len == 0);
}

static void give_all_back(void)
{
    while (fuzz_carrier_in_flight() > 0)
        fuzz_carrier_give_back(0, true);
}

static void setup(void)
{
    static const unsigned char key[TRI_KEY_BYTES] = KEY;
    struct tri_transport_config config = {
        .node = NODE,
        .job_nonce = NONCE,
        .peers_max = PEERS_MAX,
        .carrier = &fuzz_carrier_ops,
        .seal = mode,
        .key = key,
        .events = { .accept = on_accept,
                    .address = on_address,
                    .record = on_record_event,
                    .garbage = on_garbage,
                    .writable = on_writable },
    };

    memset(peers, 0, sizeof(peers));
    for (unsigned i = 0; i < KEPT; i++)
        kept[i].bytes = 0;
    for (unsigned i = 0; i < PEERS; i++)
        peers[i].node = NODE + 1 + i;
    calls = kept_len = on_record = 0;
    now_ns = 1000 * TRI_NS_PER_MS;
    FUZZ_CHECK(!tri_transport_session.open(&config, &transport));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct fuzz_carrier_hooks hooks = { on_poll, on_carried };
    static struct fuzz_carrier_hooks last = { give_all_back, on_carried };
    bool ends;

    input.at = data;
    input.left = bytes;
    mode = take_u8() % 3;
    ends = take_u8() % 2;
    takes = take_u8();
    fuzz_carrier_init(&hooks, take_u8());
    setup();
    while (input.left > 0) {
        step();
        check_all();
    }
    if (ends) {
        fuzz_carrier_set_hooks(&last);
        end_all();
    }
    transport->ops->close(transport);
    for (unsigned i = 0; i < PEERS; i++)
        tri_seal_destroy(&peers[i].seal);
    return 0;
}
