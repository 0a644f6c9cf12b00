/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The memory of idle links over the fabric, in a node that has many. This
 * process is the node; another has the peers, each a transport of its own with
 * its own endpoint. The parts that belong to a link are made here by the
 * transport and counted as what the process grows by; the link layer's struct
 * tri_peer is added by its size.
 *     links LINKS
 *
 * Figures are bytes a link, between the first link and the last:
 *   rss, heap            after one record of 8 B each way
 *   used.rss, used.heap  after USED_BYTES each way on each link, idle again
 *   fds                  descriptors
 *   kernel               what its TCP sockets hold in buffers, this end
 *   session              what the session itself counts for a link
 * and all.rss, all.heap: MiB from before the first link to the last, used;
 * all.session: what the session and its carrier count, used.
 * rss is resident memory, heap is what is allocated by malloc, libfabric's own
 * included. Frames are sealed, as they are by default.
 */

#include <linux/sock_diag.h>
#include <malloc.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "../bench.h"
#include "link/link.h"
#include "link/session.h"
#include "os/bell.h"
#include "transport/carrier.h"

enum {
    LINKS_MAX = 1024,
    USED_BYTES = 1 << 20,
    RECORD_BYTES = 4096,
    LIMIT_MS = 60000, /* for one step */
    SETTLE_MS = 300,  /* acknowledgements leave, buffers come back */
    BUDGET = 64,
};

/* What both processes tell each other of a node. */
struct introduction {
    uint64_t nonce;
    uint64_t node;
    struct tri_address address;
};

/* One direction: to one node. At the peers' side, one end of each peer. */
struct end {
    struct tri_transport *transport;
    struct tri_channel *channel;
    struct introduction other;
    uint64_t received, owed; /* bytes; owed: to be sent back */
};

static struct tri_bell bell;
static struct end ends[LINKS_MAX];
static unsigned ends_len;
static struct introduction self;
static bool answers; /* what arrives is sent back */

static void check(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s\n", what, troupe_strerror(rc));
    exit(1);
}

static void read_all(int fd, void *bytes, size_t len)
{
    if (recv(fd, bytes, len, MSG_WAITALL) != (ssize_t)len)
        bench_die("the other process has ended");
}

static void write_all(int fd, const void *bytes, size_t len)
{
    if (send(fd, bytes, len, MSG_NOSIGNAL) != (ssize_t)len)
        bench_die("the other process has ended");
}

static uint64_t random_node(void)
{
    uint64_t node;

    if (getrandom(&node, sizeof(node), 0) != sizeof(node))
        bench_die("getrandom");
    return node | 1;
}

/* --- a node as its link would drive it ------------------------------- */

/* context: the peer's end, or NULL at the measured node, which has many. */
static void *on_accept(void *context, uint64_t node)
{
    if (context)
        return context;
    for (unsigned i = 0; i < ends_len; i++)
        if (ends[i].other.node == node)
            return &ends[i];
    return NULL;
}

static const struct tri_address *on_address(void *context, uint64_t node)
{
    struct end *end = on_accept(context, node);

    return end ? &end->other.address : NULL;
}

static bool on_record(void *context, void *peer, enum tri_lane lane,
                      const struct tri_record *record, const void *payload)
{
    struct end *end = peer;

    (void)context;
    (void)lane;
    (void)payload;
    end->received += record->bytes;
    if (answers)
        end->owed += record->bytes;
    return true;
}

static void on_lost(void *context, uint64_t node, enum tri_evidence evidence)
{
    (void)context;
    (void)node;
    if (evidence == TRI_EVIDENCE_PROOF)
        bench_die("a peer is lost");
}

static void on_garbage(void *context, const char *reason)
{
    (void)context;
    bench_die(reason);
}

static void on_writable(void *context, void *peer)
{
    (void)context;
    (void)peer;
}

static const unsigned char key[TRI_KEY_BYTES] = { 1, 2, 3 };

