/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The completion of an MPI request is delivered to an actor as a message,
 * once, and not before the data is there; that of one that failed is a dead
 * letter.
 */
#include <stdatomic.h>

#include "test.h"

enum { REQUESTS = 100, INTS = 300 };

#define inbox_messages(TELL, ASK) TELL(inbox, arrived, (int32_t number;))
TROUPE_PROTOCOL(inbox)

struct inbox {
    int32_t times[REQUESTS];
};

static int32_t received[REQUESTS][INTS];
static atomic_int arrivals;

static int on_arrived(troupe_self_t *self, struct inbox *i,
                      const inbox_arrived_t *m)
{
    int from = (troupe_rank(self) + 1) % troupe_size(self);

    CHECK_EQ(++i->times[m->number], 1);
    CHECK_EQ(received[m->number][INTS - 1], from * 1000 + m->number);
    atomic_fetch_add(&arrivals, 1);
    troupe_wake(self);
    return 0;
}

TROUPE_ACTOR(inbox, struct inbox, .arrived = on_arrived)

static void expect(troupe_t *troupe, inbox_ref_t inbox, int number, int from)
{
    MPI_Request request;
    inbox_arrived_t *message = inbox_arrived_new(troupe, 0);

    CHECK(message != NULL);
    if (!message)
        return;
    message->number = number;
    MPI_Irecv(received[number], INTS, MPI_INT, from, number, MPI_COMM_WORLD,
              &request);
    MUST(troupe_mpi_send_when_done(troupe, &request, inbox.ref, message));
    CHECK(request == MPI_REQUEST_NULL);
}

static int all_arrived(void *arg)
{
    (void)arg;
    return atomic_load(&arrivals) == REQUESTS;
}

static int has_letter(void *arg)
{
    return troupe_dead_letters_count(arg) > 0;
}

/* What comes is longer than there is room for. */
static void check_failed(troupe_t *troupe, inbox_ref_t inbox, int to, int from)
{
    static int32_t sent[INTS];
    inbox_arrived_t *message = inbox_arrived_new(troupe, 0);
    troupe_dead_letter_t letter = { .reason = 0 };
    MPI_Request request;
    MPI_Comm comm;

    CHECK(message != NULL);
    if (!message)
        return;
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    /* MPICH 4.0 asks these of a request's errors. */
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
    MPI_Irecv(received[0], 1, MPI_INT, from, 0, comm, &request);
    MUST(troupe_mpi_send_when_done(troupe, &request, inbox.ref, message));
    MPI_Send(sent, INTS, MPI_INT, to, 0, comm);
    CHECK_EQ(troupe_serve_until(troupe, has_letter, troupe, TEST_SOON_MS), 0);
    CHECK_EQ(troupe_dead_letters_take(troupe, &letter, 1), 1);
    CHECK_EQ(letter.reason, TROUPE_EMPI);
    CHECK(letter.to.slot == inbox.ref.slot);
    CHECK_EQ(atomic_load(&arrivals), REQUESTS);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_ARE_FATAL);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_ARE_FATAL);
    MPI_Comm_free(&comm);
}

int main(void)
{
    static int32_t sent[INTS];
    int size;
    troupe_t *troupe = test_start(&size, NULL);
    int from = (test_rank + 1) % size, to = (test_rank + size - 1) % size;
    inbox_ref_t inbox;
    void *message;

    MUST(inbox_spawn(troupe, NULL, NULL, &inbox));
    for (int n = 0; n < REQUESTS; n++)
        expect(troupe, inbox, n, from);
    CHECK_EQ(atomic_load(&arrivals), 0);
    for (int n = 0; n < REQUESTS; n++) {
        sent[INTS - 1] = test_rank * 1000 + n;
        MPI_Send(sent, INTS, MPI_INT, to, n, MPI_COMM_WORLD);
    }
    CHECK_EQ(troupe_serve_until(troupe, all_arrived, NULL, TEST_SOON_MS), 0);
    CHECK_EQ(atomic_load(&arrivals), REQUESTS);
    check_failed(troupe, inbox, to, from);

    message = inbox_arrived_new(troupe, 0);
    CHECK_EQ(troupe_mpi_send_when_done(troupe, NULL, inbox.ref, message),
             TROUPE_EINVAL);
    troupe_drop(message); /* on error it stays ours */
    return test_end(troupe);
}
