/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * An instance: what members know of each other's marks, calls that differ, and
 * what arrives. See net.h.
 */

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "message/pool.h"
#include "tensor/native/net_internal.h"

/* --- sending -------------------------------------------------------------- */

int tri_net_send(struct tri_net *net, uint32_t member, uint8_t kind,
                 struct tri_coll_head *head, const uint64_t signature[2],
                 const struct tri_piece *pieces, uint32_t pieces_len)
{
    struct tri_net_part part = { .mark = net->mark };
    int rc;

    head->backend = TRI_BACKEND_NATIVE;
    if (signature != NULL)
        memcpy(part.signature, signature, sizeof(part.signature));
    net->pieces[0] = (struct tri_piece){ &part, sizeof(part) };
    if (pieces != NULL && pieces != net->pieces + 1)
        memcpy(net->pieces + 1, pieces, pieces_len * sizeof(*pieces));
    rc = net->config.send(net->config.context, member, kind, head, net->pieces,
                          pieces_len + 1);
    if (rc == 0) {
        net->peers[member].told = net->mark;
        net->peers[member].has_sent = false;
    }
    return rc;
}

/* What is lost with its receiver is no loss: membership will tell. */
static void send_control(struct tri_net *net, uint32_t member, uint16_t what,
                         struct tri_net_unit unit, const uint64_t signature[2])
{
    struct tri_coll_head head = { .number = unit.number,
                                  .what = what,
                                  .tag = (uint32_t)unit.segment };
    int rc = tri_net_send(net, member, TRI_COLL_CONTROL, &head, signature, NULL,
                          0);

    if (rc != 0)
        tri_debug("a control record to member %u: %s", member,
                  troupe_strerror(rc));
}

/* --- marks ---------------------------------------------------------------- */

static bool is_near(struct tri_net_unit mark, struct tri_net_unit unit)
{
    if (unit.number < mark.number)
        return true;
    if (unit.number == mark.number)
        return unit.segment < mark.segment + TRI_NET_SEGMENTS_AHEAD;
    return unit.number - mark.number < TRI_NET_AHEAD_LEN_MAX &&
           unit.segment < TRI_NET_SEGMENTS_EARLY;
}

bool tri_net_may_send(const struct tri_net *net, uint32_t member,
                      struct tri_net_unit unit)
{
    return is_near(net->peers[member].mark, unit);
}

void tri_net_want(struct tri_net *net, uint32_t member,
                  struct tri_net_unit unit)
{
    struct tri_net_peer *peer = &net->peers[member];

    /* Asked for it, or for one that comes before it and is not there yet. */
    if (peer->asked.number != 0 && !is_near(peer->mark, peer->asked) &&
        !tri_net_unit_before(unit, peer->asked))
        return;
    peer->asked = unit;
    send_control(net, member, TRI_NET_WANT, unit, NULL);
}

static struct tri_net_unit mark_of(const struct tri_net *net)
{
    const struct tri_net_call *first = net->calls;

    if (first == NULL)
        return (struct tri_net_unit){ net->started_max + 1, 0 };
    return (struct tri_net_unit){ first->request.number,
                                  first->done_segments };
}

/* Whether a member that sends to us would soon have to ask. */
static bool is_mark_due(const struct tri_net *net,
                        const struct tri_net_peer *peer)
{
    if (!peer->has_sent)
        return false;
    if (net->mark.number == peer->told.number)
        return net->mark.segment - peer->told.segment >=
               TRI_NET_SEGMENTS_AHEAD / 2;
    return net->mark.number - peer->told.number >= TRI_NET_AHEAD_LEN_MAX / 2 ||
           net->mark.segment > 0;
}

static void answer_want(struct tri_net *net, uint32_t member)
{
    struct tri_net_peer *peer = &net->peers[member];

    if (peer->want.number != 0 && is_near(net->mark, peer->want)) {
        peer->want.number = 0;
        send_control(net, member, TRI_NET_MARK, net->mark, NULL);
    }
}

void tri_net_advance(struct tri_net *net)
{
    struct tri_net_unit mark = mark_of(net);

    if (!tri_net_unit_before(net->mark, mark))
        return;
    net->mark = mark;
    for (uint32_t i = 0; i < net->config.len; i++) {
        answer_want(net, i);
        if (is_mark_due(net, &net->peers[i]))
            send_control(net, i, TRI_NET_MARK, mark, NULL);
    }
}

/* --- calls that differ ---------------------------------------------------- */

