/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The handshake of two rings with somebody between them: greetings are taken
 * from one, changed as the input says (bytes, length, descriptors), and given
 * to the other. The rings must not read beside a segment, and no descriptor
 * may be left when they are closed.
 */

#define _GNU_SOURCE
#include "fuzz.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "os/bell.h"
#include "transport/transport.h"

enum { GREETING_BYTES_MAX = 256, FDS_MAX = 4, CALLS = 4, RECORDS = 3 };

struct greeting {
    unsigned char data[GREETING_BYTES_MAX];
    size_t bytes;
    int fds[FDS_MAX];
    unsigned fds_len;
};

struct end {
    uint64_t node;
    struct tri_bell bell;
    struct tri_transport *transport;
};

static struct {
    const uint8_t *at;
    size_t left;
} input;

static uint8_t take_u8(void)
{
    if (input.left == 0)
        return 0;
    input.left--;
    return *input.at++;
}

/* --- the rings' events ------------------------------------------------------
 */

static void *on_accept(void *context, uint64_t node)
{
    (void)node;
    return context;
}

static bool on_record(void *context, void *peer, enum tri_lane lane,
                      const struct tri_record *record, const void *payload)
{
    (void)context, (void)peer;
    FUZZ_CHECK(lane < TRI_LANES);
    fuzz_touch(payload, record->bytes);
    return true;
}

static bool on_pull(void *context, void *peer, const struct tri_record *record,
                    const void *payload)
{
    return on_record(context, peer, TRI_LANE_DATA, record, payload);
}

static void on_lost(void *context, uint64_t node, enum tri_evidence evidence)
{
    (void)context, (void)node, (void)evidence;
}

static void on_garbage(void *context, const char *reason)
{
    (void)context;
    FUZZ_CHECK(strlen(reason) > 0);
}

static void on_writable(void *context, void *peer)
{
    (void)context, (void)peer;
}

static void end_open(struct end *end, uint64_t node)
{
    struct tri_transport_config config = {
        .node = node,
        .job_nonce = 0x9e3779b97f4a7c15ull,
        .peers_max = 2,
        .bell = &end->bell,
        .cma = TRI_CMA_OFF,
        .events = { .context = end,
                    .accept = on_accept,
                    .record = on_record,
                    .pull = on_pull,
                    .lost = on_lost,
                    .garbage = on_garbage,
                    .writable = on_writable },
    };

    end->node = node;
    FUZZ_CHECK(tri_bell_init(&end->bell) == 0);
    FUZZ_CHECK(tri_transport_ring.open(&config, &end->transport) == 0);
}

static void end_close(struct end *end)
{
    end->transport->ops->close(end->transport);
    tri_bell_fini(&end->bell);
}

/* --- the one between ---------------------------------------------------------
 */

static int name_of(uint64_t node, struct sockaddr_un *name)
{
    *name = (struct sockaddr_un){ .sun_family = AF_UNIX };
    return (int)offsetof(struct sockaddr_un, sun_path) + 1 +
           snprintf(name->sun_path + 1, sizeof(name->sun_path) - 1,
                    "troupe-ring-%016" PRIx64, node);
}

static int make_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    FUZZ_CHECK(fd >= 0);
    return fd;
}

static int listen_as(uint64_t node)
{
    struct sockaddr_un name;
    socklen_t bytes = (socklen_t)name_of(node, &name);
    int fd = make_socket();

    FUZZ_CHECK(bind(fd, (void *)&name, bytes) == 0 && listen(fd, 4) == 0);
    return fd;
}

static int call(uint64_t node)
{
    struct sockaddr_un name;
    socklen_t bytes = (socklen_t)name_of(node, &name);
    int fd = make_socket();

    FUZZ_CHECK(connect(fd, (void *)&name, bytes) == 0);
    return fd;
}

/* False: nothing came. */
static bool hear(int fd, struct greeting *greeting)
{
    char control[CMSG_SPACE(sizeof(greeting->fds))] __attribute__((aligned(8)));
    struct iovec iov = { greeting->data, sizeof(greeting->data) };
    struct msghdr message = { .msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = control,
                              .msg_controllen = sizeof(control) };
    ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *header;

    greeting->fds_len = 0;
    if (n <= 0)
        return false;
    greeting->bytes = (size_t)n;
    header = CMSG_FIRSTHDR(&message);
    if (!header)
        return true;
    greeting->fds_len =
        (unsigned)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(greeting->fds, CMSG_DATA(header), greeting->fds_len * sizeof(int));
    return true;
}

