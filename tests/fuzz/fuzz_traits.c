/* SPDX-License-Identifier: BSD-3-Clause */

/* What members say of themselves: what is accepted is encoded to the same bytes
 * again, and the core that gets it as news of its members stays whole. */

#include "fuzz.h"

#include "member/traits_core.h"

enum { OWN = 1, OTHER = 2, MEMBERS_MAX = 4 };

static struct tri_traits_packet packet;
static struct tri_traits_effects effects;

static void feed(void)
{
    struct tri_traits_config config;
    struct tri_traits_core *core;
    struct tri_traits_event joined = { .kind = TRI_TRAITS_JOINED,
                                       .node = OTHER };
    struct tri_traits_event heard = { .kind = TRI_TRAITS_PACKET,
                                      .now_ns = 1000000000,
                                      .node = OTHER,
                                      .packet = &packet };

    tri_traits_config_init(&config);
    config.node = OWN;
    config.members_max = MEMBERS_MAX;
    FUZZ_CHECK(tri_traits_core_create(&config, &core) == 0);
    tri_traits_core_step(core, &joined, &effects);
    joined.node = ~0ull;
    tri_traits_core_step(core, &joined, &effects);
    tri_traits_core_step(core, &heard, &effects);
    FUZZ_CHECK(tri_traits_core_get(core, OWN)->version == 0);
    FUZZ_CHECK(effects.sends_len <= TRI_TRAITS_SENDS_MAX);
    tri_traits_core_destroy(&core);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static unsigned char again[TRI_TRAITS_BODY_MAX];

    if (tri_traits_decode(data, bytes, &packet) != NULL)
        return 0;
    FUZZ_CHECK(tri_traits_encode(&packet, again) == bytes);
    FUZZ_CHECK(memcmp(again, data, bytes) == 0);
    feed();
    return 0;
}
