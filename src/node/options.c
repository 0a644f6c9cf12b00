/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/options.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "actor/mailbox.h"
#include "actor/scheduler.h"
#include "base/log.h"

enum kind { KIND_INT, KIND_U32, KIND_SIZE, KIND_TEXT, KIND_PORTS };

/* The one table: everything about options is derived from it. */
static const struct option {
    const char *name;
    enum kind kind;
    size_t offset;
    int64_t min, max;     /* numbers */
    const char *allowed;  /* texts: "a|b|c"; NULL: any. Ports: for the reader */
    const char *initial;
    const char *help;
} options_table[] = {
#define AT(field) offsetof(troupe_options_t, field)
    { "workers", KIND_INT, AT(workers), -1, TRI_WORKERS_MAX, NULL, "-1",
      "worker threads; -1: a fair share of the cores bound to, 0: none" },
    { "transport", KIND_TEXT, AT(transport), 0, 0, "auto|ring|fabric", "auto",
      "between ranks; auto: rings on a host, else fabric" },
    { "provider", KIND_TEXT, AT(provider), 0, 0, NULL, "tcp;ofi_rxm",
      "libfabric provider" },
    { "interface", KIND_TEXT, AT(interface), 0, 0, NULL, NULL,
      "interface name or address for the fabric" },
    { "port_range", KIND_PORTS, AT(port_range), 0, 0,
      "first-last, 1 to 65535", NULL, "ports that the fabric may listen on" },
    { "security", KIND_TEXT, AT(security), 0, 0, "none|auth|encrypt", "auth",
      "of frames on a network: authenticated, and encrypted; not on a host" },
    { "key_file", KIND_TEXT, AT(key_file), 0, 0, NULL, NULL,
      "the job's key, 64 hexadecimal digits, read by rank 0; none: random" },
    { "cma", KIND_TEXT, AT(cma), 0, 0, "auto|on|off", "auto",
      "large messages of a host read from the sender's memory; auto: where "
      "that is faster" },
    { "spin_us", KIND_INT, AT(spin_us), -1, 1000000, NULL, "-1",
      "polling before sleeping; -1: by the number of ranks and cores" },
    { "mailbox_len_max", KIND_U32, AT(mailbox_len_max), 1, TRI_MAILBOX_LEN_MAX,
      NULL, "1024", "messages in a mailbox" },
    { "actors_max", KIND_U32, AT(actors_max), 1, 1 << 28, NULL, "16777216",
      "actors alive at once" },
    { "dead_letters_max", KIND_U32, AT(dead_letters_max), 0, 1 << 20, NULL,
      "1024", "dead letters kept" },
    { "asks_max", KIND_U32, AT(asks_max), 1, 1 << 24, NULL, "65536",
      "asks pending at once" },
    { "monitors_max", KIND_U32, AT(monitors_max), 1, 1 << 24, NULL, "65536",
      "monitors and links of this node's actors, and on them" },
    { "message_bytes_max", KIND_SIZE, AT(message_bytes_max), 64, 1ll << 31,
      NULL, "268435456", "one message" },
    { "memory_bytes_max", KIND_SIZE, AT(memory_bytes_max), 1 << 20,
      INT64_MAX, NULL, "4294967296", "all messages of a node" },
    { "outbox_bytes_max", KIND_SIZE, AT(outbox_bytes_max), 4096, INT64_MAX,
      NULL, "4194304", "messages waiting for one peer" },
    { "parked_bytes_max", KIND_SIZE, AT(parked_bytes_max), 4096, INT64_MAX,
      NULL, "1048576", "messages of one peer kept for full mailboxes" },
    { "nodes_max", KIND_U32, AT(nodes_max), 2, 16384, NULL, "1024",
      "nodes known at once: ranks, and those that join; never less than ranks" },
    { "names_max", KIND_U32, AT(names_max), 16, 4194304, NULL, "65536",
      "names of actors in the whole cluster, those just withdrawn included" },
    { "strict_names", KIND_U32, AT(strict_names), 0, 1, NULL, "0",
      "1: names can be unique at any time; the same on all nodes" },
    { "send_timeout_ms", KIND_U32, AT(send_timeout_ms), 0, INT32_MAX, NULL,
      "10000", "until a thread that finds no room gives up; 0: at once" },
    { "ask_timeout_ms", KIND_U32, AT(ask_timeout_ms), 1, INT32_MAX, NULL,
      "30000", "deadline of an ask that gives none" },
    { "stop_timeout_ms", KIND_U32, AT(stop_timeout_ms), 1, INT32_MAX, NULL,
      "5000", "until troupe_stop gives up waiting" },
    { "seeds", KIND_TEXT, AT(seeds), 0, 0, NULL, NULL,
      "members to join, host:port,host:port" },
    { "listen", KIND_TEXT, AT(listen), 0, 0, NULL, NULL,
      "port, or address:port, where processes outside the job can join" },
    { "cluster", KIND_TEXT, AT(cluster), 0, 0, NULL, NULL,
      "name of the cluster; the same in all that join" },
    { "node_name", KIND_TEXT, AT(node_name), 0, 0, NULL, NULL,
      "this node's name for others" },
    { "membership", KIND_TEXT, AT(membership), 0, 0, "hpc|fast|cloud|test",
      "hpc", "how soon silence counts as death" },
    { "join_timeout_ms", KIND_U32, AT(join_timeout_ms), 1, INT32_MAX, NULL,
      "60000", "until no seed is waited for any more" },
    { "mpi", KIND_TEXT, AT(mpi), 0, 0, "auto|off", "auto",
      "off: MPI is left alone, even under mpirun" },
    { "mpi_watchdog_ms", KIND_U32, AT(mpi_watchdog_ms), 0, INT32_MAX, NULL,
      "10000", "until a call into MPI that a death has left hanging ends the "
      "process; 0: never" },
    { "report", KIND_TEXT, AT(report), 0, 0, NULL, NULL,
      "file to which what becomes of the job's nodes is appended" },
    { "growable", KIND_U32, AT(growable), 0, 1, NULL, "0",
      "1: the job can start more nodes (troupe_spawn_nodes)" },
    { "log", KIND_TEXT, AT(log), 0, 0, "error|warn|info|debug", "warn",
      "what is logged to stderr" },
#undef AT
};

