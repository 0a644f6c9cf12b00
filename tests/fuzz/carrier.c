/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuzz.h"

#include <sys/queue.h>

#include "carrier.h"
#include "wire/frame.h"

/* The frame bears it: carrier_private is the carrier's. */
struct in_flight {
    TAILQ_ENTRY(in_flight) next;
    uint64_t hash;
    uint64_t is_taken;
};

_Static_assert(sizeof(struct in_flight) <=
                   sizeof(((struct tri_carrier_frame *)0)->carrier_private),
               "the frame bears it");

struct fuzz_line {
    struct tri_line base;
    TAILQ_ENTRY(fuzz_line) next;
    uint64_t node;
    void *peer;
    unsigned ended_at; /* polls then; 0: it lives */
};

static struct {
    struct tri_carrier base;
    struct tri_carrier_config config;
    struct fuzz_carrier_hooks hooks;
    TAILQ_HEAD(, in_flight) in_flight;
    TAILQ_HEAD(, fuzz_line) lines;
    struct tri_address address;
    unsigned in_flight_len, lines_len, sends, polls;
    bool is_open, in_poll;
} carrier;

/* For bytes that must not change. */
static uint64_t hash_of(const unsigned char *data, size_t bytes)
{
    uint64_t hash = bytes, word;

    for (; bytes >= sizeof(word); data += sizeof(word), bytes -= sizeof(word)) {
        memcpy(&word, data, sizeof(word));
        hash = tri_mix64(hash ^ word);
    }
    return tri_fnv64(hash, data, bytes);
}

static struct tri_carrier_frame *frame_of(struct in_flight *in_flight)
{
    return (struct tri_carrier_frame *)(void *)in_flight;
}

/* --- the session's calls ------------------------------------------------- */

static int fuzz_open(const struct tri_carrier_config *config,
                     struct tri_carrier **carrier_p)
{
    FUZZ_CHECK(!carrier.is_open);
    carrier.base.ops = &fuzz_carrier_ops;
    carrier.base.frame_bytes_max =
        carrier.sends & 1 ? TRI_FRAME_BYTES_MAX : TRI_FRAME_BYTES_MIN;
    carrier.config = *config;
    carrier.is_open = true;
    *carrier_p = &carrier.base;
    return 0;
}

static void free_line(struct fuzz_line *line)
{
    TAILQ_REMOVE(&carrier.lines, line, next);
    carrier.lines_len--;
    free(line);
}

static void fuzz_close(struct tri_carrier *base)
{
    FUZZ_CHECK(base == &carrier.base && carrier.is_open && !carrier.in_poll);
    while (!TAILQ_EMPTY(&carrier.lines))
        free_line(TAILQ_FIRST(&carrier.lines));
    carrier.is_open = false;
}

static void fuzz_address(struct tri_carrier *base,
                         struct tri_address *address_p)
{
    (void)base;
    *address_p = carrier.address;
}

/* An address that begins with 0xff leads nowhere. */
static int fuzz_connect(struct tri_carrier *base, uint64_t node,
                        const struct tri_address *address, void *peer,
                        struct tri_line **line_p)
{
    struct fuzz_line *line;

    FUZZ_CHECK(carrier.is_open && node != 0 && node != carrier.config.node);
    FUZZ_CHECK(address->bytes > 0 && address->bytes < TRI_ADDRESS_BYTES_MAX);
    carrier.address = *address;
    if (address->data[0] == 0xff)
        return TROUPE_ETRANSPORT;
    line = calloc(1, sizeof(*line));
    if (!line)
        return TROUPE_ENOMEM;
    line->base.carrier = base;
    line->node = node;
    line->peer = peer;
    TAILQ_INSERT_TAIL(&carrier.lines, line, next);
    carrier.lines_len++;
    *line_p = &line->base;
    return 0;
}

static void fuzz_disconnect(struct tri_line *base)
{
    struct fuzz_line *line = tri_container_of(base, struct fuzz_line, base);

    FUZZ_CHECK(line->ended_at == 0);
    line->ended_at = carrier.polls;
}

static int fuzz_send(struct tri_line *base, struct tri_carrier_frame *frame)
{
    struct fuzz_line *line = tri_container_of(base, struct fuzz_line, base);
    struct in_flight *in_flight = (void *)frame->carrier_private;
    const struct tri_carrier_memory *memory = frame->memory;

    FUZZ_CHECK(line->ended_at == 0 &&
               frame->bytes <= carrier.base.frame_bytes_max);
    FUZZ_CHECK(frame->data >= memory->data &&
               frame->data + frame->bytes <= memory->data + memory->bytes);
    FUZZ_CHECK(memory->registration == &carrier);
    FUZZ_CHECK(!in_flight->is_taken);
    if (carrier.sends == 0)
        return TROUPE_EFULL;
    carrier.sends--;
    frame->line = base;
    in_flight->is_taken = true;
    in_flight->hash = hash_of(frame->data, frame->bytes);
    TAILQ_INSERT_TAIL(&carrier.in_flight, in_flight, next);
    carrier.in_flight_len++;
    carrier.hooks.sent(line->node, frame->data, frame->bytes);
    return 0;
}

