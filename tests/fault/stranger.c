/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A stranger, under full load: connects to the fabric's ports and sends random
 * bytes, or nothing; then, through libfabric, messages that are no frames, and
 * frames that are well formed, but of another job, for another node, of an
 * unknown or a forged source, without a tag or with a wrong one. All of it is
 * counted by reason and changes nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>

#include "base/random.h"
#include "flood.h"
#include "wire/frame.h"

enum {
    ENDS = 2,
    CALLS = 60,     /* plain connections */
    SILENT_MAX = 8, /* of those, kept open without a word */
    CALL_BYTES_MAX = 8192,
    MESSAGES = 1500, /* through libfabric */
    LARGE_BYTES = TRI_FRAME_BYTES_MAX + 8192,
    FLOW_RECORDS = 2000,
    SOON_MS = 20000,
    COMPLETION_MS = 500,
};

/* --- plain connections --------------------------------------------------- */

static void fill(struct tri_random *random, unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = (unsigned char)tri_random_next(random);
}

static void one_call(struct flood_board *board, struct tri_random *random)
{
    static unsigned silent_len;
    unsigned char data[CALL_BYTES_MAX];
    struct linger linger = { .l_onoff = 1, .l_linger = 0 };
    struct sockaddr_in to;
    size_t bytes = tri_random_below(random, CALL_BYTES_MAX) + 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    flood_address_get(&board->seats[tri_random_below(random, ENDS)].address,
                      &to);
    if (fd < 0 || connect(fd, (const void *)&to, sizeof(to)) != 0) {
        perror("a stranger's connect");
        exit(EXIT_FAILURE);
    }
    if (silent_len < SILENT_MAX && tri_random_below(random, 4) == 0) {
        silent_len++;
        return; /* until the process ends */
    }
    if (tri_random_below(random, 4) == 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    fill(random, data, bytes);
    if (send(fd, data, bytes, MSG_NOSIGNAL) < 0 && errno != EPIPE &&
        errno != ECONNRESET)
        perror("a stranger's send");
    close(fd);
}

/* --- messages through libfabric ------------------------------------------- */

struct client {
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_av *av;
    struct fid_cq *cq;
    struct fid_ep *ep;
    fi_addr_t ends[ENDS];
    unsigned sent_len;
};

static void must(ssize_t rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "stranger: %s: %s\n", what, fi_strerror((int)-rc));
    exit(EXIT_FAILURE);
}

static void client_open(struct client *client, struct flood_board *board)
{
    const char *provider = getenv("TROUPE_PROVIDER");
    struct fi_info *hints = fi_allocinfo();
    struct fi_av_attr av_attr = { .type = FI_AV_TABLE };
    struct fi_cq_attr cq_attr = { .format = FI_CQ_FORMAT_CONTEXT };

    must(hints ? 0 : -FI_ENOMEM, "hints");
    hints->ep_attr->type = FI_EP_RDM;
    hints->caps = FI_MSG;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->fabric_attr->prov_name = strdup(provider ? provider : "tcp;ofi_rxm");
    /* Or the other side would not even take its calls. */
    setenv("FI_OFI_RXM_EAGER_LIMIT", "65536", 1);
    must(fi_getinfo(FI_VERSION(1, 9), "127.0.0.1", NULL, FI_SOURCE, hints,
                    &client->info),
         "fi_getinfo");
    fi_freeinfo(hints);
    must(fi_fabric(client->info->fabric_attr, &client->fabric, NULL),
         "fi_fabric");
    must(fi_domain(client->fabric, client->info, &client->domain, NULL),
         "fi_domain");
    must(fi_av_open(client->domain, &av_attr, &client->av, NULL), "fi_av_open");
    must(fi_cq_open(client->domain, &cq_attr, &client->cq, NULL), "fi_cq_open");
    must(fi_endpoint(client->domain, client->info, &client->ep, NULL),
         "fi_endpoint");
    must(fi_ep_bind(client->ep, &client->av->fid, 0), "fi_ep_bind");
    must(fi_ep_bind(client->ep, &client->cq->fid, FI_SEND | FI_RECV),
         "fi_ep_bind");
    must(fi_enable(client->ep), "fi_enable");
    for (unsigned i = 0; i < ENDS; i++) {
        struct sockaddr_in in;

        flood_address_get(&board->seats[i].address, &in);
        if (fi_av_insert(client->av, &in, 1, &client->ends[i], 0, NULL) != 1)
            must(-FI_EINVAL, "fi_av_insert");
    }
}

