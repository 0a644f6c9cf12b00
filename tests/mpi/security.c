/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Options security, key_file, port_range and listen: which starts are good, and
 * that a bad one fails on all ranks, with the same error and without a wait. The same
 * processes start again and again.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/udp.h"
#include "test.h"

#define echo_messages(TELL, ASK)                                               \
    ASK(echo, back, (uint64_t value;), (uint64_t value;))
TROUPE_PROTOCOL(echo)

struct echo {
    int unused;
};

static int on_back(troupe_self_t *self, struct echo *e, const echo_back_t *m)
{
    (void)e;
    return echo_back_reply(self, (echo_back_result_t){ m->value });
}

TROUPE_ACTOR(echo, struct echo, .back = on_back)

static int size;
static char folder[64], good_file[96], open_file[96], absent_file[96];

/* Every rank asks every other. */
static void exchange(troupe_t *troupe)
{
    char address[TEST_ADDRESS_BYTES];
    echo_back_result_t result;
    echo_ref_t echo;

    MUST(echo_spawn(troupe, "echo", NULL, &echo));
    for (int i = 0; i < size; i++) {
        uint64_t value = (uint64_t)(100 * test_rank + i);

        MUST(echo_resolve(troupe, test_address(address, i, "echo"),
                          TEST_SOON_MS, &echo));
        MUST(echo_back(troupe, echo, (echo_back_t){ value }, TEST_SOON_MS,
                       &result));
        CHECK_EQ((long long)result.value, (long long)value);
    }
}

/* wanted: what all ranks' start returns. */
static void start(const troupe_options_t *options, int wanted,
                  const char *transport)
{
    troupe_options_t copy = *options;
    troupe_t *troupe = NULL;
    int rc;

    copy.transport = transport;
    rc = troupe_start(&troupe, &copy);
    CHECK_EQ(rc, wanted);
    if (rc != 0) {
        CHECK(troupe == NULL);
        return;
    }
    exchange(troupe);
    if (test_has_workers(troupe))
        MPI_Barrier(MPI_COMM_WORLD);
    MUST(troupe_stop(&troupe));
}

static void check_modes(void)
{
    static const char *const modes[] = { "none", "auth", "encrypt" };
    troupe_options_t options;

    troupe_options_init(&options);
    for (int i = 0; i < 3; i++) {
        options.security = modes[i];
        start(&options, 0, "fabric");
    }
    start(&options, 0, "ring");
}

/* Rank 0's file counts, and no other's. */
static void check_key_files(void)
{
    troupe_options_t options;

    troupe_options_init(&options);
    options.key_file = test_rank == 0 ? good_file : absent_file;
    start(&options, 0, "fabric");
    options.key_file = test_rank == 0 ? good_file : NULL;
    options.security = "encrypt";
    start(&options, 0, "fabric");
    options.key_file = test_rank == 0 ? absent_file : good_file;
    start(&options, TROUPE_EOPTION, "fabric");
    options.key_file = open_file;
    start(&options, TROUPE_EOPTION, "fabric");
    start(&options, TROUPE_EOPTION, "ring"); /* also where it is not needed */
    options.security = "none";
    start(&options, 0, "fabric");
}

static void check_disagreement(void)
{
    troupe_options_t options;

    troupe_options_init(&options);
    options.security = test_rank == 1 ? "none" : "auth";
    start(&options, TROUPE_EOPTION, "fabric");
    options.security = test_rank == 0 ? "encrypt" : "auth";
    start(&options, TROUPE_EOPTION, "fabric");
    troupe_options_init(&options);
    options.port_range = test_rank == 2 ? "7000-6000" : NULL;
    start(&options, TROUPE_EOPTION, "fabric");
    troupe_options_init(&options);
    start(&options, 0, "fabric"); /* nothing was left behind */
}

/* Others may come in, by one rank alone: it takes the port, wherever it stands
 * among the ranks of the host; what rank 0 reads for all must be there. */
static void check_one_door(void)
{
    char listen[16], text[TROUPE_ENDPOINT_MAX] = "";
    struct tri_endpoint any = { .family = 4, .ip = { 127, 0, 0, 1 } };
    struct tri_udp free_port = { .fd = -1 };
    troupe_options_t options;
    troupe_t *troupe = NULL;

    troupe_options_init(&options);
    if (test_rank == 1) {
        MUST(tri_udp_open(&free_port, &any, 0, 0));
        snprintf(listen, sizeof(listen), "%u", free_port.own.port);
        options.listen = listen;
        tri_udp_close(&free_port);
    }
    start(&options, TROUPE_EOPTION, "auto"); /* rank 0 has no key */
    options.key_file = test_rank == 1 ? good_file : NULL;
    start(&options, TROUPE_EOPTION, "auto");
    options.key_file = test_rank == 0 ? good_file : NULL;
    MUST(troupe_start(&troupe, &options));
    MUST(troupe_endpoint(troupe, text, sizeof(text)));
    if (test_rank == 1)
        CHECK(strcmp(strrchr(text, ':') + 1, listen) == 0);
    exchange(troupe);
    MPI_Barrier(MPI_COMM_WORLD);
    MUST(troupe_stop(&troupe));
    options.listen = NULL;
    options.seeds = test_rank == 1 ? "127.0.0.1:9" : NULL;
    start(&options, TROUPE_EOPTION, "auto");
}

static void write_file(const char *path, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

    CHECK(fd >= 0);
    for (int i = 0; i < 16; i++)
        CHECK_EQ(write(fd, "0a1B", 4), 4);
    CHECK_EQ(fchmod(fd, mode), 0);
    close(fd);
}

static void make_files(void)
{
    if (test_rank == 0) {
        strcpy(folder, "/tmp/troupe-test-security-XXXXXX");
        if (mkdtemp(folder) == NULL)
            MUST(TROUPE_ESYSTEM);
    }
    MPI_Bcast(folder, sizeof(folder), MPI_CHAR, 0, MPI_COMM_WORLD);
    snprintf(good_file, sizeof(good_file), "%s/good", folder);
    snprintf(open_file, sizeof(open_file), "%s/open", folder);
    snprintf(absent_file, sizeof(absent_file), "%s/absent", folder);
    if (test_rank == 0) {
        write_file(good_file, 0400);
        write_file(open_file, 0640);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

static void remove_files(void)
{
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank != 0)
        return;
    unlink(good_file);
    unlink(open_file);
    CHECK_EQ(rmdir(folder), 0);
}

int main(void)
{
    int level;

    /* They would overrule what is tried here. */
    unsetenv("TROUPE_TRANSPORT");
    unsetenv("TROUPE_SECURITY");
    unsetenv("TROUPE_KEY_FILE");
    unsetenv("TROUPE_PORT_RANGE");
    unsetenv("TROUPE_LISTEN");
    unsetenv("TROUPE_SEEDS");
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    make_files();
    check_modes();
    check_key_files();
    check_disagreement();
    check_one_door();
    remove_files();
    MPI_Finalize();
    return test_status();
}