static int fuzz_memory_add(struct tri_carrier *base,
                           struct tri_carrier_memory *memory)
{
    (void)base;
    memory->registration = &carrier;
    return 0;
}

/* Events of an ended line may come until the poll behind its end is over. */
static unsigned fuzz_poll(struct tri_carrier *base, unsigned budget)
{
    struct fuzz_line *line, *next;

    (void)base, (void)budget;
    carrier.polls++;
    carrier.in_poll = true;
    carrier.hooks.poll();
    carrier.in_poll = false;
    for (line = TAILQ_FIRST(&carrier.lines); line; line = next) {
        next = TAILQ_NEXT(line, next);
        if (line->ended_at != 0 && line->ended_at < carrier.polls)
            free_line(line);
    }
    return 0;
}

static bool fuzz_pending(struct tri_carrier *base, uint64_t *due_ns_p)
{
    (void)base;
    *due_ns_p = UINT64_MAX;
    return false;
}

static int fuzz_wait_fd(struct tri_carrier *base)
{
    (void)base;
    return -2;
}

const struct tri_carrier_ops fuzz_carrier_ops = {
    .name = "fuzz",
    .open = fuzz_open,
    .close = fuzz_close,
    .address = fuzz_address,
    .connect = fuzz_connect,
    .disconnect = fuzz_disconnect,
    .send = fuzz_send,
    .memory_add = fuzz_memory_add,
    .poll = fuzz_poll,
    .pending = fuzz_pending,
    .wait_fd = fuzz_wait_fd,
};

/* --- the target's -------------------------------------------------------- */

void fuzz_carrier_init(const struct fuzz_carrier_hooks *hooks, unsigned sends)
{
    memset(&carrier, 0, sizeof(carrier));
    carrier.hooks = *hooks;
    carrier.sends = sends;
    carrier.polls = 1; /* so that no line ends at 0 */
    carrier.address.bytes = 1;
    TAILQ_INIT(&carrier.in_flight);
    TAILQ_INIT(&carrier.lines);
}

void fuzz_carrier_set_hooks(const struct fuzz_carrier_hooks *hooks)
{
    carrier.hooks = *hooks;
}

void fuzz_carrier_set_sends(unsigned sends)
{
    carrier.sends = sends;
}

const struct tri_address *fuzz_carrier_address(void)
{
    return &carrier.address;
}

unsigned fuzz_carrier_in_flight(void)
{
    return carrier.in_flight_len;
}

/* In memory of just its size, so that a read behind it is seen. */
void fuzz_carrier_frame(const unsigned char *data, size_t bytes)
{
    unsigned char *copy = malloc(bytes > 0 ? bytes : 1);

    FUZZ_CHECK(carrier.in_poll);
    if (!copy)
        return;
    memcpy(copy, data, bytes);
    carrier.config.events.frame(carrier.config.events.context, copy, bytes);
    free(copy);
}

void fuzz_carrier_give_back(unsigned which, bool ok)
{
    struct in_flight *in_flight = TAILQ_FIRST(&carrier.in_flight);
    struct tri_carrier_frame *frame;

    FUZZ_CHECK(carrier.in_poll);
    if (!in_flight)
        return;
    for (which %= carrier.in_flight_len; which > 0; which--)
        in_flight = TAILQ_NEXT(in_flight, next);
    TAILQ_REMOVE(&carrier.in_flight, in_flight, next);
    carrier.in_flight_len--;
    in_flight->is_taken = false;
    frame = frame_of(in_flight);
    FUZZ_CHECK(hash_of(frame->data, frame->bytes) == in_flight->hash);
    carrier.config.events.sent(carrier.config.events.context, frame, ok);
}

static void *peer_of(unsigned which)
{
    struct fuzz_line *line = TAILQ_FIRST(&carrier.lines);

    FUZZ_CHECK(carrier.in_poll);
    if (!line)
        return NULL;
    for (which %= carrier.lines_len; which > 0; which--)
        line = TAILQ_NEXT(line, next);
    return line->peer;
}

void fuzz_carrier_writable(unsigned which)
{
    void *peer = peer_of(which);

    if (peer)
        carrier.config.events.writable(carrier.config.events.context, peer);
}

void fuzz_carrier_broke(unsigned which)
{
    void *peer = peer_of(which);

    if (peer)
        carrier.config.events.broke(carrier.config.events.context, peer);
}
