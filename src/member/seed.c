/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Joining, second half: JOINs that the core sends to seeds, and what a seed
 * does with those that come. A member that hears nothing for long sends them,
 * too, also to where others were known: see swim_sync.c, calling addresses.
 *
 *   joiner                             seed
 *     JOIN without a cookie  ------->
 *                            <-------  CHALLENGE: cookie
 *     JOIN with it, card     ------->  to the core, which has a new member
 *                            <-------  STATE …
 */

#include <string.h>

#include "member/member_internal.h"

/* Answers to strangers, a second. */
#define HINTS_MAX 16
/* In place of a seed's number: an address that is none. */
#define REMEMBERED TRI_SEEDS_MAX

/* --- as a joiner ---------------------------------------------------------- */

static const struct tri_member_card *card_of(void *context, uint64_t node)
{
    struct tri_member *member = context;

    return tri_roster_card(member->runtime->roster, node);
}

/* seed: of the seeds, or REMEMBERED. */
static void post_join(struct tri_member *member, uint32_t seed)
{
    struct tri_hello hello = {
        .interface = TRI_INTERFACE_VERSION,
        .strict = member->runtime->options.strict_names != 0,
        .profile = (uint8_t)member->profile,
        .cluster_name = member->cluster_name,
        .token = member->token + seed,
        .cookie = seed == REMEMBERED ? member->remembered_cookie
                                     : member->cookies[seed],
    };
    unsigned char body[TRI_PACKET_BODY_MAX + TRI_HELLO_BYTES];
    struct tri_packet packet = {
        .kind = TRI_SWIM_JOIN,
        .cluster = member->cluster,
        .source = member->node,
        .body = body,
    };
    uint32_t rumours_len;
    size_t bytes;

    tri_hello_encode(&hello, body);
    bytes = tri_packet_encode_swim(&member->join, card_of, member,
                                   body + TRI_HELLO_BYTES, &rumours_len);
    packet.body_bytes = (uint32_t)(TRI_HELLO_BYTES + bytes);
    tri_member_post(member, &packet,
                    seed == REMEMBERED ? &member->remembered
                                       : &member->seeds.endpoints[seed]);
}

/* Which seed the core means, or REMEMBERED; false: none that we know. */
static bool choose_seed(struct tri_member *member,
                        const struct tri_swim_packet *swim, uint32_t *seed_p)
{
    if (swim->seed == TRI_SWIM_SEED_NONE) {
        const struct tri_contact *contact =
            tri_contacts_find(&member->contacts, swim->target);

        if (contact == NULL ||
            tri_endpoint_equal(&contact->control, &member->socket.own))
            return false; /* one that was here before us */
        member->remembered = contact->control;
        member->remembered_cookie = (struct tri_cookie){ .slot = 0 };
        *seed_p = REMEMBERED;
        return true;
    }
    if (member->seeds.len == 0)
        return false;
    *seed_p = swim->seed < member->seeds.len ? swim->seed : 0;
    if (!member->joined_once) /* it is there: it answered just now */
        *seed_p = member->seeds.first;
    member->joined_once = true;
    /* A member's call is for nothing unless the way back works, too: whom we
     * cannot answer would be suspected there, and die. */
    if (atomic_load(&member->orders.joining) == TRI_JOINING_DONE)
        member->cookies[*seed_p] = (struct tri_cookie){ .slot = 0 };
    return true;
}

void tri_member_send_join(struct tri_member *member,
                          const struct tri_swim_packet *swim)
{
    uint32_t seed;

    if (!choose_seed(member, swim, &seed))
        return;
    member->join = *swim;
    member->join.target = 0; /* who is there need not know whom we look for */
    member->join_pending = true;
    post_join(member, seed);
}