static struct tri_transport *transport_open(uint64_t node, uint32_t peers_max,
                                            void *context)
{
    struct tri_transport_config config = {
        .node = node,
        .job_nonce = self.nonce,
        .peers_max = peers_max,
        .bell = &bell,
        .provider = "tcp;ofi_rxm",
        .interface = "127.0.0.1",
        .carrier = &tri_carrier_fabric,
        .seal = TRI_SEAL_AUTH,
        .key = key,
        .events = { .context = context,
                    .accept = on_accept,
                    .address = on_address,
                    .record = on_record,
                    .lost = on_lost,
                    .garbage = on_garbage,
                    .writable = on_writable },
    };
    struct tri_transport *transport;

    check(tri_transport_session.open(&config, &transport), "open");
    return transport;
}

static void end_connect(struct end *end)
{
    check(end->transport->ops->connect(end->transport, end->other.node,
                                       &end->other.address, end, &end->channel),
          "connect");
}

/* False: not now. */
static bool end_send(struct end *end, uint32_t bytes)
{
    const struct tri_transport_ops *ops = end->transport->ops;
    struct tri_span span;
    int rc = ops->reserve(end->channel, TRI_LANE_DATA, bytes, &span);

    if (rc == TROUPE_EFULL)
        return false;
    check(rc, "reserve");
    *span.record = (struct tri_record){ .kind = TRI_TELL,
                                        .bytes = bytes,
                                        .total_bytes = bytes };
    memset(span.payload, 1, bytes);
    ops->commit(end->channel);
    return true;
}

/* As much of what is owed as goes now. */
static void end_pay(struct end *end)
{
    uint32_t bytes;

    if (end->owed > 0 && !end->channel)
        end_connect(end);
    while (end->owed > 0) {
        bytes = (uint32_t)tri_min(end->owed, RECORD_BYTES);
        if (!end_send(end, bytes))
            break;
        end->owed -= bytes;
    }
    if (end->channel && end->transport->ops->flush)
        end->transport->ops->flush(end->channel);
}

static void transport_poll(struct tri_transport *transport)
{
    if (transport->ops->control)
        transport->ops->control(transport);
    transport->ops->poll(transport, BUDGET);
}

/* --- the peers' process -------------------------------------------------- */

static void introduce(struct tri_transport *transport, uint64_t node, int to)
{
    struct introduction mine = { .node = node, .nonce = self.nonce };

    transport->ops->address(transport, &mine.address);
    write_all(to, &mine, sizeof(mine));
}

static bool is_over(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void peers(int fd)
{
    struct introduction center;

    answers = true;
    read_all(fd, &center, sizeof(center));
    self.nonce = center.nonce;
    for (unsigned i = 0; i < ends_len; i++) {
        uint64_t node = random_node();

        ends[i].transport = transport_open(node, 1, &ends[i]);
        ends[i].other = center;
        introduce(ends[i].transport, node, fd);
    }
    while (!is_over(fd))
        for (unsigned i = 0; i < ends_len; i++) {
            transport_poll(ends[i].transport);
            end_pay(&ends[i]);
        }
    exit(0); /* the measured node is gone: nothing to end in order */
}

/* --- the measured node --------------------------------------------------- */

struct reading {
    double rss, heap, fds, kernel;
};

/* What a TCP socket of ours holds in the kernel; 0 for what is none. */
static double socket_bytes(int fd)
{
    uint32_t memory[SK_MEMINFO_VARS] = { 0 };
    socklen_t bytes = sizeof(memory), domain_bytes = sizeof(int);
    int domain = AF_UNSPEC;

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_bytes) != 0 ||
        (domain != AF_INET && domain != AF_INET6) ||
        getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &bytes) != 0)
        return 0;
    return (double)memory[SK_MEMINFO_RMEM_ALLOC] +
           memory[SK_MEMINFO_WMEM_ALLOC] + memory[SK_MEMINFO_FWD_ALLOC] +
           memory[SK_MEMINFO_OPTMEM];
}

static double kernel_bytes(void)
{
    double bytes = 0;
    struct dirent *entry;
    DIR *dir = opendir("/proc/self/fd");

    if (!dir)
        bench_die("no /proc/self");
    while ((entry = readdir(dir)))
        bytes += socket_bytes(atoi(entry->d_name)); /* "..": 0 is no socket */
    closedir(dir);
    return bytes;
}

static struct reading reading_take(void)
{
    struct mallinfo2 heap = mallinfo2();

    return (struct reading){
        .rss = bench_resident_bytes(),
        .heap = (double)heap.uordblks + (double)heap.hblkhd,
        .fds = bench_proc_entries("fd"),
        .kernel = kernel_bytes(),
    };
}

