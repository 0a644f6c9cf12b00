/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/* The socket of control datagrams, the address that it is bound to, and the
 * texts that name one. */
#include "unit.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "os/interface.h"
#include "os/udp.h"

#define SOON_MS 10000
#define BYTES_MAX 1400

static const struct tri_endpoint loopback4 = { .family = 4,
                                               .ip = { 127, 0, 0, 1 } };
static const struct tri_endpoint loopback6 = { .family = 6, .ip = { [15] = 1 } };

static bool has_ipv6(void)
{
    struct tri_udp udp = { 0 };
    bool has = tri_udp_open(&udp, &loopback6, 0, 0) == 0;

    tri_udp_close(&udp);
    return has;
}

/* What is logged goes to a pipe until log_caught, which takes its result. */
static int log_pipe;

static int log_catch(void)
{
    int ends[2], saved = dup(STDERR_FILENO);

    assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    fflush(stderr);
    assert_true(saved >= 0 && dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    log_pipe = ends[0];
    return saved;
}

static void log_caught(int saved, char *text, size_t bytes)
{
    ssize_t n;

    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    n = read(log_pipe, text, bytes - 1);
    text[n > 0 ? n : 0] = '\0';
    close(log_pipe);
}

static struct tri_udp udp_of(const struct tri_endpoint *address)
{
    struct tri_udp udp = { 0 };

    assert_int_equal(tri_udp_open(&udp, address, 0, 0), 0);
    assert_int_equal(udp.own.family, address->family);
    assert_int_not_equal(udp.own.port, 0);
    assert_memory_equal(udp.own.ip, address->ip, sizeof(udp.own.ip));
    return udp;
}

/* Waits for the descriptor, as the control thread does. */
static enum tri_udp_arrival arrival(struct tri_udp *udp, void *data,
                                    size_t bytes_max, size_t *bytes_p,
                                    struct tri_endpoint *endpoint_p)
{
    struct pollfd wait = { .fd = udp->fd, .events = POLLIN };

    if (poll(&wait, 1, SOON_MS) != 1)
        fail_msg("nothing came in %d ms", SOON_MS);
    return tri_udp_receive(udp, data, bytes_max, bytes_p, endpoint_p);
}

static void assert_nothing(struct tri_udp *udp)
{
    struct pollfd wait = { .fd = udp->fd, .events = POLLIN };
    struct tri_endpoint from;
    char data[8];
    size_t bytes;

    assert_int_equal(
        tri_udp_receive(udp, data, sizeof(data), &bytes, &from),
        TRI_UDP_NOTHING);
    assert_int_equal(poll(&wait, 1, 0), 0); /* no error is left either */
}

/* --- datagrams ------------------------------------------------------------ */

static void exchange(const struct tri_endpoint *address)
{
    struct tri_udp a = udp_of(address), b = udp_of(address);
    char sent[BYTES_MAX], data[BYTES_MAX];
    static const size_t sizes[] = { 1, 64, BYTES_MAX };
    struct tri_endpoint from;
    size_t bytes;

    assert_true(fcntl(a.fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(a.fd, F_GETFL) & O_NONBLOCK);
    assert_nothing(&a);
    for (size_t i = 0; i < tri_array_len(sizes); i++) {
        memset(sent, 'a' + (int)i, sizeof(sent));
        assert_int_equal(tri_udp_send(&a, &b.own, sent, sizes[i]), 0);
        assert_int_equal(arrival(&b, data, sizeof(data), &bytes, &from),
                         TRI_UDP_DATAGRAM);
        assert_int_equal(bytes, sizes[i]);
        assert_memory_equal(data, sent, bytes);
        assert_true(tri_endpoint_equal(&from, &a.own));
        /* Back to where it came from. */
        assert_int_equal(tri_udp_send(&b, &from, data, bytes), 0);
        assert_int_equal(arrival(&a, data, sizeof(data), &bytes, &from),
                         TRI_UDP_DATAGRAM);
        assert_int_equal(bytes, sizes[i]);
        assert_true(tri_endpoint_equal(&from, &b.own));
    }
    assert_nothing(&a);
    assert_nothing(&b);
    tri_udp_close(&a);
    tri_udp_close(&a);
    tri_udp_close(&b);
}

static void test_exchange(void **state)
{
    (void)state;
    exchange(&loopback4);
    if (has_ipv6())
        exchange(&loopback6);
}

/* Longer than there is room for, and empty: of 0 bytes, and those behind them
 * are whole. */
static void test_odd_sizes(void **state)
{
    struct tri_udp a = udp_of(&loopback4), b = udp_of(&loopback4);
    char sent[BYTES_MAX + 1] = { 0 }, data[BYTES_MAX];
    struct tri_endpoint from;
    size_t bytes;

    (void)state;
    assert_int_equal(tri_udp_send(&a, &b.own, sent, sizeof(sent)), 0);
    assert_int_equal(tri_udp_send(&a, &b.own, sent, 0), 0);
    assert_int_equal(tri_udp_send(&a, &b.own, sent, 3), 0);
    assert_int_equal(arrival(&b, data, sizeof(data), &bytes, &from),
                     TRI_UDP_DATAGRAM);
    assert_int_equal(bytes, 0);
    assert_int_equal(arrival(&b, data, sizeof(data), &bytes, &from),
                     TRI_UDP_DATAGRAM);
    assert_int_equal(bytes, 0);
    assert_int_equal(arrival(&b, data, sizeof(data), &bytes, &from),
                     TRI_UDP_DATAGRAM);
    assert_int_equal(bytes, 3);
    tri_udp_close(&a);
    tri_udp_close(&b);
}

static void test_bad_sends(void **state)
{
    static char huge[70000];
    struct tri_udp a = udp_of(&loopback4);
    struct tri_endpoint none = { .family = 0 }, v6 = loopback6;

    (void)state;
    v6.port = 1;
    assert_int_equal(tri_udp_send(&a, &v6, "x", 1), TROUPE_ETRANSPORT);
    assert_int_equal(tri_udp_send(&a, &none, "x", 1), TROUPE_ETRANSPORT);
    assert_int_equal(tri_udp_send(&a, &a.own, huge, sizeof(huge)),
                     TROUPE_ETOOBIG);
    tri_udp_close(&a);
}

/* What goes to a port that nobody has is told, with the endpoint; and errors
 * of one destination do not cost another its datagram. */
static void unreachable(const struct tri_endpoint *address)
{
    struct tri_udp a = udp_of(address), b = udp_of(address);
    struct tri_udp gone = udp_of(address);
    struct tri_endpoint nobody = gone.own, about;
    char data[BYTES_MAX];
    size_t bytes;

    tri_udp_close(&gone);
    assert_int_equal(tri_udp_send(&a, &nobody, "hello", 5), 0);
    assert_int_equal(arrival(&a, data, sizeof(data), &bytes, &about),
                     TRI_UDP_UNREACHABLE);
    assert_true(tri_endpoint_equal(&about, &nobody));
    assert_int_equal(bytes, 0);
    assert_nothing(&a);

    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(tri_udp_send(&a, &nobody, "hello", 5), 0);
        assert_int_equal(tri_udp_send(&a, &b.own, "hello", 5), 0);
        assert_int_equal(arrival(&b, data, sizeof(data), &bytes, &about),
                         TRI_UDP_DATAGRAM);
        assert_int_equal(bytes, 5);
    }
    /* A datagram is not lost behind the errors either. */
    assert_int_equal(tri_udp_send(&b, &a.own, "hello", 5), 0);
    for (unsigned i = 0, datagrams = 0; datagrams == 0; i++) {
        assert_true(i <= 21);
        datagrams += arrival(&a, data, sizeof(data), &bytes, &about) ==
                     TRI_UDP_DATAGRAM;
    }
    while (tri_udp_receive(&a, data, sizeof(data), &bytes, &about) ==
           TRI_UDP_UNREACHABLE)
        assert_true(tri_endpoint_equal(&about, &nobody));
    assert_nothing(&a);
    tri_udp_close(&a);
    tri_udp_close(&b);
}

static void test_unreachable(void **state)
{
    (void)state;
    unreachable(&loopback4);
    if (has_ipv6())
        unreachable(&loopback6);
}

/* --- ports ---------------------------------------------------------------- */

static void test_ports(void **state)
{
    struct tri_udp a = udp_of(&loopback4), b = { 0 }, c = { 0 };
    uint16_t port = a.own.port;

    (void)state;
    /* Taken: the one is refused, the range goes on. */
    assert_int_equal(tri_udp_open(&b, &loopback4, port, port),
                     TROUPE_ETRANSPORT);
    assert_int_equal(b.own.family, 0);
    if (port < UINT16_MAX - 20) {
        assert_int_equal(
            tri_udp_open(&b, &loopback4, port, (uint16_t)(port + 20)), 0);
        assert_in_range(b.own.port, port + 1, port + 20);
        tri_udp_close(&b);
    }
    tri_udp_close(&a);
    assert_int_equal(tri_udp_open(&c, &loopback4, port, port), 0);
    assert_int_equal(c.own.port, port);
    tri_udp_close(&c);
    /* The last one there is: the count does not wrap. */
    if (tri_udp_open(&a, &loopback4, UINT16_MAX, UINT16_MAX) == 0) {
        assert_int_equal(tri_udp_open(&b, &loopback4, UINT16_MAX, UINT16_MAX),
                         TROUPE_ETRANSPORT);
        tri_udp_close(&a);
    }
}

static void test_foreign_address(void **state)
{
    /* TEST-NET-3 (RFC 5737): nobody's. */
    static const struct tri_endpoint foreign = { .family = 4,
                                                 .ip = { 203, 0, 113, 1 } };
    struct tri_udp udp = { 0 };

    (void)state;
    assert_int_equal(tri_udp_open(&udp, &foreign, 0, 0), TROUPE_ETRANSPORT);
    assert_int_equal(tri_udp_open(&udp, &foreign, 4000, 4100),
                     TROUPE_ETRANSPORT);
}

/* --- endpoints ------------------------------------------------------------ */

static void test_texts(void **state)
{
    static const struct {
        const char *text, *ip, *whole;
        uint8_t family;
    } cases[] = {
        { "127.0.0.1:4000", "127.0.0.1", "127.0.0.1:4000", 4 },
        { "255.255.255.255:65535", "255.255.255.255",
          "255.255.255.255:65535", 4 },
        { "[::1]:1", "::1", "[::1]:1", 6 },
        { "[2001:db8:0:1:1:1:1:1]:80", "2001:db8:0:1:1:1:1:1",
          "[2001:db8:0:1:1:1:1:1]:80", 6 },
        { "[1111:2222:3333:4444:5555:6666:7777:8888]:65535",
          "1111:2222:3333:4444:5555:6666:7777:8888",
          "[1111:2222:3333:4444:5555:6666:7777:8888]:65535", 6 },
    };

    (void)state;
    for (size_t i = 0; i < tri_array_len(cases); i++) {
        char text[TRI_ENDPOINT_TEXT_BYTES];
        struct tri_endpoint endpoints[2], again;
        struct sockaddr_storage name;
        socklen_t bytes;
        uint32_t len = 0;

        assert_int_equal(
            tri_endpoint_resolve(cases[i].text, 0, endpoints, 2, &len), 0);
        assert_int_equal(len, 1);
        assert_int_equal(endpoints[0].family, cases[i].family);
        assert_string_equal(tri_endpoint_print(&endpoints[0], text),
                            cases[i].whole);
        assert_string_equal(tri_endpoint_print_ip(&endpoints[0], text),
                            cases[i].ip);
        bytes = tri_endpoint_to_sockaddr(&endpoints[0], &name);
        assert_true(tri_endpoint_from_sockaddr(&name, bytes, &again));
        assert_true(tri_endpoint_equal(&again, &endpoints[0]));
        for (socklen_t n = 0; n < bytes; n++)
            assert_false(tri_endpoint_from_sockaddr(&name, n, &again));
        /* Of the family that we have. */
        assert_int_equal(tri_endpoint_resolve(cases[i].text,
                                              cases[i].family, endpoints, 2,
                                              &len),
                         0);
        assert_int_not_equal(tri_endpoint_resolve(cases[i].text,
                                                  10 - cases[i].family,
                                                  endpoints, 2, &len),
                             0);
    }
}

static void test_names(void **state)
{
    struct tri_endpoint endpoints[4];
    char text[TRI_ENDPOINT_TEXT_BYTES];
    uint32_t len = 0;

    (void)state;
    assert_int_equal(
        tri_endpoint_resolve("localhost:7000", 4, endpoints, 4, &len), 0);
    assert_in_range(len, 1, 4);
    assert_string_equal(tri_endpoint_print(&endpoints[0], text),
                        "127.0.0.1:7000");
    /* RFC 6761: never a name. */
    assert_int_equal(tri_endpoint_resolve("no-such-host.invalid:1", 0,
                                          endpoints, 4, &len),
                     TROUPE_ENOSEED);
    endpoints[0] = (struct tri_endpoint){ .family = 0 };
    assert_string_equal(tri_endpoint_print(&endpoints[0], text), "none");
}

/* Every refusal is a line that repeats the text and says what is wrong. */
static void test_bad_texts(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        { "", "no port" },
        { "host", "no port" },
        { "127.0.0.1", "no port" },
        { ":4000", "no host" },
        { "[]:4000", "no host" },
        { "[:4000", "brackets" },
        { "[", "no port" },
        { "[::1]", "brackets" },
        { "[::1:4000", "brackets" },
        { "::1:4000", "brackets" },
        { "127.0.0.1:", "port" },
        { "127.0.0.1:0", "port" },
        { "127.0.0.1:65536", "port" },
        { "127.0.0.1:99999999999999999999", "port" },
        { "127.0.0.1:-1", "port" },
        { "127.0.0.1: 1", "port" },
        { "127.0.0.1:http", "port" },
        { "[127.0.0.1.5]:1", "address" },
        { "[localhost]:1", "address" },
        { "[fe80::1%lo]:1", "link-local" },
    };

    (void)state;
    for (size_t i = 0; i < tri_array_len(cases); i++) {
        struct tri_endpoint endpoints[1];
        char line[1024];
        uint32_t len = 77;
        int log = log_catch();
        int rc = tri_endpoint_resolve(cases[i].text, 0, endpoints, 1, &len);

        log_caught(log, line, sizeof(line));
        if (rc != TROUPE_EOPTION || len != 77 ||
            !strstr(line, cases[i].text) || !strstr(line, cases[i].says))
            fail_msg("'%s': %d, %s", cases[i].text, rc, line);
    }
}