struct tri_net_found *tri_net_found(struct tri_net *net, uint64_t number)
{
    for (size_t i = 0; i < TRI_NET_MISMATCHES; i++)
        if (net->found[i].number == number)
            return &net->found[i];
    return NULL;
}

static bool was_failed(const struct tri_net *net, uint64_t number)
{
    return net->history[number % TRI_NET_HISTORY].number == number &&
           net->history[number % TRI_NET_HISTORY].failed;
}

static bool note_found(struct tri_net *net, uint64_t number,
                       const struct tri_net_differ *differ)
{
    if (tri_net_found(net, number) != NULL)
        return false;
    net->found[net->found_next++ % TRI_NET_MISMATCHES] = (struct tri_net_found){
        .number = number,
        .differ = *differ,
        /* the program has had an error for it */
        .is_reported = number <= net->started_max &&
                       tri_net_find(net, number) == NULL &&
                       was_failed(net, number),
    };
    return true;
}

void tri_net_tell_differ(struct tri_net *net, uint64_t number,
                         const struct tri_net_differ *differ)
{
    struct tri_piece piece = { differ, sizeof(*differ) };

    if (!note_found(net, number, differ))
        return;
    for (uint32_t i = 0; i < net->config.len; i++) {
        struct tri_coll_head head = { .number = number,
                                      .what = TRI_NET_MISMATCH };

        if (i != net->config.index)
            (void)tri_net_send(net, i, TRI_COLL_CONTROL, &head, NULL, &piece,
                               1);
    }
}

void tri_net_differ(struct tri_net *net, uint64_t number,
                    const uint64_t mine[2], uint32_t member,
                    const uint64_t theirs[2])
{
    struct tri_net_differ differ = {
        .origin = number,
        .places = { net->config.index, member },
        .signatures = { { mine[0], mine[1] }, { theirs[0], theirs[1] } },
    };

    tri_net_tell_differ(net, number, &differ);
}

static bool is_same(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] == b[0] && a[1] == b[1];
}

const uint64_t *tri_net_signature(struct tri_net *net, uint64_t number)
{
    struct tri_net_call *call = tri_net_find(net, number);

    if (call != NULL)
        return call->request.signature;
    if (net->history[number % TRI_NET_HISTORY].number == number)
        return net->history[number % TRI_NET_HISTORY].signature;
    return NULL;
}

static void compare(struct tri_net *net, uint32_t member, uint64_t number,
                    const uint64_t theirs[2])
{
    const uint64_t *mine = tri_net_signature(net, number);

    if (mine != NULL && !is_same(mine, theirs))
        tri_net_differ(net, number, mine, member, theirs);
}

void tri_net_compare_early(struct tri_net *net,
                           const struct tri_net_call *call)
{
    uint64_t number = call->request.number;
    const struct tri_message *message = NULL;
    struct tri_net_part part;

    while ((message = tri_net_box_peek(net, number, message)) != NULL) {
        memcpy(&part, message->payload + message->fixed_bytes, sizeof(part));
        compare(net, message->slot, number, part.signature);
    }
    for (uint32_t i = 0; i < net->config.len; i++)
        if (net->peers[i].query_number == number)
            compare(net, i, number, net->peers[i].query_signature);
}

void tri_net_query(struct tri_net *net, uint32_t member,
                   const struct tri_net_request *request)
{
    send_control(net, member, TRI_NET_QUERY,
                 (struct tri_net_unit){ request->number, 0 },
                 request->signature);
}

/* --- what arrives --------------------------------------------------------- */

static void on_query(struct tri_net *net, uint32_t member, uint64_t number,
                     const struct tri_net_part *part)
{
    struct tri_net_peer *peer = &net->peers[member];

    if (number <= net->started_max) {
        compare(net, member, number, part->signature);
        return;
    }
    peer->query_number = number;
    memcpy(peer->query_signature, part->signature, sizeof(part->signature));
}

static void on_mismatch(struct tri_net *net, uint64_t number, const char *data,
                        size_t bytes)
{
    struct tri_net_differ differ;

    if (bytes != sizeof(differ))
        return;
    memcpy(&differ, data, sizeof(differ));
    if (differ.places[0] < net->config.len &&
        differ.places[1] < net->config.len)
        note_found(net, number, &differ);
}

