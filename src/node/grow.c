/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Nodes that a node has MPI start: what the parent tells them, and how they
 * start with it.
 */

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "member/join.h"
#include "node/node.h"

_Static_assert(TRI_WELCOME_KEY_BYTES == TRI_KEY_BYTES, "one key");
_Static_assert(TRI_WELCOME_SEEDS_BYTES >= TRI_ENDPOINT_TEXT_BYTES, "one seed");

/* --- the parent ----------------------------------------------------------- */

static int make_welcome(const troupe_t *troupe, struct tri_welcome *welcome_p)
{
    const char *cluster = troupe->runtime.options.cluster;
    size_t len = cluster != NULL ? strlen(cluster) : 0;

    memset(welcome_p, 0, sizeof(*welcome_p));
    if (len >= sizeof(welcome_p->cluster)) {
        tri_error("option cluster is too long to be told to spawned nodes");
        return TROUPE_EOPTION;
    }
    welcome_p->interface = TRI_INTERFACE_VERSION;
    welcome_p->security = troupe->security;
    welcome_p->strict_names = troupe->runtime.options.strict_names;
    tri_endpoint_print(&troupe->endpoint, welcome_p->seeds);
    if (len > 0)
        memcpy(welcome_p->cluster, cluster, len);
    if (troupe->key != NULL)
        memcpy(welcome_p->key, troupe->key, TRI_KEY_BYTES);
    return 0;
}

static bool is_over(void *arg)
{
    return tri_grow_is_over(arg);
}

/* Frees what is over; what it came to. */
static int end(troupe_t *troupe)
{
    int rc = 0;

    (void)tri_spawn_is_done(troupe->spawn, &rc);
    tri_spawn_end(&troupe->spawn);
    return rc;
}

/* In naps: nothing wakes this thread when the other one is through. */
static int wait_for(troupe_t *troupe, int timeout_ms)
{
    uint64_t deadline_ns = tri_deadline_ns(timeout_ms);
    struct tri_seat seat;
    int rc;

    tri_seat_take(&troupe->runtime, &seat);
    do
        rc = tri_wait(&seat, is_over, troupe,
                      tri_min(tri_now_ns() + TRI_NS_PER_MS, deadline_ns));
    while (rc != 0 && tri_now_ns() < deadline_ns);
    tri_seat_leave(&seat);
    return rc == 0 ? end(troupe) : rc;
}

bool tri_grow_is_over(const troupe_t *troupe)
{
    int rc;

    return troupe->spawn == NULL || tri_spawn_is_done(troupe->spawn, &rc);
}

void tri_grow_end(troupe_t *troupe)
{
    if (troupe->spawn != NULL)
        tri_spawn_end(&troupe->spawn);
}

/* Declared in troupe/mpi.h, which needs <mpi.h>; this file does not. */
int troupe_spawn_nodes(troupe_t *troupe, const char *command,
                       char *const argv[], int len, int timeout_ms);

int troupe_spawn_nodes(troupe_t *troupe, const char *command,
                       char *const argv[], int len, int timeout_ms)
{
    struct tri_welcome welcome;
    int rc;

    if (troupe == NULL || command == NULL || len < 1 ||
        timeout_ms < TROUPE_FOREVER)
        return TROUPE_EINVAL;
    if (tri_worker_current() != NULL ||
        !pthread_equal(pthread_self(), troupe->runtime.starter))
        return TROUPE_ECONTEXT;
    if (troupe->job == NULL)
        return TROUPE_EMPI;
    if (!troupe->is_open) {
        tri_error("option growable is not set: nobody could join this job");
        return TROUPE_EOPTION;
    }
    if (!tri_grow_is_over(troupe))
        return TROUPE_EBUSY;
    tri_grow_end(troupe); /* of a call that did not wait: it was logged */
    rc = make_welcome(troupe, &welcome);
    if (rc == 0)
        rc = tri_spawn_begin(command, argv, len, &welcome, &troupe->spawn);
    tri_key_forget(welcome.key);
    return rc == 0 && timeout_ms != 0 ? wait_for(troupe, timeout_ms) : rc;
}

/* --- the children --------------------------------------------------------- */

int tri_grow_receive(troupe_t *troupe)
{
    struct tri_welcome welcome;
    bool spawned;
    int rc = tri_spawn_welcome(troupe->job, &spawned, &welcome);

    if (rc != 0 || !spawned)
        return rc;
    troupe->is_spawned = true;
    if (welcome.interface != TRI_INTERFACE_VERSION ||
        welcome.security > TRI_SEAL_ENCRYPT) {
        tri_error("the node that started this job runs another version of "
                  "troupe");
        tri_key_forget(welcome.key);
        return TROUPE_EVERSION;
    }
    troupe->welcome = malloc(sizeof(*troupe->welcome));
    if (troupe->welcome != NULL)
        *troupe->welcome = welcome;
    tri_key_forget(welcome.key);
    return troupe->welcome != NULL ? 0 : TROUPE_ENOMEM;
}

static int replace(const char **text_p, const char *value)
{
    free((char *)(uintptr_t)*text_p);
    *text_p = NULL;
    if (value[0] == '\0')
        return 0;
    *text_p = strdup(value);
    return *text_p != NULL ? 0 : TROUPE_ENOMEM;
}

int tri_grow_options(troupe_t *troupe)
{
    troupe_options_t *options = &troupe->runtime.options;
    const struct tri_welcome *welcome = troupe->welcome;
    int rc = replace(&options->seeds, welcome->seeds);

    options->strict_names = welcome->strict_names;
    if (rc == 0)
        rc = replace(&options->cluster, welcome->cluster);
    if (rc == 0)
        rc = replace(&options->security, tri_security_names[welcome->security]);
    return rc == 0 ? replace(&options->key_file, "") : rc;
}

void tri_grow_forget(troupe_t *troupe)
{
    if (troupe->welcome == NULL)
        return;
    tri_key_forget(troupe->welcome->key);
    free(troupe->welcome);
    troupe->welcome = NULL;
}
