/* SPDX-License-Identifier: BSD-3-Clause */
#include <dirent.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conf.h"

static void test_delivers_one(void **state)
{
    struct conf_end a, b;

    conf_open_pair(state, &a, &b);
    conf_end_connect(&a, &b);
    assert_int_equal(conf_end_send(&a, CONF_SMALL), 0);
    conf_wait(&a, &b, b.received == 1);
    assert_int_equal(b.accepted, 1);
    assert_int_equal(a.received, 0);
    conf_close_pair(&a, &b);
}

/* Before the other side has had a chance to answer anything. */
static void test_writes_before_the_connection_stands(void **state)
{
    struct conf_end a, b;

    conf_open_pair(state, &a, &b);
    conf_end_connect(&a, &b);
    for (int i = 0; i < 10; i++)
        assert_int_equal(conf_end_send(&a, (size_t)i * 10), 0);
    conf_wait(&a, &b, b.received == 10);
    conf_close_pair(&a, &b);
}

static void test_crossing_connects(void **state)
{
    struct conf_end a, b;

    conf_open_pair(state, &a, &b);
    conf_end_connect(&a, &b);
    conf_end_connect(&b, &a);
    assert_int_equal(conf_end_send(&a, CONF_SMALL), 0);
    assert_int_equal(conf_end_send(&b, CONF_SMALL), 0);
    conf_wait(&a, &b, a.received == 1 && b.received == 1);
    conf_close_pair(&a, &b);
}

static void send_some(struct conf_end *end, uint64_t count)
{
    for (int i = 0; i < 100 && end->sent[TRI_LANE_DATA] < count; i++)
        if (conf_end_send(end, conf_size(end, end->sent[TRI_LANE_DATA])) != 0)
            return;
}

static void test_keeps_order_and_bytes(void **state)
{
    struct conf_end a, b;
    uint64_t count, until;

    conf_open_pair(state, &a, &b);
    count = a.under_test->records;
    conf_end_connect(&a, &b);
    conf_end_connect(&b, &a);
    until = conf_now_ms() + 3 * CONF_TIMEOUT_MS;
    while (a.received < count || b.received < count) {
        send_some(&a, count);
        send_some(&b, count);
        conf_end_pump(&a);
        conf_end_pump(&b);
        assert_true(conf_now_ms() < until);
    }
    assert_int_equal(a.received, count);
    assert_int_equal(b.received, count);
    conf_close_pair(&a, &b);
}

static void test_full_then_writable(void **state)
{
    struct conf_end a, b;
    size_t sizes[] = { CONF_SMALL, 1500, 5000, 0 };

    conf_open_pair(state, &a, &b);
    sizes[3] = a.transport->record_bytes_max;
    conf_end_connect(&a, &b);
    for (size_t i = 0; i < tri_array_len(sizes); i++) {
        conf_end_fill(&a, sizes[i]);
        a.writable = 0;
        conf_wait(&a, &b, a.writable > 0);
        assert_int_equal(conf_end_send(&a, sizes[i]), 0);
        conf_wait(&a, &b, b.received == a.sent[TRI_LANE_DATA]);
    }
    conf_close_pair(&a, &b);
}

static void test_unread_gets_zero(void **state)
{
    struct conf_end a, b;
    uint64_t (*unread)(struct tri_channel *);

    conf_open_pair(state, &a, &b);
    unread = a.transport->ops->unread;
    conf_end_connect(&a, &b);
    for (int i = 0; i < 5; i++)
        assert_int_equal(conf_end_send(&a, CONF_SMALL), 0);
    if (unread) {
        assert_int_equal(unread(a.channel), 5);
        conf_wait(&a, &b, unread(a.channel) == 0);
        assert_int_equal(b.received, 5);
    }
    conf_close_pair(&a, &b);
}

static void test_stranger_is_refused(void **state)
{
    const struct conf_transport *transport = conf_under_test(state);
    struct conf_end a, b;

    conf_end_open(&a, transport, CONF_NONCE + 1);
    conf_end_open(&b, transport, CONF_NONCE);
    conf_end_connect(&a, &b);
    conf_end_send(&a, CONF_SMALL);
    conf_wait(&a, &b, b.garbage > 0);
    assert_int_equal(b.accepted, 0);
    assert_int_equal(b.received, 0);
    conf_close_pair(&a, &b);
}

