/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * The fabric's settings: an unusable provider or interface is refused with a
 * line that lists what there is; interfaces are found by address, name and
 * prefix; signal handlers of libfabric's libraries are undone; a stranger with
 * libfabric and our address does no harm.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

#include "base/clock.h"
#include "os/signals.h"
#include "transport/fabric_internal.h"

static const int taken_signals[] = { SIGINT, SIGILL,  SIGABRT,
                                     SIGBUS, SIGSEGV, SIGTERM };

/* As they were before main: cmocka sets its own while a test runs. */
static struct sigaction before_main[tri_array_len(taken_signals)];

static void ignore_garbage(void *context, const char *reason)
{
    (void)context;
    (void)reason;
}

/* Opens and closes; what is logged meanwhile goes to text_p. */
static int open_logged(const char *provider, const char *interface,
                       char text_p[1024])
{
    const struct tri_carrier_config config = {
        .node = 1,
        .peers_max = 4,
        .provider = provider,
        .interface = interface,
        .events = { .garbage = ignore_garbage },
    };
    struct tri_carrier *carrier = NULL;
    int pipe_fds[2], saved, rc;
    ssize_t n;

    assert_int_equal(pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC), 0);
    fflush(stderr);
    saved = dup(STDERR_FILENO);
    dup2(pipe_fds[1], STDERR_FILENO);
    rc = tri_carrier_fabric.open(&config, &carrier);
    dup2(saved, STDERR_FILENO);
    close(saved);
    n = read(pipe_fds[0], text_p, 1023);
    text_p[n > 0 ? n : 0] = '\0';
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    if (rc == 0) {
        struct tri_address address;

        tri_carrier_fabric.address(carrier, &address);
        assert_in_range(address.bytes, 1, TRI_ADDRESS_BYTES_MAX);
        tri_carrier_fabric.close(carrier);
    } else {
        assert_null(carrier);
    }
    return rc;
}

static void provider_is_refused(const char *provider)
{
    char text[1024];

    assert_int_equal(open_logged(provider, "127.0.0.1", text),
                     TROUPE_ETRANSPORT);
    assert_non_null(strstr(text, provider));
    assert_non_null(strstr(text, "tcp;ofi_rxm")); /* a usable one */
}

static void test_bad_providers(void **state)
{
    (void)state;
    provider_is_refused("tpc;ofi_rxm");
    provider_is_refused("no such thing");
    provider_is_refused("tcp;no_such_layer");
}

static void test_bad_interfaces(void **state)
{
    static const char *const bad[] = {
        "lo9",           "203.0.113.1",  "203.0.113.0/24",
        "127.0.0.1/33",  "127.0.0.1/",   "127.0.0.1/8x",
        "127.0.0.1/-1",  "lo/8",         "::ffff:203.0.113.1",
        "127.0.0.1:4000",
        "a-name-that-is-longer-than-any-address-could-ever-be-at-all",
    };
    char text[1024];

    (void)state;
    for (size_t i = 0; i < tri_array_len(bad); i++) {
        assert_int_equal(open_logged(NULL, bad[i], text), TROUPE_ETRANSPORT);
        assert_non_null(strstr(text, bad[i]));
        assert_non_null(strstr(text, "lo 127.0.0.1"));
    }
}

static void test_good_interfaces(void **state)
{
    static const char *const good[] = { NULL, "", "127.0.0.1", "lo",
                                        "127.0.0.0/8", "127.0.0.1/32" };
    char text[1024];

    (void)state;
    for (size_t i = 0; i < tri_array_len(good); i++) {
        assert_int_equal(open_logged("tcp;ofi_rxm", good[i], text), 0);
        assert_string_equal(text, "");
    }
}

static void test_foreign_signals_are_undone(void **state)
{
    struct sigaction action, saved;

    (void)state;
    for (size_t i = 0; i < tri_array_len(taken_signals); i++) {
        sigaction(taken_signals[i], &before_main[i], &saved);
        tri_signals_undo_foreign();
        sigaction(taken_signals[i], &saved, &action);
        assert_true(action.sa_handler == SIG_DFL ||
                    action.sa_handler == SIG_IGN);
    }
}