/* Nobody wants it any more, or nobody may have sent it. */
static bool is_unwanted(struct tri_net *net, const struct tri_coll_head *head)
{
    struct tri_net_unit unit = { head->number, head->tag >> TRI_NET_TAG_BITS };

    return (head->number <= net->started_max &&
            tri_net_find(net, head->number) == NULL) ||
           !is_near(net->mark, unit);
}

/* The message is taken. payload: its part. False: too much of this member. */
static bool on_data(struct tri_net *net, uint32_t member,
                    const struct tri_coll_head *head,
                    const struct tri_net_part *part, const char *payload,
                    size_t bytes, struct tri_message *message)
{
    size_t offset = 0;

    compare(net, member, head->number, part->signature);
    if (is_unwanted(net, head)) {
        if (message != NULL)
            tri_message_free(message);
        return true;
    }
    if (message != NULL) {
        offset = (size_t)(payload - message->payload);
    } else {
        message = tri_message_alloc(bytes);
        if (message == NULL) {
            net->is_starved = true;
            return true;
        }
        memcpy(message->payload, payload, bytes);
    }
    if (tri_net_box_keep(net, member, head->number, head->tag, offset,
                         message))
        return true;
    net->is_flooded = true;
    return false;
}

static void take_mark(struct tri_net *net, uint32_t member,
                      const struct tri_net_part *part)
{
    struct tri_net_peer *peer = &net->peers[member];

    /* lanes overtake each other */
    if (tri_net_unit_before(peer->mark, part->mark))
        peer->mark = part->mark;
}

bool tri_net_received(struct tri_net *net, uint32_t member,
                      const struct tri_coll_head *head, const void *payload,
                      size_t bytes, struct tri_message *message)
{
    const char *data = (const char *)payload + sizeof(struct tri_net_part);
    struct tri_net_part part;

    if (member >= net->config.len || bytes < sizeof(part) ||
        head->number > UINT64_MAX / 2) {
        if (message != NULL)
            tri_message_free(message);
        return false;
    }
    memcpy(&part, payload, sizeof(part));
    take_mark(net, member, &part);
    if (head->what == TRI_NET_DATA) {
        net->peers[member].has_sent = true;
        return on_data(net, member, head, &part, payload, bytes, message);
    }
    bytes -= sizeof(part);
    switch (head->what) {
    case TRI_NET_WANT:
        net->peers[member].want =
            (struct tri_net_unit){ head->number, head->tag };
        answer_want(net, member);
        break;
    case TRI_NET_QUERY:
        on_query(net, member, head->number, &part);
        break;
    case TRI_NET_MISMATCH:
        on_mismatch(net, head->number, data, bytes);
        break;
    case TRI_NET_MARK:
        break;
    default:
        tri_net_trial_received(net, member, head, data, bytes);
        break;
    }
    if (message != NULL)
        tri_message_free(message);
    return true;
}

/* --- life ----------------------------------------------------------------- */

struct tri_net_call *tri_net_find(struct tri_net *net, uint64_t number)
{
    struct tri_net_call *call = net->calls;

    while (call != NULL && call->request.number < number)
        call = call->next;
    return call != NULL && call->request.number == number ? call : NULL;
}

int tri_net_open(const struct tri_net_config *config, struct tri_net **net_p)
{
    struct tri_net *net =
        calloc(1, sizeof(*net) + config->len * sizeof(net->peers[0]));

    assert(config->index < config->len);
    if (net == NULL)
        return TROUPE_ENOMEM;
    net->config = *config;
    net->pieces = calloc(config->len + 2, sizeof(net->pieces[0]));
    if (net->pieces == NULL) {
        free(net);
        return TROUPE_ENOMEM;
    }
    net->mark.number = 1;
    for (uint32_t i = 0; i < config->len; i++)
        net->peers[i].mark = net->peers[i].told = net->mark;
    tri_net_trial_open(net);
    *net_p = net;
    return 0;
}

int tri_net_open_progress(struct tri_net *net)
{
    return tri_net_trial_progress(net);
}

void tri_net_close(struct tri_net **net_p)
{
    struct tri_net *net = *net_p;

    if (net == NULL)
        return;
    *net_p = NULL;
    while (net->calls != NULL) {
        struct tri_net_call *call = net->calls;

        tri_net_end(net, &call);
    }
    tri_net_box_drop(net, 0);
    free(net->trial.memory);
    free(net->spare);
    free(net->pieces);
    free(net);
}

const struct tri_net_table *tri_net_table(const struct tri_net *net)
{
    return &net->table;
}

uint32_t tri_net_moves(const struct tri_net *net)
{
    return net->moves;
}