/* How long it took until all had come, from the moment it was known. */
static uint64_t become_known_ms(void **state)
{
    const uint64_t unknown_ms = 150;
    struct conf_end a, b;
    uint64_t known_ms, took_ms;

    conf_open_pair(state, &a, &b);
    b.knows_nobody = true;
    conf_end_connect(&a, &b);
    for (unsigned i = 0; i < 10; i++)
        for (enum tri_lane lane = 0; lane < TRI_LANES; lane++)
            assert_int_equal(conf_end_send_on(&a, lane, 100), 0);
    known_ms = conf_now_ms() + unknown_ms;
    conf_wait(&a, &b, conf_now_ms() >= known_ms && b.accepted > 1);
    assert_int_equal(b.received, 0);
    assert_int_equal(a.hints, 0);
    b.knows_nobody = false;
    known_ms = conf_now_ms();
    conf_wait(&a, &b, b.received == 10 * TRI_LANES);
    took_ms = conf_now_ms() - known_ms;
    assert_int_equal(a.hints + a.proofs, 0);
    assert_int_equal(conf_end_send(&a, 10), 0);
    conf_wait(&a, &b, b.received == 10 * TRI_LANES + 1);
    conf_close_pair(&a, &b);
    return took_ms;
}

/* Whom membership does not know yet is not lost: its first messages come when
 * it is known, soon and once each. */
static void test_stranger_becomes_known(void **state)
{
    const struct conf_transport *transport = *state;
    const uint64_t soon_ms = 2000;
    unsigned tries = 3; /* the machine may stall, but not each time */

    if (!transport->learns)
        skip();
    /* With steps the time that passes is not ours. */
    while (become_known_ms(state) > soon_ms && !transport->step)
        assert_true(--tries > 0);
}

/* It goes while it still refuses us: that is known, and not waited for. */
static void test_stranger_is_left_alone(void **state)
{
    struct conf_end a, b;

    conf_open_pair(state, &a, &b);
    if (!a.under_test->learns || !a.under_test->nobody) {
        conf_close_pair(&a, &b);
        skip();
    }
    b.knows_nobody = true;
    conf_end_connect(&a, &b);
    assert_int_equal(conf_end_send(&a, 100), 0);
    conf_wait(&a, &b, b.accepted > 2);
    assert_int_equal(a.hints + a.proofs, 0);
    conf_end_close(&b);
    conf_wait(&a, NULL, a.hints + a.proofs > 0);
    assert_int_equal(a.lost_node, b.node);
    assert_int_equal(conf_end_send(&a, 100), TROUPE_ENODE);
    conf_end_close(&a);
}

/* A node that is dead to the other is let go of, however much it sends, and
 * what it had sent before is delivered. */
static void test_living_dead_is_let_go(void **state)
{
    struct conf_end a, b;
    struct conf_peer *dead;
    uint64_t before, sent;

    conf_open_pair(state, &a, &b);
    if (!b.transport->ops->is_forgotten) {
        conf_close_pair(&a, &b);
        skip();
    }
    conf_end_connect(&a, &b);
    conf_end_connect(&b, &a);
    assert_int_equal(conf_end_send(&a, 10), 0);
    conf_wait(&a, &b, b.received == 1);
    dead = conf_peer(&b, &a);
    before = b.received;
    while (a.sent[TRI_LANE_DATA] < 30)
        if (conf_end_send(&a, 10) != 0)
            conf_end_pump(&a);
    if (a.under_test->exact) /* they are there as soon as they are sent */
        before = a.sent[TRI_LANE_DATA];
    assert_false(b.transport->ops->is_forgotten(b.transport, dead));
    b.buries_all = true;
    b.transport->ops->disconnect(b.channel);
    b.channel = NULL;
    b.transport->ops->resume(b.transport, dead);
    sent = conf_now_ms() + CONF_TIMEOUT_MS;
    while (!b.transport->ops->is_forgotten(b.transport, dead)) {
        (void)conf_end_send(&a, 10); /* and goes on */
        conf_end_pump(&a);
        conf_end_pump(&b);
        assert_true(conf_now_ms() < sent);
    }
    assert_true(b.received >= before);
    before = b.received;
    for (unsigned i = 0; i < 100; i++) {
        (void)conf_end_send(&a, 10);
        conf_end_pump(&a);
        conf_end_pump(&b);
    }
    assert_int_equal(b.received, before);
    assert_int_equal(b.garbage, 0); /* it is no stranger */
    conf_close_pair(&a, &b);
}

