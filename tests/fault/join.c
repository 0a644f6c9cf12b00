/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Processes that find each other by seeds, without any MPI: joining, leaving,
 * dying, coming back; what must not be let in, and what it is told; silence
 * that is no death, and silence that is one.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "member/hello.h"
#include "member/join.h"
#include "member/packet.h"
#include "os/udp.h"
#include "puppet.h"

enum {
    SOON_MS = 20000,
    JOIN_SHORT_MS = 1500,
    PAUSE_MS = 300,
    LONG_PAUSE_MS = 800, /* such a one tells nothing: half a suspicion */
    SUSPECT_MS = 4000,   /* half a suspicion, too */
    TRIES = 5,           /* of what this process came too late for */
};

static void say_test(const char *name)
{
    printf("%s\n", name);
    fflush(stdout);
}

/* A cluster of one that can be joined at a port. */
static unsigned start_seed(struct puppet *seed, const char *more)
{
    unsigned port = puppet_free_port();

    puppet_spawn(seed);
    puppet_start(seed, "key_file=%s listen=%u %s", puppet_key_file(0), port,
                 more);
    return port;
}

static void start_joiner(struct puppet *joiner, unsigned port,
                         const char *more)
{
    puppet_spawn(joiner);
    puppet_start(joiner, "key_file=%s seeds=127.0.0.1:%u %s",
                 puppet_key_file(0), port, more);
}

static void stop(struct puppet *puppet)
{
    puppet_must(puppet, "ok", "stop");
    puppet_end(puppet);
}

/* --- coming and going ----------------------------------------------------- */

static void join_and_leave(void)
{
    struct puppet seed, joiner;
    unsigned port;

    say_test("join, ask, leave");
    port = start_seed(&seed, "");
    start_joiner(&joiner, port, "");
    puppet_must(&joiner, "ok", "alive 2 %d", SOON_MS);
    puppet_must(&seed, "ok", "alive 2 %d", SOON_MS);
    puppet_must(&joiner, "ok", "ask %s %d", seed.ref, SOON_MS);
    puppet_must(&seed, "ok", "ask %s %d", joiner.ref, SOON_MS);
    puppet_must(&joiner, "ok", "stop");
    puppet_must(&seed, "ok", "state %016lx left %d", joiner.node, SOON_MS);
    puppet_must(&seed, "TROUPE_ENODE", "ask %s %d", joiner.ref, SOON_MS);
    puppet_end(&joiner);
    puppet_must(&seed, "ok", "never_dead");
    stop(&seed);
}

/* Who comes to itself finds the word of leaving and the end of the process at
 * the same time. */
static void left_meanwhile(void)
{
    struct puppet seed, joiner;
    unsigned port;

    say_test("who leaves while another stands still has not died");
    port = start_seed(&seed, "");
    start_joiner(&joiner, port, "");
    puppet_must(&seed, "ok", "alive 2 %d", SOON_MS);
    puppet_kill(&seed, SIGSTOP);
    puppet_must(&joiner, "ok", "stop");
    puppet_end(&joiner);
    puppet_kill(&seed, SIGCONT);
    puppet_must(&seed, "ok", "state %016lx left %d", joiner.node, SOON_MS);
    puppet_must(&seed, "ok", "never_dead");
    stop(&seed);
}

/* The next life of a process, at once. */
static void killed_and_back(void)
{
    struct puppet seed, joiner, other;
    unsigned port;
    double began_ms;

    say_test("killed, back as another node");
    port = start_seed(&seed, "");
    start_joiner(&other, port, "");
    for (int life = 0; life < 3; life++) {
        start_joiner(&joiner, port, "");
        puppet_must(&seed, "ok", "alive 3 %d", SOON_MS);
        puppet_must(&other, "ok", "alive 3 %d", SOON_MS);
        puppet_must(&other, "ok", "ask %s %d", joiner.ref, SOON_MS);
        puppet_kill(&joiner, SIGKILL);
        began_ms = puppet_now_ms();
        /* with proof, TROUPE_EVIDENCE_PROOF: by no silence */
        puppet_must(&seed, "ok 3", "state %016lx dead %d", joiner.node,
                    SOON_MS);
        puppet_must(&other, "ok 3", "state %016lx dead %d", joiner.node,
                    SOON_MS);
        printf("  known to both after %.1f ms\n", puppet_now_ms() - began_ms);
        puppet_must(&other, "TROUPE_ENODE", "ask %s %d", joiner.ref, SOON_MS);
    }
    stop(&other);
    stop(&seed);
}

