/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A libfabric provider, raw: one RDM endpoint a rank, polled. MPI starts the
 * two ranks and exchanges their addresses, nothing more.
 *     fabric PROVIDER ask8 ROUNDS           8 B there and back
 *     fabric PROVIDER ask8fd ROUNDS         the same over a queue that could be
 *                                           slept on, as a library needs it
 *     fabric PROVIDER tell BYTES MESSAGES   small, one way, injected; 64
 *                                           receives posted
 *     fabric PROVIDER bw BYTES MESSAGES WINDOW [PIECE]
 *             large messages out of and into WINDOW warm buffers, as many
 *             under way; cut into pieces of so many bytes, each received in
 *             its place, if PIECE is given
 */

#include <mpi.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>

#include "../bench.h"

enum {
    WINDOW = 64, /* small receives posted; completions read at once */
    SMALL_BYTES = 64,
    ADDRESS_BYTES = 256,
    UNITS_MAX = 1024, /* pieces or whole messages under way */
    TAG_END = 1,
};

/* One operation that may be under way. The context comes first: providers may
 * write into it. */
struct slot {
    struct fi_context2 context;
    char *buffer;
    size_t bytes;
};

static struct fi_info *info;
static struct fid_fabric *fabric;
static struct fid_domain *domain;
static struct fid_av *av;
static struct fid_cq *cq;
static struct fid_ep *ep;
static fi_addr_t peer;
static int rank;
static struct slot small[WINDOW];
static char small_buffers[WINDOW][SMALL_BYTES];

static void check(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s\n", what, fi_strerror(-rc));
    exit(1);
}

/* can_sleep: a queue with a descriptor to wait for, which costs the provider
 * system calls at each completion, though we only poll. */
static void open_endpoint(const char *provider, int can_sleep)
{
    struct fi_info *hints = fi_allocinfo();
    int is_host = strcmp(provider, "shm") == 0;
    struct fi_av_attr av_attr = { .type = FI_AV_TABLE };
    struct fi_cq_attr cq_attr = { .format = FI_CQ_FORMAT_CONTEXT,
                                  .wait_obj = can_sleep ? FI_WAIT_FD
                                                        : FI_WAIT_NONE,
                                  .size = 4096 };

    if (!hints)
        bench_die("no memory");
    hints->ep_attr->type = FI_EP_RDM;
    hints->caps = FI_MSG;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->domain_attr->mr_mode = FI_MR_VIRT_ADDR;
    hints->tx_attr->msg_order = is_host ? 0 : FI_ORDER_SAS;
    hints->rx_attr->msg_order = is_host ? 0 : FI_ORDER_SAS;
    hints->fabric_attr->prov_name = strdup(provider);
    check(fi_getinfo(FI_VERSION(1, 17), is_host ? NULL : "127.0.0.1", NULL,
                     is_host ? 0 : FI_SOURCE, hints, &info),
          "fi_getinfo");
    fi_freeinfo(hints);
    check(fi_fabric(info->fabric_attr, &fabric, NULL), "fi_fabric");
    check(fi_domain(fabric, info, &domain, NULL), "fi_domain");
    check(fi_av_open(domain, &av_attr, &av, NULL), "fi_av_open");
    check(fi_cq_open(domain, &cq_attr, &cq, NULL), "fi_cq_open");
    check(fi_endpoint(domain, info, &ep, NULL), "fi_endpoint");
    check(fi_ep_bind(ep, &av->fid, 0), "fi_ep_bind");
    check(fi_ep_bind(ep, &cq->fid, FI_RECV | FI_TRANSMIT), "fi_ep_bind");
    check(fi_enable(ep), "fi_enable");
}