void tri_member_take_challenge(struct tri_member *member,
                               const struct tri_packet *packet,
                               const struct tri_endpoint *from)
{
    struct tri_cookie cookie;
    uint64_t token, seed;

    if (tri_challenge_decode(packet->body, packet->body_bytes, &token,
                             &cookie) != NULL)
        return;
    seed = token - member->token;
    if (seed == REMEMBERED) {
        member->remembered_cookie = cookie;
        member->remembered = *from;
    } else if (seed < member->seeds.len) {
        member->cookies[seed] = cookie;
        member->seeds.endpoints[seed] = *from;
    } else {
        return;
    }
    /* Once for each JOIN of the core's: no cookie is challenged for ever. */
    if (member->join_pending)
        post_join(member, (uint32_t)seed);
    member->join_pending = false;
}

void tri_member_take_refused(struct tri_member *member,
                             const struct tri_packet *packet,
                             const struct tri_endpoint *from)
{
    struct tri_refused refused;
    char text[TRI_ENDPOINT_TEXT_BYTES];

    if (tri_refused_decode(packet->body, packet->body_bytes, &refused) !=
            NULL ||
        refused.token - member->token >= member->seeds.len ||
        atomic_load(&member->orders.joining) != TRI_JOINING_RUNS)
        return;
    /* Another seed may be of our cluster; only if there is none that is all. */
    tri_info("%s refuses us: %s", tri_endpoint_print(from, text),
             troupe_strerror(refused.error));
    if (refused.token - member->token == member->seeds.first ||
        member->seeds.len == 1) {
        atomic_store(&member->join_error, refused.error);
        atomic_store(&member->orders.joining, TRI_JOINING_REFUSED);
        tri_unpark(&member->joiner);
    }
}

/* --- as a seed ------------------------------------------------------------ */

static void post_refusal(struct tri_member *member, uint64_t node,
                         const struct tri_refused *refused, bool sealed,
                         const struct tri_endpoint *to)
{
    unsigned char body[TRI_REFUSED_BYTES];
    struct tri_packet packet = {
        .kind = TRI_PACKET_REFUSED,
        .cluster = member->cluster,
        .source = member->node,
        .destination = node,
        .counter = ++member->counter,
        .body = body,
        .body_bytes = sizeof(body),
    };
    unsigned char data[TRI_PACKET_BYTES_MAX];
    size_t bytes;

    tri_refused_encode(refused, body);
    bytes = tri_packet_seal(sealed ? member->key : NULL, &packet, data);
    if (bytes > 0 && tri_udp_send(&member->socket, to, data, bytes) == 0)
        tri_member_count_out(member, bytes);
}

void tri_member_refuse_join(struct tri_member *member,
                            const struct tri_packet *packet, uint64_t token,
                            const struct tri_endpoint *to, int error)
{
    struct tri_refused refused = { .token = token,
                                   .error = error,
                                   .cluster_name = member->cluster_name };

    tri_info("node %016llx may not join: %s",
             (unsigned long long)packet->source, troupe_strerror(error));
    post_refusal(member, packet->source, &refused, true, to);
}

static void challenge(struct tri_member *member,
                      const struct tri_packet *join, uint64_t token,
                      const struct tri_endpoint *to, uint64_t now_ns)
{
    unsigned char body[TRI_CHALLENGE_BYTES];
    struct tri_packet packet = {
        .kind = TRI_PACKET_CHALLENGE,
        .cluster = member->cluster,
        .source = member->node,
        .destination = join->source,
        .body = body,
        .body_bytes = sizeof(body),
    };
    struct tri_cookie cookie;

    if (tri_cookie_make(member->secret, to, join->source, now_ns, &cookie) !=
        0)
        return;
    tri_challenge_encode(token, &cookie, body);
    tri_member_post(member, &packet, to);
}

int tri_member_may_join(struct tri_member *member,
                        const struct tri_member_card *card)
{
    bool by_ring = member->ring != NULL && card->host == member->host &&
                   card->ring.bytes > 0;

    if (card->interface != TRI_INTERFACE_VERSION)
        return TROUPE_EVERSION;
    if (!by_ring && (member->fabric == NULL || card->fabric.bytes == 0))
        return TROUPE_ETRANSPORT;
    /* One that no message would reach is no member. */
    if (tri_swim_state_of(member->swim, card->node) == TRI_SWIM_UNKNOWN &&
        (tri_swim_alive_len(member->swim) >= member->nodes_max ||
         !tri_link_has_room(&member->runtime->link)))
        return TROUPE_ELIMIT;
    return 0;
}