static void several(void)
{
    struct puppet seed, joiners[5];
    unsigned port;

    say_test("several joiners, each to each");
    port = start_seed(&seed, "");
    for (int i = 0; i < 5; i++)
        start_joiner(&joiners[i], port, "");
    for (int i = 0; i < 5; i++) {
        puppet_must(&joiners[i], "ok", "alive 6 %d", SOON_MS);
        for (int j = 0; j < 5; j++)
            if (i != j)
                puppet_must(&joiners[i], "ok", "ask %s %d", joiners[j].ref,
                            SOON_MS);
    }
    /* The seed is nobody special. */
    puppet_must(&seed, "ok", "stop");
    for (int i = 0; i < 5; i++)
        puppet_must(&joiners[i], "ok", "state %016lx left %d", seed.node,
                    SOON_MS);
    for (int i = 0; i < 5; i++)
        puppet_must(&joiners[i], "ok", "never_dead");
    for (int i = 0; i < 5; i++)
        stop(&joiners[i]);
    puppet_end(&seed);
}

static void by_fabric(void)
{
    struct puppet seed, joiner;
    unsigned port;

    say_test("join over the fabric");
    port = start_seed(&seed, "transport=fabric");
    start_joiner(&joiner, port, "transport=fabric");
    puppet_must(&joiner, "ok", "ask %s %d", seed.ref, SOON_MS);
    puppet_must(&seed, "ok", "alive 2 %d", SOON_MS);
    puppet_must(&seed, "ok", "ask %s %d", joiner.ref, SOON_MS);
    stop(&joiner);
    puppet_must(&seed, "ok", "state %016lx left %d", joiner.node, SOON_MS);
    stop(&seed);
}

/* --- seeds ---------------------------------------------------------------- */

static void seeds(void)
{
    struct puppet seed, joiner;
    unsigned port, nobody = puppet_free_port();

    say_test("two seeds, one of them is nobody");
    port = start_seed(&seed, "");
    puppet_spawn(&joiner);
    puppet_start(&joiner, "key_file=%s seeds=127.0.0.1:%u,127.0.0.1:%u",
                 puppet_key_file(0), nobody, port);
    puppet_must(&joiner, "ok", "alive 2 %d", SOON_MS);
    stop(&joiner);
    stop(&seed);

    say_test("nobody answers");
    puppet_spawn(&joiner);
    puppet_must(&joiner, "TROUPE_ENOSEED",
                "start key_file=%s seeds=127.0.0.1:%u join_timeout_ms=300",
                puppet_key_file(0), nobody);
    puppet_must(&joiner, "TROUPE_ENOSEED",
                "start key_file=%s seeds=no-such-host.invalid:%u "
                "join_timeout_ms=300",
                puppet_key_file(0), nobody);
    puppet_end(&joiner);
}

/* The seed comes when the joiner has asked for a while. */
static void seed_later(void)
{
    struct puppet seed, joiner;
    unsigned port = puppet_free_port();
    pid_t helper;

    say_test("the seed comes later");
    puppet_spawn(&seed);
    puppet_spawn(&joiner);
    helper = fork();
    if (helper == 0) {
        usleep(700 * 1000);
        puppet_must(&seed, "ok", "start key_file=%s listen=%u",
                    puppet_key_file(0), port);
        _exit(0);
    }
    puppet_start(&joiner, "key_file=%s seeds=127.0.0.1:%u join_timeout_ms=%d",
                 puppet_key_file(0), port, SOON_MS);
    puppet_must(&joiner, "ok", "alive 2 %d", SOON_MS);
    waitpid(helper, NULL, 0); /* it reads the seed's answer */
    stop(&joiner);
    stop(&seed);
}

/* --- refused -------------------------------------------------------------- */

/* It asks until its time is up, and then says what it was told. A seed that
 * stands still meanwhile tells it nothing: then it is given more time. */
static void must_be_told(struct puppet *joiner, const char *wanted,
                         const char *start)
{
    const char *said = "";

    for (int ms = JOIN_SHORT_MS; ms <= SOON_MS; ms *= 2) {
        said = puppet_say(joiner, "start %s join_timeout_ms=%d", start, ms);
        if (strcmp(said, "TROUPE_ENOSEED") != 0)
            break;
    }
    if (strcmp(said, wanted) != 0)
        puppet_fail("start %s gave \"%s\", not \"%s\"", start, said, wanted);
}