/* Without its descriptors, which the caller still has. */
static void say(int fd, struct greeting *greeting)
{
    char control[CMSG_SPACE(sizeof(greeting->fds))]
        __attribute__((aligned(8))) = { 0 };
    struct iovec iov = { greeting->data, greeting->bytes };
    struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
    struct cmsghdr *header;

    if (greeting->fds_len > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(greeting->fds_len * sizeof(int));
        header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(greeting->fds_len * sizeof(int));
        memcpy(CMSG_DATA(header), greeting->fds,
               greeting->fds_len * sizeof(int));
    }
    (void)sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void forget(struct greeting *greeting)
{
    while (greeting->fds_len > 0)
        close(greeting->fds[--greeting->fds_len]);
}

/* A descriptor that is not what the greeting says. */
static int other_fd(uint8_t how)
{
    int fd = how & 1 ? open("/dev/null", O_RDWR | O_CLOEXEC)
                     : memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    FUZZ_CHECK(fd >= 0);
    if (!(how & 1) && how & 2)
        FUZZ_CHECK(ftruncate(fd, how << 8) == 0 &&
                   fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    return fd;
}

static void change_fds(struct greeting *greeting, uint8_t how)
{
    unsigned which = how / 4 % FDS_MAX;

    if (how % 4 == 1 && greeting->fds_len > 0)
        close(greeting->fds[--greeting->fds_len]);
    if (how % 4 == 2 && greeting->fds_len < FDS_MAX)
        greeting->fds[greeting->fds_len++] = other_fd(how / 16);
    if (how % 4 == 3 && which < greeting->fds_len) {
        close(greeting->fds[which]);
        greeting->fds[which] = other_fd(how / 16);
    }
}

static void change(struct greeting *greeting)
{
    unsigned n = take_u8() % 8;
    uint8_t bytes = take_u8();

    while (n-- > 0) {
        size_t at = take_u8() % sizeof(greeting->data);

        greeting->data[at] ^= take_u8();
    }
    if (bytes >= 240)
        greeting->bytes = take_u8();
    change_fds(greeting, take_u8());
}

/* Takes what one says, and gives it to the other. */
static void pass_on(int from, int to)
{
    struct greeting greeting;
    unsigned again;

    while (hear(from, &greeting)) {
        change(&greeting);
        again = take_u8() % 16 == 0;
        do
            say(to, &greeting);
        while (again-- > 0);
        forget(&greeting);
    }
}

/* --- the machine
 * ---------------------------------------------------------------- */

static void work(struct end *end)
{
    for (unsigned i = 0; i < CALLS; i++)
        end->transport->ops->control(end->transport);
    end->transport->ops->poll(end->transport, 64);
}

static void send_some(struct end *end, struct tri_channel *channel)
{
    const struct tri_transport_ops *ops = end->transport->ops;
    struct tri_span span;

    for (unsigned i = 0; i < RECORDS; i++) {
        enum tri_lane lane = i % TRI_LANES;
        uint32_t bytes = take_u8() * 16u;

        if (ops->reserve(channel, lane, bytes, &span) != 0)
            continue;
        *span.record = (struct tri_record){ .kind = TRI_TELL,
                                            .bytes = bytes,
                                            .total_bytes = bytes };
        memset(span.payload, 1, bytes);
        ops->commit(channel);
    }
    if (ops->flush)
        (void)ops->flush(channel);
}

/* The caller takes the one between for the node that it calls. */
static void meet(struct end *caller, struct end *called, uint64_t between,
                 int listener)
{
    const struct tri_transport_ops *ops = caller->transport->ops;
    struct tri_address address;
    struct tri_channel *channel = NULL;
    int in, out;

    ops->address(called->transport, &address);
    memcpy(address.data, &between, sizeof(between)); /* where the node is */
    if (take_u8() > 240)
        address.data[take_u8() % sizeof(address.data)] ^= take_u8();
    if (ops->connect(caller->transport, between, &address, caller, &channel) !=
        0)
        return;
    send_some(caller, channel);
    in = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    FUZZ_CHECK(in >= 0);
    out = call(called->node);
    pass_on(in, out);
    work(called);
    pass_on(out, in);
    work(caller);
    send_some(caller, channel);
    work(called);
    close(in);
    work(caller);
    ops->disconnect(channel);
    work(called);
    close(out);
    work(called);
}

/* The lowest that is free. */
static int next_fd(void)
{
    int fd = dup(STDERR_FILENO);

    FUZZ_CHECK(fd >= 0);
    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    uint64_t node = (uint64_t)getpid() << 32;
    static int listener = -1;
    struct end a, b;
    int before;

    input.at = data;
    input.left = bytes;
    if (listener < 0)
        listener = listen_as(node + 3);
    before = next_fd();
    end_open(&a, node + 1);
    end_open(&b, node + 2);
    meet(&a, &b, node + 3, listener);
    end_close(&a);
    end_close(&b);
    FUZZ_CHECK(next_fd() == before);
    return 0;
}