static void test_malformed_record_is_garbage(void **state)
{
    struct tri_span span;
    struct conf_end a, b;

    conf_open_pair(state, &a, &b);
    if (!a.under_test->checks) {
        conf_close_pair(&a, &b);
        skip();
    }
    conf_end_connect(&a, &b);
    conf_end_send(&a, CONF_SMALL);
    assert_int_equal(a.transport->ops->reserve(a.channel, TRI_LANE_DATA,
                                               CONF_SMALL, &span),
                     0);
    memset(span.payload, 0, CONF_SMALL);
    *span.record = (struct tri_record){
        .kind = TRI_TELL, .bytes = CONF_SMALL, .total_bytes = CONF_SMALL,
        .reserved = 1
    };
    a.transport->ops->commit(a.channel);
    conf_wait(&a, &b, b.garbage > 0);
    assert_int_equal(b.received, 1);
    conf_close_pair(&a, &b);
}

static void test_nobody_there(void **state)
{
    struct tri_address address;
    struct conf_end a, b;
    struct tri_channel *channel;

    conf_open_pair(state, &a, &b);
    b.transport->ops->address(b.transport, &address);
    conf_end_close(&b);
    if (a.under_test->nobody)
        assert_int_equal(a.transport->ops->connect(a.transport, b.node,
                                                   &address, &a, &channel),
                         TROUPE_ENODE);
    conf_end_close(&a);
}

static void test_disconnect_with_data_left(void **state)
{
    struct conf_end a, b;
    uint64_t received;

    conf_open_pair(state, &a, &b);
    if (!a.under_test->reconnects) {
        conf_close_pair(&a, &b);
        skip();
    }
    b.may_lose = true;
    for (int round = 0; round < 3; round++) {
        conf_end_connect(&a, &b);
        for (int i = 0; i < 20; i++)
            assert_int_equal(conf_end_send(&a, 100), 0);
        a.transport->ops->disconnect(a.channel);
        a.channel = NULL;
    }
    conf_end_connect(&a, &b);
    received = b.received;
    assert_int_equal(conf_end_send(&a, CONF_SMALL), 0);
    conf_wait(&a, &b, conf_peer(&b, &a)->next[TRI_LANE_DATA] ==
                          a.sent[TRI_LANE_DATA]);
    assert_true(b.received > received);
    conf_close_pair(&a, &b);
}

static unsigned count_entries(const char *path)
{
    DIR *dir = opendir(path);
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void close_with_everything_open(void **state)
{
    struct conf_end a, b;

    conf_open_pair(state, &a, &b);
    conf_end_connect(&a, &b);
    conf_end_connect(&b, &a);
    conf_end_send(&b, CONF_SMALL);
    conf_wait(&a, &b, a.received == 1);
    for (int i = 0; i < 10; i++)
        conf_end_send(&a, a.transport->record_bytes_max);
    conf_close_pair(&a, &b);
}

#define FILES_MAX 512

/* The files in /dev/shm, which other programs of the machine share. */
struct files {
    char names[FILES_MAX][NAME_MAX + 1];
    unsigned len;
};

static bool has_file(const struct files *files, const char *name)
{
    for (unsigned i = 0; i < files->len; i++)
        if (strcmp(files->names[i], name) == 0)
            return true;
    return false;
}

/* Lists those that are (among) or are not (but) in other lists. */
static void list_files(struct files *files, const struct files *among,
                       const struct files *but)
{
    DIR *dir = opendir("/dev/shm");
    const struct dirent *entry;

    assert_non_null(dir);
    files->len = 0;
    while ((entry = readdir(dir)) && files->len < FILES_MAX)
        if ((!among || has_file(among, entry->d_name)) &&
            (!but || !has_file(but, entry->d_name)))
            snprintf(files->names[files->len++], NAME_MAX + 1, "%s",
                     entry->d_name);
    closedir(dir);
}

static void test_close_leaves_nothing(void **state)
{
    static struct files before, made, left;
    uint64_t end_ms;
    unsigned fds;

    close_with_everything_open(state); /* libraries keep some for good */
    fds = count_entries("/proc/self/fd");
    list_files(&before, NULL, NULL);
    for (int i = 0; i < 8; i++)
        close_with_everything_open(state);
    end_ms = conf_now_ms() + CONF_TIMEOUT_MS;
    /* Sockets may linger in a library's hands for a while: not eight. */
    while (count_entries("/proc/self/fd") > fds + 7 && conf_now_ms() < end_ms)
        sched_yield();
    assert_in_range(count_entries("/proc/self/fd"), 0, fds + 7);
    /* Files that are new may be others', and then vanish with them. */
    list_files(&made, NULL, &before);
    end_ms = conf_now_ms() + CONF_TIMEOUT_MS;
    do
        list_files(&left, &made, NULL);
    while (left.len >= 8 && conf_now_ms() < end_ms);
    assert_in_range(left.len, 0, 7);
}

/* ---- sleeping ---- */

struct sleeper {
    struct conf_end *end;
    _Atomic bool stop;
    _Atomic bool overslept;
    int epoll_fd;
};

static void add_fd(int epoll_fd, int fd)
{
    struct epoll_event event = { .events = EPOLLIN };

    if (fd >= 0)
        assert_int_equal(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), 0);
}