static void refused(void)
{
    char start[512];
    struct puppet seed, joiner;
    unsigned port;

    say_test("another key, another cluster");
    port = start_seed(&seed, "cluster=red");
    puppet_spawn(&joiner);
    snprintf(start, sizeof(start),
             "key_file=%s seeds=127.0.0.1:%u cluster=red", puppet_key_file(1),
             port);
    must_be_told(&joiner, "TROUPE_EKEY", start);
    snprintf(start, sizeof(start), "security=none seeds=127.0.0.1:%u", port);
    must_be_told(&joiner, "TROUPE_EKEY", start);
    snprintf(start, sizeof(start),
             "security=encrypt key_file=%s seeds=127.0.0.1:%u cluster=red",
             puppet_key_file(0), port);
    must_be_told(&joiner, "TROUPE_EKEY", start);
    puppet_must(&joiner, "TROUPE_ECLUSTER",
                "start security=auth key_file=%s seeds=127.0.0.1:%u "
                "cluster=blue join_timeout_ms=%d",
                puppet_key_file(0), port, SOON_MS);
    puppet_must(&joiner, "TROUPE_EOPTION",
                "start seeds=127.0.0.1:%u key_file=/nowhere/at-all", port);
    puppet_must(&joiner, "TROUPE_EOPTION", "start seeds=127.0.0.1");
    puppet_must(&joiner, "ok",
                "start key_file=%s seeds=127.0.0.1:%u cluster=red",
                puppet_key_file(0), port);
    puppet_must(&seed, "ok", "alive 2 %d", SOON_MS);
    stop(&joiner);
    stop(&seed);
}

/* What all nodes of a cluster must have the same. */
static void other_strict(void)
{
    struct puppet seed, joiner;
    unsigned port;

    say_test("strict names here, not there");
    for (int strict = 0; strict < 2; strict++) {
        port = start_seed(&seed, strict ? "strict_names=1" : "");
        puppet_spawn(&joiner);
        puppet_must(&joiner, "TROUPE_EOPTION",
                    "start key_file=%s seeds=127.0.0.1:%u strict_names=%d "
                    "join_timeout_ms=%d",
                    puppet_key_file(0), port, !strict, SOON_MS);
        puppet_must(&seed, "ok", "alive 1 1");
        puppet_start(&joiner, "key_file=%s seeds=127.0.0.1:%u strict_names=%d",
                     puppet_key_file(0), port, strict);
        puppet_must(&seed, "ok", "alive 2 %d", SOON_MS);
        stop(&joiner);
        stop(&seed);
    }
}

static void no_key(void)
{
    struct puppet node;

    say_test("no key");
    puppet_spawn(&node);
    puppet_must(&node, "TROUPE_EOPTION", "start listen=%u", puppet_free_port());
    puppet_must(&node, "TROUPE_EOPTION", "start seeds=127.0.0.1:%u",
                puppet_free_port());
    puppet_end(&node);
}

/* --- strangers ------------------------------------------------------------ */

static struct tri_udp stranger_open(void)
{
    struct tri_endpoint own = { .family = 4, .ip = { 127, 0, 0, 1 } };
    struct tri_udp udp;

    if (tri_udp_open(&udp, &own, 0, 0) != 0)
        puppet_fail("a stranger's socket");
    return udp;
}

static struct tri_endpoint local(unsigned port)
{
    return (struct tri_endpoint){ .family = 4,
                                  .port = (uint16_t)port,
                                  .ip = { 127, 0, 0, 1 } };
}

/* A JOIN as a joiner says it, without a tag. Returns its bytes. */
static size_t join_data(unsigned char data[TRI_PACKET_BYTES_MAX])
{
    struct tri_hello hello = { .interface = 1, .token = 77 };
    unsigned char body[TRI_HELLO_BYTES];
    struct tri_packet packet = { .kind = TRI_SWIM_JOIN,
                                 .source = 4711,
                                 .counter = 1,
                                 .body = body,
                                 .body_bytes = sizeof(body) };

    tri_hello_encode(&hello, body);
    return tri_packet_seal(NULL, &packet, data);
}

/* What a stranger is told; 0: nothing within `ms`. */
static int hint_to(struct tri_udp *udp, int ms)
{
    unsigned char data[TRI_PACKET_BYTES_MAX];
    double end_ms = puppet_now_ms() + ms;
    struct tri_refused said;
    struct tri_endpoint from;
    struct tri_peek peek;
    size_t bytes;

    while (puppet_now_ms() < end_ms) {
        if (tri_udp_receive(udp, data, sizeof(data), &bytes, &from) ==
                TRI_UDP_DATAGRAM &&
            tri_packet_peek(data, bytes, &peek) &&
            tri_refused_decode(peek.body, TRI_REFUSED_BYTES, &said) == NULL &&
            said.token == 77)
            return said.error;
        usleep(1000);
    }
    return 0;
}

