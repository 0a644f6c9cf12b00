/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_BYTES_H
#define TRI_BYTES_H

/*
 * Numbers and strings into bytes and back, little-endian, in any alignment.
 * A writer is given enough room (asserted); a reader is given anything: what
 * is not there reads as zero and sets `is_short`, to be looked at once, at the
 * end.
 */

#include <string.h>

#include "base/base.h"

struct tri_writer {
    unsigned char *at, *end;
};

static inline size_t tri_writer_room(const struct tri_writer *writer)
{
    return (size_t)(writer->end - writer->at);
}

static inline void tri_put(struct tri_writer *writer, const void *data,
                           size_t bytes)
{
    assert(bytes <= tri_writer_room(writer));
    if (bytes > 0)
        memcpy(writer->at, data, bytes);
    writer->at += bytes;
}

static inline void tri_put_number(struct tri_writer *writer, uint64_t number,
                                  size_t bytes)
{
    assert(bytes <= tri_writer_room(writer));
    for (size_t i = 0; i < bytes; i++)
        *writer->at++ = (unsigned char)(number >> (8 * i));
}

static inline void tri_put_u8(struct tri_writer *writer, uint8_t number)
{
    tri_put_number(writer, number, sizeof(number));
}

static inline void tri_put_u16(struct tri_writer *writer, uint16_t number)
{
    tri_put_number(writer, number, sizeof(number));
}

static inline void tri_put_u32(struct tri_writer *writer, uint32_t number)
{
    tri_put_number(writer, number, sizeof(number));
}

static inline void tri_put_u64(struct tri_writer *writer, uint64_t number)
{
    tri_put_number(writer, number, sizeof(number));
}

struct tri_reader {
    const unsigned char *at, *end;
    bool is_short;
};

static inline struct tri_reader tri_reader_of(const void *data, size_t bytes)
{
    const unsigned char *at = data;

    return (struct tri_reader){ .at = at, .end = at + bytes };
}

static inline size_t tri_reader_left(const struct tri_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

/* The next bytes where they lie; NULL, and nothing is left, if there are not
 * so many. */
static inline const unsigned char *tri_get(struct tri_reader *reader,
                                           size_t bytes)
{
    const unsigned char *data = reader->at;

    if (bytes > tri_reader_left(reader)) {
        reader->is_short = true;
        reader->at = reader->end;
        return NULL;
    }
    reader->at += bytes;
    return data;
}

static inline uint64_t tri_get_number(struct tri_reader *reader, size_t bytes)
{
    const unsigned char *data = tri_get(reader, bytes);
    uint64_t number = 0;

    for (size_t i = 0; data && i < bytes; i++)
        number |= (uint64_t)data[i] << (8 * i);
    return number;
}

static inline uint8_t tri_get_u8(struct tri_reader *reader)
{
    return (uint8_t)tri_get_number(reader, sizeof(uint8_t));
}

static inline uint16_t tri_get_u16(struct tri_reader *reader)
{
    return (uint16_t)tri_get_number(reader, sizeof(uint16_t));
}

static inline uint32_t tri_get_u32(struct tri_reader *reader)
{
    return (uint32_t)tri_get_number(reader, sizeof(uint32_t));
}

static inline uint64_t tri_get_u64(struct tri_reader *reader)
{
    return tri_get_number(reader, sizeof(uint64_t));
}

#endif