static void connect_peer(void)
{
    char mine[ADDRESS_BYTES] = { 0 }, theirs[ADDRESS_BYTES];
    size_t bytes = sizeof(mine);

    check(fi_getname(&ep->fid, mine, &bytes), "fi_getname");
    MPI_Sendrecv(mine, ADDRESS_BYTES, MPI_BYTE, 1 - rank, 0, theirs,
                 ADDRESS_BYTES, MPI_BYTE, 1 - rank, 0, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    if (fi_av_insert(av, theirs, 1, &peer, 0, NULL) != 1)
        bench_die("fi_av_insert");
}

static void close_endpoint(void)
{
    MPI_Barrier(MPI_COMM_WORLD);
    fi_close(&ep->fid);
    fi_close(&cq->fid);
    fi_close(&av->fid);
    fi_close(&domain->fid);
    fi_close(&fabric->fid);
    fi_freeinfo(info);
}

static void post(struct slot *slot)
{
    ssize_t rc;

    do
        rc = fi_recv(ep, slot->buffer, slot->bytes, NULL, FI_ADDR_UNSPEC,
                     &slot->context);
    while (rc == -FI_EAGAIN);
    check((int)rc, "fi_recv");
}

/* Reads completions, at most WINDOW. Returns how many. */
static uint64_t complete(struct fi_cq_entry entries[WINDOW])
{
    ssize_t len = fi_cq_read(cq, entries, WINDOW);

    if (len == -FI_EAGAIN)
        return 0;
    if (len < 0)
        check((int)len, "fi_cq_read");
    return (uint64_t)len;
}

/* Takes what arrived, posts its buffers again, returns how many. */
static uint64_t receive(void)
{
    struct fi_cq_entry entries[WINDOW];
    uint64_t len = complete(entries);

    for (uint64_t i = 0; i < len; i++) {
        struct slot *slot = entries[i].op_context;

        bench_touch(slot->buffer, 1);
        post(slot);
    }
    return len;
}

/*
 * Injects one message; injected sends leave no completion. A full peer is
 * waited for, and then nothing may arrive for this side.
 */
static void put(const void *bytes, size_t len)
{
    ssize_t rc;

    while ((rc = fi_inject(ep, bytes, len, peer)) == -FI_EAGAIN)
        if (receive() > 0)
            bench_die("an unexpected message");
    check((int)rc, "fi_inject");
}

static void take(uint64_t messages)
{
    while (messages > 0)
        messages -= receive();
}

static void ask8(uint64_t rounds)
{
    uint64_t warm = rounds / 10 + 1, word = 0;
    uint32_t *samples = calloc(rounds, sizeof(*samples));
    int64_t before, after;

    if (!samples)
        bench_die("no memory");
    before = bench_now_ns();
    for (uint64_t i = 0; i < warm + rounds; i++) {
        if (rank == 0) {
            put(&word, sizeof(word));
            take(1);
            after = bench_now_ns();
            if (i >= warm)
                samples[i - warm] = (uint32_t)(after - before);
            before = after;
        } else {
            take(1);
            put(&word, sizeof(word));
        }
    }
    if (rank == 0)
        bench_print_latency(samples, rounds);
    free(samples);
}

/* All messages one way, then one back. */
static void stream(size_t bytes, uint64_t messages)
{
    char message[SMALL_BYTES] = { 1 };

    if (rank == 0) {
        for (uint64_t i = 0; i < messages; i++)
            put(message, bytes);
        take(1);
    } else {
        take(messages);
        put(message, 8);
    }
}

static void tell(size_t bytes, uint64_t messages)
{
    int64_t began;

    if (bytes > SMALL_BYTES)
        bench_die("too many bytes");
    stream(bytes, messages / 10 + 1);
    began = bench_now_ns();
    stream(bytes, messages);
    if (rank == 0)
        bench_print((double)messages * 1e3 / (double)(bench_now_ns() - began),
                    "M/s", "rate");
}

static void small_open(void)
{
    for (int i = 0; i < WINDOW; i++) {
        small[i].buffer = small_buffers[i];
        small[i].bytes = SMALL_BYTES;
        post(&small[i]);
    }
}

/* --- large messages ------------------------------------------------------ */

/* What is sent or received at once: a whole message or a piece of one. */
static struct slot units[UNITS_MAX];
static uint64_t units_len, units_a_message;

/* False: not now. */
static int send_unit(struct slot *unit)
{
    ssize_t rc =
        fi_send(ep, unit->buffer, unit->bytes, NULL, peer, &unit->context);

    if (rc != -FI_EAGAIN)
        check((int)rc, "fi_send");
    return rc == 0;
}

/* What has left is sent again. */
static void send_large(uint64_t messages)
{
    struct fi_cq_entry entries[WINDOW];
    struct slot *idle[UNITS_MAX];
    uint64_t all = messages * units_a_message, begun = 0, left = 0;
    uint64_t idle_len = 0, len;

    for (uint64_t i = 0; i < units_len; i++)
        idle[idle_len++] = &units[units_len - 1 - i];
    while (left < all) {
        while (idle_len > 0 && begun < all && send_unit(idle[idle_len - 1])) {
            idle_len--;
            begun++;
        }
        len = complete(entries);
        for (uint64_t i = 0; i < len; i++)
            idle[idle_len++] = entries[i].op_context;
        left += len;
    }
}

/* Each page of a message is read when its last unit is there. They come in
 * the order sent, and messages lie one behind the other. */
static void receive_large(uint64_t messages)
{
    struct fi_cq_entry entries[WINDOW];
    uint64_t all = messages * units_a_message, taken = 0, len;

    while (taken < all) {
        len = complete(entries);
        for (uint64_t i = 0; i < len; i++, taken++) {
            struct slot *unit = entries[i].op_context;

            bench_touch(unit->buffer, unit->bytes);
            if (taken + units_len < all)
                post(unit);
        }
    }
}

/* Receives are posted before the other side begins, and none are left. */
static void stream_large(uint64_t messages)
{
    uint64_t all = messages * units_a_message;
    char end = 0;

    for (uint64_t i = 0; rank == 1 && i < units_len && i < all; i++)
        post(&units[i]);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        send_large(messages);
        MPI_Recv(&end, 1, MPI_BYTE, 1, TAG_END, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    } else {
        receive_large(messages);
        MPI_Send(&end, 1, MPI_BYTE, 0, TAG_END, MPI_COMM_WORLD);
    }
}

static void bw(size_t bytes, uint64_t messages, uint64_t window, size_t piece)
{
    char *buffers = malloc(bytes * window);
    int64_t began;

    if (!buffers || bytes % piece != 0 || window * (bytes / piece) > UNITS_MAX)
        bench_die("no memory, or not whole pieces, or too many of them");
    memset(buffers, 1, bytes * window);
    units_a_message = bytes / piece;
    units_len = window * units_a_message;
    for (uint64_t i = 0; i < units_len; i++)
        units[i] =
            (struct slot){ .buffer = buffers + i * piece, .bytes = piece };
    stream_large(messages / 10 + 1);
    began = bench_now_ns();
    stream_large(messages);
    if (rank == 0)
        bench_print((double)messages * (double)bytes /
                        (double)(bench_now_ns() - began),
                    "GB/s", "bw");
    free(buffers);
}

/* --- all ----------------------------------------------------------------- */

static void work(int argc, char **argv)
{
    const char *what = argv[2];
    size_t bytes = bench_number(argc, argv, 3);

    if (strcmp(what, "bw") == 0) {
        bw(bytes, bench_number(argc, argv, 4), bench_number(argc, argv, 5),
           argc > 6 ? bench_number(argc, argv, 6) : bytes);
        return;
    }
    small_open();
    MPI_Barrier(MPI_COMM_WORLD);
    if (strncmp(what, "ask8", 4) == 0)
        ask8(bench_number(argc, argv, 3));
    else if (strcmp(what, "tell") == 0)
        tell(bytes, bench_number(argc, argv, 4));
    else
        bench_die("usage: fabric PROVIDER ask8|tell|bw …");
}

int main(int argc, char **argv)
{
    int size;

    bench_watchdog();
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size != 2 || argc < 4)
        bench_die("usage, with two ranks: fabric PROVIDER ask8|tell|bw …");
    open_endpoint(argv[1], strcmp(argv[2], "ask8fd") == 0);
    connect_peer();
    work(argc, argv);
    close_endpoint();
    MPI_Finalize();
    return 0;
}