static void strangers(void)
{
    unsigned char data[TRI_PACKET_BYTES_MAX];
    struct puppet seed, joiner;
    struct tri_udp udp = stranger_open();
    struct tri_endpoint to;
    unsigned port, hints = 0;
    double began_ms;
    size_t bytes;

    say_test("strangers");
    port = start_seed(&seed, "");
    start_joiner(&joiner, port, "");
    to = local(port);
    bytes = join_data(data);
    tri_udp_send(&udp, &to, data, bytes);
    if (hint_to(&udp, SOON_MS) != TROUPE_EKEY)
        puppet_fail("a stranger without the key was not told so");
    data[4]++; /* the version */
    tri_udp_send(&udp, &to, data, bytes);
    if (hint_to(&udp, SOON_MS) != TROUPE_EVERSION)
        puppet_fail("one of another version was not told so");
    /* Not as often as they like: 16 a second. */
    began_ms = puppet_now_ms();
    for (unsigned i = 0; i < 200; i++)
        tri_udp_send(&udp, &to, data, bytes);
    while (hint_to(&udp, 200) != 0)
        hints++;
    if (hints > 40 + 16 * (puppet_now_ms() - began_ms) / 1000)
        puppet_fail("%u answers to a flood of strangers", hints);
    data[4]--;
    srand(1);
    for (unsigned i = 0; i < 1000; i++) {
        for (size_t b = 8; b < bytes; b++)
            data[b] = (unsigned char)rand();
        tri_udp_send(&udp, &to, data, 8 + (size_t)rand() % (bytes - 8));
    }
    puppet_must(&seed, "ok", "alive 2 %d", SOON_MS);
    puppet_must(&seed, "ok", "ask %s %d", joiner.ref, SOON_MS);
    for (began_ms = puppet_now_ms();
         atoi(puppet_say(&seed, "refused") + 3) < 100;)
        if (puppet_now_ms() > began_ms + SOON_MS)
            puppet_fail("a stranger's datagrams were not counted");
    puppet_must(&seed, "ok", "never_dead");
    tri_udp_close(&udp);
    stop(&joiner);
    stop(&seed);
}

/* What a seed answers to a JOIN of a cluster (0: any) by whoever has the key:
 * the id of its own cluster, or the error that it refuses with. */
static int ask_to_join(struct tri_udp *udp, struct tri_packet_key *key,
                       const struct tri_endpoint *to, uint64_t cluster,
                       uint64_t *cluster_p)
{
    struct tri_hello hello = { .interface = TRI_INTERFACE_VERSION,
                               .profile = TRI_SWIM_TEST };
    unsigned char body[TRI_HELLO_BYTES], data[TRI_PACKET_BYTES_MAX];
    double end_ms = puppet_now_ms() + SOON_MS;
    struct tri_packet join = { .kind = TRI_SWIM_JOIN, .cluster = cluster,
                               .source = 4711, .body = body,
                               .body_bytes = sizeof(body) };
    struct tri_refused refused;
    struct tri_endpoint from;
    struct tri_packet got;
    size_t bytes;

    tri_hello_encode(&hello, body);
    while (puppet_now_ms() < end_ms) {
        join.counter++;
        bytes = tri_packet_seal(key, &join, data);
        tri_udp_send(udp, to, data, bytes);
        for (int ms = 0; ms < 100; ms++) {
            usleep(1000);
            if (tri_udp_receive(udp, data, sizeof(data), &bytes, &from) !=
                    TRI_UDP_DATAGRAM ||
                !tri_endpoint_equal(&from, to) ||
                tri_packet_open(key, data, bytes, &got) != NULL)
                continue;
            *cluster_p = got.cluster;
            if (got.kind == TRI_PACKET_CHALLENGE)
                return 0;
            if (got.kind == TRI_PACKET_REFUSED &&
                tri_refused_decode(got.body, got.body_bytes, &refused) == NULL)
                return refused.error;
        }
    }
    puppet_fail("a seed does not answer");
}

/* The key that puppet_key_file(0) has. */
static struct tri_packet_key *key_of_file(void)
{
    unsigned char bytes[TRI_KEY_BYTES];
    struct tri_packet_key *key;
    unsigned value;
    FILE *file = fopen(puppet_key_file(0), "r");