/* Sleeps as a driver does: nothing but bell and descriptors wakes it. */
static void *sleep_and_poll(void *arg)
{
    struct sleeper *sleeper = arg;
    struct conf_end *end = sleeper->end;
    const struct tri_transport_ops *ops = end->transport->ops;
    int wait_ms = ops->wait_fd(end->transport) == -2 ? 1 : CONF_TIMEOUT_MS / 2;
    struct epoll_event event;

    while (!atomic_load(&sleeper->stop)) {
        if (ops->control)
            ops->control(end->transport);
        if (ops->poll(end->transport, 64) > 0)
            continue;
        tri_bell_arm(&end->bell);
        if (!ops->pending(end->transport) &&
            epoll_wait(sleeper->epoll_fd, &event, 1, wait_ms) == 0 &&
            wait_ms > 1)
            atomic_store(&sleeper->overslept, true);
        tri_bell_disarm(&end->bell);
    }
    return NULL;
}

static void test_sleeper_is_woken(void **state)
{
    struct conf_end a, b;
    struct sleeper sleeper = { .end = &b };
    const struct tri_transport_ops *ops;
    pthread_t thread;

    if (!conf_under_test(state)->threads)
        skip();
    conf_open_pair(state, &a, &b);
    ops = a.transport->ops;
    sleeper.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    add_fd(sleeper.epoll_fd, b.bell.event_fd);
    add_fd(sleeper.epoll_fd, ops->wait_fd(b.transport));
    if (ops->control_fd)
        add_fd(sleeper.epoll_fd, ops->control_fd(b.transport));
    assert_int_equal(pthread_create(&thread, NULL, sleep_and_poll, &sleeper),
                     0);
    conf_end_connect(&a, &b);
    for (uint64_t i = 0; i < 300; i++) {
        if (i % 3 > 0) /* else: while it is on its way to sleep */
            conf_wait(&a, NULL, atomic_load(&b.bell.page->asleep));
        while (conf_end_send(&a, conf_size(&a, i)) != 0)
            conf_end_pump(&a);
        conf_wait(&a, NULL, b.received == i + 1);
    }
    atomic_store(&sleeper.stop, true);
    tri_bell_ring_always(&b.bell);
    pthread_join(thread, NULL);
    close(sleeper.epoll_fd);
    assert_false(sleeper.overslept);
    conf_close_pair(&a, &b);
}

/* The full side sleeps, and only the other side's reading can wake it. */
static void test_sleeper_is_woken_for_room(void **state)
{
    struct conf_end a, b;
    struct sleeper sleeper = { .end = &a };
    pthread_t thread;

    if (!conf_under_test(state)->threads)
        skip();
    conf_open_pair(state, &a, &b);
    conf_end_connect(&a, &b);
    assert_int_equal(conf_end_send(&a, CONF_SMALL), 0);
    conf_wait(&a, &b, b.received == 1);
    sleeper.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    add_fd(sleeper.epoll_fd, a.bell.event_fd);
    add_fd(sleeper.epoll_fd, a.transport->ops->wait_fd(a.transport));
    conf_end_fill(&a, 1500);
    a.writable = 0;
    assert_int_equal(pthread_create(&thread, NULL, sleep_and_poll, &sleeper),
                     0);
    while (!atomic_load(&a.bell.page->asleep) && a.writable == 0)
        sched_yield();
    conf_wait(&b, NULL, a.writable > 0);
    atomic_store(&sleeper.stop, true);
    tri_bell_ring_always(&a.bell);
    pthread_join(thread, NULL);
    close(sleeper.epoll_fd);
    assert_false(sleeper.overslept);
    conf_close_pair(&a, &b);
}

