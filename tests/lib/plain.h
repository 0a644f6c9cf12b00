/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_LIB_PLAIN_H
#define TESTS_LIB_PLAIN_H

/*
 * The plainest back end there can be: all send what they have to the first
 * member, which computes and sends each its result. What the front does is
 * tested with it, and other back ends' results against it.
 */

#include "tensor/tensor.h"

extern const struct tri_backend_ops plain_backend;

/* The same under another name, for tests of the choice; slower by so much. */
extern const struct tri_backend_ops plain_other_backend;
extern uint64_t plain_other_ns;
extern bool plain_other_can;
/* So much slower is the first with calls of so many bytes and more, and the
 * second with smaller ones. 0: no difference. */
extern uint64_t plain_slow_ns;
extern size_t plain_slow_bytes;

/* Records that came, to any instance. */
extern _Atomic uint64_t plain_received;

#endif