#define VARIABLE_PREFIX "TROUPE_"
#define TEST_PREFIX VARIABLE_PREFIX "TEST_"
#define VARIABLE_BYTES_MAX 64

static void variable_of(const struct option *option,
                        char name[VARIABLE_BYTES_MAX])
{
    size_t i = strlen(VARIABLE_PREFIX);

    memcpy(name, VARIABLE_PREFIX, i);
    for (const char *c = option->name; *c != '\0'; c++)
        name[i++] = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    name[i] = '\0';
}

static void *field_of(troupe_options_t *options, const struct option *option)
{
    return (char *)options + option->offset;
}

static bool is_text(const struct option *option)
{
    return option->kind == KIND_TEXT || option->kind == KIND_PORTS;
}

static int64_t get_number(troupe_options_t *options,
                          const struct option *option)
{
    switch (option->kind) {
    case KIND_INT:
        return *(int *)field_of(options, option);
    case KIND_U32:
        return *(uint32_t *)field_of(options, option);
    default:
        return (int64_t)tri_min(*(size_t *)field_of(options, option),
                                INT64_MAX);
    }
}

static void set_number(troupe_options_t *options, const struct option *option,
                       int64_t value)
{
    switch (option->kind) {
    case KIND_INT:
        *(int *)field_of(options, option) = (int)value;
        break;
    case KIND_U32:
        *(uint32_t *)field_of(options, option) = (uint32_t)value;
        break;
    default:
        *(size_t *)field_of(options, option) = (size_t)value;
    }
}

/* "4096", "64K", "16M", "1G" (powers of 1024). False: not a number. */
static bool parse_number(const char *text, int64_t *value_p)
{
    static const char suffixes[] = "KMG";
    const char *suffix;
    char *end;
    int64_t value;
    int shift = 0;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (end == text || errno != 0)
        return false;
    if (*end != '\0') {
        suffix = strchr(suffixes, *end);
        if (suffix == NULL || end[1] != '\0' || value < 0)
            return false;
        shift = 10 * (int)(suffix - suffixes + 1);
        if (value > INT64_MAX >> shift)
            return false;
    }
    *value_p = value * (1ll << shift);
    return true;
}

static int refuse(const struct option *option, const char *value)
{
    char name[VARIABLE_BYTES_MAX];

    variable_of(option, name);
    if (is_text(option))
        tri_error("option %s (%s) is \"%s\"; allowed: %s", option->name, name,
                  value, option->allowed);
    else
        tri_error("option %s (%s) is \"%s\"; allowed: %lld to %lld",
                  option->name, name, value, (long long)option->min,
                  (long long)option->max);
    return TROUPE_EOPTION;
}

/* A port's digits up to `end`; *text_p is left behind it. */
static bool parse_port(const char **text_p, char end, uint16_t *port_p)
{
    uint32_t port = 0;
    const char *c = *text_p;

    while (*c >= '0' && *c <= '9' && port <= UINT16_MAX)
        port = port * 10 + (uint32_t)(*c++ - '0');
    if (*c != end || port == 0 || port > UINT16_MAX)
        return false;
    *text_p = c + 1;
    *port_p = (uint16_t)port;
    return true;
}

bool tri_options_ports(const char *text, uint16_t *first_p, uint16_t *last_p)
{
    uint16_t first = 0, last = 0;

    if (text != NULL && (!parse_port(&text, '-', &first) ||
                         !parse_port(&text, '\0', &last) || first > last))
        return false;
    *first_p = first;
    *last_p = last;
    return true;
}

