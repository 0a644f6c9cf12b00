/* SPDX-License-Identifier: BSD-3-Clause */

#include "plain.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "message/pool.h"
#include "tensor/reduce.h"

enum what {
    WHAT_HELLO = 1, /* to the first: I am here; from it: so are all */
    WHAT_GIVE,      /* a member's signature and contribution */
    WHAT_GET,       /* its result */
};

/* What came before it was asked for, or was not all yet. */
struct kept {
    struct kept *next;
    struct tri_coll_head head;
    uint32_t member;
    size_t bytes;
    _Alignas(16) char data[]; /* a signature, then what is to be reduced */
};

struct tri_backend {
    const struct tri_team *team;
    uint8_t id; /* enum tri_backend_id */
    bool said_hello, is_open;
    uint32_t hellos;
    struct kept *first;
};

struct state {
    bool given;
    uint32_t sent; /* results, to members before this one */
    char *results; /* of the first member: of all, one behind the other */
    size_t each;   /* bytes of one */
    uint64_t not_before_ns;
};

uint64_t plain_other_ns;
bool plain_other_can = true;
uint64_t plain_slow_ns;
size_t plain_slow_bytes;
_Atomic uint64_t plain_received;

static int send_to(struct tri_backend *backend, uint32_t member,
                   uint64_t number, enum what what, const void *a,
                   size_t a_bytes, const void *b, size_t b_bytes)
{
    struct tri_coll_head head = { .number = number, .backend = backend->id,
                                  .what = (uint16_t)what };
    struct tri_piece pieces[] = { { a, a_bytes }, { b, b_bytes } };

    return tri_team_send(backend->team, member, TRI_COLL, &head, pieces, 2);
}

/* --- an instance ---------------------------------------------------------- */

static int open_as(const struct tri_team *team, uint8_t id,
                   struct tri_backend **backend_p)
{
    struct tri_backend *backend = calloc(1, sizeof(*backend));

    if (backend == NULL)
        return TROUPE_ENOMEM;
    backend->team = team;
    backend->id = id;
    *backend_p = backend;
    return 0;
}

static int open_plain(const struct tri_team *team,
                      struct tri_backend **backend_p)
{
    return open_as(team, TRI_BACKEND_NATIVE, backend_p);
}

static int open_other(const struct tri_team *team,
                      struct tri_backend **backend_p)
{
    return open_as(team, TRI_BACKEND_MPI, backend_p);
}

static bool can_other(const struct tri_team *team)
{
    (void)team;
    return plain_other_can;
}

static int open_progress(struct tri_backend *backend)
{
    if (backend->team->index != 0) {
        if (!backend->said_hello)
            backend->said_hello = send_to(backend, 0, 0, WHAT_HELLO, NULL, 0,
                                          NULL, 0) == 0;
        return backend->hellos > 0 ? 0 : TRI_COLL_PENDING;
    }
    if (backend->hellos < backend->team->len - 1)
        return TRI_COLL_PENDING;
    for (uint32_t i = 1; i < backend->team->len; i++)
        if (send_to(backend, i, 0, WHAT_HELLO, NULL, 0, NULL, 0) != 0)
            return TROUPE_ENOMEM;
    return 0;
}

static void close_it(struct tri_backend **backend_p)
{
    struct kept *kept = (*backend_p)->first, *next;

    for (; kept != NULL; kept = next) {
        next = kept->next;
        free(kept);
    }
    free(*backend_p);
    *backend_p = NULL;
}

static void received(struct tri_backend *backend, uint32_t member,
                     const struct tri_coll_head *head, const void *payload,
                     size_t bytes, struct tri_message *message)
{
    struct kept *kept;

    atomic_fetch_add(&plain_received, 1);
    if (head->what == WHAT_HELLO) {
        backend->hellos++;
    } else {
        kept = malloc(sizeof(*kept) + bytes);
        if (kept == NULL)
            abort();
        kept->head = *head;
        kept->member = member;
        kept->bytes = bytes;
        memcpy(kept->data, payload, bytes);
        kept->next = backend->first;
        backend->first = kept;
    }
    if (message != NULL)
        tri_message_free(message);
}

static struct kept *find(struct tri_backend *backend, uint64_t number,
                         uint32_t member)
{
    struct kept *kept = backend->first;

    while (kept != NULL &&
           (kept->head.number != number || kept->member != member))
        kept = kept->next;
    return kept;
}

static void drop(struct tri_backend *backend, uint64_t number)
{
    struct kept **at = &backend->first, *kept;

    while ((kept = *at) != NULL) {
        if (kept->head.number == number) {
            *at = kept->next;
            free(kept);
        } else {
            at = &kept->next;
        }
    }
}

/* --- a collective --------------------------------------------------------- */

static size_t bytes_of(const struct tri_coll *coll)
{
    return coll->count *
           troupe_datatype_bytes((enum troupe_datatype)coll->type);
}

static size_t bytes_given(const struct tri_coll *coll, uint32_t member)
{
    if (coll->kind == TRI_COLL_BARRIER ||
        (coll->kind == TRI_COLL_BCAST && member != coll->root))
        return 0;
    return bytes_of(coll) *
           (coll->kind == TRI_COLL_REDUCE_SCATTER ? coll->team->len : 1);
}