static void own_handler(int signal)
{
    (void)signal;
}

static void test_own_signals_stay(void **state)
{
    const struct sigaction own = { .sa_handler = own_handler };
    struct sigaction action, saved;

    (void)state;
    sigaction(SIGTERM, &own, &saved);
    tri_signals_undo_foreign();
    sigaction(SIGTERM, &saved, &action);
    assert_true(action.sa_handler == own_handler);

    sigaction(SIGPIPE, &own, &saved);
    tri_signals_ignore_pipe();
    sigaction(SIGPIPE, NULL, &action);
    assert_true(action.sa_handler == own_handler);
    signal(SIGPIPE, SIG_DFL);
    tri_signals_ignore_pipe();
    sigaction(SIGPIPE, &saved, &action);
    assert_true(action.sa_handler == SIG_IGN);
}

/* --- a stranger ---------------------------------------------------------- */

#define STRANGER_MESSAGES 64
#define STRANGER_BYTES_MAX (FABRIC_RX_BUFFER_BYTES + 1)

/* A program that speaks libfabric, but not troupe. */
struct stranger {
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_av *av;
    struct fid_cq *cq;
    struct fid_ep *ep;
    fi_addr_t to;
};

static void stranger_open(struct stranger *stranger,
                          const struct tri_address *address)
{
    struct fi_av_attr av_attr = { .type = FI_AV_TABLE };
    struct fi_cq_attr cq_attr = { .format = FI_CQ_FORMAT_DATA };

    assert_int_equal(
        tri_fabric_choose(NULL, "127.0.0.1", &stranger->info), 0);
    assert_int_equal(fi_fabric(stranger->info->fabric_attr,
                               &stranger->fabric, NULL), 0);
    assert_int_equal(fi_domain(stranger->fabric, stranger->info,
                               &stranger->domain, NULL), 0);
    assert_int_equal(
        fi_av_open(stranger->domain, &av_attr, &stranger->av, NULL), 0);
    assert_int_equal(
        fi_cq_open(stranger->domain, &cq_attr, &stranger->cq, NULL), 0);
    assert_int_equal(fi_endpoint(stranger->domain, stranger->info,
                                 &stranger->ep, NULL), 0);
    assert_int_equal(fi_ep_bind(stranger->ep, &stranger->av->fid, 0), 0);
    assert_int_equal(fi_ep_bind(stranger->ep, &stranger->cq->fid,
                                FI_SEND | FI_RECV), 0);
    assert_int_equal(fi_enable(stranger->ep), 0);
    /* Behind troupe's own part of an address, see fabric.c. */
    assert_int_equal(fi_av_insert(stranger->av, address->data + 12, 1,
                                  &stranger->to, 0, NULL), 1);
}

static void stranger_close(struct stranger *stranger)
{
    fi_close(&stranger->ep->fid);
    fi_close(&stranger->cq->fid);
    fi_close(&stranger->av->fid);
    fi_close(&stranger->domain->fid);
    fi_close(&stranger->fabric->fid);
    fi_freeinfo(stranger->info);
}

/* Completions are of no interest, but reading them makes progress. */
static void stranger_pump(struct stranger *stranger)
{
    struct fi_cq_data_entry entry;
    struct fi_cq_err_entry error = { 0 };

    if (fi_cq_read(stranger->cq, &entry, 1) == -FI_EAVAIL)
        fi_cq_readerr(stranger->cq, &error, 0);
}

/* A frame that the stranger does not know of. */
#define FRAME_BYTES 48
#define FRAME_BYTE 0xa7

struct counts {
    unsigned frames, strange, garbage;
};

static void count_frame(void *context, unsigned char *data, size_t bytes)
{
    struct counts *counts = context;

    assert_int_equal((uintptr_t)data % TRI_FRAME_ALIGN, 0);
    assert_in_range(bytes, 1, TRI_FRAME_BYTES_MAX);
    if (bytes == FRAME_BYTES && data[0] == FRAME_BYTE)
        counts->frames++;
    else
        counts->strange++;
    memset(data, 0, bytes);
}

