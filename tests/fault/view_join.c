/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Processes that are no ranks join a group, one after the other; one is killed,
 * and another one takes its place. All that are in the group have the same
 * view, digest by digest. A strictly unique name has one holder among them, and
 * another one when that one was killed.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "puppet.h"

enum { PUPPETS = 4, SOON_MS = 30000 };

static struct puppet puppets[PUPPETS + 1];

/* All but `dead` say the same, of so many members. */
static void agree(int count, int dead, int len)
{
    char first[128] = "";

    for (int i = 0; i < count; i++) {
        const char *said;

        if (i == dead)
            continue;
        said = puppet_say(&puppets[i], "view %d %d", len, SOON_MS);
        if (strncmp(said, "ok", 2) != 0)
            puppet_fail("puppet %d: %s, not %d members", i, said, len);
        if (first[0] == '\0')
            snprintf(first, sizeof(first), "%s", said);
        else if (strcmp(first, said) != 0)
            puppet_fail("puppet %d: %s, others: %s", i, said, first);
    }
    printf("%d members: %s\n", len, first);
}

static void join(int i, int alive)
{
    puppet_spawn(&puppets[i]);
    puppet_start(&puppets[i],
                 "key_file=%s listen=%u seeds=%s membership=fast "
                 "strict_names=1",
                 puppet_key_file(0), puppet_free_port(),
                 puppets[i > 1 ? 1 : 0].endpoint);
    puppet_must(&puppets[i], "ok", "alive %d %d", alive, SOON_MS);
    puppet_must(&puppets[i], "ok", "group join");
    puppet_must(&puppets[i], "TROUPE_EEXIST", "claim the/crown");
    puppet_must(&puppets[i], "ok", "claim of/%d", i);
}

int main(int argc, char **argv)
{
    puppet_main(argc, argv);
    puppet_spawn(&puppets[0]);
    puppet_start(&puppets[0],
                 "key_file=%s listen=%u membership=fast strict_names=1",
                 puppet_key_file(0), puppet_free_port());
    puppet_must(&puppets[0], "ok", "claim the/crown");
    puppet_must(&puppets[0], "ok", "group create");
    agree(1, -1, 1);
    for (int i = 1; i < PUPPETS; i++) {
        join(i, i + 1);
        agree(i + 1, -1, i + 1);
    }
    /* the first member, which leads */
    puppet_kill(&puppets[0], SIGKILL);
    puppet_must(&puppets[2], "ok", "claim the/crown");
    puppet_must(&puppets[3], "TROUPE_EEXIST", "claim the/crown");
    agree(PUPPETS, 0, PUPPETS - 1);
    join(PUPPETS, PUPPETS);
    agree(PUPPETS + 1, 0, PUPPETS);
    for (int i = 1; i <= PUPPETS; i++)
        puppet_end(&puppets[i]);
    return 0;
}