/* Sends, and waits a while until it has left: the send of a connection that
 * ends in the middle may never complete, and is still libfabric's then. */
static void client_send(struct client *client, unsigned end, const void *data,
                        size_t bytes)
{
    static struct fi_context2 contexts[MESSAGES];
    struct fi_context2 *context = &contexts[client->sent_len++];
    struct fi_cq_entry entry;
    uint64_t until = tri_deadline_ns(SOON_MS);
    ssize_t rc;

    while ((rc = fi_send(client->ep, data, bytes, NULL, client->ends[end],
                         context)) == -FI_EAGAIN &&
           tri_now_ns() < until) {
        fi_cq_read(client->cq, NULL, 0);
        flood_nap();
    }
    must(rc, "fi_send");
    until = tri_deadline_ns(COMPLETION_MS);
    while ((rc = fi_cq_read(client->cq, &entry, 1)) == -FI_EAGAIN &&
           tri_now_ns() < until)
        ;
    if (rc == -FI_EAGAIN)
        fprintf(stderr, "stranger: message %u did not complete\n",
                client->sent_len);
    if (rc == -FI_EAVAIL) {
        struct fi_cq_err_entry error = { 0 };

        fi_cq_readerr(client->cq, &error, 0); /* the end may hang up */
    }
}

static void client_close(struct client *client)
{
    fi_close(&client->ep->fid);
    fi_close(&client->cq->fid);
    fi_close(&client->av->fid);
    fi_close(&client->domain->fid);
    fi_close(&client->fabric->fid);
    fi_freeinfo(client->info);
}

enum forgery {
    NOT_A_FRAME,
    TOO_SHORT,
    TOO_LONG,
    OTHER_VERSION,
    OTHER_JOB,
    OTHER_NODE,
    NO_TAG,
    UNKNOWN_SOURCE,
    WRONG_TAG,
    FORGERIES,
};

/* What each is counted as. */
static const char *const reasons[FORGERIES] = {
    [NOT_A_FRAME] = "not a frame",
    [TOO_SHORT] = "too short",
    [TOO_LONG] = "longer than a frame",
    [OTHER_VERSION] = "another version",
    [OTHER_JOB] = "another job",
    [OTHER_NODE] = "another node",
    [NO_TAG] = "not sealed",
    [UNKNOWN_SOURCE] = "stranger",
    [WRONG_TAG] = "tag is wrong",
};

/* A frame with one good record, were it not for the forgery. Returns its
 * bytes. */
static size_t forge(const struct flood_board *board, struct tri_random *random,
                    enum forgery forgery, unsigned to, unsigned char *data)
{
    size_t payload_bytes = tri_random_below(random, 8) * 8;
    struct tri_record record = { .kind = TRI_TELL,
                                 .bytes = (uint32_t)payload_bytes,
                                 .total_bytes = (uint32_t)payload_bytes,
                                 .ask = 1 };
    struct tri_frame frame = {
        .version = TRI_FRAME_VERSION_MAX,
        .kind = TRI_FRAME_DATA,
        .lane = TRI_LANE_DATA,
        .flags = TRI_FRAME_SEALED,
        .records = 1,
        .source = board->seats[1 - to].node,
        .destination = board->seats[to].node,
        .nonce = board->nonce,
        .number = board->seats[to].received[TRI_LANE_DATA] / 20 +
                  tri_random_below(random, 100) + 1,
        .credit = UINT64_MAX,
    };
    size_t bytes = TRI_FRAME_HEADER_BYTES + sizeof(record) + payload_bytes +
                   TRI_FRAME_TAG_BYTES;

