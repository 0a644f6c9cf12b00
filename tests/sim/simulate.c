/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs a scenario of membership on a virtual clock and prints a table: what
 * scripts/sim starts. See usage() and doc/simulation.md.
 */
#include "swim_scenario.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZES_MAX 16u
#define RUNS_MAX 1000u

struct request {
    const char *scenario;
    uint32_t sizes[SIZES_MAX];
    uint32_t sizes_len;
    enum tri_swim_profile profile;
    uint64_t seed;
    uint32_t seeds;
    double loss, late;     /* percent */
    double seconds;        /* of the scenario's time; 0: its own */
    double on, off;        /* of an impaired member, s */
    double share;          /* impaired, or crashing, or on the lesser side */
    uint32_t clock_ppm;
    uint32_t ablate;
};

static const char *const profiles[] = { "hpc", "fast", "cloud", "test" };
static const char *const ablations[] = { "rule-a", "rule-b", "ln-n",
                                         "finality", "lifeguard" };

static const char usage_text[] =
    "scripts/sim SCENARIO [OPTION...]: membership on a virtual clock.\n"
    "\n"
    "Scenarios:\n"
    "  crash      one member crashes, or --share of them: times until it is\n"
    "             suspected, dead to the first, dead to all\n"
    "  idle       nothing happens: traffic, false suspicions and deaths\n"
    "  stopped    --share of the members are stopped (as by SIGSTOP) for --on\n"
    "             seconds, run for --off seconds, and so on\n"
    "  blocked    as above, but they send and receive nothing\n"
    "  clogged    as above, but what they send and receive comes late\n"
    "  join       all but three join at once\n"
    "  partition  --share of the members are cut off for --on seconds\n"
    "\n"
    "Options:\n"
    "  -n N[,N...]        members (default 64)\n"
    "  --profile NAME     hpc (default), fast, cloud, test\n"
    "  --seeds N          runs, each with the next seed (default 10)\n"
    "  --seed N           the first seed (default 1)\n"
    "  --loss PERCENT     of all packets (default 0)\n"
    "  --late PERCENT     of packets that take up to 0.5 s more\n"
    "  --seconds S        how long (idle, impaired: 60; limit of others)\n"
    "  --share PERCENT    default: crash one member, others 25\n"
    "  --on S, --off S    default 5 and 1; partition: 20\n"
    "  --clock PPM        clocks run by up to this faster or slower\n"
    "  --without RULE     rule-a, rule-b, ln-n, finality, lifeguard: to see\n"
    "                     what it is good for; without lifeguard, rule-a and\n"
    "                     rule-b (an option for each) it is plain SWIM\n"
    "Times are in virtual seconds: median, 99th percentile, worst run.\n"
    "A violated invariant ends a run, is printed with its seed, and makes the\n"
    "exit status 1. 10,000 members need about 8 GB of memory.\n";

static void usage(int status)
{
    fputs(usage_text, status == 0 ? stdout : stderr);
    exit(status);
}

/* --- numbers of several runs ---------------------------------------------- */

struct row {
    uint64_t values[RUNS_MAX];
    uint32_t len;
};

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void put(struct row *row, uint64_t value)
{
    row->values[row->len++] = value;
}

static void print_time(uint64_t ns)
{
    if (ns == SWIM_NEVER)
        printf(" %7s", "never");
    else
        printf(" %7.2f", (double)ns / 1e9);
}

/* Median, 99th percentile, worst. */
static void print_row(struct row *row)
{
    uint32_t last = row->len - 1;

    qsort(row->values, row->len, sizeof(row->values[0]), by_value);
    print_time(row->values[last / 2]);
    print_time(row->values[(uint32_t)(0.99 * last + 0.5)]);
    print_time(row->values[last]);
}

struct table {
    struct row suspect, dead, all, agreed;
    double packets, bytes, bytes_max;
    uint32_t peak, runs, excluded, failures;
    uint64_t pauses, suspicions, false_deaths, healthy, probes, unaware;
    uint64_t refutations, rule_a, cardless;
};

static void add(struct table *table, const struct swim_result *result)
{
    put(&table->suspect, result->suspect_first_ns);
    put(&table->dead, result->dead_ns);
    put(&table->all, result->all_ns);
    put(&table->agreed, result->agreed_ns);
    table->packets += result->packets;
    table->bytes += result->bytes;
    table->peak = result->peak > table->peak ? result->peak : table->peak;
    table->runs++;
    table->excluded += result->excluded;
    table->pauses += result->pauses;
    table->suspicions += result->stats.suspicions;
    table->false_deaths += result->stats.false_deaths;
    table->healthy += result->stats.false_deaths_healthy;
    table->probes += result->metrics.probes;
    table->refutations += result->metrics.refutations;
    table->rule_a += result->metrics.dropped_by_rule_a;
    table->unaware += result->unaware;
    table->cardless += result->stats.cardless;
    if (result->failure[0] != '\0') {
        table->failures++;
        fprintf(stderr, "violated: %s\n", result->failure);
    }
}

