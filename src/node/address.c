/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/address.h"

#include <string.h>

#include <troupe/error.h>

#include "actor/names.h"

#define SCHEME "actor://"
#define RANK_PREFIX "rank."
#define RANK_DIGITS_MAX 7

static int parse_host(const char *host, size_t host_len, int *rank_p)
{
    size_t i = strlen(RANK_PREFIX);
    int rank = 0;

    if (host_len == strlen("localhost") &&
        memcmp(host, "localhost", host_len) == 0) {
        *rank_p = -1;
        return 0;
    }
    if (host_len <= i || host_len > i + RANK_DIGITS_MAX ||
        memcmp(host, RANK_PREFIX, i) != 0)
        return TROUPE_EADDRESS;
    for (; i < host_len; i++) {
        if (host[i] < '0' || host[i] > '9')
            return TROUPE_EADDRESS;
        rank = rank * 10 + (host[i] - '0');
    }
    *rank_p = rank;
    return 0;
}

int tri_address_parse(const char *address, int *rank_p, const char **name_p,
                      size_t *name_len_p)
{
    const char *host, *slash;
    int rank, rc;

    if (strncmp(address, SCHEME, strlen(SCHEME)) != 0)
        return TROUPE_EADDRESS;
    host = address + strlen(SCHEME);
    slash = strchr(host, '/');
    if (slash == NULL || !tri_name_is_valid(slash + 1, strlen(slash + 1)))
        return TROUPE_EADDRESS;
    rc = parse_host(host, (size_t)(slash - host), &rank);
    if (rc != 0)
        return rc;
    *rank_p = rank;
    *name_p = slash + 1;
    *name_len_p = strlen(slash + 1);
    return 0;
}
