/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Messages that arrived and are not wanted yet, by sender, collective and tag.
 * Bounded by what others may send, see tri_net_may_send; of one that sends more
 * by TRI_NET_KEPT_BYTES_MAX. Of a kept message
 * slot is the member, ask the number, type the tag, fixed_bytes where its part
 * begins.
 */

#include "message/pool.h"
#include "tensor/native/net_internal.h"

static struct tri_message **bucket_of(struct tri_net *net, uint64_t number)
{
    return &net->box[number & (TRI_NET_BOX_LEN - 1)];
}

static size_t cost_of(const struct tri_message *message)
{
    return sizeof(*message) + message->bytes;
}

static void count_off(struct tri_net *net, const struct tri_message *message)
{
    net->box_len--;
    net->peers[message->slot].kept_bytes -= cost_of(message);
}

bool tri_net_box_keep(struct tri_net *net, uint32_t member, uint64_t number,
                      uint32_t tag, size_t offset, struct tri_message *message)
{
    struct tri_message **bucket = bucket_of(net, number);
    size_t *kept_bytes = &net->peers[member].kept_bytes;

    if (cost_of(message) > TRI_NET_KEPT_BYTES_MAX - *kept_bytes) {
        tri_message_free(message);
        return false;
    }
    *kept_bytes += cost_of(message);
    message->slot = member;
    message->ask = number;
    message->type = tag;
    message->fixed_bytes = (uint32_t)offset;
    message->next = *bucket;
    *bucket = message;
    net->box_len++;
    return true;
}

struct tri_message *tri_net_box_take(struct tri_net *net, uint32_t member,
                                     uint64_t number, uint32_t tag)
{
    struct tri_message **at = bucket_of(net, number), *message;

    for (; (message = *at) != NULL; at = &message->next) {
        if (message->ask != number || message->type != tag ||
            message->slot != member)
            continue;
        *at = message->next;
        count_off(net, message);
        return message;
    }
    return NULL;
}

const struct tri_message *
tri_net_box_peek(const struct tri_net *net, uint64_t number,
                 const struct tri_message *after)
{
    const struct tri_message *message =
        after != NULL ? after->next : net->box[number & (TRI_NET_BOX_LEN - 1)];

    while (message != NULL && message->ask != number)
        message = message->next;
    return message;
}

static void drop_bucket(struct tri_net *net, struct tri_message **at,
                        uint64_t number)
{
    struct tri_message *message;

    while ((message = *at) != NULL) {
        if (number != 0 && message->ask != number) {
            at = &message->next;
            continue;
        }
        *at = message->next;
        count_off(net, message);
        tri_message_free(message);
    }
}

void tri_net_box_drop(struct tri_net *net, uint64_t number)
{
    if (number != 0) {
        drop_bucket(net, bucket_of(net, number), number);
        return;
    }
    for (size_t i = 0; i < TRI_NET_BOX_LEN; i++)
        drop_bucket(net, &net->box[i], 0);
}

size_t tri_net_kept(const struct tri_net *net)
{
    return net->box_len;
}
