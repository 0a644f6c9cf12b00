/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CLASSES_H
#define TRI_CLASSES_H

/*
 * The actor classes that this process knows by name, so that other nodes can
 * create their actors here. One registry a process, under a mutex: programs
 * fill it before main, and it is read by spawns from other nodes.
 */

#include <troupe/actor.h>

#include "base/base.h"

/* Classes that troupe_class_register takes. */
#define TRI_CLASSES_MAX 4096u

/*
 * The class of a name (name_len bytes), of this layout: protocol hash and size
 * of the state. Errors: ECLASS (none, or several that nobody registered), ETYPE
 * (it has another layout).
 */
int tri_classes_find(const char *name, size_t name_len, uint32_t layout,
                     size_t state_bytes, const troupe_class_t **class_p);

#endif