static bool is_allowed(const struct option *option, const char *value)
{
    const char *allowed = option->allowed;
    size_t len = strlen(value);
    uint16_t first, last;

    if (option->kind == KIND_PORTS)
        return tri_options_ports(value, &first, &last);
    if (allowed == NULL)
        return true;
    for (;;) {
        const char *end = strchrnul(allowed, '|');

        if ((size_t)(end - allowed) == len && memcmp(allowed, value, len) == 0)
            return true;
        if (*end == '\0')
            return false;
        allowed = end + 1;
    }
}

static int check_text(troupe_options_t *options, const struct option *option,
                      const char *value)
{
    const char **field = field_of(options, option);
    char *copy = NULL;

    if (value != NULL && !is_allowed(option, value))
        return refuse(option, value);
    if (value != NULL && (copy = strdup(value)) == NULL)
        return TROUPE_ENOMEM;
    *field = copy;
    return 0;
}

static int resolve_one(troupe_options_t *options, const struct option *option)
{
    char name[VARIABLE_BYTES_MAX];
    char shown[32];
    const char *value;
    int64_t number;

    variable_of(option, name);
    value = getenv(name);
    if (is_text(option))
        return check_text(options, option,
                          value != NULL
                              ? value
                              : *(const char **)field_of(options, option));
    if (value != NULL && !parse_number(value, &number))
        return refuse(option, value);
    if (value == NULL)
        number = get_number(options, option);
    if (number < option->min || number > option->max) {
        snprintf(shown, sizeof(shown), "%lld", (long long)number);
        return refuse(option, value != NULL ? value : shown);
    }
    set_number(options, option, number);
    return 0;
}

/* A misspelt variable would otherwise do nothing, in silence. The tests' own
 * go past ranks, too. */
static void warn_of_unknown_variables(void)
{
    extern char **environ;

    for (char **entry = environ; *entry != NULL; entry++) {
        size_t len = strcspn(*entry, "=");
        bool known = false;

        if (strncmp(*entry, VARIABLE_PREFIX, strlen(VARIABLE_PREFIX)) != 0)
            continue;
        if (strncmp(*entry, TEST_PREFIX, strlen(TEST_PREFIX)) == 0)
            continue;
        for (size_t i = 0; i < tri_array_len(options_table); i++) {
            char name[VARIABLE_BYTES_MAX];

            variable_of(&options_table[i], name);
            known |= strlen(name) == len && memcmp(name, *entry, len) == 0;
        }
        if (!known)
            tri_warn("there is no option %.*s", (int)len, *entry);
    }
}

int tri_options_resolve(troupe_options_t *options)
{
    int first_rc = 0;

    /* All texts become copies before anything can return early. */
    for (size_t i = 0; i < tri_array_len(options_table); i++) {
        int rc = resolve_one(options, &options_table[i]);

        if (rc != 0 && is_text(&options_table[i]))
            *(const char **)field_of(options, &options_table[i]) = NULL;
        if (first_rc == 0)
            first_rc = rc;
    }
    if (first_rc != 0)
        tri_options_fini(options);
    else
        warn_of_unknown_variables();
    return first_rc;
}

bool tri_options_want_mpi(const troupe_options_t *options)
{
    const char *value = getenv(VARIABLE_PREFIX "MPI");

    if (value == NULL && options != NULL)
        value = options->mpi;
    return value == NULL || strcmp(value, "off") != 0;
}

void tri_options_fini(troupe_options_t *options)
{
    for (size_t i = 0; i < tri_array_len(options_table); i++) {
        const char **field = field_of(options, &options_table[i]);

        if (!is_text(&options_table[i]))
            continue;
        free((char *)(uintptr_t)*field);
        *field = NULL;
    }
}

void troupe_options_init(troupe_options_t *options)
{
    memset(options, 0, sizeof(*options));
    for (size_t i = 0; i < tri_array_len(options_table); i++) {
        const struct option *option = &options_table[i];
        int64_t number;

        if (is_text(option))
            *(const char **)field_of(options, option) = option->initial;
        else if (parse_number(option->initial, &number))
            set_number(options, option, number);
    }
}

void troupe_options_help(FILE *stream)
{
    for (size_t i = 0; i < tri_array_len(options_table); i++) {
        const struct option *option = &options_table[i];
        char name[VARIABLE_BYTES_MAX];

        variable_of(option, name);
        fprintf(stream, "%-24s %s\n%24s default %s", name, option->help, "",
                option->initial != NULL ? option->initial : "none");
        if (!is_text(option))
            fprintf(stream, ", %lld to %lld\n", (long long)option->min,
                    (long long)option->max);
        else
            fprintf(stream, "%s%s\n", option->allowed != NULL ? ", " : "",
                    option->allowed != NULL ? option->allowed : "");
    }
}
