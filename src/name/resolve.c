/* SPDX-License-Identifier: BSD-3-Clause */

/* Finding an actor by its address. */

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "message/type.h"
#include "member/roster.h"
#include "name/address.h"
#include "name/directory.h"

/* What is looked for, and by whom. */
struct search {
    struct tri_runtime *runtime;
    struct tri_actor_address address;
    struct tri_query query;
    uint32_t timeout_ms;
    char name[TRI_NAME_LEN_MAX + 1]; /* unless it is an id */
    /* while it waits */
    int rc;
    troupe_ref_t ref;
};

static int member_of(const struct search *search, uint64_t *node_p)
{
    const struct tri_actor_address *address = &search->address;
    char name[TROUPE_MEMBER_NAME_MAX + 1] = "";
    troupe_member_t member;

    memcpy(name, address->member, address->member_len);
    if (search->runtime->roster == NULL ||
        !tri_roster_find(search->runtime->roster, name, &member, NULL))
        return TROUPE_ENODE;
    *node_p = member.node;
    return 0;
}

/* The node of an address that has one. Errors: ENODE. */
static int node_of(const struct search *search, uint64_t *node_p)
{
    const struct tri_actor_address *address = &search->address;
    struct tri_runtime *runtime = search->runtime;

    switch (address->place) {
    case TRI_PLACE_MEMBER:
        return member_of(search, node_p);
    case TRI_PLACE_NODE:
        *node_p = address->node;
        return 0;
    case TRI_PLACE_RANK:
        if (address->rank >= runtime->size)
            return TROUPE_ENODE;
        if (address->rank == runtime->rank)
            break;
        *node_p = runtime->link.peers[address->rank].node;
        return 0;
    default:
        break;
    }
    *node_p = runtime->node;
    return 0;
}

/* Errors: ENODE. */
static int check_node(const struct tri_runtime *runtime, uint64_t node)
{
    struct tri_peer *peer;

    if (node == runtime->node)
        return 0;
    peer = tri_link_find((struct tri_link *)(uintptr_t)&runtime->link, node);
    return peer != NULL && !tri_peer_is_dead(peer) ? 0 : TROUPE_ENODE;
}

static int find_id(const struct search *search, uint64_t node,
                   troupe_ref_t *ref_p)
{
    const struct tri_actor_address *address = &search->address;

    if (node == search->runtime->node &&
        tri_actor_find(&search->runtime->actors, address->slot,
                       address->generation) == NULL)
        return TROUPE_ENOACTOR;
    *ref_p = (troupe_ref_t){ node, address->slot, address->generation };
    return 0;
}

/* On one node: the node itself is asked, and waits for the name; in a handler
 * what is known of it has to do. */
static int find_there(struct search *search, uint64_t node,
                      troupe_ref_t *ref_p)
{
    struct tri_runtime *runtime = search->runtime;

    if (tri_worker_current() == NULL)
        return tri_ask_name(runtime, node, search->name,
                            search->query.name_len, search->query.protocol,
                            search->timeout_ms, ref_p);
    if (node == runtime->node)
        return tri_names_find(&runtime->names, search->name,
                              search->query.protocol, ref_p);
    search->query.node = node;
    return tri_directory_find(runtime->directory, &search->query, ref_p);
}

static bool is_found(void *arg)
{
    struct search *search = arg;

    search->rc = tri_directory_find(search->runtime->directory, &search->query,
                                    &search->ref);
    return search->rc != TROUPE_ENONAME;
}

static int find_anywhere(struct search *search, troupe_ref_t *ref_p)
{
    struct tri_runtime *runtime = search->runtime;
    struct tri_directory *directory = runtime->directory;
    uint64_t deadline_ns = tri_deadline_ns((int)search->timeout_ms);
    struct tri_seat seat;

    if (!is_found(search) && tri_worker_current() == NULL) {
        /* Who adds a name after the next look sees this, by the directory's
         * mutex, and wakes us. */
        atomic_fetch_add(&directory->waiting, 1);
        tri_seat_take(runtime, &seat);
        (void)tri_wait(&seat, is_found, search, deadline_ns);
        tri_seat_leave(&seat);
        atomic_fetch_sub(&directory->waiting, 1);
    }
    if (search->rc == 0)
        *ref_p = search->ref;
    return search->rc;
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
    search->query.name = search->name;
    search->query.name_len = search->address.name_len;
    return 0;
}

static bool is_valid(const troupe_resolve_options_t *options)
{
    return options == NULL ||
           (options->policy <= TROUPE_RESOLVE_HASH &&
            options->reserved == 0 &&
            (options->policy != TROUPE_RESOLVE_HASH || options->key != NULL));
}

int troupe_resolve_with(troupe_from_t from, const char *address,
                        troupe_protocol_t *protocol,
                        const troupe_resolve_options_t *options,
                        int timeout_ms, troupe_ref_t *ref_p)
{
    troupe_self_t *self;
    struct search search = { .runtime = tri_runtime_of(from, &self),
                             .query.options = options };
    uint64_t node;
    int rc;

    if (search.runtime == NULL || address == NULL || ref_p == NULL ||
        timeout_ms < 0 || !is_valid(options))
        return TROUPE_EINVAL;
    rc = parse(&search, address);
    if (rc != 0)
        return rc;
    search.query.protocol =
        protocol != NULL ? tri_protocol_hash(protocol) : 0;
    search.timeout_ms = timeout_ms > 0
                            ? (uint32_t)timeout_ms
                            : search.runtime->options.ask_timeout_ms;
    if (search.address.place == TRI_PLACE_ANY)
        return find_anywhere(&search, ref_p);
    rc = node_of(&search, &node);
    if (rc == 0)
        rc = check_node(search.runtime, node);
    if (rc != 0)
        return rc;
    return search.address.name == NULL ? find_id(&search, node, ref_p)
                                       : find_there(&search, node, ref_p);
}

int troupe_resolve(troupe_from_t from, const char *address,
                   troupe_protocol_t *protocol, int timeout_ms,
                   troupe_ref_t *ref_p)
{
    return troupe_resolve_with(from, address, protocol, NULL, timeout_ms,
                               ref_p);
}
