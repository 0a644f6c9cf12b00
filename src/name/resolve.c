/* SPDX-License-Identifier: BSD-3-Clause */

/* Finding an actor by its address. */

#include <string.h>

#include <troupe/name.h>

#include "actor/runtime.h"
#include "base/log.h"
#include "message/type.h"
#include "name/address.h"

/* What is looked for, and by whom. */
struct search {
    struct tri_runtime *runtime;
    struct tri_actor_address address;
    uint32_t protocol; /* hash, or 0: anything */
    uint32_t timeout_ms;
    char name[TRI_NAME_LEN_MAX + 1]; /* unless it is an id */
};

/* The node of an address that has one, or 0: there is none. */
static uint64_t node_of(const struct search *search)
{
    const struct tri_actor_address *address = &search->address;
    struct tri_runtime *runtime = search->runtime;

    switch (address->place) {
    case TRI_PLACE_RANK:
        if (address->rank == runtime->rank)
            return runtime->node;
        return address->rank < runtime->size
                   ? runtime->link.peers[address->rank].node
                   : 0;
    case TRI_PLACE_NODE:
        return address->node;
    case TRI_PLACE_MEMBER:
        return 0;
    default:
        return runtime->node;
    }
}

static int find_id(const struct search *search, uint64_t node,
                   troupe_ref_t *ref_p)
{
    const struct tri_actor_address *address = &search->address;
    struct tri_runtime *runtime = search->runtime;
    struct tri_peer *peer;

    if (node == runtime->node) {
        if (tri_actor_find(&runtime->actors, address->slot,
                           address->generation) == NULL)
            return TROUPE_ENOACTOR;
    } else {
        peer = tri_link_find(&runtime->link, node);
        if (peer == NULL || tri_peer_is_dead(peer))
            return TROUPE_ENODE;
    }
    *ref_p = (troupe_ref_t){ node, address->slot, address->generation };
    return 0;
}

static int find_name(const struct search *search, uint64_t node,
                     troupe_ref_t *ref_p)
{
    struct tri_runtime *runtime = search->runtime;

    if (tri_worker_current() != NULL)
        return node == runtime->node
                   ? tri_names_find(&runtime->names, search->name,
                                    search->protocol, ref_p)
                   : TROUPE_ECONTEXT;
    return tri_ask_name(runtime, node, search->name, search->address.name_len,
                        search->protocol, search->timeout_ms, ref_p);
}

static int parse(struct search *search, const char *text)
{
    struct tri_address_fault fault;
    int rc = tri_actor_address_parse(text, &search->address, &fault);

    if (rc != 0) {
        tri_error("an address is not valid at byte %zu: %s", fault.position,
                  fault.reason);
        return rc;
    }
    if (search->address.name == NULL)
        return 0;
    memcpy(search->name, search->address.name, search->address.name_len);
    search->name[search->address.name_len] = '\0';
    return 0;
}

int troupe_resolve(troupe_from_t from, const char *address,
                   troupe_protocol_t *protocol, int timeout_ms,
                   troupe_ref_t *ref_p)
{
    troupe_self_t *self;
    struct search search = { .runtime = tri_runtime_of(from, &self) };
    uint64_t node;
    int rc;

    if (search.runtime == NULL || address == NULL || ref_p == NULL ||
        timeout_ms < 0)
        return TROUPE_EINVAL;
    rc = parse(&search, address);
    if (rc != 0)
        return rc;
    search.protocol = protocol != NULL ? tri_protocol_hash(protocol) : 0;
    search.timeout_ms = timeout_ms > 0
                            ? (uint32_t)timeout_ms
                            : search.runtime->options.ask_timeout_ms;
    node = node_of(&search);
    if (node == 0)
        return TROUPE_ENODE;
    return search.address.name == NULL ? find_id(&search, node, ref_p)
                                       : find_name(&search, node, ref_p);
}