/* --- scenarios ------------------------------------------------------------ */

static uint64_t ns_of(double seconds, double otherwise)
{
    return (uint64_t)((seconds > 0 ? seconds : otherwise) * 1e9);
}

static struct swim_sim_config config_of(const struct request *request,
                                        uint32_t n, uint32_t run)
{
    struct swim_sim_config config =
        swim_sim_calm(request->seed + run, n, request->profile);

    config.core.ablate = request->ablate;
    config.loss = (uint32_t)(request->loss * SWIM_CHANCE / 100);
    config.late = (uint32_t)(request->late * SWIM_CHANCE / 100);
    config.clock_ppm = request->clock_ppm;
    config.lives_max = n;
    config.has_no_shadow = n > 5000;
    return config;
}

static uint32_t share_of(const struct request *request, uint32_t n)
{
    double share = request->share > 0 ? request->share : 25;

    return (uint32_t)(share * n / 100);
}

static void run_one(const struct request *request,
                    struct swim_sim_config *config,
                    struct swim_result *result_p)
{
    const char *name = request->scenario;
    uint32_t n = config->nodes;
    uint32_t share = share_of(request, n);
    uint64_t on_ns = ns_of(request->on, 5), off_ns = ns_of(request->off, 1);
    uint64_t ns = ns_of(request->seconds, 60);
    uint64_t bound = 2 * swim_detection_bound_ns(&config->core, n);

    if (strcmp(name, "crash") == 0) {
        swim_run_crash(config, request->share > 0 ? share : 1,
                       ns_of(request->seconds, (double)bound / 1e9),
                       result_p);
    } else if (strcmp(name, "idle") == 0) {
        swim_run_idle(config, ns, result_p);
    } else if (strcmp(name, "join") == 0) {
        swim_run_join(config, ns, result_p);
    } else if (strcmp(name, "partition") == 0) {
        uint32_t sides[2] = { n - share, share };

        config->will_rejoin = true;
        config->lives_max = 4 * n;
        swim_run_partition(config, sides, 2, ns_of(request->on, 20), ns,
                           result_p);
    } else {
        config->will_rejoin = true;
        config->lives_max = 16 * n;
        swim_run_impaired(config,
                          strcmp(name, "stopped") == 0   ? SWIM_STOPPED
                          : strcmp(name, "blocked") == 0 ? SWIM_BLOCKED
                                                         : SWIM_CLOGGED,
                          share, on_ns, off_ns, ns, result_p);
    }
}

static void print_head(const char *scenario)
{
    static const char traffic[] = " | packets/s  bytes/s   peak/s";

    if (strcmp(scenario, "crash") == 0)
        printf("%6s | %-23s | %-23s | %-23s%s | %s\n%6s", "n",
               "first suspicion", "dead to the first", "dead to all", traffic,
               "unaware", "");
    else if (strcmp(scenario, "join") == 0 ||
             strcmp(scenario, "partition") == 0)
        printf("%6s | %-23s%s | excluded false deaths\n%6s", "n", "one list",
               traffic, "");
    else
        printf("%6s | pauses   suspicions   probes    deaths   of healthy  "
               "excluded%s",
               "n", traffic);
    printf("\n");
}

static void print_table(const char *scenario, uint32_t n,
                        struct table *table)
{
    unsigned long long deaths = table->false_deaths;

    printf("%6u |", n);
    if (strcmp(scenario, "crash") == 0) {
        print_row(&table->suspect);
        printf(" |");
        print_row(&table->dead);
        printf(" |");
        print_row(&table->all);
    } else if (strcmp(scenario, "join") == 0 ||
               strcmp(scenario, "partition") == 0) {
        print_row(&table->agreed);
    } else {
        printf(" %6llu %12llu %8llu %9llu %12llu %9u",
               (unsigned long long)table->pauses,
               (unsigned long long)table->suspicions,
               (unsigned long long)table->probes, deaths,
               (unsigned long long)table->healthy, table->excluded);
    }
    printf(" | %9.2f %8.0f %8u", table->packets / table->runs,
           table->bytes / table->runs, table->peak);
    if (strcmp(scenario, "crash") == 0)
        printf(" | %llu", (unsigned long long)table->unaware);
    else if (strcmp(scenario, "join") == 0 ||
             strcmp(scenario, "partition") == 0)
        printf(" | %8u %12llu", table->excluded, deaths);
    printf("\n");
    fflush(stdout);
}