    for (unsigned i = 0; i < TRI_KEY_BYTES; i++) {
        if (file == NULL || fscanf(file, "%2x", &value) != 1)
            puppet_fail("the key file");
        bytes[i] = (unsigned char)value;
    }
    fclose(file);
    if (tri_packet_key_create(bytes, TRI_SEAL_AUTH, &key) != 0)
        puppet_fail("a key");
    return key;
}

/* Each answers, with the same key and no name, but only one of them is of the
 * cluster that the joiner is in. */
static void two_clusters(void)
{
    struct tri_udp udp = stranger_open();
    struct tri_packet_key *key = key_of_file();
    struct puppet seeds_of[2], joiner;
    struct tri_endpoint to[2];
    uint64_t clusters[2];
    unsigned ports[2];
    int in;

    say_test("two clusters do not become one");
    for (int i = 0; i < 2; i++) {
        ports[i] = start_seed(&seeds_of[i], "membership=test");
        to[i] = local(ports[i]);
        if (ask_to_join(&udp, key, &to[i], 0, &clusters[i]) != 0)
            puppet_fail("a seed refuses to be joined");
    }
    if (clusters[0] == clusters[1] ||
        ask_to_join(&udp, key, &to[0], clusters[1], &clusters[0]) !=
            TROUPE_ECLUSTER)
        puppet_fail("one of another cluster was let in");
    puppet_spawn(&joiner);
    puppet_start(&joiner,
                 "key_file=%s seeds=127.0.0.1:%u,127.0.0.1:%u membership=test",
                 puppet_key_file(0), ports[0], ports[1]);
    puppet_must(&joiner, "ok", "alive 2 %d", SOON_MS);
    in = puppet_say(&joiner, "state %016lx alive 1", seeds_of[1].node)[0] ==
         'o';
    puppet_must(&seeds_of[in], "ok", "alive 2 %d", SOON_MS);
    puppet_must(&seeds_of[!in], "ok", "alive 1 1");
    puppet_must(&joiner, "unknown", "state %016lx alive 1",
                seeds_of[!in].node);
    /* Also when it has lost the only one it knew. */
    puppet_kill(&seeds_of[in], SIGKILL);
    puppet_must(&joiner, "ok", "state %016lx dead %d", seeds_of[in].node,
                SOON_MS);
    puppet_must(&joiner, "TROUPE_ETIMEDOUT", "excluded 2000");
    puppet_must(&joiner, "ok", "alive 1 1");
    puppet_must(&seeds_of[!in], "ok", "alive 1 1");
    stop(&joiner);
    stop(&seeds_of[!in]);
    tri_packet_key_destroy(&key);
    tri_udp_close(&udp);
}

/* A rumour that the seed is dead, in a member's name. Returns its bytes. */
static size_t rumour_data(struct tri_packet_key *key, uint64_t cluster,
                          const struct puppet *seed,
                          const struct puppet *source, uint64_t counter,
                          unsigned char data[TRI_PACKET_BYTES_MAX])
{
    unsigned char body[TRI_PACKET_BODY_MAX];
    struct tri_swim_packet swim = {
        .kind = TRI_SWIM_GOSSIP,
        .alive_len = 2,
        .lowest = source->node,
        .rumours_len = 1,
        .rumours[0] = { .node = seed->node,
                        .accuser = source->node,
                        .state = TRI_SWIM_DEAD,
                        .evidence = TRI_SWIM_PROOF },
    };
    struct tri_packet packet = { .kind = TRI_SWIM_GOSSIP,
                                 .cluster = cluster,
                                 .source = source->node,
                                 .destination = seed->node,
                                 .counter = counter,
                                 .body = body };
    uint32_t rumours_len;

    packet.body_bytes = (uint32_t)tri_packet_encode_swim(&swim, NULL, NULL,
                                                         body, &rumours_len);
    return tri_packet_seal(key, &packet, data);
}

/* A datagram of a member's, with a good tag: its number was used before. Then
 * it is not believed; with a new number, the same one is. */
