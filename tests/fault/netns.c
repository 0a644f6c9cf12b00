/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Paths that break between living nodes, under full load: three ends, each in
 * a network namespace of its own, and this process in a fourth one as the
 * router between them. Links are taken down, at the router's side and at the
 * ends', for parts of seconds up to three; the router stops forwarding, a
 * black hole; a stranger takes over an end's address and resets what comes
 * there; all at random. Nothing is lost, repeated or reordered, and traffic
 * goes on when the path is back.
 *
 * The namespaces have no names: they and all in them end with their last
 * process, however that ends. Needs root, or the right to make user
 * namespaces; and ip(8). TROUPE_TEST_FAULT_ROUNDS: how many faults.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/random.h"
#include "flood.h"

enum {
    ENDS = 3,
    ROUNDS = 12,
    FAULT_MS_MAX = 700,
    LONG_FAULT_MS = 3000,
    BETWEEN_MS_MAX = 200,
    FLOW_RECORDS = 500,
    /* Until traffic is back. TCP doubles its pauses: one that began during
     * the longest fault lasts about as long as that; connecting has pauses of
     * 1, 2 and 4 seconds. */
    SOON_MS = 40000,
    OTHERS_MS = 15000, /* that do not flow for so long are stopped */
    SKIPPED = 77,
};

#define FORWARD "/proc/sys/net/ipv4/ip_forward"

struct link {
    int netns; /* of the end */
    char name[IFNAMSIZ];
};

static struct link links[ENDS];
static bool is_flowing; /* all paths are, not only mended */
static int own_netns;

static void skip(const char *why)
{
    printf("netns: %s (%s): skipped\n", why, strerror(errno));
    fflush(stdout);
    exit(SKIPPED);
}

/* --- namespaces and links ------------------------------------------------- */

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));

    if (fd >= 0)
        close(fd);
    return n == (ssize_t)strlen(text);
}

/* Root of a user namespace may do the same. */
static void become_root_of_a_namespace(void)
{
    char map[64];
    unsigned uid = getuid(), gid = getgid();

    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        skip("neither network nor user namespaces can be made");
    snprintf(map, sizeof(map), "0 %u 1", uid);
    if (!write_text("/proc/self/uid_map", map))
        skip("no user map");
    snprintf(map, sizeof(map), "0 %u 1", gid);
    if (!write_text("/proc/self/setgroups", "deny") ||
        !write_text("/proc/self/gid_map", map))
        skip("no group map");
}

static void namespace_make(void)
{
    if (unshare(CLONE_NEWNET) != 0)
        become_root_of_a_namespace();
    own_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (own_netns < 0)
        skip("no /proc/self/ns/net");
}

static bool run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static bool run(const char *format, ...)
{
    char command[256];
    va_list args;

    va_start(args, format);
    vsnprintf(command, sizeof(command), format, args);
    va_end(args);
    return system(command) == 0;
}

/* In the end's process: a namespace, then its link, made from outside. */
static void enter(struct flood_board *board, unsigned seat)
{
    if (unshare(CLONE_NEWNET) != 0) {
        perror("unshare");
        exit(EXIT_FAILURE);
    }
    atomic_fetch_or(&board->entered, 1u << seat);
    while (!atomic_load(&board->is_wired))
        flood_nap();
}

static void switch_to(int netns)
{
    if (setns(netns, CLONE_NEWNET) != 0) {
        perror("setns");
        exit(EXIT_FAILURE);
    }
}

static void link_set(const char *name, bool up)
{
    struct ifreq request = { 0 };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) != 0) {
        perror(name);
        exit(EXIT_FAILURE);
    }
    if (up)
        request.ifr_flags |= IFF_UP;
    else
        request.ifr_flags &= (short)~IFF_UP;
    if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) {
        perror(name);
        exit(EXIT_FAILURE);
    }
    close(fd);
}

static void link_make(struct flood_board *board, unsigned i)
{
    char path[64];

    snprintf(links[i].name, sizeof(links[i].name), "to%u", i);
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)board->seats[i].pid);
    links[i].netns = open(path, O_RDONLY | O_CLOEXEC);
    if (links[i].netns < 0 ||
        !run("ip link add name %s type veth peer name eth0 netns %d",
             links[i].name, (int)board->seats[i].pid) ||
        !run("ip address add 10.77.%u.1/24 dev %s", i, links[i].name)) {
        int error = errno;

        for (unsigned k = 0; k < ENDS; k++)
            flood_kill(board, k, SIGKILL);
        errno = error;
        skip("no virtual links can be made");
    }
    link_set(links[i].name, true);
    switch_to(links[i].netns);
    link_set("lo", true);
    link_set("eth0", true);
    if (!run("ip address add 10.77.%u.2/24 dev eth0 && "
             "ip route add default via 10.77.%u.1",
             i, i))
        flood_fail(board, "no address for end %u", i);
    switch_to(own_netns);
}

static void forward(bool on)
{
    if (!write_text(FORWARD, on ? "1" : "0")) {
        perror(FORWARD);
        exit(EXIT_FAILURE);
    }
}

/* --- faults --------------------------------------------------------------- */

static void end_link_set(struct flood_board *board, unsigned i, bool up)
{
    switch_to(links[i].netns);
    link_set("eth0", up);
    /* Routes of a link that went down are gone. */
    if (up && !run("ip route replace default via 10.77.%u.1", i))
        flood_fail(board, "no route for end %u", i);
    switch_to(own_netns);
}