    fill(random, data, forgery == TOO_LONG ? LARGE_BYTES : bytes);
    switch (forgery) {
    case NOT_A_FRAME:
        return bytes;
    case TOO_SHORT:
        return tri_random_below(random, TRI_FRAME_HEADER_BYTES - 1) + 1;
    case TOO_LONG:
        return LARGE_BYTES;
    case OTHER_VERSION:
        frame.version = TRI_FRAME_VERSION_MAX + 1;
        break;
    case OTHER_JOB:
        frame.nonce = tri_random_next(random);
        break;
    case OTHER_NODE:
        frame.destination = tri_random_next(random);
        break;
    case NO_TAG:
        frame.flags = 0;
        bytes -= TRI_FRAME_TAG_BYTES;
        break;
    case UNKNOWN_SOURCE:
        frame.source = tri_random_next(random);
        break;
    default:
        break;
    }
    frame.bytes = (uint32_t)bytes;
    tri_frame_encode(data, &frame);
    memcpy(data + TRI_FRAME_HEADER_BYTES, &record, sizeof(record));
    return bytes;
}

/* In a process of its own. */
static void stranger_run(struct flood_board *board)
{
    static unsigned char data[LARGE_BYTES];
    struct client client = { 0 };
    struct tri_random random;

    tri_random_init(&random, tri_mix64(board->seed + ENDS));
    for (unsigned i = 0; i < CALLS; i++)
        one_call(board, &random);
    client_open(&client, board);
    for (unsigned i = 0; i < MESSAGES; i++) {
        unsigned to = tri_random_below(&random, ENDS);
        enum forgery forgery = (enum forgery)(i % FORGERIES);
        size_t bytes = forge(board, &random, forgery, to, data);

        client_send(&client, to, data, bytes);
    }
    client_close(&client);
    exit(EXIT_SUCCESS);
}

/* --- the test ------------------------------------------------------------- */

static void wait_for_flow(struct flood_board *board)
{
    uint64_t a = flood_received(board, 0) + FLOW_RECORDS;
    uint64_t b = flood_received(board, 1) + FLOW_RECORDS;

    FLOOD_WAIT(board, flood_nap(),
               flood_received(board, 0) >= a && flood_received(board, 1) >= b,
               SOON_MS);
}

static bool has_ended(pid_t pid, int *status_p)
{
    return waitpid(pid, status_p, WNOHANG) == pid;
}

static void check_reasons(struct flood_board *board)
{
    for (unsigned k = 0; k < FORGERIES; k++)
        if (flood_garbage(board, 0, reasons[k]) +
                flood_garbage(board, 1, reasons[k]) ==
            0)
            flood_fail(board, "not counted: %s", reasons[k]);
}

int main(void)
{
    struct flood_options options = { .interface = "127.0.0.1",
                                     .provider = getenv("TROUPE_PROVIDER"),
                                     .seal = TRI_SEAL_AUTH };
    struct flood_board *board = flood_board_create("stranger", ENDS);
    int status = 0;
    pid_t pid;

    for (unsigned i = 0; i < ENDS; i++)
        flood_start(board, i, &options);
    FLOOD_WAIT(board, flood_nap(), flood_all_open(board), FLOOD_SOON_MS);
    flood_connect(board, 0, 1);
    wait_for_flow(board);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        stranger_run(board);
    }
    FLOOD_WAIT(board, wait_for_flow(board), has_ended(pid, &status),
               FLOOD_SOON_MS);
    if (status != 0)
        flood_fail(board, "the stranger ended with %#x", (unsigned)status);
    wait_for_flow(board);
    atomic_store(&board->phase, FLOOD_LAST);
    FLOOD_WAIT(board, flood_nap(), flood_all_done(board), SOON_MS);
    flood_print(board);
    check_reasons(board);
    flood_leave(board);
    flood_board_destroy(&board);
    return EXIT_SUCCESS;
}
