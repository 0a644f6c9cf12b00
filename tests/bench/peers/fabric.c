/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * libfabric's shm provider, raw: one RDM endpoint a rank, polled. MPI starts
 * the two ranks and exchanges their addresses, nothing more.
 *     fabric ask8 ROUNDS        8 B there and back
 *     fabric tell64 MESSAGES    64 B one way, injected; 64 receives posted
 */

#include <mpi.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>

#include "../bench.h"

enum { WINDOW = 64, SLOT_BYTES = 64, ADDRESS_BYTES = 256 };

static struct fi_info *info;
static struct fid_fabric *fabric;
static struct fid_domain *domain;
static struct fid_av *av;
static struct fid_cq *cq;
static struct fid_ep *ep;
static fi_addr_t peer;
static int rank;
static char slots[WINDOW][SLOT_BYTES];

static void check(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s\n", what, fi_strerror(-rc));
    exit(1);
}

static void open_endpoint(void)
{
    struct fi_info *hints = fi_allocinfo();
    struct fi_av_attr av_attr = { .type = FI_AV_TABLE };
    struct fi_cq_attr cq_attr = { .format = FI_CQ_FORMAT_CONTEXT,
                                  .size = 4096 };

    if (!hints)
        bench_die("no memory");
    hints->ep_attr->type = FI_EP_RDM;
    hints->caps = FI_MSG;
    hints->mode = FI_CONTEXT;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR;
    hints->fabric_attr->prov_name = strdup("shm");
    check(fi_getinfo(FI_VERSION(1, 17), NULL, NULL, 0, hints, &info),
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

static void post(char *slot)
{
    ssize_t rc;

    do
        rc = fi_recv(ep, slot, SLOT_BYTES, NULL, FI_ADDR_UNSPEC, slot);
    while (rc == -FI_EAGAIN);
    check((int)rc, "fi_recv");
}

/* Takes what arrived, posts its buffers again, returns how many. */
static uint64_t receive(void)
{
    struct fi_cq_entry entries[WINDOW];
    ssize_t len = fi_cq_read(cq, entries, WINDOW);

    if (len == -FI_EAGAIN)
        return 0;
    if (len < 0)
        check((int)len, "fi_cq_read");
    for (ssize_t i = 0; i < len; i++)
        post(entries[i].op_context);
    return (uint64_t)len;
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
static void stream(uint64_t messages)
{
    char message[64] = { 1 };

    if (rank == 0) {
        for (uint64_t i = 0; i < messages; i++)
            put(message, sizeof(message));
        take(1);
    } else {
        take(messages);
        put(message, 8);
    }
}

static void tell64(uint64_t messages)
{
    int64_t began;

    stream(messages / 10 + 1);
    began = bench_now_ns();
    stream(messages);
    if (rank == 0)
        bench_print((double)messages * 1e3 /
                        (double)(bench_now_ns() - began),
                    "M/s", "rate");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    int size;

    bench_watchdog();
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size != 2)
        bench_die("needs two ranks");
    open_endpoint();
    connect_peer();
    for (int i = 0; i < WINDOW; i++)
        post(slots[i]);
    MPI_Barrier(MPI_COMM_WORLD);
    if (strcmp(what, "ask8") == 0)
        ask8(bench_number(argc, argv, 2));
    else if (strcmp(what, "tell64") == 0)
        tell64(bench_number(argc, argv, 2));
    else
        bench_die("usage: fabric ask8|tell64 N");
    close_endpoint();
    MPI_Finalize();
    return 0;
}
