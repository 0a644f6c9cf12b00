/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_KEY_H
#define TRI_KEY_H

/* The key that the nodes of a job share: where it comes from and how it goes.
 * It is never logged, not in parts either. */

#include "base/base.h"

#define TRI_KEY_BYTES 32u

/*
 * Memory for a key, zeroed: a page of its own that is left out of core dumps.
 * (What is derived from a job's key lies in the crypto library's memory, and
 * in a dump: that gives away the dumped node's traffic, not the job's.)
 * NULL: no memory. destroy forgets the key first; *key_p may be NULL.
 */
unsigned char *tri_key_create(void);
void tri_key_destroy(unsigned char **key_p);

/*
 * The job's key, from a file of 64 hexadecimal digits with or without white
 * space around them. The file must be a regular one (or a link to one) of this
 * user or root, and nobody else may have any right to it. Who may write to the
 * folders on its path is not looked at. Errors: EOPTION; logged.
 */
int tri_key_read(const char *path, unsigned char key_p[TRI_KEY_BYTES]);

/* What is in such a file. False: not a key; key_p is unchanged. */
bool tri_key_parse(const char *text, size_t bytes,
                   unsigned char key_p[TRI_KEY_BYTES]);

/* A random key. Errors: ESYSTEM; logged. */
int tri_key_random(unsigned char key_p[TRI_KEY_BYTES]);

/* Overwrites a key in a way that is not optimized away. */
void tri_key_forget(unsigned char key[TRI_KEY_BYTES]);

#endif
