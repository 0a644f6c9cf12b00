/* SPDX-License-Identifier: BSD-3-Clause */

/* Messages of agreement: what is accepted is encoded to the same bytes again,
 * and does no harm to a member that gets it from another, whatever it says.
 * The first byte's highest bit: the rest are not the bytes of one message, but
 * what several say. */

#include "fuzz.h"

#include "group/agree_internal.h"

#define MEMBERS 5u
#define FAR (1ull << 40)

static void step(struct tri_agree *agree, struct tri_agree_event event)
{
    struct tri_agree_effects effects;

    event.now_ns = agree->now_ns + 1;
    tri_agree_step(agree, &event, &effects);
    FUZZ_CHECK(effects.sends_len <= TRI_AGREE_SENDS_MAX);
    for (uint32_t i = 0; i < effects.sends_len; i++) {
        static struct message message;

        if (agree->view.epoch > FAR || agree->attempt > FAR)
            break; /* the other may take it for too far */
        FUZZ_CHECK(tri_agree_decode(effects.sends[i].data,
                                    effects.sends[i].bytes, &message));
    }
}

/* A member, of a group whose others are 2 to 5, or one that joins: the first
 * byte's bits say how far it has come when the message arrives. */
static struct tri_agree *begin(uint64_t group, uint8_t how)
{
    static const uint64_t nodes[MEMBERS] = { 1, 2, 3, 4, 5 };
    struct tri_agree_config config = {
        .group = group,
        .node = (how & 1) != 0 ? 1 : 2,
        .members_max = 8,
        .proof = true,
        .attempt_ns = 1000,
        .seed = 1,
    };
    struct tri_agree *agree;

    FUZZ_CHECK(tri_agree_create(&config, &agree) == 0);
    if ((how & 2) != 0) {
        step(agree, (struct tri_agree_event){ .kind = TRI_AGREE_JOIN });
        return agree;
    }
    FUZZ_CHECK(tri_agree_begin(agree, nodes, MEMBERS) == 0);
    if ((how & 4) != 0)
        step(agree, (struct tri_agree_event){ .kind = TRI_AGREE_DEATH,
                                              .node = 5,
                                              .proof = (how & 8) != 0 });
    if ((how & 16) != 0)
        step(agree, (struct tri_agree_event){ .kind = TRI_AGREE_BOUNDARY,
                                              .at = true });
    if ((how & 32) != 0)
        step(agree, (struct tri_agree_event){ .kind = TRI_AGREE_RENEW });
    if ((how & 64) != 0)
        step(agree, (struct tri_agree_event){ .kind = TRI_AGREE_LEAVE });
    return agree;
}

/* --- bytes ---------------------------------------------------------------- */

static void from(struct tri_agree *agree, uint64_t node,
                 const unsigned char *data, size_t bytes)
{
    step(agree, (struct tri_agree_event){ .kind = TRI_AGREE_MESSAGE,
                                          .node = node,
                                          .data = data,
                                          .bytes = bytes });
}

static void take_bytes(uint8_t how, const uint8_t *data, size_t bytes)
{
    static unsigned char again[TRI_AGREE_BYTES_MAX];
    static struct message message;
    struct tri_agree *agree;

    if (!tri_agree_decode(data, bytes, &message))
        return;
    FUZZ_CHECK(tri_agree_encode(&message, again) == bytes);
    FUZZ_CHECK(memcmp(again, data, bytes) == 0);
    agree = begin(message.group, how);
    from(agree, 3, data, bytes);
    from(agree, 6, data, bytes); /* a stranger */
    step(agree, (struct tri_agree_event){ .kind = TRI_AGREE_TICK });
    tri_agree_destroy(&agree);
}

/* --- messages ------------------------------------------------------------- */

#define SAYS 16u /* bytes, of a message */
#define MESSAGES_MAX 64u

static void add(struct joins *joins, uint8_t nodes)
{
    for (uint32_t i = 0; i < 8; i++)
        if (((nodes >> i) & 1) != 0)
            joins->list[joins->len++] = (struct joiner){ 1 + i, nodes };
}

/* A list that has a digest, as of a view. */
static void list(const struct tri_agree *agree, uint8_t nodes, uint8_t since,
                 struct message *message)
{
    for (uint32_t i = 0; i < 8; i++)
        if (((nodes >> i) & 1) != 0 && message->epoch > 0) {
            uint64_t age = (since >> i) & 1;

            message->numbers[message->list_len] = agree->join_number;
            message->list[message->list_len++] = (struct tri_agree_member){
                1 + i, message->epoch - (age < message->epoch ? age : 0)
            };
        }
    message->digest =
        tri_agree_view_digest(message->epoch, message->list, message->list_len);
}

static void take_message(struct tri_agree *agree, const uint8_t *says)
{
    static unsigned char bytes[TRI_AGREE_BYTES_MAX];
    static struct message message;

    if (says[0] == 0) {
        step(agree, (struct tri_agree_event){
                        .kind = (enum tri_agree_event_kind)(says[1] % 12),
                        .node = says[2] % 8,
                        .proof = (says[3] & 1) != 0,
                        .at = (says[3] & 2) != 0 });
        return;
    }
    memset(&message, 0, sizeof(message));
    message.kind = (uint8_t)(PREPARE + says[0] % KIND_LAST);
    message.flags = says[1] & FLAGS_ALL;
    message.group = 7;
    message.epoch = agree->view.epoch + (says[1] >> 6) - 1;
    message.ballot = (uint64_t)(says[2] >> 3) << PLACE_BITS | (says[2] & 7);
    message.accepted = (uint64_t)(says[3] >> 3) << PLACE_BITS | (says[3] & 7);
    message.mark = says[4];
    message.proposal.mark = says[5];
    message.proven.bits[0] = says[6];
    message.dead.bits[0] = says[7];
    message.proposal.removed.bits[0] = says[8];
    add(&message.proposal.added, says[9]);
    add(&message.joins, says[10]);
    message.number = says[11];
    if (message.kind == VIEW)
        list(agree, says[12], says[13], &message);
    if (message.kind == COMMIT &&
        tri_agree_view_is_sound(agree, &message.proposal)) {
        tri_agree_view_next(agree, &message.proposal);
        message.digest = tri_agree_view_digest(message.epoch + 1, agree->next,
                                               agree->next_len);
    }
    from(agree, 1 + says[14] % 8, bytes, tri_agree_encode(&message, bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct tri_agree *agree;

    if (bytes == 0)
        return 0;
    if ((data[0] & 0x80) == 0) {
        take_bytes(data[0], data + 1, bytes - 1);
        return 0;
    }
    bytes = tri_min(bytes, 1 + (size_t)MESSAGES_MAX * SAYS);
    agree = begin(7, data[0]);
    for (size_t at = 1; bytes - at >= SAYS; at += SAYS)
        take_message(agree, data + at);
    tri_agree_destroy(&agree);
    return 0;
}