static void count_garbage(void *context, const char *reason)
{
    assert_non_null(reason);
    ((struct counts *)context)->garbage++;
}

static void ignore_sent(void *context, struct tri_carrier_frame *frame,
                        bool ok)
{
    (void)context;
    (void)frame;
    assert_true(ok);
}

static void ignore_peer(void *context, void *peer)
{
    (void)context;
    (void)peer;
}

static struct tri_carrier *node_open(uint64_t node, struct counts *counts)
{
    const struct tri_carrier_config config = {
        .node = node,
        .peers_max = 4,
        .interface = "127.0.0.1",
        .events = { .context = counts,
                    .frame = count_frame,
                    .sent = ignore_sent,
                    .writable = ignore_peer,
                    .broke = ignore_peer,
                    .garbage = count_garbage },
    };
    struct tri_carrier *carrier;

    assert_int_equal(tri_carrier_fabric.open(&config, &carrier), 0);
    return carrier;
}

/* Messages of all lengths: frames or too long, all are counted. */
static void storm(struct stranger *stranger, struct tri_carrier *node,
                  struct counts *counts)
{
    static const size_t sizes[] = { 0, 1, 39, 56, 4000, 16384, 16385, 100000,
                                    STRANGER_BYTES_MAX };
    static struct fi_context2 contexts[STRANGER_MESSAGES];
    static unsigned char bytes[STRANGER_BYTES_MAX];
    uint64_t deadline = tri_deadline_ns(20000);
    unsigned sent = 0;

    /* Nothing arrives of an empty message. */
    while (counts->strange + counts->garbage < STRANGER_MESSAGES * 8 / 9) {
        size_t size = sizes[sent % tri_array_len(sizes)];

        if (sent < STRANGER_MESSAGES &&
            fi_send(stranger->ep, bytes, size, NULL, stranger->to,
                    &contexts[sent]) == 0)
            sent++;
        stranger_pump(stranger);
        tri_carrier_fabric.poll(node, 64);
        assert_true(tri_now_ns() < deadline);
    }
    assert_int_equal(counts->frames, 0);
    assert_true(counts->strange > 0 && counts->garbage > 0);
}

static void test_stranger_does_no_harm(void **state)
{
    _Alignas(8) unsigned char data[FRAME_BYTES] = { FRAME_BYTE };
    struct tri_carrier_memory memory = { .data = data,
                                         .bytes = sizeof(data) };
    struct tri_carrier_frame frame = { .memory = &memory,
                                       .data = data,
                                       .bytes = sizeof(data) };
    struct counts counts = { 0 }, other_counts = { 0 };
    struct tri_carrier *node = node_open(1, &counts);
    struct tri_carrier *other = node_open(2, &other_counts);
    uint64_t deadline = tri_deadline_ns(20000);
    struct stranger stranger = { 0 };
    struct tri_address address;
    struct tri_line *line;
    bool sent = false;

    (void)state;
    tri_carrier_fabric.address(node, &address);
    stranger_open(&stranger, &address);
    storm(&stranger, node, &counts);
    assert_int_equal(tri_carrier_fabric.memory_add(other, &memory), 0);
    assert_int_equal(
        tri_carrier_fabric.connect(other, 1, &address, NULL, &line), 0);
    while (counts.frames == 0) {
        sent = sent || tri_carrier_fabric.send(line, &frame) == 0;
        tri_carrier_fabric.poll(other, 64);
        tri_carrier_fabric.poll(node, 64);
        stranger_pump(&stranger);
        assert_true(tri_now_ns() < deadline);
    }
    stranger_close(&stranger);
    tri_carrier_fabric.close(other);
    tri_carrier_fabric.close(node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_providers),
        cmocka_unit_test(test_bad_interfaces),
        cmocka_unit_test(test_good_interfaces),
        cmocka_unit_test(test_foreign_signals_are_undone),
        cmocka_unit_test(test_own_signals_stay),
        cmocka_unit_test(test_stranger_does_no_harm),
    };

    for (size_t i = 0; i < tri_array_len(taken_signals); i++)
        sigaction(taken_signals[i], NULL, &before_main[i]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
