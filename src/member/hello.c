/* SPDX-License-Identifier: BSD-3-Clause */
#include "member/hello.h"

#include <string.h>

static void put(unsigned char **at_p, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        *(*at_p)++ = (unsigned char)(value >> (8 * i));
}

static uint64_t get(const unsigned char **at_p, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)*(*at_p)++ << (8 * i);
    return value;
}

static void put_cookie(unsigned char **at_p, const struct tri_cookie *cookie)
{
    put(at_p, cookie->slot, 8);
    memcpy(*at_p, cookie->tag, sizeof(cookie->tag));
    *at_p += sizeof(cookie->tag);
}

static void get_cookie(const unsigned char **at_p, struct tri_cookie *cookie_p)
{
    cookie_p->slot = get(at_p, 8);
    memcpy(cookie_p->tag, *at_p, sizeof(cookie_p->tag));
    *at_p += sizeof(cookie_p->tag);
}

void tri_hello_encode(const struct tri_hello *hello,
                      unsigned char data[TRI_HELLO_BYTES])
{
    unsigned char *at = data;

    put(&at, hello->interface, 4);
    put(&at, hello->strict, 1);
    put(&at, hello->profile, 1);
    put(&at, 0, 2);
    put(&at, hello->cluster_name, 8);
    put(&at, hello->token, 8);
    put_cookie(&at, &hello->cookie);
    assert(at == data + TRI_HELLO_BYTES);
}

const char *tri_hello_decode(const unsigned char *data, size_t bytes,
                             struct tri_hello *hello_p)
{
    const unsigned char *at = data;
    struct tri_hello hello;
    uint64_t strict;

    if (bytes < TRI_HELLO_BYTES)
        return "control: a JOIN is too short";
    hello.interface = (uint32_t)get(&at, 4);
    strict = get(&at, 1);
    hello.strict = strict != 0;
    hello.profile = (uint8_t)get(&at, 1);
    if (strict > 1 || get(&at, 2) != 0)
        return "control: reserved bits of a JOIN are not zero";
    hello.cluster_name = get(&at, 8);
    hello.token = get(&at, 8);
    get_cookie(&at, &hello.cookie);
    *hello_p = hello;
    return NULL;
}

void tri_challenge_encode(uint64_t token, const struct tri_cookie *cookie,
                          unsigned char data[TRI_CHALLENGE_BYTES])
{
    unsigned char *at = data;

    put(&at, token, 8);
    put_cookie(&at, cookie);
    assert(at == data + TRI_CHALLENGE_BYTES);
}

const char *tri_challenge_decode(const unsigned char *data, size_t bytes,
                                 uint64_t *token_p,
                                 struct tri_cookie *cookie_p)
{
    const unsigned char *at = data;

    if (bytes != TRI_CHALLENGE_BYTES)
        return "control: a CHALLENGE of another size";
    *token_p = get(&at, 8);
    get_cookie(&at, cookie_p);
    return NULL;
}

void tri_refused_encode(const struct tri_refused *refused,
                        unsigned char data[TRI_REFUSED_BYTES])
{
    unsigned char *at = data;

    put(&at, refused->token, 8);
    put(&at, (uint32_t)refused->error, 4);
    put(&at, refused->cluster_name, 8);
    assert(at == data + TRI_REFUSED_BYTES);
}

const char *tri_refused_decode(const unsigned char *data, size_t bytes,
                               struct tri_refused *refused_p)
{
    const unsigned char *at = data;

    if (bytes != TRI_REFUSED_BYTES)
        return "control: a REFUSED of another size";
    refused_p->token = get(&at, 8);
    refused_p->error = (int32_t)(uint32_t)get(&at, 4);
    refused_p->cluster_name = get(&at, 8);
    return refused_p->error < 0 ? NULL : "control: a REFUSED without a reason";
}

/* --- cookies -------------------------------------------------------------- */

static int cookie_of(struct tri_packet_key *key,
                     const struct tri_endpoint *from, uint64_t node,
                     uint64_t slot, struct tri_cookie *cookie_p)
{
    unsigned char what[1 + 2 + sizeof(from->ip) + 8 + 8];
    unsigned char *at = what;

    put(&at, from->family, 1);
    put(&at, from->port, 2);
    memcpy(at, from->ip, sizeof(from->ip));
    at += sizeof(from->ip);
    put(&at, node, 8);
    put(&at, slot, 8);
    cookie_p->slot = slot;
    return tri_packet_mac(key, what, sizeof(what), cookie_p->tag);
}

int tri_cookie_make(struct tri_packet_key *key,
                    const struct tri_endpoint *from, uint64_t node,
                    uint64_t now_ns, struct tri_cookie *cookie_p)
{
    /* slot 0 is that of a cookie that was not given yet */
    return cookie_of(key, from, node, now_ns / TRI_COOKIE_NS + 1, cookie_p);
}

bool tri_cookie_check(struct tri_packet_key *key,
                      const struct tri_endpoint *from, uint64_t node,
                      uint64_t now_ns, const struct tri_cookie *cookie)
{
    uint64_t slot = now_ns / TRI_COOKIE_NS + 1;
    struct tri_cookie good;
    unsigned char differ = 0;

    if (cookie->slot == 0 ||
        (cookie->slot != slot && cookie->slot + 1 != slot) ||
        cookie_of(key, from, node, cookie->slot, &good) != 0)
        return false;
    for (size_t i = 0; i < sizeof(good.tag); i++)
        differ |= good.tag[i] ^ cookie->tag[i];
    return differ == 0;
}

/* --- from outside --------------------------------------------------------- */

bool tri_packet_peek(const unsigned char *data, size_t bytes,
                     struct tri_peek *peek_p)
{
    const unsigned char *at = data;
    struct tri_peek peek = { .body = NULL };

    if (bytes < TRI_PACKET_HEADER_BYTES || get(&at, 4) != TRI_PACKET_MAGIC)
        return false;
    peek.version = (uint8_t)get(&at, 1);
    peek.kind = (uint8_t)get(&at, 1);
    at = data + 16;
    peek.source = get(&at, 8);
    peek.body = data + TRI_PACKET_HEADER_BYTES;
    peek.body_bytes = bytes - TRI_PACKET_HEADER_BYTES;
    *peek_p = peek;
    return true;
}
