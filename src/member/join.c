/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Finding a seed. On a socket of its own, since the node's stands only when the
 * cluster's id is known. What a seed says under the key is believed at once;
 * what anybody could have said (another key, another version) only when the
 * time is up and nobody has said better.
 */

#include "member/join.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "member/hello.h"
#include "os/interface.h"
#include "os/udp.h"

#define BACKOFF_MIN_NS (100 * TRI_NS_PER_MS)
#define BACKOFF_MAX_NS (5000 * TRI_NS_PER_MS)
#define SEED_TEXT_BYTES 300 /* a host's name has at most 253 characters */

struct seed {
    char text[SEED_TEXT_BYTES];
    struct tri_endpoint endpoint; /* family 0: not known yet */
    int refused;                  /* for good: its error */
    int hint;                     /* what somebody said in its name */
    bool is_unknown;              /* its host, and that was said */
};

struct search {
    const struct tri_join_config *config;
    struct tri_packet_key *key;
    struct tri_udp socket;
    struct tri_random random;
    uint64_t token; /* of the first seed; the others follow */
    uint64_t counter;
    uint32_t len;
    struct seed seeds[TRI_SEEDS_MAX];
    uint32_t answered;
    uint64_t cluster; /* 0: nobody has answered yet */
};

uint64_t tri_cluster_name_hash(const char *name)
{
    return name == NULL || *name == '\0'
               ? 0
               : tri_mix64(tri_fnv64(TRI_FNV64_OFFSET, name, strlen(name)));
}

/* Cuts the next text off the list; false at its end. */
static bool next_seed(const char **list_p, const char **text_p, size_t *len_p)
{
    const char *list = *list_p;
    size_t len = strcspn(list, ",");

    if (*list == '\0')
        return false;
    *text_p = list;
    *len_p = len;
    *list_p = list + len + (list[len] == ',');
    return true;
}

/* Host, colon, port; brackets around an IPv6 address. */
static bool is_seed(const char *text, size_t len)
{
    const char *colon = memrchr(text, ':', len);
    size_t digits;
    long port = 0;

    if (colon == NULL || colon == text || len >= SEED_TEXT_BYTES)
        return false;
    digits = len - (size_t)(colon + 1 - text);
    for (size_t i = 0; i < digits; i++) {
        if (colon[1 + i] < '0' || colon[1 + i] > '9' || i >= 5)
            return false;
        port = port * 10 + (colon[1 + i] - '0');
    }
    if (port < 1 || port > UINT16_MAX)
        return false;
    return text[0] == '[' ? colon[-1] == ']'
                          : memchr(text, ':', (size_t)(colon - text)) == NULL;
}

bool tri_seeds_are_valid(const char *text)
{
    const char *seed;
    size_t len;
    uint32_t n = 0;

    while (next_seed(&text, &seed, &len))
        if (++n > TRI_SEEDS_MAX || !is_seed(seed, len))
            return false;
    return n > 0;
}

void tri_join_log(int error, const char *seed, const char *cluster)
{
    switch (error) {
    case TROUPE_EKEY:
        tri_error("%s has another key or security: give this process the "
                  "job's key (option key_file, the same file) and the same "
                  "option security",
                  seed);
        break;
    case TROUPE_EVERSION:
        tri_error("%s runs another version of troupe: build both with the "
                  "same one",
                  seed);
        break;
    case TROUPE_ECLUSTER:
        tri_error("%s belongs to another cluster than \"%s\": check option "
                  "cluster, here and there, and option seeds",
                  seed, cluster != NULL ? cluster : "");
        break;
    case TROUPE_EOPTION:
        tri_error("option strict_names is not the same here and at %s: set it "
                  "on all nodes of the cluster, or on none",
                  seed);
        break;
    case TROUPE_ELIMIT:
        tri_error("%s has no room for another member: raise option nodes_max "
                  "there (who died counts for a minute or two)",
                  seed);
        break;
    case TROUPE_ETRANSPORT:
        tri_error("%s cannot be reached by messages: it has no fabric open "
                  "(option transport, option listen)",
                  seed);
        break;
    default:
        tri_error("no seed answered (%s): are the addresses in option seeds "
                  "right, do the seeds run, is UDP let through?",
                  seed);
    }
}

/* --- asking --------------------------------------------------------------- */

