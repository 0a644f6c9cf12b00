/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_LIB_PROXY_H
#define TESTS_LIB_PROXY_H

/*
 * A TCP proxy on 127.0.0.1 that a test owns: forwards, and does to the
 * connections what networks do. It has no thread: the test calls proxy_turn.
 */

#include <stdbool.h>
#include <stdint.h>

struct proxy;

enum proxy_cut {
    PROXY_RESET, /* RST to both sides; what was on its way is dropped */
    PROXY_CLOSE, /* FIN to both sides; the same */
};

/* Fails the test when there is no socket to be had. */
struct proxy *proxy_create(uint16_t to_port);
void proxy_destroy(struct proxy **proxy);

uint16_t proxy_port(const struct proxy *proxy);

/* New connections go there. */
void proxy_retarget(struct proxy *proxy, uint16_t to_port);

/* Forwards what it can, or waits for that up to timeout_ms. */
void proxy_turn(struct proxy *const *proxies, unsigned len, int timeout_ms);

/* Ends all connections. Returns how many there were. */
unsigned proxy_cut(struct proxy *proxy, enum proxy_cut how);

/* A black hole: forwards and accepts nothing until this time; the connections
 * stay. */
void proxy_stall(struct proxy *proxy, uint64_t until_ns);

/* Resets whoever connects until this time. */
void proxy_refuse(struct proxy *proxy, uint64_t until_ns);

/* Bytes arrive so much later. */
void proxy_delay(struct proxy *proxy, uint64_t delay_ns);

/* Since the beginning. */
uint64_t proxy_connections(const struct proxy *proxy);
uint64_t proxy_bytes(const struct proxy *proxy);

#endif
