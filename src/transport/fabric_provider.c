/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * Which libfabric provider, and which of this host's addresses. Both are
 * given to libfabric as hints: FI_PROVIDER is never set, an MPI in the same
 * process may use libfabric itself.
 */
#include "transport/fabric_internal.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "os/interface.h"

#define LIST_BYTES_MAX 320
#define API_VERSION FI_VERSION(1, 9) /* the least that configure takes */

static bool has_sockets(const struct fi_info *info)
{
    return info->addr_format == FI_SOCKADDR ||
           info->addr_format == FI_SOCKADDR_IN ||
           info->addr_format == FI_SOCKADDR_IN6;
}

/* --- settings of ofi_rxm ------------------------------------------------- */

/* Of libfabric 1.17: what ofi_rxm allocates buffers by, of each pool; what it
 * adds to each, about; their size by default. */
#define RXM_CHUNK_BUFFERS 1024
#define RXM_BUFFER_EXTRA_BYTES 512
#define RXM_BUFFER_BYTES_DEFAULT 16384
#define EAGER_LIMIT_TEXT "65536"

_Static_assert(TRI_FRAME_BYTES_MAX == 65536, "the eager limit is a frame");

/*
 * Read by libfabric at its first call in the process; what the user has set
 * stays. Without them ofi_rxm allocates 73 MB at once and 20 MB at the first
 * connection, whose page faults take 10 ms: pools of 1024 bounce buffers and
 * more of 16 KiB each. Over TCP it needs none of that size: it sends from our
 * memory, receives into it, and uses the heap for what comes while no buffer
 * is posted (rxm_get_dyn_unexp, since 1.17). Over other providers the eager
 * limit is the buffer size, so both stay as they are.
 */
static void settings_default(const char *provider)
{
    /* Receives that it posts a connection, and of ours at most. */
    setenv("FI_OFI_RXM_MSG_RX_SIZE", "128", 0);
    setenv("FI_OFI_RXM_RX_SIZE", "128", 0);
    /* Microseconds between looks at connections being made; 10000. */
    setenv("FI_OFI_RXM_CM_PROGRESS_INTERVAL", "1000", 0);
    /* "tcp" alone has no datagrams in 1.17: libfabric puts ofi_rxm on it. */
    if ((strcmp(provider, "tcp;ofi_rxm") != 0 &&
         strcmp(provider, "tcp") != 0) ||
        FI_VERSION_LT(fi_version(), FI_VERSION(1, 17)))
        return;
    setenv("FI_OFI_RXM_BUFFER_SIZE", "2048", 0);
    /* Read anew for each endpoint, so also behind an MPI that uses it. */
    setenv("FI_OFI_RXM_EAGER_LIMIT", EAGER_LIMIT_TEXT, 0);
}

static unsigned long setting(const char *name)
{
    const char *text = getenv(name);

    return text ? strtoul(text, NULL, 0) : 0;
}

/*
 * What ofi_rxm sends eagerly: behind it comes its rendezvous, which leaks when
 * a peer dies. A larger frame costs fewer system calls: over TCP 64 KiB carry
 * twice what 16 KiB do.
 */
size_t tri_fabric_frame_bytes_max(const struct fi_info *info)
{
    const char *name = info->fabric_attr->prov_name;
    size_t bytes = TRI_FRAME_BYTES_MAX;

    if (strcmp(name, "tcp;ofi_rxm") == 0)
        bytes = tri_max(setting("FI_OFI_RXM_EAGER_LIMIT"),
                        setting("FI_OFI_RXM_BUFFER_SIZE"));
    else if (strstr(name, "ofi_rxm") || strstr(name, "ofi_rxd"))
        bytes = setting("FI_OFI_RXM_BUFFER_SIZE");
    if (bytes == 0)
        bytes = RXM_BUFFER_BYTES_DEFAULT;
    return tri_min(tri_min(bytes, TRI_FRAME_BYTES_MAX),
                   info->ep_attr->max_msg_size);
}

/*
 * ofi_rxm has two pools, one to receive into and one to send from. Each is
 * made of chunks of 1024 buffers of its buffer size (rxm_ep_create_pools); the
 * first chunk of the one is taken when the endpoint is enabled, of the other at
 * the first connection at the latest. With the settings above it never needs a
 * second one over TCP: 128 buffers are posted for all connections together.
 * That makes 5 MB. Other providers allocate a few hundred KB at most.
 */
size_t tri_fabric_provider_bytes(const struct fi_info *info)
{
    const char *text = getenv("FI_OFI_RXM_BUFFER_SIZE");
    unsigned long buffer = text ? strtoul(text, NULL, 0) : 0;

    if (!strstr(info->fabric_attr->prov_name, "ofi_rxm"))
        return 0;
    if (buffer == 0 || buffer > 16 * RXM_BUFFER_BYTES_DEFAULT)
        buffer = RXM_BUFFER_BYTES_DEFAULT;
    return 2ul * RXM_CHUNK_BUFFERS * (buffer + RXM_BUFFER_EXTRA_BYTES);
}

/*
 * A receive that fails with its connection costs ofi_rxm the buffer that it had
 * posted below, and the entry of ours that it had found for it, if any: neither
 * is posted or freed again (rxm_handle_comp_error of 1.17; 2.5.1 reads alike).
 * When half of the entries that we do not need are lost, it is time to begin
 * anew; the other half is for losses that are not reported.
 */