static void take_list(struct search *search)
{
    const char *list = search->config->seeds;
    const char *text;
    size_t len;

    while (search->len < TRI_SEEDS_MAX && next_seed(&list, &text, &len)) {
        struct seed *seed = &search->seeds[search->len++];

        memcpy(seed->text, text, len);
        seed->text[len] = '\0';
    }
}

static void ask(struct search *search, uint32_t index)
{
    struct tri_hello hello = {
        .interface = TRI_INTERFACE_VERSION,
        .strict = search->config->strict,
        .profile = (uint8_t)search->config->profile,
        .cluster_name = tri_cluster_name_hash(search->config->cluster),
        .token = search->token + index,
    };
    unsigned char body[TRI_HELLO_BYTES], data[TRI_PACKET_BYTES_MAX];
    struct tri_packet packet = {
        .kind = TRI_SWIM_JOIN,
        .source = search->config->node,
        .counter = ++search->counter,
        .body = body,
        .body_bytes = sizeof(body),
    };
    size_t bytes;

    tri_hello_encode(&hello, body);
    bytes = tri_packet_seal(search->key, &packet, data);
    /* What does not go out now is asked again later. */
    if (bytes > 0)
        tri_udp_send(&search->socket, &search->seeds[index].endpoint, data,
                     bytes);
}

/* Looks up and asks all that have not refused. Errors: EOPTION. */
static int ask_all(struct search *search)
{
    for (uint32_t i = 0; i < search->len; i++) {
        struct seed *seed = &search->seeds[i];
        uint32_t found;
        int rc;

        if (seed->refused != 0)
            continue;
        if (seed->endpoint.family == 0) {
            rc = tri_endpoint_resolve(seed->text, search->socket.own.family,
                                      &seed->endpoint, 1, &found);
            if (rc == TROUPE_EOPTION)
                return rc;
            if (rc != 0) {
                if (!seed->is_unknown)
                    tri_warn("seed '%s': its host is not known; trying on",
                             seed->text);
                seed->is_unknown = true;
                seed->endpoint.family = 0;
                continue;
            }
        }
        ask(search, i);
    }
    return 0;
}

/* --- answers -------------------------------------------------------------- */

/* The seed whose answer has this token, or NULL. */
static struct seed *seed_of(struct search *search, uint64_t token)
{
    uint64_t i = token - search->token;

    return i < search->len ? &search->seeds[i] : NULL;
}

/* Anybody may have said it, so the search goes on; but who waits is told. */
static void note_hint(const struct search *search, struct seed *seed, int error)
{
    if (seed->hint == 0)
        tri_warn("%s seems to refuse this node (%s): trying for %llu s more "
                 "(option join_timeout_ms)",
                 seed->text, troupe_strerror(error),
                 (unsigned long long)(tri_ms_left(search->config->deadline_ns,
                                                  tri_now_ns()) / 1000));
    seed->hint = error;
}

static void note_refusal(struct search *search, const unsigned char *body,
                         size_t bytes, bool believed)
{
    struct tri_refused refused;
    struct seed *seed;

    if (tri_refused_decode(body, bytes, &refused) != NULL)
        return;
    seed = seed_of(search, refused.token);
    if (seed == NULL)
        return;
    /* Even a good tag proves nothing where nobody has a key. */
    if (believed && search->key != NULL)
        seed->refused = refused.error;
    else
        note_hint(search, seed, refused.error);
}

static void take_answer(struct search *search, const unsigned char *data,
                        size_t bytes, const struct tri_endpoint *from)
{
    struct tri_packet packet;
    struct tri_cookie cookie;
    struct tri_peek peek;
    struct seed *seed;
    uint64_t token;

    if (tri_packet_open(search->key, data, bytes, &packet) != NULL) {
        if (tri_packet_peek(data, bytes, &peek) &&
            peek.kind == TRI_PACKET_REFUSED &&
            peek.body_bytes >= TRI_REFUSED_BYTES)
            note_refusal(search, peek.body, TRI_REFUSED_BYTES, false);
        return;
    }
    if (packet.destination != search->config->node)
        return;
    if (packet.kind == TRI_PACKET_REFUSED) {
        note_refusal(search, packet.body, packet.body_bytes, true);
        return;
    }
    if (packet.kind != TRI_PACKET_CHALLENGE || packet.cluster == 0 ||
        tri_challenge_decode(packet.body, packet.body_bytes, &token,
                             &cookie) != NULL)
        return;
    seed = seed_of(search, token);
    if (seed == NULL)
        return;
    /* From where it answers it can be reached, too. */
    seed->endpoint = *from;
    search->answered = (uint32_t)(seed - search->seeds);
    search->cluster = packet.cluster;
}

