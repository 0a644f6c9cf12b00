/* SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/requests.h"

#include <stdlib.h>

#include <troupe/mpi.h>

#include "message/pool.h"
#include "mpi/job_mpi.h"

#define REQUESTS_MAX 1024

struct tri_pending {
    MPI_Request request;
    troupe_ref_t to;
    void *message;
};

struct tri_requests {
    uint32_t len;
    struct tri_pending pending[REQUESTS_MAX];
};

static void refuse(struct tri_runtime *runtime, troupe_ref_t to,
                   struct tri_message *message, int reason)
{
    const troupe_dead_letter_t letter = {
        .to = to,
        .sender = { .node = runtime->node },
        .reason = reason,
        .type = message->type,
        .index = message->index,
        .bytes = message->bytes,
    };

    tri_dead_letter(runtime, &letter);
    tri_message_free(message);
}

/*
 * The receiver may be full for the moment: then the message waits with its
 * request done. Any other failure becomes a dead letter.
 */
static bool send_now(struct tri_runtime *runtime, troupe_ref_t to,
                     struct tri_message *message)
{
    int rc = tri_send_now(runtime, message, to);

    if (rc != 0 && rc != TROUPE_EFULL)
        refuse(runtime, to, message, rc);
    return rc != TROUPE_EFULL;
}

/* False: it is yet to be done, or its receiver is full. */
static bool end(struct tri_runtime *runtime, struct tri_pending *pending)
{
    struct tri_message *message = tri_message_of(pending->message);
    int done = 0, rc;

    /* also true of those that were done before and found their receiver full */
    rc = MPI_Test(&pending->request, &done, MPI_STATUS_IGNORE);
    if (rc != MPI_SUCCESS) {
        /* MPI may have freed it: then another test says that all is well. */
        refuse(runtime, pending->to, message, tri_mpi_failed("MPI_Test", rc));
        return true;
    }
    return done && send_now(runtime, pending->to, message);
}

/* Called while the starting thread waits. True: some are still pending. */
static bool test_requests(struct tri_runtime *runtime)
{
    struct tri_requests *list = runtime->requests;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < list->len; i++)
        if (!end(runtime, &list->pending[i]))
            list->pending[kept++] = list->pending[i];
    list->len = kept;
    return kept > 0;
}

int troupe_mpi_send_when_done(troupe_t *troupe, MPI_Request *request,
                              troupe_ref_t to, void *message)
{
    struct tri_runtime *runtime = (struct tri_runtime *)troupe;
    struct tri_requests *list;

    if (runtime == NULL || request == NULL || message == NULL)
        return TROUPE_EINVAL;
    if (!pthread_equal(pthread_self(), runtime->starter))
        return TROUPE_ECONTEXT;
    if (runtime->requests == NULL)
        runtime->requests = calloc(1, sizeof(*runtime->requests));
    list = runtime->requests;
    if (list == NULL)
        return TROUPE_ENOMEM;
    if (list->len == REQUESTS_MAX)
        return TROUPE_ELIMIT;
    runtime->wait_hook = test_requests;
    list->pending[list->len].request = *request;
    list->pending[list->len].to = to;
    list->pending[list->len].message = message;
    list->len++;
    *request = MPI_REQUEST_NULL;
    return 0;
}

void tri_requests_fini(struct tri_runtime *runtime)
{
    struct tri_requests *list = runtime->requests;

    if (list == NULL)
        return;
    for (uint32_t i = 0; i < list->len; i++)
        tri_message_free(tri_message_of(list->pending[i].message));
    free(list);
    runtime->requests = NULL;
}
