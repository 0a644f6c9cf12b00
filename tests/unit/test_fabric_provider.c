/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * The fabric's settings: an unusable provider or interface is refused with a
 * line that lists what there is; interfaces are found by address, name and
 * prefix; signal handlers of libfabric's libraries are undone; frames are
 * checked; a stranger with libfabric and our address does no harm.
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

static void *accept_none(void *context, uint64_t node)
{
    (void)context;
    (void)node;
    return NULL;
}

static void ignore_garbage(void *context, const char *reason)
{
    (void)context;
    (void)reason;
}

/* Opens and closes; what is logged meanwhile goes to text_p. */
static int open_logged(const char *provider, const char *interface,
                       char text_p[1024])
{
    const struct tri_transport_config config = {
        .node = 1,
        .job_nonce = 2,
        .peers_max = 4,
        .provider = provider,
        .interface = interface,
        .events = { .accept = accept_none, .garbage = ignore_garbage },
    };
    struct tri_transport *transport = NULL;
    int pipe_fds[2], saved, rc;
    ssize_t n;

    assert_int_equal(pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC), 0);
    fflush(stderr);
    saved = dup(STDERR_FILENO);
    dup2(pipe_fds[1], STDERR_FILENO);
    rc = tri_transport_fabric.open(&config, &transport);
    dup2(saved, STDERR_FILENO);
    close(saved);
    n = read(pipe_fds[0], text_p, 1023);
    text_p[n > 0 ? n : 0] = '\0';
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    if (rc == 0) {
        struct tri_address address;

        tri_transport_fabric.address(transport, &address);
        assert_in_range(address.bytes, 1, TRI_ADDRESS_BYTES_MAX);
        tri_transport_fabric.close(transport);
    } else {
        assert_null(transport);
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

/* A frame of two records with 5 and 16 bytes. */
static size_t frame_make(unsigned char *data)
{
    static const uint32_t payloads[] = { 5, 16 };
    size_t at = TRI_FRAME_HEADER_BYTES;

    for (size_t i = 0; i < tri_array_len(payloads); i++) {
        struct tri_record record = { .bytes = payloads[i],
                                     .kind = TRI_TELL,
                                     .total_bytes = payloads[i] };

        memcpy(data + at, &record, sizeof(record));
        at += tri_frame_record_bytes(payloads[i]);
    }
    tri_frame_encode(data, &(struct tri_frame){ .source = 7,
                                                .destination = 8,
                                                .nonce = 9,
                                                .bytes = (uint32_t)at,
                                                .records = 2 });
    return at;
}

static void test_frames(void **state)
{
    _Alignas(8) unsigned char data[512] = { 0 };
    size_t bytes = frame_make(data);
    struct tri_frame frame;

    (void)state;
    assert_null(tri_frame_check(data, bytes, 8, 9, &frame));
    assert_int_equal(frame.source, 7);
    assert_int_equal(frame.records, 2);
    assert_non_null(tri_frame_check(data, bytes, 7, 9, &frame));
    assert_non_null(tri_frame_check(data, bytes, 8, 8, &frame));
    for (size_t cut = 0; cut < bytes; cut++)
        assert_non_null(tri_frame_check(data, cut, 8, 9, &frame));
    assert_non_null(tri_frame_check(data, bytes + 8, 8, 9, &frame));
}

/* No damaged header gets through but in the source, which is the link's to
 * know; no damaged byte anywhere leads out of the frame (sanitizers tell). */
static void test_damaged_frames(void **state)
{
    _Alignas(8) unsigned char data[512] = { 0 };
    size_t bytes = frame_make(data);
    struct tri_frame frame;

    (void)state;
    for (size_t bit = 0; bit < bytes * 8; bit++) {
        unsigned char *copy = test_malloc(bytes);
        const char *reason;

        memcpy(copy, data, bytes);
        copy[bit / 8] ^= (unsigned char)(1u << bit % 8);
        reason = tri_frame_check(copy, bytes, 8, 9, &frame);
        if (bit / 8 < TRI_FRAME_HEADER_BYTES && !(bit / 64 == 2))
            assert_non_null(reason);
        test_free(copy);
    }
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

struct counts {
    unsigned records, garbage;
};

static void *accept_all(void *context, uint64_t node)
{
    (void)node;
    return context;
}

static bool count_record(void *context, void *peer, enum tri_lane lane,
                         const struct tri_record *record, const void *payload)
{
    (void)lane, (void)peer;
    (void)record;
    (void)payload;
    ((struct counts *)context)->records++;
    return true;
}

static void count_garbage(void *context, const char *reason)
{
    assert_non_null(reason);
    ((struct counts *)context)->garbage++;
}

static void ignore_writable(void *context, void *peer)
{
    (void)context;
    (void)peer;
}

static struct tri_transport *node_open(uint64_t node, struct counts *counts)
{
    const struct tri_transport_config config = {
        .node = node,
        .peers_max = 4,
        .interface = "127.0.0.1",
        .events = { .context = counts,
                    .accept = accept_all,
                    .record = count_record,
                    .garbage = count_garbage,
                    .writable = ignore_writable },
    };
    struct tri_transport *transport;

    assert_int_equal(tri_transport_fabric.open(&config, &transport), 0);
    return transport;
}

static void storm(struct stranger *stranger, struct tri_transport *node,
                  struct counts *counts)
{
    static const size_t sizes[] = { 0, 1, 39, 56, 4000, 16384, 16385, 100000,
                                    STRANGER_BYTES_MAX };
    static struct fi_context2 contexts[STRANGER_MESSAGES];
    static unsigned char bytes[STRANGER_BYTES_MAX];
    uint64_t deadline = tri_deadline_ns(20000);
    unsigned sent = 0;

    /* Nothing arrives of an empty message. */
    while (counts->garbage < STRANGER_MESSAGES * 8 / 9) {
        size_t size = sizes[sent % tri_array_len(sizes)];

        if (sent < STRANGER_MESSAGES &&
            fi_send(stranger->ep, bytes, size, NULL, stranger->to,
                    &contexts[sent]) == 0)
            sent++;
        stranger_pump(stranger);
        tri_transport_fabric.poll(node, 64);
        assert_true(tri_now_ns() < deadline);
    }
    assert_int_equal(counts->records, 0);
}

static void test_stranger_does_no_harm(void **state)
{
    struct counts counts = { 0 }, other_counts = { 0 };
    struct tri_transport *node = node_open(1, &counts);
    struct tri_transport *other = node_open(2, &other_counts);
    uint64_t deadline = tri_deadline_ns(20000);
    struct stranger stranger = { 0 };
    struct tri_channel *channel;
    struct tri_address address;
    struct tri_span span;

    (void)state;
    tri_transport_fabric.address(node, &address);
    stranger_open(&stranger, &address);
    storm(&stranger, node, &counts);
    assert_int_equal(
        tri_transport_fabric.connect(other, 1, &address, NULL, &channel), 0);
    assert_int_equal(tri_transport_fabric.reserve(channel, TRI_LANE_DATA, 0,
                                                  &span), 0);
    *span.record = (struct tri_record){ .kind = TRI_TELL };
    tri_transport_fabric.commit(channel);
    assert_int_equal(tri_transport_fabric.flush(channel), 0);
    while (counts.records == 0) {
        tri_transport_fabric.poll(other, 64);
        tri_transport_fabric.poll(node, 64);
        stranger_pump(&stranger);
        assert_true(tri_now_ns() < deadline);
    }
    stranger_close(&stranger);
    tri_transport_fabric.close(other);
    tri_transport_fabric.close(node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_providers),
        cmocka_unit_test(test_bad_interfaces),
        cmocka_unit_test(test_good_interfaces),
        cmocka_unit_test(test_foreign_signals_are_undone),
        cmocka_unit_test(test_own_signals_stay),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_damaged_frames),
        cmocka_unit_test(test_stranger_does_no_harm),
    };

    for (size_t i = 0; i < tri_array_len(taken_signals); i++)
        sigaction(taken_signals[i], NULL, &before_main[i]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