static void listen_until(struct search *search, uint64_t until_ns)
{
    unsigned char data[TRI_PACKET_BYTES_MAX];
    struct tri_endpoint from;
    size_t bytes;

    while (search->cluster == 0) {
        struct pollfd readable = { .fd = search->socket.fd, .events = POLLIN };
        uint32_t left_ms = tri_ms_left(until_ns, tri_now_ns());
        enum tri_udp_arrival arrival;

        if (left_ms == 0)
            return;
        poll(&readable, 1, (int)left_ms);
        while ((arrival = tri_udp_receive(&search->socket, data, sizeof(data),
                                          &bytes, &from)) != TRI_UDP_NOTHING)
            if (arrival == TRI_UDP_DATAGRAM)
                take_answer(search, data, bytes, &from);
    }
}

/* Why it came to nothing: the surest reason that was heard. */
static int reason_of(const struct search *search, const char **seed_p)
{
    *seed_p = search->config->seeds;
    for (uint32_t i = 0; i < search->len; i++)
        if (search->seeds[i].refused != 0) {
            *seed_p = search->seeds[i].text;
            return search->seeds[i].refused;
        }
    for (uint32_t i = 0; i < search->len; i++)
        if (search->seeds[i].hint != 0) {
            *seed_p = search->seeds[i].text;
            return search->seeds[i].hint;
        }
    return TROUPE_ENOSEED;
}

static bool all_refused(const struct search *search)
{
    for (uint32_t i = 0; i < search->len; i++)
        if (search->seeds[i].refused == 0)
            return false;
    return true;
}

static int search_seeds(struct search *search)
{
    uint64_t backoff_ns = BACKOFF_MIN_NS;
    const char *seed;
    int rc;

    for (;;) {
        uint64_t now_ns;
        uint64_t pause_ns =
            backoff_ns / 2 +
            tri_random_below(&search->random, (uint32_t)(backoff_ns / 2000)) *
                1000ull;

        rc = ask_all(search);
        if (rc != 0)
            return rc;
        now_ns = tri_now_ns();
        listen_until(search,
                     tri_min(now_ns + pause_ns, search->config->deadline_ns));
        if (search->cluster != 0)
            return 0;
        if (all_refused(search) ||
            tri_now_ns() >= search->config->deadline_ns)
            break;
        backoff_ns = tri_min(backoff_ns * 2, BACKOFF_MAX_NS);
    }
    rc = reason_of(search, &seed);
    tri_join_log(rc, seed, search->config->cluster);
    return rc;
}

/* The one that answered, and the others that may be there, too. */
static void give_seeds(const struct search *search, struct tri_seeds *seeds_p)
{
    *seeds_p = (struct tri_seeds){ .len = 0 };
    for (uint32_t i = 0; i < search->len; i++) {
        const struct seed *seed = &search->seeds[i];

        if (i == search->answered)
            seeds_p->first = seeds_p->len;
        if (seed->refused == 0 && seed->endpoint.family != 0)
            seeds_p->endpoints[seeds_p->len++] = seed->endpoint;
    }
}

int tri_join_find(const struct tri_join_config *config,
                  struct tri_seeds *seeds_p, uint64_t *cluster_p)
{
    struct search *search = calloc(1, sizeof(*search));
    struct tri_endpoint own;
    int rc;

    if (search == NULL)
        return TROUPE_ENOMEM;
    search->config = config;
    tri_random_init(&search->random, tri_mix64(config->node));
    search->token = tri_random_next(&search->random);
    take_list(search);
    rc = config->key != NULL ? tri_packet_key_create(config->key,
                                                     config->security,
                                                     &search->key)
                             : 0;
    if (rc == 0)
        rc = tri_interface_choose(config->interface, &own);
    if (rc == 0)
        rc = tri_udp_open(&search->socket, &own, 0, 0);
    if (rc == 0) {
        rc = search_seeds(search);
        tri_udp_close(&search->socket);
    }
    if (rc == 0) {
        give_seeds(search, seeds_p);
        *cluster_p = search->cluster;
    }
    tri_packet_key_destroy(&search->key);
    free(search);
    return rc;
}
