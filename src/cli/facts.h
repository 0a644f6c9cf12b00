/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CLI_FACTS_H
#define TRI_CLI_FACTS_H

/* What a job's report (node/report.h) says of its nodes, as it grows. */

#include <sys/types.h>

#include "base/base.h"

#define FACTS_NODES_MAX 4096u
#define FACTS_ENDPOINT_BYTES 64

struct fact_node {
    uint64_t id;
    int rank, size;   /* rank -1: it joined by itself, without mpirun */
    int here;         /* ranks on this machine, of `size` */
    pid_t pid;        /* 0: of another machine, or it never came to run */
    uint64_t started; /* of the process, as /proc tells it */
    char endpoint[FACTS_ENDPOINT_BYTES]; /* "": none */
    bool stopped;     /* it called troupe_stop, */
    int stop_rc;      /* which returned this */
    bool exited;      /* the process called exit */
    int exit_status;
    bool found_dead;  /* by another node */
    bool excluded;    /* it is held for dead, and knows it */
    bool counted;     /* the reader's own use, as is: */
    bool was_cut;     /* it ran when the launcher ended the job */
};

struct facts {
    int fd;
    uint32_t len;
    bool is_full; /* there were more */
    struct fact_node *nodes; /* in the order in which they started */
    char rest[512];          /* of a line that is not complete yet */
    size_t rest_len;
};

/* Errors: a text, or NULL. The file is made if it is not there. */
const char *facts_open(struct facts *facts, const char *path);
void facts_close(struct facts *facts);

/* Reads what is new. Lines that make no sense are passed over. */
void facts_read(struct facts *facts);

/* Its process, as the report named it, is there (and no other by its pid). */
bool facts_is_running(const struct fact_node *node);

/* It said how it ended. */
static inline bool facts_has_ended(const struct fact_node *node)
{
    return node->exited;
}

/* It ended as a good process does. */
static inline bool facts_is_good(const struct fact_node *node)
{
    return node->stopped && node->stop_rc == 0 && !node->excluded &&
           node->exited && node->exit_status == 0;
}

#endif
