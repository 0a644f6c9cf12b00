/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_COMPILE_COUNTER_H
#define TESTS_COMPILE_COUNTER_H

/* Two protocols that the wrong programs mix up. */

#include <troupe.h>

#define counter_messages(TELL, ASK)                                           \
    TELL(counter, add, (int64_t by;))                                         \
    TELL(counter, reset, (int64_t to;))                                       \
    ASK(counter, read, (uint32_t unit;), (int64_t value;))
TROUPE_PROTOCOL(counter)

#define lamp_messages(TELL, ASK)                                              \
    TELL(lamp, dim, (uint32_t percent;))                                      \
    TELL(lamp, play, (uint32_t step_ms; uint8_t percents[];))                 \
    ASK(lamp, power, (uint32_t unit;), (uint32_t watts;))
TROUPE_PROTOCOL(lamp)

#endif