/* ---- all calls at once, as transport.h allows ---- */

#define THREADED_RECORDS 20000

struct driver {
    struct conf_end *end;
    const struct conf_end *other;
    _Atomic bool stop;
    bool starved; /* EFULL, and no writable after it */
    pthread_t poller, controller, sender;
};

static void *poll_on(void *arg)
{
    struct driver *driver = arg;
    struct conf_end *end = driver->end;

    while (!atomic_load(&driver->stop))
        if (end->transport->ops->poll(end->transport, 64) == 0)
            sched_yield();
    return NULL;
}

static void *control_on(void *arg)
{
    struct driver *driver = arg;
    struct tri_transport *transport = driver->end->transport;

    while (!atomic_load(&driver->stop)) {
        if (transport->ops->control)
            transport->ops->control(transport);
        usleep(1000);
    }
    return NULL;
}

static void flush(struct conf_end *end)
{
    if (end->transport->ops->flush)
        end->transport->ops->flush(end->channel);
}

static void *send_on(void *arg)
{
    struct driver *driver = arg;
    struct conf_end *end = driver->end;
    uint64_t until = conf_now_ms() + 3 * CONF_TIMEOUT_MS;

    while (end->sent[TRI_LANE_DATA] < THREADED_RECORDS && !driver->starved) {
        uint64_t writable = end->writable;

        if (conf_end_send(end, conf_size(end, end->sent[TRI_LANE_DATA])) == 0)
            continue;
        while (end->writable == writable && !driver->starved) {
            flush(end);
            sched_yield();
            driver->starved = conf_now_ms() > until;
        }
    }
    while (driver->other->received < THREADED_RECORDS &&
           conf_now_ms() < until) {
        flush(end);
        sched_yield();
    }
    return NULL;
}

static void drive(struct driver *driver, struct conf_end *end,
                  const struct conf_end *other)
{
    driver->end = end;
    driver->other = other;
    assert_int_equal(pthread_create(&driver->poller, NULL, poll_on, driver),
                     0);
    assert_int_equal(
        pthread_create(&driver->controller, NULL, control_on, driver), 0);
    assert_int_equal(pthread_create(&driver->sender, NULL, send_on, driver),
                     0);
}

static void park(struct driver *driver)
{
    atomic_store(&driver->stop, true);
    pthread_join(driver->poller, NULL);
    pthread_join(driver->controller, NULL);
}

static void test_threads_at_once(void **state)
{
    struct driver drive_a = { 0 }, drive_b = { 0 };
    struct conf_end a, b;

    if (!conf_under_test(state)->threads)
        skip();
    conf_open_pair(state, &a, &b);
    conf_end_connect(&a, &b);
    conf_end_connect(&b, &a);
    drive(&drive_a, &a, &b);
    drive(&drive_b, &b, &a);
    pthread_join(drive_a.sender, NULL);
    pthread_join(drive_b.sender, NULL);
    /* While the other threads go on. */
    a.transport->ops->disconnect(a.channel);
    b.transport->ops->disconnect(b.channel);
    park(&drive_a);
    park(&drive_b);
    assert_false(drive_a.starved);
    assert_false(drive_b.starved);
    assert_int_equal(a.received, THREADED_RECORDS);
    assert_int_equal(b.received, THREADED_RECORDS);
    a.channel = NULL;
    b.channel = NULL;
    conf_close_pair(&a, &b);
}

/* ---- two processes ---- */

#define LAST_WORDS 500

/* The child: says its last words and waits to be killed. */
static _Noreturn void victim(const struct conf_transport *transport, int in,
                             int out)
{
    struct conf_contact contact;
    struct conf_end end;
    char done = 1;

    alarm(CONF_WATCHDOG_S);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    conf_end_open(&end, transport, CONF_NONCE);
    conf_tell(out, &end);
    contact = conf_hear(in);
    conf_end_dial(&end, &contact);
    while (end.sent[TRI_LANE_DATA] < LAST_WORDS)
        if (conf_end_send(&end, end.sent[TRI_LANE_DATA] % 32) != 0)
            conf_end_pump(&end);
    /* Where sending takes pumping, the parent's first receipt ends it. */
    while (!transport->proof && end.received == 0)
        conf_end_pump(&end);
    if (write(out, &done, 1) == 1)
        for (;;)
            pause();
    _exit(1);
}