/* TCP survives the first three: its connections hold. */
enum fault { ROUTER_SIDE, END_SIDE, BLACK_HOLE, TAKE_OVER, FAULTS };

static void fault_set(struct flood_board *board, enum fault fault, unsigned i,
                      bool broken)
{
    switch (fault) {
    case ROUTER_SIDE:
        link_set(links[i].name, !broken);
        break;
    case END_SIDE:
        end_link_set(board, i, !broken);
        break;
    case TAKE_OVER: /* by the router, which knows no such connections */
        link_set(links[i].name, !broken);
        if (!run("ip address %s 10.77.%u.2/32 dev lo",
                 broken ? "add" : "delete", i))
            flood_fail(board, "the address of end %u cannot be taken", i);
        break;
    default:
        forward(!broken);
    }
}

static void wait_ms(struct flood_board *board, unsigned ms)
{
    uint64_t until = tri_deadline_ns((int)ms);

    while (tri_now_ns() < until) {
        flood_nap();
        flood_check(board);
    }
}

/* Every end receives from every other. */
static bool flows(const struct flood_board *board,
                  const uint64_t wanted[ENDS][ENDS])
{
    for (unsigned i = 0; i < ENDS; i++)
        for (unsigned k = 0; k < ENDS; k++)
            if (i != k && board->seats[i].received_from[k] < wanted[i][k])
                return false;
    return true;
}

static unsigned wait_for_flow(struct flood_board *board)
{
    uint64_t begin = tri_now_ns();
    uint64_t wanted[ENDS][ENDS];

    for (unsigned i = 0; i < ENDS; i++)
        for (unsigned k = 0; k < ENDS; k++)
            wanted[i][k] = board->seats[i].received_from[k] + FLOW_RECORDS;
    FLOOD_WAIT(board, flood_nap(), flows(board, wanted), SOON_MS);
    return (unsigned)((tri_now_ns() - begin) / TRI_NS_PER_MS);
}

/* The path from b to a is not the one that is still broken. */
static void check_others(struct flood_board *board, unsigned a, unsigned b,
                         uint64_t before)
{
    uint64_t until = tri_deadline_ns(OTHERS_MS);

    while (board->seats[a].received_from[b] == before) {
        if (tri_now_ns() > until)
            flood_fail(board, "a broken path stopped another");
        flood_nap();
        flood_check(board);
    }
}

/* While one path is broken the other ends go on. */
static void one_fault(struct flood_board *board, struct tri_random *random,
                      bool is_long)
{
    static const char *const names[] = { "link down at the router",
                                         "link down at the end", "black hole",
                                         "address taken over" };
    enum fault fault = (enum fault)tri_random_below(random, FAULTS);
    unsigned i = tri_random_below(random, ENDS);
    unsigned ms =
        is_long ? LONG_FAULT_MS : tri_random_below(random, FAULT_MS_MAX) + 1;
    unsigned a = (i + 1) % ENDS, b = (i + 2) % ENDS;
    uint64_t before = board->seats[a].received_from[b];

    fault_set(board, fault, i, true);
    wait_ms(board, ms);
    if (fault != BLACK_HOLE && is_flowing && ms > FAULT_MS_MAX / 2)
        check_others(board, a, b, before);
    fault_set(board, fault, i, false);
    is_flowing = tri_random_below(random, 3) != 0 || is_long;
    if (is_flowing)
        printf("%s, end %u, %u ms: traffic was back after %u ms\n",
               names[fault], i, ms, wait_for_flow(board));
    wait_ms(board, tri_random_below(random, BETWEEN_MS_MAX));
}

static void connect_all(struct flood_board *board)
{
    for (unsigned i = 0; i < ENDS; i++)
        for (unsigned k = 0; k < i; k++)
            flood_connect(board, i, k);
}

int main(void)
{
    struct flood_options options = { .interface = "10.77.0.0/16",
                                     .provider = getenv("TROUPE_PROVIDER"),
                                     .enter = enter };
    unsigned rounds = flood_rounds(ROUNDS);
    struct flood_board *board;
    struct tri_random random;

    namespace_make();
    if (!run("ip link set lo up"))
        skip("no ip(8)");
    board = flood_board_create("netns", ENDS);
    for (unsigned i = 0; i < ENDS; i++)
        flood_start(board, i, &options);
    FLOOD_WAIT(board, flood_nap(),
               atomic_load(&board->entered) == (1u << ENDS) - 1, FLOOD_SOON_MS);
    for (unsigned i = 0; i < ENDS; i++)
        link_make(board, i);
    forward(true);
    atomic_store(&board->is_wired, 1);
    FLOOD_WAIT(board, flood_nap(), flood_all_open(board), FLOOD_SOON_MS);
    connect_all(board);
    wait_for_flow(board);
    is_flowing = true;

    tri_random_init(&random, board->seed);
    for (unsigned i = 0; i < rounds; i++)
        one_fault(board, &random, i == rounds / 2);

    atomic_store(&board->phase, FLOOD_LAST);
    FLOOD_WAIT(board, flood_nap(), flood_all_done(board), SOON_MS);
    flood_print(board);
    flood_leave(board);
    flood_board_destroy(&board);
    return EXIT_SUCCESS;
}