static void repeated(void)
{
    unsigned char data[TRI_PACKET_BYTES_MAX];
    struct tri_packet_key *key;
    struct puppet seed, joiner;
    struct tri_udp udp = stranger_open();
    struct tri_endpoint to;
    uint64_t cluster;
    size_t bytes;
    int before;

    say_test("a repeated datagram");
    to = local(start_seed(&seed, "membership=test"));
    start_joiner(&joiner, to.port, "membership=test");
    key = key_of_file();
    puppet_must(&seed, "ok", "alive 2 %d", SOON_MS);
    if (ask_to_join(&udp, key, &to, 0, &cluster) != 0)
        puppet_fail("a seed refuses to be joined");
    /* Of these one had a number that is above 1 by more than the window. */
    puppet_must(&seed, "ok", "packets %d %d",
                80 + atoi(puppet_say(&seed, "packets 1000000000 1")), SOON_MS);
    before = atoi(puppet_say(&seed, "refused") + 3);
    bytes = rumour_data(key, cluster, &seed, &joiner, 1, data);
    tri_udp_send(&udp, &to, data, bytes);
    for (double end_ms = puppet_now_ms() + SOON_MS;
         atoi(puppet_say(&seed, "refused") + 3) == before;)
        if (puppet_now_ms() > end_ms)
            puppet_fail("a repeated datagram was not refused");
    puppet_must(&seed, "TROUPE_ETIMEDOUT", "excluded 100");
    puppet_must(&seed, "ok", "alive 2 1");
    puppet_must(&joiner, "ok", "alive 2 1");
    puppet_must(&seed, "ok", "never_dead");
    bytes = rumour_data(key, cluster, &seed, &joiner, 1ull << 40, data);
    tri_udp_send(&udp, &to, data, bytes);
    puppet_must(&seed, "ok", "excluded %d", SOON_MS);
    tri_packet_key_destroy(&key);
    tri_udp_close(&udp);
    puppet_kill(&joiner, SIGKILL);
    puppet_kill(&seed, SIGKILL);
}

/* Who died counts for a while: then nobody is let in whom no message could
 * reach. */
static void full(void)
{
    struct puppet seed, joiner;
    unsigned port;

    say_test("as many as nodes_max, all of them dead");
    port = start_seed(&seed, "nodes_max=4");
    for (int life = 0; life < 3; life++) {
        start_joiner(&joiner, port, "");
        puppet_must(&joiner, "ok", "ask %s %d", seed.ref, SOON_MS);
        puppet_kill(&joiner, SIGKILL);
        puppet_must(&seed, "ok", "state %016lx dead %d", joiner.node, SOON_MS);
    }
    puppet_spawn(&joiner);
    puppet_must(&joiner, "TROUPE_ELIMIT",
                "start key_file=%s seeds=127.0.0.1:%u join_timeout_ms=%d",
                puppet_key_file(0), port, SOON_MS);
    puppet_must(&seed, "ok", "alive 1 %d", SOON_MS);
    puppet_end(&joiner);
    stop(&seed);
}

/* A seed of another version: the joiner says so when its time is up. */
static void other_version(void)
{
    unsigned char data[TRI_PACKET_BYTES_MAX], body[TRI_REFUSED_BYTES];
    struct tri_udp udp = stranger_open();
    struct puppet joiner;
    char start[256];
    pid_t helper;

    say_test("a seed of another version");
    puppet_spawn(&joiner);
    helper = fork();
    if (helper == 0) {
        struct tri_endpoint from;
        struct tri_hello hello;
        struct tri_peek peek;
        size_t bytes;

        for (;;) {
            struct tri_refused says = { .error = TROUPE_EVERSION };
            struct tri_packet packet = { .kind = TRI_PACKET_REFUSED,
                                         .source = 1,
                                         .counter = 1,
                                         .body = body,
                                         .body_bytes = sizeof(body) };

            usleep(1000);
            if (tri_udp_receive(&udp, data, sizeof(data), &bytes, &from) !=
                    TRI_UDP_DATAGRAM ||
                !tri_packet_peek(data, bytes, &peek) ||
                tri_hello_decode(peek.body, peek.body_bytes, &hello) != NULL)
                continue;
            says.token = hello.token;
            packet.destination = peek.source;
            tri_refused_encode(&says, body);
            bytes = tri_packet_seal(NULL, &packet, data);
            data[4] = 99;
            tri_udp_send(&udp, &from, data, bytes);
        }
    }
    snprintf(start, sizeof(start), "key_file=%s seeds=127.0.0.1:%u",
             puppet_key_file(0), udp.own.port);
    must_be_told(&joiner, "TROUPE_EVERSION", start);
    kill(helper, SIGKILL);
    tri_udp_close(&udp);
    puppet_end(&joiner);
}

/* --- silence -------------------------------------------------------------- */