static pid_t start_victim(const struct conf_transport *transport, int *in_p,
                          int *out_p)
{
    int up[2], down[2];
    pid_t pid;

    assert_int_equal(pipe(up), 0);
    assert_int_equal(pipe(down), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        victim(transport, down[0], up[1]);
    close(up[1]);
    close(down[0]);
    *in_p = up[0];
    *out_p = down[1];
    return pid;
}

static void kill_victim(pid_t pid)
{
    int status;

    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

/* Sending to the dead may succeed or fail, but it returns. */
static void send_to_the_dead(struct conf_end *end)
{
    uint64_t until = conf_now_ms() + CONF_TIMEOUT_MS;

    for (int i = 0; i < 1000; i++) {
        int error = conf_end_send(end, 1000);

        assert_true(!end->under_test->proof || error == TROUPE_ENODE);
        conf_end_pump(end);
    }
    assert_true(conf_now_ms() < until);
}

static void test_peer_is_killed(void **state)
{
    const struct conf_transport *transport = conf_under_test(state);
    struct conf_contact contact;
    struct conf_end end;
    char done;
    int in, out;
    pid_t pid;

    if (!transport->forks)
        skip();
    pid = start_victim(transport, &in, &out);
    conf_end_open(&end, transport, CONF_NONCE);
    conf_tell(out, &end);
    contact = conf_hear(in);
    conf_end_dial(&end, &contact);
    conf_wait(&end, NULL, end.received > 0);
    assert_int_equal(conf_end_send(&end, CONF_SMALL), 0);
    if (transport->proof)
        assert_int_equal(read(in, &done, 1), 1);
    else
        conf_wait(&end, NULL, end.received == LAST_WORDS);
    kill_victim(pid);
    if (transport->proof)
        conf_wait(&end, NULL, end.proofs > 0 && end.received == LAST_WORDS);
    send_to_the_dead(&end);
    close(in);
    close(out);
    conf_end_close(&end);
}

/* It dies while its first call still waits to be answered. */
static void test_caller_is_killed_before_the_answer(void **state)
{
    const struct conf_transport *transport = conf_under_test(state);
    struct conf_contact contact;
    struct conf_end end;
    char done;
    int in, out;
    pid_t pid;

    if (!transport->forks || !transport->proof)
        skip();
    pid = start_victim(transport, &in, &out);
    conf_end_open(&end, transport, CONF_NONCE);
    conf_tell(out, &end);
    contact = conf_hear(in);
    assert_int_equal(read(in, &done, 1), 1);
    kill_victim(pid);
    conf_wait(&end, NULL, end.proofs > 0 && end.received == LAST_WORDS);
    assert_int_equal(end.lost_node, contact.node);
    close(in);
    close(out);
    conf_end_close(&end);
}

#define TEST(name) cmocka_unit_test_prestate(test_##name, shared)

int conf_run(const struct conf_transport *transport)
{
    static struct conf_transport copy;
    void *shared = &copy;
    const struct CMUnitTest tests[] = {
        TEST(delivers_one),
        TEST(writes_before_the_connection_stands),
        TEST(crossing_connects),
        TEST(keeps_order_and_bytes),
        TEST(full_then_writable),
        TEST(unread_gets_zero),
        TEST(stranger_is_refused),
        TEST(stranger_becomes_known),
        TEST(stranger_is_left_alone),
        TEST(living_dead_is_let_go),
        TEST(malformed_record_is_garbage),
        TEST(nobody_there),
        TEST(disconnect_with_data_left),
        TEST(sleeper_is_woken),
        TEST(sleeper_is_woken_for_room),
        TEST(threads_at_once),
        TEST(peer_is_killed),
        TEST(caller_is_killed_before_the_answer),
        TEST(close_leaves_nothing),
    };

    copy = *transport;
    return cmocka_run_group_tests_name(transport->ops->name, tests, NULL,
                                       NULL) +
           conf_run_lanes(&copy) + conf_run_gone(&copy);
}
