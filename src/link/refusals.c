/* SPDX-License-Identifier: BSD-3-Clause */
#include "link/refusals.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

/* So that a line of the log has room for it. */
#define TEXT_BYTES 384
#define OTHERS "other reasons"

/* The entry of a reason, made if need be. */
static unsigned find(struct tri_refusals *refusals, const char *reason)
{
    for (unsigned i = 0; i < TROUPE_REFUSALS_MAX - 1; i++) {
        /* relaxed: static texts never change */
        const char *known = atomic_load_explicit(&refusals->entries[i].reason,
                                                 memory_order_relaxed);

        if (tri_unlikely(known == NULL) &&
            atomic_compare_exchange_strong_explicit(
                &refusals->entries[i].reason, &known, reason,
                memory_order_relaxed, memory_order_relaxed))
            return i;
        if (known == reason || strcmp(known, reason) == 0)
            return i;
    }
    atomic_store_explicit(&refusals->entries[TROUPE_REFUSALS_MAX - 1].reason,
                          OTHERS, memory_order_relaxed);
    return TROUPE_REFUSALS_MAX - 1;
}

void tri_refusals_count(struct tri_refusals *refusals, const char *reason)
{
    unsigned i = find(refusals, reason);

    if (atomic_fetch_add_explicit(&refusals->entries[i].count, 1,
                                  memory_order_relaxed) == 0)
        tri_warn("dropped foreign or malformed data: %s (from now on, this is "
                 "only counted)",
                 reason);
}

size_t tri_refusals_read(struct tri_refusals *refusals,
                         troupe_refusal_t *refusals_p, size_t len_max)
{
    size_t len = 0;

    for (unsigned i = 0; i < TROUPE_REFUSALS_MAX && len < len_max; i++) {
        troupe_refusal_t one = {
            .reason = atomic_load_explicit(&refusals->entries[i].reason,
                                           memory_order_relaxed),
            .count = atomic_load_explicit(&refusals->entries[i].count,
                                          memory_order_relaxed),
        };

        if (one.reason != NULL && one.count > 0)
            refusals_p[len++] = one;
    }
    return len;
}

uint64_t tri_refusals_total(struct tri_refusals *refusals)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < TROUPE_REFUSALS_MAX; i++)
        total += atomic_load_explicit(&refusals->entries[i].count,
                                      memory_order_relaxed);
    return total;
}

void tri_refusals_log(struct tri_refusals *refusals)
{
    troupe_refusal_t all[TROUPE_REFUSALS_MAX];
    size_t len = tri_refusals_read(refusals, all, TROUPE_REFUSALS_MAX);
    char text[TEXT_BYTES];
    size_t at = 0;

    if (len == 0)
        return;
    for (size_t i = 0; i < len && at < sizeof(text); i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s: %llu",
                               i > 0 ? ", " : "", all[i].reason,
                               (unsigned long long)all[i].count);
    tri_warn("dropped foreign or malformed data %llu times (%s%s)",
             (unsigned long long)tri_refusals_total(refusals), text,
             at < sizeof(text) ? "" : "...");
}
