/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/interface.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define LIST_BYTES_MAX 320

/* Appends "item" or ", item", as long as there is room. */
static void list_add(char list[LIST_BYTES_MAX], const char *item)
{
    size_t used = strlen(list);

    snprintf(list + used, LIST_BYTES_MAX - used, "%s%s", used ? ", " : "",
             item);
}

/* The bytes of an IPv4 or IPv6 address, or NULL for another family. */
static const unsigned char *address_bytes(const struct sockaddr *address,
                                          size_t *bytes_p)
{
    if (!address)
        return NULL;
    if (address->sa_family == AF_INET) {
        *bytes_p = sizeof(struct in_addr);
        return (const void *)&((const struct sockaddr_in *)(const void *)
                                   address)->sin_addr;
    }
    if (address->sa_family == AF_INET6) {
        *bytes_p = sizeof(struct in6_addr);
        return (const void *)&((const struct sockaddr_in6 *)(const void *)
                                   address)->sin6_addr;
    }
    return NULL;
}

static bool prefix_equal(const unsigned char *a, const unsigned char *b,
                         unsigned bits)
{
    unsigned rest = bits % 8;

    if (memcmp(a, b, bits / 8) != 0)
        return false;
    return rest == 0 || ((a[bits / 8] ^ b[bits / 8]) >> (8 - rest)) == 0;
}

/* What `interface` asks for: a prefix of an address (all bits: an address), or
 * a name. */
struct wanted {
    const char *name;
    unsigned char prefix[sizeof(struct in6_addr)];
    size_t prefix_bytes; /* of the family's address; 0: a name */
    unsigned prefix_bits;
};

static bool wanted_parse(const char *interface, struct wanted *wanted_p)
{
    char text[INET6_ADDRSTRLEN];
    const char *slash = strchr(interface, '/');
    size_t text_len = slash ? (size_t)(slash - interface) : strlen(interface);
    char *end;
    unsigned long bits;

    *wanted_p = (struct wanted){ .name = interface };
    if (text_len >= sizeof(text))
        return !slash;
    memcpy(text, interface, text_len);
    text[text_len] = '\0';
    if (inet_pton(AF_INET, text, wanted_p->prefix) == 1)
        wanted_p->prefix_bytes = sizeof(struct in_addr);
    else if (inet_pton(AF_INET6, text, wanted_p->prefix) == 1)
        wanted_p->prefix_bytes = sizeof(struct in6_addr);
    else
        return !slash;
    wanted_p->prefix_bits = (unsigned)wanted_p->prefix_bytes * 8;
    if (!slash)
        return true;
    bits = strtoul(slash + 1, &end, 10);
    if (slash[1] < '0' || slash[1] > '9' || *end != '\0' ||
        bits > wanted_p->prefix_bits)
        return false;
    wanted_p->prefix_bits = (unsigned)bits;
    return true;
}

/* How well an address serves: 0 not at all, the highest wins. */
static int address_rank(const struct ifaddrs *found,
                        const struct wanted *wanted)
{
    size_t bytes = 0;
    const unsigned char *address = address_bytes(found->ifa_addr, &bytes);
    bool ipv4 = bytes == sizeof(struct in_addr);

    if (!address || !(found->ifa_flags & IFF_UP))
        return 0;
    if (!wanted)
        return !ipv4 ? 0 : found->ifa_flags & IFF_LOOPBACK ? 1 : 2;
    if (wanted->prefix_bytes > 0)
        return bytes == wanted->prefix_bytes &&
               prefix_equal(address, wanted->prefix, wanted->prefix_bits);
    if (strcmp(found->ifa_name, wanted->name) != 0)
        return 0;
    /* A link-local IPv6 address needs a scope, which no peer could use. */
    return ipv4 ? 2 : !(address[0] == 0xfe && (address[1] & 0xc0) == 0x80);
}

static void interface_unusable(const char *interface,
                               const struct ifaddrs *all)
{
    char list[LIST_BYTES_MAX] = "";

    for (const struct ifaddrs *one = all; one; one = one->ifa_next) {
        char text[INET6_ADDRSTRLEN], item[INET6_ADDRSTRLEN + IFNAMSIZ + 4];
        size_t bytes;
        const unsigned char *address = address_bytes(one->ifa_addr, &bytes);

        if (!address || !(one->ifa_flags & IFF_UP) ||
            !inet_ntop(one->ifa_addr->sa_family, address, text, sizeof(text)))
            continue;
        snprintf(item, sizeof(item), "%s %s", one->ifa_name, text);
        list_add(list, item);
    }
    tri_error("interface '%s' is not an address, name or address/bits of "
              "this host; there are: %s", interface, list);
}

/* The best of what there is, or NULL. */
static const struct ifaddrs *choose(const struct ifaddrs *all,
                                    const char *interface)
{
    const struct ifaddrs *best = NULL;
    struct wanted wanted;
    int best_rank = 0;

    if (interface && !wanted_parse(interface, &wanted))
        return NULL;
    for (const struct ifaddrs *one = all; one; one = one->ifa_next) {
        int rank = address_rank(one, interface ? &wanted : NULL);

        if (rank > best_rank) {
            best = one;
            best_rank = rank;
        }
    }
    return best;
}

int tri_interface_choose(const char *interface,
                         struct tri_endpoint *endpoint_p)
{
    const struct ifaddrs *best;
    struct ifaddrs *all;
    int rc = 0;

    if (interface && interface[0] == '\0')
        interface = NULL;
    if (getifaddrs(&all) != 0) {
        tri_error("getifaddrs: %s", strerror(errno));
        return TROUPE_ESYSTEM;
    }
    best = choose(all, interface);
    if (best) {
        bool v4 = best->ifa_addr->sa_family == AF_INET;

        tri_endpoint_from_sockaddr(best->ifa_addr,
                                   v4 ? sizeof(struct sockaddr_in)
                                      : sizeof(struct sockaddr_in6),
                                   endpoint_p);
        endpoint_p->port = 0;
    } else if (interface) {
        interface_unusable(interface, all);
        rc = TROUPE_ETRANSPORT;
    } else {
        *endpoint_p = (struct tri_endpoint){ .family = 4,
                                             .ip = { 127, 0, 0, 1 } };
    }
    freeifaddrs(all);
    return rc;
}