static void test_long_host(void **state)
{
    char text[600];
    struct tri_endpoint endpoints[1];
    uint32_t len;

    (void)state;
    memset(text, 'a', sizeof(text));
    strcpy(text + sizeof(text) - 4, ":12");
    assert_int_equal(tri_endpoint_resolve(text, 0, endpoints, 1, &len),
                     TROUPE_EOPTION);
}

/* --- interfaces ----------------------------------------------------------- */

/* The texts that are refused: see test_fabric_provider. */
static void test_interfaces(void **state)
{
    static const char *const ways[] = { "lo", "127.0.0.1", "127.0.0.0/8" };
    char text[TRI_ENDPOINT_TEXT_BYTES];
    struct tri_endpoint found = { .family = 0 };
    struct tri_udp udp = { 0 };

    (void)state;
    for (size_t i = 0; i < tri_array_len(ways); i++) {
        assert_int_equal(tri_interface_choose(ways[i], &found), 0);
        assert_string_equal(tri_endpoint_print(&found, text), "127.0.0.1:0");
    }
    if (has_ipv6()) {
        assert_int_equal(tri_interface_choose("::1", &found), 0);
        assert_true(tri_endpoint_equal(&found, &loopback6));
    }
    /* Whatever is taken by default can be bound to. */
    assert_int_equal(tri_interface_choose(NULL, &found), 0);
    assert_int_equal(found.family, 4);
    assert_int_equal(tri_udp_open(&udp, &found, 0, 0), 0);
    tri_udp_close(&udp);
    assert_int_equal(tri_interface_choose("", &found), 0);
    assert_int_equal(tri_interface_choose("no-such-interface", &found),
                     TROUPE_ETRANSPORT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_odd_sizes),
        cmocka_unit_test(test_bad_sends),
        cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_foreign_address),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_bad_texts),
        cmocka_unit_test(test_long_host),
        cmocka_unit_test(test_interfaces),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