static uint32_t run_all(const struct request *request)
{
    static struct table table;
    uint32_t failures = 0;

    print_head(request->scenario);
    for (uint32_t i = 0; i < request->sizes_len; i++) {
        memset(&table, 0, sizeof(table));
        for (uint32_t run = 0; run < request->seeds; run++) {
            struct swim_sim_config config =
                config_of(request, request->sizes[i], run);
            struct swim_result result;

            run_one(request, &config, &result);
            add(&table, &result);
        }
        print_table(request->scenario, request->sizes[i], &table);
        failures += table.failures;
    }
    return failures;
}

/* --- options -------------------------------------------------------------- */

static double number(const char *text, double min, double max)
{
    char *end;
    double value = strtod(text, &end);

    if (*end != '\0' || !(value >= min && value <= max)) {
        fprintf(stderr, "scripts/sim: %s: not from %g to %g\n", text, min,
                max);
        exit(2);
    }
    return value;
}

static uint32_t chosen(const char *text, const char *const *names,
                       uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    fprintf(stderr, "scripts/sim: %s is unknown\n", text);
    usage(2);
    return 0;
}

static void parse_sizes(struct request *request, char *text)
{
    request->sizes_len = 0;
    for (char *rest = NULL, *word = strtok_r(text, ",", &rest); word != NULL;
         word = strtok_r(NULL, ",", &rest)) {
        if (request->sizes_len == SIZES_MAX)
            usage(2);
        request->sizes[request->sizes_len++] =
            (uint32_t)number(word, 1, 20000);
    }
}

enum { PROFILE = 256, SEEDS, SEED, LOSS, LATE, SECONDS, SHARE, ON, OFF, CLOCK,
       WITHOUT };

static const struct option options[] = {
    { .name = "profile", .has_arg = 1, .val = PROFILE },
    { .name = "seeds", .has_arg = 1, .val = SEEDS },
    { .name = "seed", .has_arg = 1, .val = SEED },
    { .name = "loss", .has_arg = 1, .val = LOSS },
    { .name = "late", .has_arg = 1, .val = LATE },
    { .name = "seconds", .has_arg = 1, .val = SECONDS },
    { .name = "share", .has_arg = 1, .val = SHARE },
    { .name = "on", .has_arg = 1, .val = ON },
    { .name = "off", .has_arg = 1, .val = OFF },
    { .name = "clock", .has_arg = 1, .val = CLOCK },
    { .name = "without", .has_arg = 1, .val = WITHOUT },
    { .name = "help", .has_arg = 0, .val = 'h' },
    { .name = NULL },
};

static void take_option(struct request *request, int option, char *text)
{
    switch (option) {
    case 'n':
        parse_sizes(request, text);
        break;
    case PROFILE:
        request->profile = chosen(text, profiles, tri_array_len(profiles));
        break;
    case SEEDS:
        request->seeds = (uint32_t)number(text, 1, RUNS_MAX);
        break;
    case SEED:
        request->seed = strtoull(text, NULL, 0);
        break;
    case LOSS:
        request->loss = number(text, 0, 100);
        break;
    case LATE:
        request->late = number(text, 0, 100);
        break;
    case SECONDS:
        request->seconds = number(text, 0.1, 1e6);
        break;
    case SHARE:
        request->share = number(text, 0.001, 100);
        break;
    case ON:
        request->on = number(text, 0.001, 1e5);
        break;
    case OFF:
        request->off = number(text, 0.001, 1e5);
        break;
    case CLOCK:
        request->clock_ppm = (uint32_t)number(text, 0, 50000);
        break;
    case WITHOUT:
        request->ablate |= 1u << chosen(text, ablations,
                                        tri_array_len(ablations));
        break;
    default:
        usage(option == 'h' ? 0 : 2);
    }
}

int main(int argc, char **argv)
{
    static const char *const scenarios[] = { "crash",   "idle",    "stopped",
                                             "blocked", "clogged", "join",
                                             "partition" };
    struct request request = { .sizes = { 64 }, .sizes_len = 1, .seed = 1,
                               .seeds = 10 };
    int option;

    while ((option = getopt_long(argc, argv, "n:h", options, NULL)) != -1)
        take_option(&request, option, optarg);
    if (optind + 1 != argc)
        usage(2);
    request.scenario = scenarios[chosen(argv[optind], scenarios,
                                        tri_array_len(scenarios))];
    return run_all(&request) > 0 ? 1 : 0;
}