/* Returns for how long, at most: this process may stand still, too. */
static double stop_and_go(struct puppet *joiners)
{
    double longest_ms = 0;

    for (int round = 0; round < 6; round++) {
        struct puppet *stopped = &joiners[round % 2];
        double began_ms = puppet_now_ms();

        puppet_kill(stopped, SIGSTOP);
        usleep(PAUSE_MS * 1000); /* the pause itself */
        puppet_kill(stopped, SIGCONT);
        if (puppet_now_ms() - began_ms > longest_ms)
            longest_ms = puppet_now_ms() - began_ms;
        usleep(200 * 1000);
    }
    return longest_ms;
}

/* False: it tells nothing. */
static bool pauses_are_survived(void)
{
    struct puppet seed, joiners[2];
    unsigned port;

    port = start_seed(&seed, "membership=fast");
    for (int i = 0; i < 2; i++)
        start_joiner(&joiners[i], port, "membership=fast");
    puppet_must(&seed, "ok", "alive 3 %d", SOON_MS);
    if (stop_and_go(joiners) > LONG_PAUSE_MS) {
        for (int i = 0; i < 2; i++)
            puppet_kill(&joiners[i], SIGKILL);
        puppet_kill(&seed, SIGKILL);
        return false;
    }
    for (int i = 0; i < 2; i++) {
        puppet_must(&seed, "ok", "state %016lx alive %d", joiners[i].node,
                    SOON_MS);
        puppet_must(&joiners[i], "ok", "never_dead");
    }
    puppet_must(&seed, "ok", "never_dead");
    for (int i = 0; i < 2; i++)
        stop(&joiners[i]);
    stop(&seed);
    return true;
}

static void pauses(void)
{
    int tries = TRIES;

    say_test("stopped for 0.3 s, again and again: no death");
    while (!pauses_are_survived() && --tries > 0)
        ;
    if (tries == 0)
        printf("  not seen: the pauses were too long\n");
}

/* Whether that instance is taken each time. On a machine that starves it may
 * be suspected itself for a moment, and then either is as good. */
static bool others_come_first(struct puppet *seed,
                              const struct puppet *other)
{
    for (int tries = 0; tries < 5; tries++) {
        int taken = 0;

        puppet_must(seed, "ok", "state %016lx alive %d", other->node,
                    SOON_MS);
        for (int i = 0; i < 20; i++)
            taken += puppet_say(seed, "resolve %016lx actor:///a/service",
                                other->node)[0] == 'o';
        if (taken == 20)
            return true;
    }
    return false;
}

/* What users see of a suspicion, and which of two instances they get. */
static void await_instance(struct puppet *seed, const struct puppet *of,
                           const char *wanted)
{
    double end_ms = puppet_now_ms() + SOON_MS;

    /* Names are told of members' states a moment later. */
    while (strcmp(puppet_say(seed, "instance %016lx %s", of->node, wanted),
                  "ok") != 0)
        if (puppet_now_ms() > end_ms)
            puppet_fail("an instance is not %s", wanted);
}

/* False: it tells nothing, as the one that is stopped may have died. */
static bool is_suspected_and_recovers(void)
{
    struct puppet seed, joiners[2];
    double began_ms;
    unsigned port;
    bool first;

    port = start_seed(&seed, "membership=cloud");
    for (int i = 0; i < 2; i++) {
        start_joiner(&joiners[i], port, "membership=cloud");
        puppet_must(&joiners[i], "ok", "name a/service");
    }
    puppet_must(&seed, "ok", "names 2 %d a/service", SOON_MS);
    puppet_must(&seed, "ok", "alive 3 %d", SOON_MS);
    /* It lasts for 8 s at least: a node that died recovers no more. */
    puppet_kill(&joiners[0], SIGSTOP);
    puppet_must(&seed, "ok", "state %016lx suspect %d", joiners[0].node,
                SOON_MS);
    began_ms = puppet_now_ms();
    await_instance(&seed, &joiners[0], "suspect");
    first = others_come_first(&seed, &joiners[1]);
    puppet_kill(&joiners[0], SIGCONT);
    if (puppet_now_ms() - began_ms > SUSPECT_MS) {
        for (int i = 0; i < 2; i++)
            puppet_kill(&joiners[i], SIGKILL);
        puppet_kill(&seed, SIGKILL);
        return false;
    }
    if (!first)
        puppet_fail("a suspected instance was taken before another one");
    puppet_must(&seed, "ok", "state %016lx alive %d", joiners[0].node,
                SOON_MS);
    await_instance(&seed, &joiners[0], "trusted");
    puppet_must(&seed, "ok", "told %016lx", joiners[0].node);
    puppet_must(&seed, "ok", "never_dead");
    for (int i = 0; i < 2; i++)
        stop(&joiners[i]);
    stop(&seed);
    return true;
}

