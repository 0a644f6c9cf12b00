/* SPDX-License-Identifier: BSD-3-Clause */

/* Addresses of actors, as a program may pass them on from anywhere: each is
 * taken apart or refused with a place in it, and what is put together again
 * from the parts means the same. */

#include <inttypes.h>
#include <stdio.h>

#include "fuzz.h"

#include <troupe/name.h>

#include "actor/names.h"
#include "name/address.h"

static int print_node(const struct tri_actor_address *address, char *text,
                      size_t bytes)
{
    switch (address->place) {
    case TRI_PLACE_LOCAL:
        return snprintf(text, bytes, "localhost");
    case TRI_PLACE_RANK:
        return snprintf(text, bytes, "rank.%d", address->rank);
    case TRI_PLACE_NODE:
        return snprintf(text, bytes, "%016" PRIx64, address->node);
    case TRI_PLACE_MEMBER:
        return snprintf(text, bytes, "%.*s", (int)address->member_len,
                        address->member);
    default:
        return 0;
    }
}

static void print(const struct tri_actor_address *address, char *text,
                  size_t bytes)
{
    char node[80] = "";
    int len = print_node(address, node, sizeof(node));

    FUZZ_CHECK(len >= 0 && (size_t)len < sizeof(node));
    if (address->name == NULL)
        len = snprintf(text, bytes, "actor://%s/%" PRIu32 ".%" PRIu32, node,
                       address->slot, address->generation);
    else
        len = snprintf(text, bytes, "actor:///%.*s%s%s",
                       (int)address->name_len, address->name,
                       len > 0 ? "@" : "", node);
    FUZZ_CHECK(len >= 0 && (size_t)len < bytes);
}

static bool is_same(const struct tri_actor_address *a,
                    const struct tri_actor_address *b)
{
    return a->place == b->place && a->rank == b->rank && a->node == b->node &&
           a->member_len == b->member_len &&
           (a->member_len == 0 ||
            memcmp(a->member, b->member, a->member_len) == 0) &&
           a->slot == b->slot && a->generation == b->generation &&
           (a->name == NULL) == (b->name == NULL) &&
           a->name_len == b->name_len &&
           (a->name == NULL || memcmp(a->name, b->name, a->name_len) == 0);
}

static void check_good(const struct tri_actor_address *address)
{
    char text[512];
    struct tri_actor_address again;
    struct tri_address_fault fault;

    if (address->name != NULL)
        FUZZ_CHECK(tri_name_is_valid(address->name, address->name_len));
    print(address, text, sizeof(text));
    FUZZ_CHECK(tri_actor_address_parse(text, &again, &fault) == 0);
    FUZZ_CHECK(is_same(address, &again));
}

/* In memory of its own size, so that a read behind it is seen. */
static void check(const char *scheme, const uint8_t *data, size_t bytes)
{
    size_t scheme_bytes = strlen(scheme);
    char *text = malloc(scheme_bytes + bytes + 1);
    struct tri_actor_address address;
    struct tri_address_fault fault;

    if (!text)
        return;
    memcpy(text, scheme, scheme_bytes);
    memcpy(text + scheme_bytes, data, bytes);
    text[scheme_bytes + bytes] = '\0';
    if (tri_actor_address_parse(text, &address, &fault) == 0)
        check_good(&address);
    else
        FUZZ_CHECK(fault.position <= strlen(text) && fault.reason[0] != '\0');
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    check("", data, bytes);
    check("actor://", data, bytes);
    return 0;
}
