/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/facts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/process.h"

const char *facts_open(struct facts *facts, const char *path)
{
    memset(facts, 0, sizeof(*facts));
    facts->nodes = calloc(FACTS_NODES_MAX, sizeof(*facts->nodes));
    if (facts->nodes == NULL)
        return "no memory";
    facts->fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    return facts->fd < 0 ? strerror(errno) : NULL;
}

void facts_close(struct facts *facts)
{
    if (facts->fd >= 0)
        close(facts->fd);
    free(facts->nodes);
    facts->nodes = NULL;
}

static struct fact_node *find(struct facts *facts, uint64_t id)
{
    for (uint32_t i = 0; i < facts->len; i++)
        if (facts->nodes[i].id == id)
            return &facts->nodes[i];
    return NULL;
}

static struct fact_node *find_or_add(struct facts *facts, uint64_t id)
{
    struct fact_node *node = find(facts, id);

    if (node != NULL)
        return node;
    if (facts->len == FACTS_NODES_MAX) {
        facts->is_full = true;
        return NULL;
    }
    node = &facts->nodes[facts->len++];
    node->id = id;
    node->rank = -1;
    return node;
}

/* A process that stops a node and starts another has one that exits. */
static void supersede(struct facts *facts, const struct fact_node *newer)
{
    for (uint32_t i = 0; i < facts->len; i++) {
        struct fact_node *node = &facts->nodes[i];

        if (node != newer && node->stopped && !node->exited &&
            node->pid == newer->pid && node->started == newer->started)
            node->exited = true;
    }
}

static void take_node(struct facts *facts, const char *line)
{
    struct fact_node seen = { 0 }, *node;

    if (sscanf(line,
               "node %" SCNx64 " rank %d size %d here %d pid %d started %" SCNu64
               " endpoint %63s",
               &seen.id, &seen.rank, &seen.size, &seen.here, &seen.pid,
               &seen.started, seen.endpoint) != 7)
        return;
    if (strcmp(seen.endpoint, "-") == 0)
        seen.endpoint[0] = '\0';
    node = find_or_add(facts, seen.id);
    if (node != NULL && node->pid == 0) {
        seen.found_dead = node->found_dead;
        *node = seen;
        supersede(facts, node);
    }
}

static void take_line(struct facts *facts, const char *line)
{
    struct fact_node *node;
    uint64_t id;
    char what[16];
    int value = 0, rank = -1;

    if (sscanf(line, "%15s %" SCNx64 " %d rank %d", what, &id, &value,
               &rank) < 2)
        return;
    if (strcmp(what, "node") == 0) {
        take_node(facts, line);
        return;
    }
    node = find_or_add(facts, id);
    if (node == NULL)
        return;
    if (strcmp(what, "dead") == 0) {
        node->found_dead = true;
    } else if (strcmp(what, "excluded") == 0) {
        node->excluded = true;
    } else if (strcmp(what, "stop") == 0) {
        node->stopped = true;
        node->stop_rc = value;
    } else if (strcmp(what, "exit") == 0) {
        node->exited = true;
        node->exit_status = value;
        if (node->pid == 0)
            node->rank = rank;
    }
}

void facts_read(struct facts *facts)
{
    ssize_t got;

    while ((got = read(facts->fd, facts->rest + facts->rest_len,
                       sizeof(facts->rest) - 1 - facts->rest_len)) > 0) {
        char *line = facts->rest, *end;

        facts->rest_len += (size_t)got;
        facts->rest[facts->rest_len] = '\0';
        while ((end = strchr(line, '\n')) != NULL) {
            *end = '\0';
            take_line(facts, line);
            line = end + 1;
        }
        facts->rest_len -= (size_t)(line - facts->rest);
        memmove(facts->rest, line, facts->rest_len);
        if (facts->rest_len == sizeof(facts->rest) - 1)
            facts->rest_len = 0; /* no line is so long */
    }
}

bool facts_is_running(const struct fact_node *node)
{
    return node->pid > 0 && tri_process_runs(node->pid, node->started);
}
