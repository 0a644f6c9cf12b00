/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FAULT_PUPPET_H
#define TESTS_FAULT_PUPPET_H

/*
 * Nodes in processes of their own that do what a test says, line by line: so
 * that one test can start, join, ask, stop, kill and restart them.
 *
 * A program that uses them calls puppet_main first, which runs a puppet when
 * the program was started as one.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct puppet {
    pid_t pid;
    int fd; /* a socket: lines in both directions */
    uint64_t node;
    char endpoint[64]; /* where it can be joined */
    char ref[64];      /* of its actor, for "ask" */
};

/* Does not return in a puppet's process. */
void puppet_main(int argc, char **argv);

/* A new process that has not started a node. Outside of any MPI job. */
void puppet_spawn(struct puppet *puppet);

/* The same on a host of tests/lib/hosts. */
void puppet_spawn_at(struct puppet *puppet, int host);

/* Ends its process: by a signal, or because there is nothing more to say. */
void puppet_kill(struct puppet *puppet, int signal_number);
void puppet_end(struct puppet *puppet);

/*
 * Says a line and waits for the answer, which is static until the next one.
 *
 *   start NAME=VALUE …  starts a node with these options; "ok NODE ENDPOINT
 *                       REF", or "TROUPE_E…"
 *   stop                "ok" or "TROUPE_E…"
 *   ask NODE SLOT GENERATION MS   asks that actor; "ok" or "TROUPE_E…"
 *   alive COUNT MS      waits until exactly so many members are alive
 *   state NODE WANTED MS   waits until the member is "alive", "suspect",
 *                       "dead" or "left"; "ok EVIDENCE", or what it is
 *   names COUNT MS PREFIX   waits until so many names begin so
 *   group create   makes the group "puppets" of itself alone, and goes from
 *                       boundary to boundary from now on; "ok", "TROUPE_E…"
 *   group join          joins it, and does the same
 *   claim NAME          takes it, strictly unique; "ok" or "TROUPE_E…"
 *   name NAME           takes it as one of several
 *   instance NODE trusted|suspect   whether the list of names has it so;
 *                       "ok", or what it has
 *   resolve NODE ADDRESS   "ok" if that is there, or "NODE": where it is
 *   view LEN MS         waits until its view has so many members; "ok EPOCH
 *                       DIGEST"
 *   excluded MS         waits until the others hold it for dead
 *   refused             "ok NUMBER" of refused data
 *   packets COUNT MS    waits until it has got so many good control datagrams
 *   told NODE           "ok" if an event told that it was suspected and a later
 *                       one that it recovered
 *   never_dead          "ok", or "dead NODE": an event told of a death
 */
const char *puppet_say(struct puppet *puppet, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same; ends the test unless the answer begins with `wanted`. */
void puppet_must(struct puppet *puppet, const char *wanted, const char *format,
                 ...) __attribute__((format(printf, 3, 4)));

/* Starts its node and keeps what it says. */
void puppet_start(struct puppet *puppet, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A file with a key, of this test alone; NUMBER tells keys apart. The file
 * goes when the program ends. */
const char *puppet_key_file(unsigned number);

/* A UDP port that nobody has now. */
unsigned puppet_free_port(void);

/* Prints and ends the test, with all puppets. */
void puppet_fail(const char *format, ...)
    __attribute__((format(printf, 1, 2), noreturn));

double puppet_now_ms(void);

/* --- for nodes of the test's own process ---------------------------------- */

struct troupe;

/* The actor that "ask" asks, and its text. 0, or an error. */
int puppet_actor(struct troupe *troupe, char ref_p[64]);

/* As "ask": 0, or an error. */
int puppet_ask(struct troupe *troupe, const char *ref, int timeout_ms);

#endif
