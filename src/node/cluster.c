/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What of a node's start has to do with membership: which cluster it is in,
 * where its control datagrams go, what others are told of it.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "link/session.h"
#include "member/roster.h"
#include "member/spread.h"
#include "name/address.h"
#include "node/node.h"
#include "node/options.h"
#include "os/interface.h"
#include "os/process.h"

/* Ports after the fabric's that are tried where that one is taken. */
#define PORTS_TRIED 16
#define LISTEN_BYTES_MAX 64

/* --- options -------------------------------------------------------------- */

static bool parse_port(const char *text, uint16_t *port_p)
{
    uint32_t port = 0;
    size_t i;

    for (i = 0; text[i] >= '0' && text[i] <= '9' && i < 5; i++)
        port = port * 10 + (uint32_t)(text[i] - '0');
    if (i == 0 || text[i] != '\0' || port > UINT16_MAX)
        return false;
    *port_p = (uint16_t)port;
    return true;
}

/* "port", or "address:port"; address_p: "" for the first form. */
static bool parse_listen(const char *text, char address_p[LISTEN_BYTES_MAX],
                         uint16_t *port_p)
{
    const char *colon = strrchr(text, ':');
    size_t len = colon != NULL ? (size_t)(colon - text) : 0;

    if (len >= LISTEN_BYTES_MAX || (colon != NULL && len == 0) ||
        !parse_port(colon != NULL ? colon + 1 : text, port_p))
        return false;
    if (len > 1 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    memcpy(address_p, text, len);
    address_p[len] = '\0';
    return true;
}

static int refuse(const char *name, const char *variable, const char *value,
                  const char *allowed)
{
    tri_error("option %s (%s) is \"%s\"; allowed: %s", name, variable, value,
              allowed);
    return TROUPE_EOPTION;
}

/* What an address takes for a member's name, and for nothing else. */
static bool is_name(const char *text)
{
    char address[sizeof("actor:///a") + TRI_MEMBER_NAME_MAX];
    struct tri_actor_address parsed;
    struct tri_address_fault fault;
    size_t len = strlen(text);

    if (len > TRI_MEMBER_NAME_MAX)
        return false;
    snprintf(address, sizeof(address), "actor://%s/a", text);
    return tri_actor_address_parse(address, &parsed, &fault) == 0 &&
           parsed.place == TRI_PLACE_MEMBER && parsed.member_len == len;
}

int tri_cluster_check_options(const troupe_options_t *options)
{
    char address[LISTEN_BYTES_MAX];
    uint16_t port;

    if (options->seeds != NULL && !tri_seeds_are_valid(options->seeds))
        return refuse("seeds", "TROUPE_SEEDS", options->seeds,
                      "host:port,host:port, at most 16");
    if (options->listen != NULL &&
        !parse_listen(options->listen, address, &port))
        return refuse("listen", "TROUPE_LISTEN", options->listen,
                      "port, or address:port");
    if (options->node_name != NULL && !is_name(options->node_name))
        return refuse("node_name", "TROUPE_NODE_NAME", options->node_name,
                      "1 to 63 of A-Z a-z 0-9 _ . -, but not localhost, "
                      "rank.N or 16 hexadecimal digits");
    return 0;
}

uint32_t tri_cluster_flags(const troupe_t *troupe)
{
    const troupe_options_t *options = &troupe->runtime.options;
    bool has_key = options->key_file != NULL || troupe->welcome != NULL;

    return (options->seeds != NULL ? TRI_CARD_SEEDS : 0) |
           (options->listen != NULL ? TRI_CARD_LISTEN : 0) |
           (has_key ? TRI_CARD_KEY_FILE : 0) |
           (options->growable != 0 ? TRI_CARD_GROWABLE : 0) |
           (options->strict_names != 0 ? TRI_CARD_STRICT : 0);
}

/* Who lacks it would never answer the others. */
static int check_strict(const troupe_t *troupe)
{
    for (int i = 1; i < troupe->runtime.size; i++)
        if (((troupe->cards[i].flags ^ troupe->cards[0].flags) &
             TRI_CARD_STRICT) != 0) {
            if (troupe->runtime.rank == 0)
                tri_error("option strict_names is not the same on ranks 0 "
                          "and %d", i);
            return TROUPE_EOPTION;
        }
    return 0;
}

/* Rank 0 reads seeds and key for all. All see the same; it says so for all. */
int tri_cluster_check_cards(const troupe_t *troupe)
{
    const struct tri_runtime *runtime = &troupe->runtime;
    uint32_t flags = 0;
    int rank = 0; /* the first that expects others, or wants to join them */

    if (check_strict(troupe) != 0)
        return TROUPE_EOPTION;
    for (int i = runtime->size - 1; i >= 0; i--) {
        uint32_t open = troupe->cards[i].flags & TRI_CARD_OPEN;

        rank = open != 0 ? i : rank;
        flags |= open;
    }
    if ((flags & TRI_CARD_SEEDS) && !(troupe->cards[0].flags & TRI_CARD_SEEDS)) {
        if (runtime->rank == 0)
            tri_error("option seeds is set on rank %d, but not on rank 0, "
                      "which reads it for all", rank);
        return TROUPE_EOPTION;
    }
    if (flags == 0 || troupe->security == TRI_SEAL_NONE ||
        (troupe->cards[0].flags & TRI_CARD_KEY_FILE))
        return 0;
    if (runtime->rank == 0)
        tri_error("option %s (of rank %d) needs a key that both sides have: "
                  "name a file of 64 hexadecimal digits in option key_file of "
                  "rank 0, the same here and there (or set option security to "
                  "\"none\" on a network that only friends can reach)",
                  flags & TRI_CARD_SEEDS ? "seeds" : "listen", rank);
    return TROUPE_EOPTION;
}

/* --- which cluster -------------------------------------------------------- */

static enum tri_swim_profile profile_of(const char *text)
{
    static const char *const names[] = {
        [TRI_SWIM_HPC] = "hpc",
        [TRI_SWIM_FAST] = "fast",
        [TRI_SWIM_CLOUD] = "cloud",
        [TRI_SWIM_TEST] = "test",
    };

    for (size_t i = 0; i < tri_array_len(names); i++)
        if (strcmp(text, names[i]) == 0)
            return (enum tri_swim_profile)i;
    return TRI_SWIM_HPC;
}

struct found {
    int rc;
    uint64_t cluster;
    struct tri_seeds seeds;
};

int tri_cluster_find(troupe_t *troupe)
{
    struct tri_runtime *runtime = &troupe->runtime;
    struct found found = { .cluster = troupe->cards[0].nonce };
    int rc = 0;

    troupe->cluster = found.cluster;
    if ((troupe->cards[0].flags & TRI_CARD_SEEDS) == 0)
        return 0;
    if (runtime->rank == 0) {
        struct tri_join_config config = {
            .seeds = runtime->options.seeds,
            .interface = runtime->options.interface,
            .cluster = runtime->options.cluster,
            .strict = runtime->options.strict_names != 0,
            .profile = profile_of(runtime->options.membership),
            .node = runtime->node,
            .key = troupe->key,
            .security = troupe->security,
            .deadline_ns = tri_now_ns() +
                           runtime->options.join_timeout_ms * TRI_NS_PER_MS,
        };

        found.rc = tri_join_find(&config, &found.seeds, &found.cluster);
    }
    if (troupe->job != NULL)
        rc = tri_job_broadcast(troupe->job, &found, sizeof(found));
    if (rc != 0 || found.rc != 0)
        return rc != 0 ? rc : found.rc;
    troupe->cluster = found.cluster;
    troupe->seeds = found.seeds;
    return 0;
}

/* --- the socket ----------------------------------------------------------- */

/* Who takes the port of option listen: of a host's ranks that have it, the
 * first. */
static bool is_door_of_host(const troupe_t *troupe)
{
    for (int i = 0; i < troupe->runtime.rank; i++)
        if (troupe->cards[i].host == troupe->topology.host &&
            (troupe->cards[i].flags & TRI_CARD_LISTEN))
            return false;
    return troupe->runtime.options.listen != NULL;
}

/* Where to bind. own_p: what others are told, but for the port. */
static int choose_address(const troupe_t *troupe,
                          struct tri_endpoint *address_p,
                          struct tri_endpoint *own_p, uint16_t *port_p)
{
    const troupe_options_t *options = &troupe->runtime.options;
    bool all_here = troupe->host_ranks == (uint32_t)troupe->runtime.size;
    char address[LISTEN_BYTES_MAX] = "";
    int rc;

    *port_p = 0;
    if (is_door_of_host(troupe))
        parse_listen(options->listen, address, port_p);
    if (address[0] != '\0')
        rc = tri_interface_choose(address, own_p);
    else if (all_here && !troupe->is_open && options->interface == NULL)
        rc = tri_interface_choose("127.0.0.1", own_p);
    else
        rc = tri_interface_choose(options->interface, own_p);
    if (rc != 0 && address[0] != '\0') {
        tri_error("option listen is \"%s\": before the port goes an address of "
                  "this host, or nothing: then it is that of all of them",
                  options->listen);
        rc = TROUPE_EOPTION;
    }
    *address_p = *own_p;
    /* A port alone is one of all addresses. */
    if (*port_p != 0 && address[0] == '\0')
        memset(address_p->ip, 0, sizeof(address_p->ip));
    return rc;
}

/* The number of the fabric's port, or one near it. */
static void choose_ports(const troupe_t *troupe, uint16_t *first_p,
                         uint16_t *last_p)
{
    uint16_t first, last, port = 0;

    (void)tri_options_ports(troupe->runtime.options.port_range, &first, &last);
    if (troupe->fabric != NULL)
        port = tri_session_port(troupe->fabric);
    if (port != 0) {
        if (last == 0)
            last = (uint16_t)tri_min(port + PORTS_TRIED, UINT16_MAX);
        first = port;
        last = (uint16_t)tri_max(first, last);
    }
    *first_p = first;
    *last_p = last;
}

int tri_cluster_open_socket(troupe_t *troupe)
{
    struct tri_endpoint address, own;
    uint16_t first, last, port;
    int rc;

    if (troupe->runtime.size == 1 && !troupe->is_open)
        return 0;
    rc = choose_address(troupe, &address, &own, &port);
    if (rc != 0)
        return rc;
    choose_ports(troupe, &first, &last);
    if (port != 0)
        first = last = port;
    rc = tri_udp_open(&troupe->socket, &address, first, last);
    if (rc != 0) {
        troupe->socket.own.family = 0;
        if (port != 0)
            tri_error("option listen is \"%s\": another process has this "
                      "port, or the address is not this host's",
                      troupe->runtime.options.listen);
        return rc;
    }
    own.port = troupe->socket.own.port;
    troupe->endpoint = own;
    return 0;
}

/* --- the card ------------------------------------------------------------- */

void tri_cluster_card(const troupe_t *troupe, struct tri_member_card *card_p)
{
    const struct tri_runtime *runtime = &troupe->runtime;
    struct tri_member_card card;

    memset(&card, 0, sizeof(card));
    card.node = runtime->node;
    card.host = troupe->topology.host;
    card.job = troupe->cards[0].node;
    card.started = tri_process_started(getpid());
    card.rank = runtime->rank;
    card.size = runtime->size;
    card.pid = (uint32_t)getpid();
    card.cores = troupe->topology.bound_len;
    card.interface = TRI_INTERFACE_VERSION;
    card.control = troupe->endpoint;
    if (troupe->ring != NULL)
        troupe->ring->ops->address(troupe->ring, &card.ring);
    if (troupe->fabric != NULL)
        troupe->fabric->ops->address(troupe->fabric, &card.fabric);
    if (runtime->options.node_name != NULL)
        strncpy(card.name, runtime->options.node_name, TRI_MEMBER_NAME_MAX);
    *card_p = card;
}

/* --- life ----------------------------------------------------------------- */

int tri_cluster_open(troupe_t *troupe)
{
    struct tri_runtime *runtime = &troupe->runtime;
    struct tri_roster_config roster = {
        .runtime = runtime,
        .self = &troupe->members[runtime->rank],
        .members_max = (uint32_t)tri_max(runtime->options.nodes_max,
                                         (size_t)runtime->size),
    };
    struct tri_member_config config = {
        .runtime = runtime,
        .cards = troupe->members,
        .socket = &troupe->socket,
        .cluster = troupe->cluster,
        .cluster_name = troupe->cards[0].cluster_name,
        .profile = profile_of(runtime->options.membership),
        .key = troupe->key,
        .security = troupe->security,
        .ring = troupe->ring,
        .fabric = troupe->fabric,
        .seeds = &troupe->seeds,
        .nodes_max = roster.members_max,
    };
    int rc = tri_roster_create(&roster, &runtime->roster);

    if (rc == 0)
        rc = tri_member_open(&config);
    return rc == 0 ? tri_spread_open(runtime) : rc;
}

void tri_cluster_close(troupe_t *troupe)
{
    tri_member_close(&troupe->runtime.member);
    tri_roster_destroy(&troupe->runtime.roster);
    if (troupe->socket.own.family != 0)
        tri_udp_close(&troupe->socket);
}

int tri_cluster_join(troupe_t *troupe)
{
    struct tri_runtime *runtime = &troupe->runtime;

    if (troupe->seeds.len == 0)
        return 0;
    return tri_member_join(runtime->member,
                           tri_now_ns() + runtime->options.join_timeout_ms *
                                              TRI_NS_PER_MS);
}
