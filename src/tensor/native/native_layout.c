/* SPDX-License-Identifier: BSD-3-Clause */

/* Which members live together. See native_internal.h. */

#include <stdlib.h>

#include "tensor/native/native_internal.h"

void tri_layout_fini(struct tri_layout *layout)
{
    free(layout->host_of);
    *layout = (struct tri_layout){ .hosts_len = 0 };
}

/* Numbers hosts and their members; lens has a place for each host. */
static void number(struct tri_layout *layout, const struct tri_team *team,
                   uint32_t *lens)
{
    for (uint32_t i = 0; i < team->len; i++) {
        uint32_t host = 0;

        while (host < layout->hosts_len &&
               team->members[layout->leaders[host]].host !=
                   team->members[i].host)
            host++;
        if (host == layout->hosts_len) {
            layout->leaders[host] = i;
            lens[host] = 0;
            layout->hosts_len++;
        }
        layout->host_of[i] = host;
        layout->local_of[i] = lens[host]++;
    }
}

int tri_layout_init(struct tri_layout *layout, const struct tri_team *team)
{
    uint32_t len = team->len, *lens;

    *layout = (struct tri_layout){ .is_even = true };
    layout->host_of = calloc(6 * (size_t)len, sizeof(uint32_t));
    if (layout->host_of == NULL)
        return TROUPE_ENOMEM;
    layout->local_of = layout->host_of + len;
    layout->locals = layout->local_of + len;
    layout->column = layout->locals + len;
    layout->leaders = layout->column + len;
    lens = layout->leaders + len;
    number(layout, team, lens);
    layout->host = layout->host_of[team->index];
    layout->local = layout->local_of[team->index];
    layout->locals_len = lens[layout->host];
    for (uint32_t i = 0; i < layout->hosts_len; i++) {
        layout->locals_max = (uint32_t)tri_max(layout->locals_max, lens[i]);
        layout->is_even &= lens[i] == lens[0];
    }
    for (uint32_t i = 0; i < len; i++) {
        if (layout->host_of[i] == layout->host)
            layout->locals[layout->local_of[i]] = i;
        if (layout->local_of[i] == layout->local)
            layout->column[layout->host_of[i]] = i;
    }
    return 0;
}
