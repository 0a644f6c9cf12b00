/* SPDX-License-Identifier: BSD-3-Clause */
#include "member/contacts.h"

#include <stdlib.h>
#include <unistd.h>

#define CELLS_MIN 64u

int tri_contacts_init(struct tri_contacts *contacts, uint32_t len_max)
{
    *contacts = (struct tri_contacts){ .mask = CELLS_MIN - 1,
                                       .len_max = len_max };
    contacts->table = calloc(CELLS_MIN, sizeof(*contacts->table));
    return contacts->table != NULL ? 0 : TROUPE_ENOMEM;
}

void tri_contacts_fini(struct tri_contacts *contacts)
{
    struct tri_contact *contact;
    uint32_t i = 0;

    if (contacts->table == NULL)
        return;
    while ((contact = tri_contacts_next(contacts, &i)) != NULL)
        if (contact->pidfd >= 0)
            close(contact->pidfd);
    free(contacts->table);
    contacts->table = NULL;
}

static struct tri_contact *cell(struct tri_contacts *contacts, uint64_t i)
{
    return &contacts->table[i & contacts->mask];
}

struct tri_contact *tri_contacts_find(struct tri_contacts *contacts,
                                      uint64_t node)
{
    uint64_t i = tri_mix64(node);

    while (cell(contacts, i)->node != 0) {
        if (cell(contacts, i)->node == node)
            return cell(contacts, i);
        i++;
    }
    return NULL;
}

/* Twice the cells. False: no memory. */
static bool grow(struct tri_contacts *contacts)
{
    struct tri_contacts larger = *contacts;
    struct tri_contact *contact;
    uint32_t index = 0;

    larger.mask = contacts->mask * 2 + 1;
    larger.table = calloc((size_t)larger.mask + 1, sizeof(*larger.table));
    if (larger.table == NULL)
        return false;
    while ((contact = tri_contacts_next(contacts, &index)) != NULL) {
        uint64_t i = tri_mix64(contact->node);

        while (cell(&larger, i)->node != 0)
            i++;
        *cell(&larger, i) = *contact;
    }
    free(contacts->table);
    *contacts = larger;
    return true;
}

struct tri_contact *tri_contacts_add(struct tri_contacts *contacts,
                                     uint64_t node)
{
    uint64_t i = tri_mix64(node);

    if (node == 0 || contacts->len == contacts->len_max ||
        tri_contacts_find(contacts, node) != NULL)
        return NULL;
    /* at most half full: a search ends soon */
    if (contacts->len * 2 > contacts->mask && !grow(contacts))
        return NULL;
    while (cell(contacts, i)->node != 0)
        i++;
    *cell(contacts, i) = (struct tri_contact){ .node = node, .pidfd = -1 };
    contacts->len++;
    return cell(contacts, i);
}

/* Entries behind the gap move into it where they are still found there (Knuth,
 * The Art of Computer Programming 3, 6.4, algorithm R). */
void tri_contacts_remove(struct tri_contacts *contacts,
                         struct tri_contact *contact)
{
    uint64_t gap = (uint64_t)(contact - contacts->table);
    uint64_t i = gap;

    assert(contact->node != 0);
    if (contact->pidfd >= 0)
        close(contact->pidfd);
    for (;;) {
        uint64_t home;

        i = (i + 1) & contacts->mask;
        if (cell(contacts, i)->node == 0)
            break;
        home = tri_mix64(cell(contacts, i)->node) & contacts->mask;
        if (((i - home) & contacts->mask) < ((i - gap) & contacts->mask))
            continue;
        *cell(contacts, gap) = *cell(contacts, i);
        gap = i;
    }
    *cell(contacts, gap) = (struct tri_contact){ .node = 0 };
    contacts->len--;
}

struct tri_contact *tri_contacts_next(struct tri_contacts *contacts,
                                      uint32_t *index_p)
{
    while (*index_p <= contacts->mask) {
        struct tri_contact *contact = &contacts->table[(*index_p)++];

        if (contact->node != 0)
            return contact;
    }
    return NULL;
}
