/* SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/requests.h"

#include <stdlib.h>

#include <troupe/mpi.h>

#include "message/pool.h"

#define REQUESTS_MAX 1024

struct tri_requests {
    uint32_t len;
    struct {
        MPI_Request request;
        troupe_ref_t to;
        void *message;
    } pending[REQUESTS_MAX];
};

/*
 * The receiver may be full for the moment: then the message waits with its
 * request done. Any other failure becomes a dead letter.
 */
static bool send_now(struct tri_runtime *runtime, troupe_ref_t to,
                     void *message)
{
    int rc = tri_send_now(runtime, tri_message_of(message), to);

    if (rc == TROUPE_EFULL)
        return false;
    if (rc != 0)
        tri_refuse(runtime, tri_message_of(message), rc);
    return true;
}

static bool is_done(MPI_Request *request)
{
    int done = 0;

    /* also true of those that were done before and found their receiver full */
    return MPI_Test(request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done;
}

/* Called while the starting thread waits. True: some are still pending. */
static bool test_requests(struct tri_runtime *runtime)
{
    struct tri_requests *list = runtime->requests;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < list->len; i++) {
        if (is_done(&list->pending[i].request) &&
            send_now(runtime, list->pending[i].to, list->pending[i].message))
            continue;
        list->pending[kept++] = list->pending[i];
    }
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