unsigned tri_fabric_failed_max(const struct fi_info *info)
{
    size_t entries = info->rx_attr->size;

    if (!strstr(info->fabric_attr->prov_name, "ofi_rxm") ||
        info->domain_attr->mr_mode & FI_MR_ENDPOINT || !has_sockets(info))
        return 0;
    return entries < FABRIC_RX_BUFFERS + 2
               ? 1
               : (unsigned)(entries - FABRIC_RX_BUFFERS) / 2;
}

/* --- lists for error texts ----------------------------------------------- */

/* Appends "item" or ", item", as long as there is room. */
static void list_add(char list[LIST_BYTES_MAX], const char *item)
{
    size_t used = strlen(list);

    snprintf(list + used, LIST_BYTES_MAX - used, "%s%s", used ? ", " : "",
             item);
}

static struct fi_info *hints_make(const char *provider)
{
    struct fi_info *hints = fi_allocinfo();

    if (!hints)
        return NULL;
    hints->caps = FI_MSG;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->domain_attr->control_progress = FI_PROGRESS_MANUAL;
    hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
    hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
    hints->domain_attr->av_type = FI_AV_TABLE;
    hints->domain_attr->mr_mode =
        FI_MR_LOCAL | FI_MR_ALLOCATED | FI_MR_ENDPOINT | FI_MR_PROV_KEY |
        FI_MR_VIRT_ADDR;
    hints->tx_attr->msg_order = FI_ORDER_SAS;
    hints->rx_attr->msg_order = FI_ORDER_SAS;
    if (provider) {
        hints->fabric_attr->prov_name = strdup(provider);
        if (!hints->fabric_attr->prov_name) {
            fi_freeinfo(hints);
            return NULL;
        }
    }
    return hints;
}

static void providers_list(char list[LIST_BYTES_MAX])
{
    struct fi_info *hints = hints_make(NULL);
    struct fi_info *infos = NULL;

    list[0] = '\0';
    if (!hints ||
        fi_getinfo(API_VERSION, NULL, NULL, 0, hints, &infos) != 0)
        infos = NULL;
    for (struct fi_info *info = infos; info; info = info->next) {
        const char *name = info->fabric_attr->prov_name;
        bool seen = false;

        for (struct fi_info *other = infos; other != info && !seen;
             other = other->next)
            seen = strcmp(other->fabric_attr->prov_name, name) == 0;
        if (!seen)
            list_add(list, name);
    }
    if (list[0] == '\0')
        list_add(list, "none");
    if (infos)
        fi_freeinfo(infos);
    if (hints)
        fi_freeinfo(hints);
}

/* --- provider ------------------------------------------------------------ */

bool tri_fabric_fd_usable(const struct fi_info *info)
{
    /* The descriptor of `net` (1.17) stays readable for ever after its first
     * completion: who sleeps on it never sleeps. */
    return strncmp(info->fabric_attr->prov_name, "net", 3) != 0;
}

/* The port in a socket address, or NULL. */
static in_port_t *port_of(void *address)
{
    struct sockaddr *any = address;

    if (any && any->sa_family == AF_INET)
        return &((struct sockaddr_in *)address)->sin_port;
    if (any && any->sa_family == AF_INET6)
        return &((struct sockaddr_in6 *)address)->sin6_port;
    return NULL;
}

bool tri_fabric_set_port(struct fi_info *info, uint16_t port)
{
    in_port_t *port_p = has_sockets(info) ? port_of(info->src_addr) : NULL;

    if (port_p)
        *port_p = htons(port);
    return port_p != NULL;
}

bool tri_fabric_same_port(const void *a, const void *b)
{
    const in_port_t *port_a = port_of((void *)(uintptr_t)a);
    const in_port_t *port_b = port_of((void *)(uintptr_t)b);

    return port_a && port_b && *port_a == *port_b && *port_a != 0 &&
           ((const struct sockaddr *)a)->sa_family ==
               ((const struct sockaddr *)b)->sa_family;
}

const char *tri_fabric_host(const struct fi_info *info,
                            char text[TRI_ENDPOINT_TEXT_BYTES])
{
    struct tri_endpoint endpoint;

    if (!has_sockets(info) || !info->src_addr ||
        !tri_endpoint_from_sockaddr(info->src_addr, info->src_addrlen,
                                    &endpoint))
        return strcpy(text, "?");
    return tri_endpoint_print_ip(&endpoint, text);
}

int tri_fabric_choose(const char *provider, const char *interface,
                      struct fi_info **info_p)
{
    char node[TRI_ENDPOINT_TEXT_BYTES], list[LIST_BYTES_MAX];
    struct tri_endpoint endpoint;
    struct fi_info *hints;
    int rc;

    if (!provider || provider[0] == '\0')
        provider = FABRIC_PROVIDER_DEFAULT;
    settings_default(provider);
    if (interface && interface[0] == '\0')
        interface = NULL;
    rc = tri_interface_choose(interface, &endpoint);
    if (rc != 0)
        return rc;
    tri_endpoint_print_ip(&endpoint, node);
    hints = hints_make(provider);
    if (!hints)
        return TROUPE_ENOMEM;
    rc = fi_getinfo(API_VERSION, node, NULL, FI_SOURCE, hints, info_p);
    /* Fabrics with addresses of their own know nothing of the host's. */
    if (rc != 0 && !interface)
        rc = fi_getinfo(API_VERSION, NULL, NULL, 0, hints, info_p);
    fi_freeinfo(hints);
    if (rc == 0)
        return 0;
    providers_list(list);
    tri_error("libfabric provider '%s' is not usable%s%s (%s); usable: %s",
              provider, interface ? " at " : "", interface ? node : "",
              fi_strerror(-rc), list);
    return TROUPE_ETRANSPORT;
}
