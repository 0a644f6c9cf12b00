/* SPDX-License-Identifier: BSD-3-Clause */
/* What is seen of other processes of the host. */
#include "unit.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "os/process.h"
#include "os/thread.h"

#define NAME "test-process"
#define SOON_NS (60000 * TRI_NS_PER_MS)

static atomic_bool over;
static sem_t never;

static void *spin(void *arg)
{
    while (!atomic_load(&over))
        tri_cpu_relax();
    return arg;
}

static void *sleep_on(void *arg)
{
    while (sem_wait(&never) != 0)
        ;
    return arg;
}

/* It gets there some time. */
static void expect(pid_t pid, const char *thread, enum tri_process_state state)
{
    uint64_t end_ns = tri_now_ns() + SOON_NS;
    enum tri_process_state is;

    while ((is = tri_process_state(pid, thread)) != state &&
           tri_now_ns() < end_ns)
        usleep(100);
    assert_int_equal(is, state); /* a look later it may be another */
}

static void test_state(void **state)
{
    pthread_t thread;

    (void)state;
    assert_int_equal(tri_process_state(getpid(), NAME), TRI_PROCESS_UNKNOWN);
    assert_int_equal(tri_thread_create(&thread, NAME, spin, NULL), 0);
    expect(getpid(), NAME, TRI_PROCESS_WAITS);
    assert_int_equal(tri_process_state(getpid(), "test-proces"),
                     TRI_PROCESS_UNKNOWN);
    assert_int_equal(tri_process_state(getpid(), "est-process"),
                     TRI_PROCESS_UNKNOWN);
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    sem_init(&never, 0, 0);
    assert_int_equal(tri_thread_create(&thread, NAME, sleep_on, NULL), 0);
    expect(getpid(), NAME, TRI_PROCESS_SLEEPS);
    sem_post(&never);
    pthread_join(thread, NULL);
    sem_destroy(&never);
}

static void test_stopped(void **state)
{
    char name[16] = "";
    pid_t child;
    int status;

    (void)state;
    assert_int_equal(prctl(PR_GET_NAME, name), 0);
    child = fork();
    if (child == 0)
        for (;;)
            pause();
    assert_true(child > 0);
    assert_int_equal(kill(child, SIGSTOP), 0);
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status));
    expect(child, name, TRI_PROCESS_STOPPED);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(tri_process_state(child, name),
                     TRI_PROCESS_UNKNOWN);
}

/* Its number is not free before somebody waits for it. */
static void test_ended(void **state)
{
    siginfo_t info;
    uint64_t started;
    pid_t child = fork();

    (void)state;
    if (child == 0)
        for (;;)
            pause();
    assert_true(child > 0);
    started = tri_process_started(child);
    assert_true(started > 0);
    assert_true(tri_process_runs(child, started));
    assert_false(tri_process_runs(child, started + 1));
    kill(child, SIGKILL);
    assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(tri_process_started(child), started);
    assert_false(tri_process_runs(child, started));
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_false(tri_process_runs(child, started));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_ended),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
