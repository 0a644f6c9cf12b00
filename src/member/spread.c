/* SPDX-License-Identifier: BSD-3-Clause */
#include "member/spread.h"

#include <stdlib.h>

#include "base/clock.h"
#include "member/member.h"
#include "member/roster_internal.h"
#include "member/traits_core.h"

/* How often the own load is looked at: an idle node is woken less often. */
#define LOOK_NS (250 * TRI_NS_PER_MS)
#define LOOK_IDLE_NS (500 * TRI_NS_PER_MS)

struct tri_spread {
    struct tri_runtime *runtime;
    struct tri_traits_core *core;
    uint64_t look_ns; /* when the own load is to be looked at again */
    struct tri_traits_effects effects;
    struct tri_traits_packet packet;
};

static void carry_out(struct tri_spread *spread)
{
    struct tri_roster *roster = spread->runtime->roster;
    struct tri_traits_effects *effects = &spread->effects;

    /* What cannot be sent is as lost as others in the network. */
    for (uint32_t i = 0; i < effects->sends_len; i++)
        (void)tri_member_send(spread->runtime->member, TRI_PACKET_TRAITS,
                              effects->sends[i].to, effects->sends[i].body,
                              effects->sends[i].bytes);
    for (uint32_t i = 0; i < effects->changes_len; i++) {
        const struct tri_traits *traits = effects->changes[i];

        tri_roster_load(roster, traits->node, traits->load);
        tri_roster_tags(roster, traits->node, traits->tags, traits->tags_len);
    }
}

static void step(struct tri_spread *spread,
                 const struct tri_traits_event *event)
{
    tri_traits_core_step(spread->core, event, &spread->effects);
    carry_out(spread);
}

/* --- what the driver calls ------------------------------------------------ */

static bool is_there(uint8_t state)
{
    return state == TRI_SWIM_ALIVE || state == TRI_SWIM_SUSPECT;
}

static void changed(void *context, const struct tri_swim_change *change,
                    uint64_t now_ns)
{
    struct tri_spread *spread = context;
    struct tri_traits_event event = { .now_ns = now_ns,
                                      .node = change->node };

    if (is_there(change->before) == is_there(change->after))
        return;
    event.kind = is_there(change->after) ? TRI_TRAITS_JOINED : TRI_TRAITS_GONE;
    step(spread, &event);
    /* Not alone any more: it may have something to say. */
    spread->look_ns = 0;
    tri_member_kick(spread->runtime->member);
}

static void received(void *context, uint64_t node, const unsigned char *body,
                     size_t bytes, uint64_t now_ns)
{
    struct tri_spread *spread = context;
    struct tri_traits_event event = { .kind = TRI_TRAITS_PACKET,
                                      .now_ns = now_ns,
                                      .node = node,
                                      .packet = &spread->packet };
    const char *wrong = tri_traits_decode(body, bytes, &spread->packet);

    if (wrong != NULL) {
        tri_refusals_count(&spread->runtime->link.refusals, wrong);
        return;
    }
    step(spread, &event);
}

/* Alone, there is nobody to tell; and no timer. */
static void look_at_own(struct tri_spread *spread, uint64_t now_ns)
{
    struct tri_roster *roster = spread->runtime->roster;
    struct tri_traits traits;
    struct tri_traits_event event = { .kind = TRI_TRAITS_OWN,
                                      .now_ns = now_ns,
                                      .node = roster->node,
                                      .traits = &traits };
    troupe_member_t own;

    spread->look_ns = TRI_NS_NEVER;
    if (tri_roster_alive_len(roster) < 2)
        return;
    if (tri_roster_own_traits(roster, now_ns, &traits))
        step(spread, &event);
    spread->look_ns = now_ns + LOOK_IDLE_NS;
    if (tri_roster_get(roster, roster->node, &own) && own.load > 0)
        spread->look_ns = now_ns + LOOK_NS;
    if (tri_roster_has_new_tags(roster))
        spread->look_ns = now_ns + LOOK_NS / 4;
}

static uint64_t tick(void *context, uint64_t now_ns)
{
    struct tri_spread *spread = context;
    struct tri_traits_event event = { .kind = TRI_TRAITS_TICK,
                                      .now_ns = now_ns };

    if (now_ns >= spread->look_ns ||
        tri_roster_has_new_tags(spread->runtime->roster))
        look_at_own(spread, now_ns);
    if (now_ns >= tri_traits_core_due_ns(spread->core))
        step(spread, &event);
    return tri_min(spread->look_ns, tri_traits_core_due_ns(spread->core));
}

/* --- life ----------------------------------------------------------------- */

int tri_spread_open(struct tri_runtime *runtime)
{
    struct tri_roster *roster = runtime->roster;
    struct tri_spread *spread = calloc(1, sizeof(*spread));
    struct tri_member_client client = {
        .context = spread,
        .kind = TRI_PACKET_TRAITS,
        .changed = changed,
        .received = received,
        .tick = tick,
    };
    struct tri_traits_config config;
    int rc;

    if (spread == NULL)
        return TROUPE_ENOMEM;
    tri_traits_config_init(&config);
    config.node = roster->node;
    config.seed = tri_mix64(roster->node);
    config.members_max = roster->members_max;
    spread->runtime = runtime;
    rc = tri_traits_core_create(&config, &spread->core);
    if (rc != 0) {
        free(spread);
        return rc;
    }
    roster->spread = spread; /* which ends it, in any case */
    return tri_member_attach(runtime->member, &client);
}

void tri_spread_destroy(struct tri_spread **spread_p)
{
    struct tri_spread *spread = *spread_p;

    if (spread == NULL)
        return;
    *spread_p = NULL;
    tri_traits_core_destroy(&spread->core);
    free(spread);
}