static int start(struct tri_backend *backend, struct tri_coll *coll)
{
    struct state *state = calloc(1, sizeof(*state));
    bool is_other = backend->id == TRI_BACKEND_MPI;
    uint64_t ns = is_other ? plain_other_ns : 0;

    if (state == NULL)
        return TROUPE_ENOMEM;
    coll->state = state;
    if (is_other != (bytes_of(coll) >= plain_slow_bytes))
        ns += plain_slow_ns;
    if (ns > 0)
        state->not_before_ns = tri_now_ns() + ns;
    return 0;
}

static void cancel(struct tri_backend *backend, struct tri_coll *coll)
{
    struct state *state = coll->state;

    drop(backend, coll->number);
    free(state->results);
    free(state);
    coll->state = NULL;
}

/* The result of each, by member. */
static int compute(struct tri_coll *coll, const void *const *ins)
{
    struct state *state = coll->state;
    uint32_t n = coll->team->len;
    size_t bytes = bytes_of(coll);
    bool is_scattered = coll->kind == TRI_COLL_REDUCE_SCATTER;

    state->each = coll->kind == TRI_COLL_BARRIER     ? 0
                  : coll->kind == TRI_COLL_ALLGATHER ? bytes * n
                                                     : bytes;
    state->results = malloc(state->each * (is_scattered ? n : 1) + 1);
    if (state->results == NULL)
        return TROUPE_ENOMEM;
    if (coll->kind == TRI_COLL_BCAST && bytes > 0)
        memcpy(state->results, ins[coll->root], bytes);
    if (coll->kind == TRI_COLL_ALLGATHER)
        for (uint32_t i = 0; i < n && bytes > 0; i++)
            memcpy(state->results + i * bytes, ins[i], bytes);
    if (coll->op != 0)
        tri_reduce_all((enum troupe_datatype)coll->type,
                       (enum troupe_op)coll->op, state->results, ins, n,
                       coll->count * (is_scattered ? n : 1));
    return 0;
}

/* TRI_COLL_PENDING until all have given. */
static int collect(struct tri_backend *backend, struct tri_coll *coll)
{
    const void *ins[TRI_REDUCE_INPUTS_MAX] = {
        coll->kind == TRI_COLL_BCAST ? coll->out : coll->in
    };

    for (uint32_t i = 1; i < coll->team->len; i++) {
        struct kept *kept = find(backend, coll->number, i);

        if (kept == NULL)
            return TRI_COLL_PENDING;
        if (memcmp(kept->data, coll->signature, 16) != 0) {
            coll->culprit = i;
            memcpy(coll->culprit_signature, kept->data, 16);
            return TROUPE_EMISMATCH;
        }
        if (kept->bytes != 16 + bytes_given(coll, i))
            return TROUPE_EPROTO;
        ins[i] = kept->data + 16;
    }
    return compute(coll, ins);
}

static int hand_out(struct tri_backend *backend, struct tri_coll *coll)
{
    struct state *state = coll->state;
    bool is_scattered = coll->kind == TRI_COLL_REDUCE_SCATTER;

    while (state->sent < coll->team->len - 1) {
        uint32_t to = state->sent + 1;
        int rc = send_to(backend, to, coll->number, WHAT_GET,
                         state->results + (is_scattered ? to * state->each : 0),
                         state->each, NULL, 0);

        if (rc != 0)
            return rc == TROUPE_EFULL ? TRI_COLL_PENDING : rc;
        state->sent++;
    }
    if (coll->out != NULL && state->each > 0)
        memcpy(coll->out, state->results, state->each);
    return 0;
}

static int progress_first(struct tri_backend *backend, struct tri_coll *coll)
{
    struct state *state = coll->state;
    int rc = state->results == NULL ? collect(backend, coll) : 0;

    return rc == 0 ? hand_out(backend, coll) : rc;
}

static int progress_other(struct tri_backend *backend, struct tri_coll *coll)
{
    struct state *state = coll->state;
    struct kept *kept;

    if (!state->given) {
        const void *data = coll->kind == TRI_COLL_BCAST ? coll->out : coll->in;
        int rc = send_to(backend, 0, coll->number, WHAT_GIVE, coll->signature,
                         16, data, bytes_given(coll, coll->team->index));

        if (rc != 0)
            return rc == TROUPE_EFULL ? TRI_COLL_PENDING : rc;
        state->given = true;
    }
    kept = find(backend, coll->number, 0);
    if (kept == NULL)
        return TRI_COLL_PENDING;
    if (coll->out != NULL && kept->bytes > 0)
        memcpy(coll->out, kept->data, kept->bytes);
    return 0;
}

static int progress(struct tri_backend *backend, struct tri_coll *coll)
{
    struct state *state = coll->state;
    int rc;

    if (state->not_before_ns > tri_now_ns())
        return TRI_COLL_PENDING;
    rc = coll->team->index == 0 ? progress_first(backend, coll)
                                : progress_other(backend, coll);
    if (rc != TRI_COLL_PENDING)
        cancel(backend, coll);
    return rc;
}

const struct tri_backend_ops plain_backend = {
    .name = "plain",
    .open = open_plain,
    .open_progress = open_progress,
    .close = close_it,
    .start = start,
    .progress = progress,
    .cancel = cancel,
    .received = received,
};

const struct tri_backend_ops plain_other_backend = {
    .name = "other",
    .starter_only = true,
    .can = can_other,
    .open = open_other,
    .open_progress = open_progress,
    .close = close_it,
    .start = start,
    .progress = progress,
    .cancel = cancel,
    .received = received,
};