static void suspected(void)
{
    int tries = TRIES;

    say_test("suspected, and recovered");
    while (!is_suspected_and_recovers() && --tries > 0)
        ;
    if (tries == 0)
        printf("  not seen: all came too late\n");
}

static void excluded(void)
{
    struct puppet seed, joiners[3];
    unsigned port;
    uint64_t old;

    say_test("stopped until it is dead; it is told, and comes back");
    port = start_seed(&seed, "membership=test");
    for (int i = 0; i < 3; i++)
        start_joiner(&joiners[i], port, "membership=test");
    puppet_must(&seed, "ok", "alive 4 %d", SOON_MS);
    old = joiners[0].node;
    puppet_kill(&joiners[0], SIGSTOP);
    puppet_must(&seed, "ok", "state %016lx dead %d", old, SOON_MS);
    puppet_must(&joiners[1], "ok", "state %016lx dead %d", old, SOON_MS);
    puppet_must(&seed, "TROUPE_ENODE", "ask %s %d", joiners[0].ref, SOON_MS);
    puppet_kill(&joiners[0], SIGCONT);
    puppet_must(&joiners[0], "ok", "excluded %d", SOON_MS);
    puppet_must(&joiners[0], "TROUPE_ENODE", "ask %s %d", seed.ref, SOON_MS);
    puppet_must(&joiners[0], "ok", "stop");
    puppet_start(&joiners[0],
                 "key_file=%s seeds=127.0.0.1:%u membership=test mpi=off",
                 puppet_key_file(0), port);
    if (joiners[0].node == old)
        puppet_fail("the same node id again");
    puppet_must(&seed, "ok", "alive 4 %d", SOON_MS);
    puppet_must(&seed, "ok", "ask %s %d", joiners[0].ref, SOON_MS);
    puppet_must(&joiners[0], "ok", "ask %s %d", joiners[2].ref, SOON_MS);
    puppet_must(&seed, "ok", "state %016lx dead 1", old);
    for (int i = 0; i < 3; i++)
        stop(&joiners[i]);
    stop(&seed);
}

/* --- room ----------------------------------------------------------------- */

/* A member without room for a third one neither lists nor reaches it, but does
 * not hold it for dead, even when nobody else could probe it. */
static void no_room(void)
{
    struct puppet seed, small, third, fourth;
    unsigned port;

    say_test("no room");
    port = start_seed(&seed, "membership=test nodes_max=3");
    puppet_spawn(&small);
    puppet_start(&small,
                 "key_file=%s seeds=127.0.0.1:%u membership=test nodes_max=2",
                 puppet_key_file(0), port);
    puppet_must(&small, "ok", "alive 2 %d", SOON_MS);
    start_joiner(&third, port, "membership=test");
    puppet_must(&third, "ok", "alive 3 %d", SOON_MS);
    puppet_must(&seed, "ok", "alive 3 %d", SOON_MS);
    puppet_must(&small, "ok", "alive 2 1");
    puppet_must(&small, "TROUPE_ENODE", "ask %s %d", third.ref, SOON_MS);
    puppet_must(&seed, "ok", "ask %s %d", third.ref, SOON_MS);
    /* And who asks a full one to join is told. */
    puppet_spawn(&fourth);
    puppet_must(&fourth, "TROUPE_ELIMIT",
                "start key_file=%s seeds=127.0.0.1:%u membership=test",
                puppet_key_file(0), port);
    puppet_end(&fourth);
    /* Two are left. A suspicion among them would last for 0.8 s. */
    puppet_kill(&seed, SIGKILL);
    puppet_must(&third, "ok", "alive 2 %d", SOON_MS);
    puppet_must(&third, "TROUPE_ETIMEDOUT", "excluded 3000");
    puppet_must(&third, "ok", "alive 2 1");
    puppet_kill(&third, SIGKILL);
    puppet_kill(&small, SIGKILL);
}

int main(int argc, char **argv)
{
    static void (*const tests[])(void) = {
        join_and_leave, killed_and_back, several,       by_fabric,
        seeds,          seed_later,      refused,       no_key,
        strangers,      other_version,   pauses,        excluded,
        full,           no_room,         other_strict,  two_clusters,
        repeated,       suspected,       left_meanwhile,
    };
    int only = argc > 1 ? atoi(argv[1]) : -1;

    puppet_main(argc, argv);
    for (int i = 0; i < (int)(sizeof(tests) / sizeof(tests[0])); i++)
        if (only < 0 || only == i)
            tests[i]();
    return EXIT_SUCCESS;
}
