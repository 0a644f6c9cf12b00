/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CONTACTS_H
#define TRI_CONTACTS_H

/*
 * How the driver reaches the members and hears of their end: a table by node
 * id, of the control thread alone. It holds whom the core knows, the dead too,
 * for as long as they are remembered. Memory, and the time of a walk, grow with
 * the members that there are, not with those that may be.
 */

#include "member/card.h"
#include "member/packet.h"

struct tri_peer;

struct tri_contact {
    uint64_t node; /* 0: free */
    struct tri_endpoint control;
    struct tri_packet_window window;
    struct tri_peer *peer; /* NULL: us, or it could not be made */
    uint64_t heard;        /* what tri_peer_heard said last */
    int pidfd;             /* -1: none */
    uint32_t pid;          /* of the process that pidfd is of */
    bool own_job;          /* a rank of our job */
    bool ended;            /* its process has, which is yet to be acted on */
    bool over;             /* dead, or left, or there is no room for it */
};

struct tri_contacts {
    struct tri_contact *table; /* open addressing, a power of two */
    uint32_t mask;
    uint32_t len;
    uint32_t len_max;
};

/* Errors: ENOMEM. */
int tri_contacts_init(struct tri_contacts *contacts, uint32_t len_max);

/* Descriptors are closed. */
void tri_contacts_fini(struct tri_contacts *contacts);

/* NULL: unknown. Valid until something is added or removed. */
struct tri_contact *tri_contacts_find(struct tri_contacts *contacts,
                                      uint64_t node);

/* A new one, or NULL: it is there already, or there is no room or memory. */
struct tri_contact *tri_contacts_add(struct tri_contacts *contacts,
                                     uint64_t node);

void tri_contacts_remove(struct tri_contacts *contacts,
                         struct tri_contact *contact);

/* Walks all: *index_p from 0 until NULL. */
struct tri_contact *tri_contacts_next(struct tri_contacts *contacts,
                                      uint32_t *index_p);

#endif
