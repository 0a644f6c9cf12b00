/* SPDX-License-Identifier: BSD-3-Clause */
#include "os/endpoint.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define HOST_BYTES_MAX 256 /* a DNS name and its end */

bool tri_endpoint_equal(const struct tri_endpoint *a,
                        const struct tri_endpoint *b)
{
    return a->family == b->family && a->port == b->port &&
           memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

/* --- the kernel's form ---------------------------------------------------- */

bool tri_endpoint_from_sockaddr(const void *address, size_t bytes,
                                struct tri_endpoint *endpoint_p)
{
    struct tri_endpoint endpoint = { .family = 0 };
    struct sockaddr_in6 v6;
    struct sockaddr_in v4;
    sa_family_t family;

    if (bytes < offsetof(struct sockaddr, sa_family) + sizeof(family))
        return false;
    memcpy(&family,
           (const char *)address + offsetof(struct sockaddr, sa_family),
           sizeof(family));
    if (family == AF_INET && bytes >= sizeof(v4)) {
        memcpy(&v4, address, sizeof(v4));
        endpoint.family = 4;
        endpoint.port = ntohs(v4.sin_port);
        memcpy(endpoint.ip, &v4.sin_addr, sizeof(v4.sin_addr));
    } else if (family == AF_INET6 && bytes >= sizeof(v6)) {
        memcpy(&v6, address, sizeof(v6));
        endpoint.family = 6;
        endpoint.port = ntohs(v6.sin6_port);
        memcpy(endpoint.ip, &v6.sin6_addr, sizeof(v6.sin6_addr));
    }
    if (endpoint.family != 0)
        *endpoint_p = endpoint;
    return endpoint.family != 0;
}

socklen_t tri_endpoint_to_sockaddr(const struct tri_endpoint *endpoint,
                                   struct sockaddr_storage *address_p)
{
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address_p;
    struct sockaddr_in *v4 = (struct sockaddr_in *)address_p;

    memset(address_p, 0, sizeof(*address_p));
    if (endpoint->family == 4) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(endpoint->port);
        memcpy(&v4->sin_addr, endpoint->ip, sizeof(v4->sin_addr));
        return sizeof(*v4);
    }
    if (endpoint->family == 6) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(endpoint->port);
        memcpy(&v6->sin6_addr, endpoint->ip, sizeof(v6->sin6_addr));
        return sizeof(*v6);
    }
    return 0;
}

/* --- texts ---------------------------------------------------------------- */

const char *tri_endpoint_print_ip(const struct tri_endpoint *endpoint,
                                  char text[TRI_ENDPOINT_TEXT_BYTES])
{
    int family = endpoint->family == 4 ? AF_INET : AF_INET6;

    _Static_assert(TRI_ENDPOINT_TEXT_BYTES >= INET6_ADDRSTRLEN + 8,
                   "brackets, colon and port fit beside any address");
    if (endpoint->family == 0 ||
        !inet_ntop(family, endpoint->ip, text, INET6_ADDRSTRLEN))
        strcpy(text, "none");
    return text;
}

const char *tri_endpoint_print(const struct tri_endpoint *endpoint,
                               char text[TRI_ENDPOINT_TEXT_BYTES])
{
    char ip[TRI_ENDPOINT_TEXT_BYTES];
    bool v6 = endpoint->family == 6;

    tri_endpoint_print_ip(endpoint, ip);
    if (endpoint->family == 0)
        strcpy(text, ip);
    else
        snprintf(text, TRI_ENDPOINT_TEXT_BYTES, "%s%.45s%s:%u", v6 ? "[" : "",
                 ip, v6 ? "]" : "", endpoint->port);
    return text;
}

/* --- seeds ---------------------------------------------------------------- */

/* False: not digits, or not from 1 to 65535. */
static bool port_parse(const char *text, uint16_t *port_p)
{
    unsigned port = 0;

    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        port = 10 * port + (unsigned)(*text - '0');
        if (port > UINT16_MAX)
            return false;
    }
    *port_p = (uint16_t)port;
    return port != 0;
}

/* Splits at the last colon. Returns NULL, or what is wrong. */
static const char *split(const char *text, char host_p[HOST_BYTES_MAX],
                         uint16_t *port_p, bool *v6_p)
{
    const char *colon = strrchr(text, ':');
    const char *begin = text, *end = colon;

    *v6_p = text[0] == '[';
    if (!colon)
        return "it has no port";
    if (*v6_p) {
        if (colon[-1] != ']')
            return "\"]:\" does not follow the address in brackets";
        begin++;
        end--;
    } else if (memchr(text, ':', (size_t)(colon - text))) {
        return "an IPv6 address needs brackets: [address]:port";
    }
    if (!port_parse(colon + 1, port_p))
        return "its port is not a number from 1 to 65535";
    if (end <= begin)
        return "it has no host";
    if (end - begin >= HOST_BYTES_MAX)
        return "its host is too long";
    memcpy(host_p, begin, (size_t)(end - begin));
    host_p[end - begin] = '\0';
    return NULL;
}

static int look_up(const char *text, const char *host, int flags,
                   uint8_t family, struct addrinfo **all_p)
{
    const struct addrinfo hints = {
        .ai_flags = flags,
        .ai_family = family == 4   ? AF_INET
                     : family == 6 ? AF_INET6
                                   : AF_UNSPEC,
        .ai_socktype = SOCK_DGRAM,
    };
    int rc = getaddrinfo(host, NULL, &hints, all_p);

    if (rc == 0)
        return 0;
    if (flags & AI_NUMERICHOST) {
        tri_error("seed '%s': '%s' is no address (%s)", text, host,
                  gai_strerror(rc));
        return TROUPE_EOPTION;
    }
    tri_info("seed '%s': host '%s' has no %saddress (%s)", text, host,
             family == 4   ? "IPv4 "
             : family == 6 ? "IPv6 "
                           : "",
             gai_strerror(rc));
    return TROUPE_ENOSEED;
}

int tri_endpoint_resolve(const char *text, uint8_t family,
                         struct tri_endpoint *endpoints_p,
                         uint32_t endpoints_max, uint32_t *endpoints_len_p)
{
    char host[HOST_BYTES_MAX];
    struct addrinfo *all;
    uint32_t len = 0;
    uint16_t port;
    bool v6;
    const char *wrong = split(text, host, &port, &v6);
    int rc;

    if (wrong) {
        tri_error("seed '%s' is not \"host:port\" or \"[IPv6]:port\": %s",
                  text, wrong);
        return TROUPE_EOPTION;
    }
    rc = look_up(text, host, v6 ? AI_NUMERICHOST : 0, family, &all);
    if (rc != 0)
        return rc;
    for (struct addrinfo *one = all; one && len < endpoints_max;
         one = one->ai_next) {
        struct tri_endpoint *endpoint = &endpoints_p[len];

        /* A link-local address means nothing without its interface. */
        if (one->ai_family == AF_INET6 &&
            ((struct sockaddr_in6 *)(void *)one->ai_addr)->sin6_scope_id != 0)
            continue;
        if (!tri_endpoint_from_sockaddr(one->ai_addr, one->ai_addrlen,
                                        endpoint))
            continue;
        endpoint->port = port;
        len++;
    }
    freeaddrinfo(all);
    if (len == 0) {
        tri_error("seed '%s': its address is link-local; use another one",
                  text);
        return TROUPE_EOPTION;
    }
    *endpoints_len_p = len;
    return 0;
}
