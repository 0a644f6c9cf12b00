/* SPDX-License-Identifier: BSD-3-Clause */

/* Datagrams in: what they have to pass before anybody believes them. */

#include "member/member_internal.h"

/* Of one call; what a burst of a large cluster may be, in about a
 * millisecond. */
#define DATAGRAMS_MAX 512u
/* Between two hints that an address cannot be reached, of which the network's
 * word is no proof. */
#define UNREACHABLE_NS (20 * TRI_NS_PER_MS)

static void refuse(struct tri_member *member, const char *reason)
{
    tri_refusals_count(&member->runtime->link.refusals, reason);
}

static void step_packet(struct tri_member *member,
                        const struct tri_endpoint *from, uint64_t now_ns)
{
    struct tri_swim_event event = { .kind = TRI_SWIM_PACKET,
                                    .now_ns = now_ns,
                                    .packet = &member->packet };

    member->arriving.swim = &member->packet;
    member->arriving.from = *from;
    tri_member_step(member, &event);
    member->arriving.swim = NULL;
}

static void give_client(struct tri_member *member,
                        const struct tri_packet *packet, uint64_t now_ns)
{
    for (uint32_t i = 0; i < member->clients_len; i++) {
        struct tri_member_client *client = &member->clients[i];

        if (client->kind != packet->kind || client->received == NULL)
            continue;
        client->received(client->context, packet->source, packet->body,
                         packet->body_bytes, now_ns);
        member->clients_due_ns = 0;
        return;
    }
    refuse(member, "control: of an unknown kind");
}

/* Opened, for us and new: to whom it belongs. */
static void tell_of_view(struct tri_member *member,
                         const struct tri_packet *packet)
{
    if (packet->view_epoch == 0)
        return;
    for (uint32_t i = 0; i < member->clients_len; i++)
        if (member->clients[i].view != NULL)
            member->clients[i].view(member->clients[i].context, packet->source,
                                    packet->view_epoch, packet->view_digest);
}

static void dispatch(struct tri_member *member, struct tri_packet *packet,
                     const struct tri_contact *contact,
                     const struct tri_endpoint *from, uint64_t now_ns)
{
    const char *wrong;

    switch (packet->kind) {
    case TRI_SWIM_JOIN:
        if (tri_member_take_join(member, packet, from, now_ns))
            step_packet(member, from, now_ns);
        return;
    case TRI_PACKET_CHALLENGE:
        tri_member_take_challenge(member, packet, from);
        return;
    case TRI_PACKET_REFUSED:
        tri_member_take_refused(member, packet, from);
        return;
    default:
        break;
    }
    if (contact != NULL && !contact->over)
        tell_of_view(member, packet);
    if (packet->kind > TRI_SWIM_KIND_LAST) {
        if (contact != NULL && !contact->over)
            give_client(member, packet, now_ns);
        return;
    }
    wrong = tri_packet_decode_swim(packet, &member->packet, member->cards);
    member->packet.view_epoch = packet->view_epoch;
    if (wrong != NULL)
        refuse(member, wrong);
    else
        step_packet(member, from, now_ns);
}

static void take(struct tri_member *member, const unsigned char *data,
                 size_t bytes, const struct tri_endpoint *from,
                 uint64_t now_ns)
{
    struct tri_contact *contact;
    struct tri_packet packet;
    const char *wrong = tri_packet_open(member->key, data, bytes, &packet);

    if (wrong != NULL) {
        refuse(member, wrong);
        tri_member_hint(member, data, bytes, from, now_ns);
        return;
    }
    /* A JOIN to another cluster gets an answer. */
    wrong = packet.kind == TRI_SWIM_JOIN
                ? NULL
                : tri_packet_check(&packet, member->cluster, member->node);
    if (wrong == NULL && packet.source == member->node)
        wrong = "control: from this node itself";
    if (wrong != NULL) {
        refuse(member, wrong);
        return;
    }
    contact = tri_contacts_find(&member->contacts, packet.source);
    if (contact != NULL &&
        !tri_packet_window_take(&contact->window, packet.counter)) {
        refuse(member, "control: a datagram that was here before");
        return;
    }
    tri_member_count_in(member, bytes);
    dispatch(member, &packet, contact, from, now_ns);
}

/* A host or the network said that nobody is there. */
static void unreachable(struct tri_member *member,
                        const struct tri_endpoint *where, uint64_t now_ns)
{
    struct tri_contact *contact;
    uint32_t i = 0;

    if (now_ns - member->unreachable_ns < UNREACHABLE_NS)
        return;
    member->unreachable_ns = now_ns;
    while ((contact = tri_contacts_next(&member->contacts, &i)) != NULL) {
        if (!contact->over && tri_endpoint_equal(&contact->control, where)) {
            tri_member_evidence(member, contact->node, TRI_SWIM_STRONG,
                                now_ns);
            return;
        }
    }
}

bool tri_member_receive(struct tri_member *member, uint64_t now_ns)
{
    unsigned char data[TRI_PACKET_BYTES_MAX];
    struct tri_endpoint from;
    size_t bytes;

    for (uint32_t n = 0; n < DATAGRAMS_MAX; n++) {
        switch (tri_udp_receive(&member->socket, data, sizeof(data), &bytes,
                                &from)) {
        case TRI_UDP_DATAGRAM:
            take(member, data, bytes, &from, now_ns);
            break;
        case TRI_UDP_UNREACHABLE:
            unreachable(member, &from, now_ns);
            break;
        default:
            return false;
        }
    }
    return true;
}
