/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * ZeroMQ's PUSH and PULL over TCP on loopback. MPI starts the two ranks and
 * tells the address, nothing more; both sides wait in ZeroMQ. Its queues hold
 * 1000 messages, as they do by default: 65536 were no faster.
 *     zeromq tell BYTES MESSAGES
 */

#include <mpi.h>
#include <zmq.h>

#include "../bench.h"

enum { ENDPOINT_BYTES = 256, BYTES_MAX = 4096 };

static int rank;
static void *context, *push, *pull;

static void check(int failed, const char *what)
{
    if (!failed)
        return;
    fprintf(stderr, "%s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
}

/* Each rank pulls at an address of its own and pushes to the other's. */
static void connect_both(void)
{
    char mine[ENDPOINT_BYTES] = { 0 }, theirs[ENDPOINT_BYTES];
    size_t bytes = sizeof(mine);

    context = zmq_ctx_new();
    check(!context, "zmq_ctx_new");
    push = zmq_socket(context, ZMQ_PUSH);
    pull = zmq_socket(context, ZMQ_PULL);
    check(!push || !pull, "zmq_socket");
    check(zmq_bind(pull, "tcp://127.0.0.1:*"), "zmq_bind");
    check(zmq_getsockopt(pull, ZMQ_LAST_ENDPOINT, mine, &bytes),
          "LAST_ENDPOINT");
    MPI_Sendrecv(mine, ENDPOINT_BYTES, MPI_BYTE, 1 - rank, 0, theirs,
                 ENDPOINT_BYTES, MPI_BYTE, 1 - rank, 0, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    check(zmq_connect(push, theirs), "zmq_connect");
}

static void close_both(void)
{
    zmq_close(push);
    zmq_close(pull);
    zmq_ctx_term(context);
}

/* All messages one way, then one back. */
static void stream(size_t bytes, uint64_t messages)
{
    char buffer[BYTES_MAX] = { 1 };

    if (rank == 0) {
        for (uint64_t i = 0; i < messages; i++)
            check(zmq_send(push, buffer, bytes, 0) < 0, "zmq_send");
        check(zmq_recv(pull, buffer, sizeof(buffer), 0) < 0, "zmq_recv");
    } else {
        for (uint64_t i = 0; i < messages; i++) {
            check(zmq_recv(pull, buffer, sizeof(buffer), 0) < 0, "zmq_recv");
            bench_touch(buffer, bytes);
        }
        check(zmq_send(push, buffer, 1, 0) < 0, "zmq_send");
    }
}

static void tell(size_t bytes, uint64_t messages)
{
    int64_t began;

    if (bytes > BYTES_MAX)
        bench_die("too many bytes");
    stream(bytes, messages / 10 + 1);
    began = bench_now_ns();
    stream(bytes, messages);
    if (rank == 0)
        bench_print((double)messages * 1e3 / (double)(bench_now_ns() - began),
                    "M/s", "rate");
}

int main(int argc, char **argv)
{
    int size;

    bench_watchdog();
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size != 2 || argc < 2 || strcmp(argv[1], "tell") != 0)
        bench_die("usage, with two ranks: zeromq tell BYTES MESSAGES");
    connect_both();
    tell(bench_number(argc, argv, 2), bench_number(argc, argv, 3));
    close_both();
    MPI_Finalize();
    return 0;
}