/* Lets what is under way come to rest. */
static void settle(struct tri_transport *transport)
{
    int64_t until_ns = bench_now_ns() + (int64_t)SETTLE_MS * 1000000;

    while (bench_now_ns() < until_ns) {
        transport_poll(transport);
        for (unsigned i = 0; i < ends_len; i++)
            if (ends[i].channel && transport->ops->flush)
                transport->ops->flush(ends[i].channel);
    }
}

/* Sends so many bytes on each link and waits until as many are back. */
static void exchange(struct end *first, unsigned len, uint64_t bytes)
{
    int64_t until_ns = bench_now_ns() + (int64_t)LIMIT_MS * 1000000;
    unsigned missing = len;

    for (unsigned i = 0; i < len; i++) {
        first[i].owed = bytes;
        first[i].received = 0;
    }
    while (missing > 0) {
        missing = 0;
        for (unsigned i = 0; i < len; i++) {
            end_pay(&first[i]);
            missing += first[i].received < bytes;
        }
        transport_poll(first->transport);
        if (bench_now_ns() > until_ns)
            bench_die("an answer did not come in time");
    }
}

static void print_link(const struct reading *from, const struct reading *to,
                       unsigned links, const char *prefix)
{
    char name[64];

    snprintf(name, sizeof(name), "%srss", prefix);
    bench_print((to->rss - from->rss) / links + sizeof(struct tri_peer), "B",
                name);
    snprintf(name, sizeof(name), "%sheap", prefix);
    bench_print((to->heap - from->heap) / links + sizeof(struct tri_peer), "B",
                name);
}

static void measure(struct tri_transport *transport)
{
    struct reading none = reading_take(), first, idle, used_first, used;
    double peers_bytes = (double)sizeof(struct tri_peer) * ends_len;

    exchange(ends, 1, 8);
    settle(transport);
    first = reading_take();
    exchange(ends + 1, ends_len - 1, 8);
    settle(transport);
    idle = reading_take();
    print_link(&first, &idle, ends_len - 1, "");
    bench_print((double)tri_session_peer_bytes(), "B", "session");
    bench_print((idle.fds - first.fds) / (ends_len - 1), "fds", "fds");
    bench_print((idle.kernel - first.kernel) / (ends_len - 1), "B", "kernel");
    exchange(ends, 1, USED_BYTES); /* makes what all links share */
    settle(transport);
    used_first = reading_take();
    for (unsigned i = 1; i < ends_len; i++)
        exchange(&ends[i], 1, USED_BYTES);
    settle(transport);
    used = reading_take();
    used_first.rss -= idle.rss - first.rss;
    used_first.heap -= idle.heap - first.heap;
    print_link(&used_first, &used, ends_len - 1, "used.");
    bench_print((used.rss - none.rss + peers_bytes) / 1048576, "MiB",
                "all.rss");
    bench_print((used.heap - none.heap + peers_bytes) / 1048576, "MiB",
                "all.heap");
    bench_print((double)tri_session_memory_bytes(transport) / 1048576, "MiB",
                "all.session");
}

static void center(int fd)
{
    struct tri_transport *transport;

    self.nonce = random_node();
    self.node = random_node();
    transport = transport_open(self.node, ends_len, NULL);
    introduce(transport, self.node, fd);
    for (unsigned i = 0; i < ends_len; i++) {
        ends[i].transport = transport;
        read_all(fd, &ends[i].other, sizeof(ends[i].other));
    }
    measure(transport);
}

/* 256 peers in a process take some thousand descriptors. */
static void allow_descriptors(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    uint64_t links = bench_number(argc, argv, 1);
    int fds[2];
    pid_t pid;

    bench_watchdog();
    if (links < 2 || links > LINKS_MAX)
        bench_die("2 to 1024 links");
    ends_len = (unsigned)links;
    allow_descriptors();
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
        bench_die("socketpair");
    pid = fork();
    if (pid < 0)
        bench_die("fork");
    close(fds[pid == 0 ? 0 : 1]);
    bench_watchdog(); /* a child has none of its parent's */
    check(tri_bell_init(&bell), "bell");
    if (pid == 0)
        peers(fds[1]);
    center(fds[0]);
    return 0; /* which ends the peers' process */
}
