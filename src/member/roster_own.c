/* SPDX-License-Identifier: BSD-3-Clause */

/* What this node says of itself: its load and its tags, and when. */

#include "member/roster_internal.h"

#include <string.h>

#include "base/clock.h"

#define LOAD_SAMPLE_NS (250 * TRI_NS_PER_MS)
#define LOAD_TELL_NS (500 * TRI_NS_PER_MS)
#define TAGS_TELL_NS (100 * TRI_NS_PER_MS)
/* Below this a node counts as idle: one message now and then is no load. */
#define LOAD_MIN 0.0625f

/* A sample is a moment's; half of the last one smooths that. Who has nothing to
 * do is soon known as such. */
static float smooth(float last, const struct tri_load *now, uint32_t cores)
{
    float load = (float)(now->actors + now->messages) /
                 (float)tri_max(cores, 1);

    load = load > 0 ? (last + load) / 2 : last / 8;
    return load < LOAD_MIN ? 0 : load < TRI_LOAD_MAX ? load : TRI_LOAD_MAX;
}

static void sample(struct tri_roster *roster)
{
    struct tri_load now = tri_scheduler_load(&roster->runtime->scheduler);
    troupe_member_t member;
    uint32_t place = tri_roster_place_of(roster, roster->node);

    tri_lock_acquire(&roster->write_lock);
    tri_roster_read(roster, place, &member);
    member.load = smooth(member.load, &now, member.cores);
    tri_roster_write_locked(roster, place, &member);
    tri_lock_release(&roster->write_lock);
    atomic_store_explicit(&roster->entries[place].placed, 0,
                          memory_order_relaxed);
}

static bool is_other_load(float told, float load)
{
    float change = load > told ? load - told : told - load;

    return (told == 0) != (load == 0) || change > told / 4;
}

bool tri_roster_own_load(struct tri_roster *roster, uint64_t now_ns,
                         float *load_p)
{
    troupe_member_t member;

    if (roster->runtime != NULL && now_ns >= roster->load_due_ns) {
        sample(roster);
        roster->load_due_ns = now_ns + LOAD_SAMPLE_NS;
    }
    tri_roster_read(roster, tri_roster_place_of(roster, roster->node),
                    &member);
    if (now_ns - roster->load_told_ns < LOAD_TELL_NS ||
        !is_other_load(roster->load_told, member.load))
        return false;
    roster->load_told_ns = now_ns;
    roster->load_told = member.load;
    *load_p = member.load;
    return true;
}

bool tri_roster_has_new_tags(struct tri_roster *roster)
{
    return atomic_load_explicit(&roster->tags_new, memory_order_relaxed) != 0;
}

/* New tags, once. */
static bool take_new_tags(struct tri_roster *roster, uint64_t now_ns)
{
    if (now_ns - roster->tags_told_ns < TAGS_TELL_NS ||
        !tri_roster_has_new_tags(roster))
        return false;
    /* seq_cst: newer tags that are set behind this are seen the next time */
    atomic_store(&roster->tags_new, 0);
    roster->tags_told_ns = now_ns;
    return true;
}

bool tri_roster_own_traits(struct tri_roster *roster, uint64_t now_ns,
                           struct tri_traits *traits_p)
{
    bool tell = take_new_tags(roster, now_ns);
    troupe_member_t member;
    float load;

    tell |= tri_roster_own_load(roster, now_ns, &load);
    if (!tell)
        return false;
    tri_roster_read(roster, tri_roster_place_of(roster, roster->node),
                    &member);
    roster->load_told = member.load;
    memset(traits_p, 0, sizeof(*traits_p));
    traits_p->node = roster->node;
    traits_p->version = ++roster->version;
    traits_p->load = member.load;
    traits_p->tags_len = (uint8_t)strlen(member.tags);
    memcpy(traits_p->tags, member.tags, traits_p->tags_len);
    return true;
}

int tri_roster_own_tags(struct tri_roster *roster, const char *tags)
{
    size_t len = strnlen(tags, TROUPE_MEMBER_TAGS_MAX + 1);
    uint32_t place = tri_roster_place_of(roster, roster->node);
    troupe_member_t member;

    if (len > TROUPE_MEMBER_TAGS_MAX)
        return TROUPE_EINVAL;
    tri_lock_acquire(&roster->write_lock);
    tri_roster_read(roster, place, &member);
    memset(member.tags, 0, sizeof(member.tags));
    memcpy(member.tags, tags, len);
    tri_roster_write_locked(roster, place, &member);
    tri_lock_release(&roster->write_lock);
    atomic_store(&roster->tags_new, 1);
    tri_roster_changed(roster);
    return 0;
}