/* What must be the same on all nodes of a cluster. 0, or why one that differs
 * does not get in; counted. */
static int check_hello(struct tri_member *member,
                       const struct tri_packet *packet,
                       const struct tri_hello *hello)
{
    const char *reason;
    int error;

    if (hello->interface != TRI_INTERFACE_VERSION) {
        error = TROUPE_EVERSION;
        reason = "control: a joiner of another version";
    } else if (hello->cluster_name != member->cluster_name ||
               (packet->cluster != 0 && packet->cluster != member->cluster)) {
        error = TROUPE_ECLUSTER;
        reason = "control: a joiner of another cluster";
    } else if (hello->strict !=
               (member->runtime->options.strict_names != 0)) {
        /* It would be in no view of all, or ask for ever to get into one. */
        error = TROUPE_EOPTION;
        reason = "control: a joiner with another option strict_names";
    } else {
        return 0;
    }
    tri_refusals_count(&member->runtime->link.refusals, reason);
    return error;
}

/* Once for a joiner: who repeats its JOIN is a member already. */
static void warn_of_profile(const struct tri_member *member, uint64_t node,
                            const struct tri_hello *hello)
{
    if (hello->profile != member->profile &&
        tri_swim_state_of(member->swim, node) == TRI_SWIM_UNKNOWN)
        tri_warn("node %016llx joins with another value of option membership: "
                 "set the same on all nodes, whose times to suspect and to "
                 "answer belong together",
                 (unsigned long long)node);
}

bool tri_member_take_join(struct tri_member *member, struct tri_packet *packet,
                          const struct tri_endpoint *from, uint64_t now_ns)
{
    struct tri_hello hello;
    const char *wrong = tri_hello_decode(packet->body, packet->body_bytes,
                                         &hello);
    int error;

    if (wrong != NULL) {
        tri_refusals_count(&member->runtime->link.refusals, wrong);
        return false;
    }
    if (member->excluded ||
        atomic_load(&member->orders.leaving) != TRI_LEAVING_NONE)
        return false; /* we are no way in any more */
    error = check_hello(member, packet, &hello);
    if (error != 0) {
        tri_member_refuse_join(member, packet, hello.token, from, error);
        return false;
    }
    if (!tri_cookie_check(member->secret, from, packet->source, now_ns,
                          &hello.cookie)) {
        challenge(member, packet, hello.token, from, now_ns);
        return false;
    }
    packet->body += TRI_HELLO_BYTES;
    packet->body_bytes -= TRI_HELLO_BYTES;
    wrong = tri_packet_decode_swim(packet, &member->packet, member->cards);
    if (wrong == NULL)
        error = tri_member_may_join(member, &member->cards[0]);
    if (wrong != NULL)
        tri_refusals_count(&member->runtime->link.refusals, wrong);
    else if (error != 0)
        tri_member_refuse_join(member, packet, hello.token, from, error);
    else
        warn_of_profile(member, packet->source, &hello);
    return wrong == NULL && error == 0;
}

static int hint_of(const struct tri_peek *peek)
{
    return peek->version != TRI_PACKET_VERSION ? TROUPE_EVERSION : TROUPE_EKEY;
}

void tri_member_hint(struct tri_member *member, const unsigned char *data,
                     size_t bytes, const struct tri_endpoint *from,
                     uint64_t now_ns)
{
    struct tri_refused refused = { .error = 0 };
    struct tri_hello hello;
    struct tri_peek peek;

    if (!tri_packet_peek(data, bytes, &peek) || peek.kind != TRI_SWIM_JOIN ||
        tri_hello_decode(peek.body, peek.body_bytes, &hello) != NULL)
        return;
    if (now_ns - member->hints_ns >= 1000 * TRI_NS_PER_MS) {
        member->hints_ns = now_ns;
        member->hints_len = 0;
    }
    if (member->hints_len++ >= HINTS_MAX)
        return;
    refused.token = hello.token;
    refused.error = hint_of(&peek);
    post_refusal(member, peek.source, &refused, false, from);
}
