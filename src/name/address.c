/* SPDX-License-Identifier: BSD-3-Clause */
#include "name/address.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <troupe/name.h>

#include "actor/names.h"

#define SCHEME "actor://"
#define LOCALHOST "localhost"
#define RANK_PREFIX "rank."
#define RANK_DIGITS_MAX 7
#define NODE_DIGITS 16

/* A piece of an address: bytes from `at` to `end`. */
struct piece {
    const char *whole;
    const char *at;
    const char *end;
    struct tri_address_fault *fault;
};

static int wrong(const struct piece *piece, const char *at, const char *reason)
{
    *piece->fault = (struct tri_address_fault){
        .position = (size_t)(at - piece->whole),
        .reason = reason,
    };
    return TROUPE_EADDRESS;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool is_word(const struct piece *piece, const char *word)
{
    size_t len = strlen(word);

    return (size_t)(piece->end - piece->at) == len &&
           memcmp(piece->at, word, len) == 0;
}

static bool begins_with(const struct piece *piece, const char *word)
{
    size_t len = strlen(word);

    return (size_t)(piece->end - piece->at) >= len &&
           memcmp(piece->at, word, len) == 0;
}

/* --- nodes ---------------------------------------------------------------- */

static int parse_rank(const struct piece *node,
                      struct tri_actor_address *address)
{
    const char *at = node->at + strlen(RANK_PREFIX);
    int rank = 0;

    if (at == node->end)
        return wrong(node, at, "the rank's number is missing");
    for (const char *digit = at; digit < node->end; digit++) {
        if (!is_digit(*digit))
            return wrong(node, digit, "a rank is a decimal number");
        if (digit - at >= RANK_DIGITS_MAX)
            return wrong(node, digit, "a rank has at most 7 digits");
        rank = rank * 10 + (*digit - '0');
    }
    address->place = TRI_PLACE_RANK;
    address->rank = rank;
    return 0;
}

/* Sixteen hexadecimal digits and nothing else. */
static bool scan_node_id(const struct piece *node, uint64_t *id_p)
{
    uint64_t id = 0;

    if (node->end - node->at != NODE_DIGITS)
        return false;
    for (const char *at = node->at; at < node->end; at++) {
        int value = hex_value(*at);

        if (value < 0)
            return false;
        id = id << 4 | (uint64_t)value;
    }
    *id_p = id;
    return true;
}

static int parse_member(const struct piece *node,
                        struct tri_actor_address *address)
{
    for (const char *at = node->at; at < node->end; at++) {
        if (*at == '/' || !tri_name_has_char(*at))
            return wrong(node, at,
                         "a node is localhost, rank.N, 16 hexadecimal digits, "
                         "or a member's name of A-Z a-z 0-9 _ . -");
        if (at - node->at >= TROUPE_MEMBER_NAME_MAX)
            return wrong(node, at, "a member's name has at most 63 bytes");
    }
    address->place = TRI_PLACE_MEMBER;
    address->member = node->at;
    address->member_len = (size_t)(node->end - node->at);
    return 0;
}

static int parse_node(const struct piece *node,
                      struct tri_actor_address *address)
{
    uint64_t id;

    if (node->at == node->end)
        return wrong(node, node->at, "the node is missing");
    if (is_word(node, LOCALHOST)) {
        address->place = TRI_PLACE_LOCAL;
        return 0;
    }
    if (begins_with(node, RANK_PREFIX))
        return parse_rank(node, address);
    if (!scan_node_id(node, &id))
        return parse_member(node, address);
    if (id == 0)
        return wrong(node, node->at, "no node has the id 0");
    address->place = TRI_PLACE_NODE;
    address->node = id;
    return 0;
}

/* --- names and ids -------------------------------------------------------- */

static int parse_name(const struct piece *name,
                      struct tri_actor_address *address)
{
    size_t len = (size_t)(name->end - name->at);
    size_t position;
    const char *reason;

    if (tri_name_check(name->at, len, &position, &reason) != 0)
        return wrong(name, name->at + position, reason);
    address->name = name->at;
    address->name_len = len;
    return 0;
}

/* True for DIGITS.DIGITS; dot_p: where the dot is. */
static bool looks_like_id(const struct piece *path, const char **dot_p)
{
    const char *dot = NULL;

    for (const char *at = path->at; at < path->end; at++) {
        if (is_digit(*at))
            continue;
        if (*at != '.' || dot != NULL || at == path->at)
            return false;
        dot = at;
    }
    *dot_p = dot;
    return dot != NULL && dot + 1 < path->end;
}

static int parse_number(const struct piece *number, uint32_t *value_p)
{
    uint64_t value = 0;

    for (const char *at = number->at; at < number->end; at++) {
        value = value * 10 + (uint64_t)(*at - '0');
        if (value > UINT32_MAX)
            return wrong(number, at,
                         "the numbers of an id are at most 4294967295");
    }
    *value_p = (uint32_t)value;
    return 0;
}

static int parse_name_or_id(const struct piece *path,
                            struct tri_actor_address *address)
{
    struct piece slot = *path, generation = *path;
    const char *dot;
    int rc;

    if (!looks_like_id(path, &dot))
        return parse_name(path, address);
    slot.end = dot;
    generation.at = dot + 1;
    rc = parse_number(&slot, &address->slot);
    if (rc == 0)
        rc = parse_number(&generation, &address->generation);
    return rc;
}

/* --- the whole ------------------------------------------------------------ */

/* actor:///NAME and actor:///NAME@NODE */
static int parse_anywhere(const struct piece *rest,
                          struct tri_actor_address *address)
{
    struct piece name = *rest, node = *rest;
    const char *at = memchr(rest->at, '@', (size_t)(rest->end - rest->at));
    int rc;

    name.end = at != NULL ? at : rest->end;
    rc = parse_name(&name, address);
    if (rc != 0 || at == NULL)
        return rc;
    node.at = at + 1;
    return parse_node(&node, address);
}

/* actor://NODE/NAME and actor://NODE/ID */
static int parse_at_node(const struct piece *rest,
                         struct tri_actor_address *address)
{
    struct piece node = *rest, path = *rest;
    const char *slash = memchr(rest->at, '/', (size_t)(rest->end - rest->at));
    int rc;

    node.end = slash != NULL ? slash : rest->end;
    rc = parse_node(&node, address);
    if (rc != 0)
        return rc;
    if (slash == NULL)
        return wrong(rest, rest->end,
                     "a / and a name or SLOT.GENERATION are missing");
    path.at = slash + 1;
    return parse_name_or_id(&path, address);
}

int tri_actor_address_parse(const char *text,
                            struct tri_actor_address *address_p,
                            struct tri_address_fault *fault_p)
{
    struct tri_actor_address address = { .place = TRI_PLACE_ANY };
    struct piece rest = { text, text, text + strlen(text), fault_p };
    size_t same = 0;
    int rc;

    while (same < strlen(SCHEME) && text[same] == SCHEME[same])
        same++;
    if (same < strlen(SCHEME))
        return wrong(&rest, text + same, "an address begins with actor://");
    rest.at = text + same;
    if (*rest.at == '/') {
        rest.at++;
        rc = parse_anywhere(&rest, &address);
    } else {
        rc = parse_at_node(&rest, &address);
    }
    if (rc == 0)
        *address_p = address;
    return rc;
}

/* --- public --------------------------------------------------------------- */

int troupe_address_check(const char *address, size_t *position_p,
                         const char **reason_p)
{
    struct tri_actor_address parsed;
    struct tri_address_fault fault;

    if (address == NULL)
        return TROUPE_EINVAL;
    if (tri_actor_address_parse(address, &parsed, &fault) == 0)
        return 0;
    if (position_p != NULL)
        *position_p = fault.position;
    if (reason_p != NULL)
        *reason_p = fault.reason;
    return TROUPE_EADDRESS;
}

int troupe_address_format(troupe_ref_t ref, char *address_p, size_t bytes)
{
    if (address_p == NULL || bytes < TROUPE_ADDRESS_BYTES ||
        troupe_ref_is_none(ref))
        return TROUPE_EINVAL;
    snprintf(address_p, bytes, SCHEME "%016" PRIx64 "/%" PRIu32 ".%" PRIu32,
             ref.node, ref.slot, ref.generation);
    return 0;
}
