/* SPDX-License-Identifier: BSD-3-Clause */

/* Bodies of registry packets: what is accepted is written to the same bytes
 * again, and a registry takes it without harm, whatever it says. */

#include "fuzz.h"

#include "name/registry_core.h"

#define SENDER 2u
#define OTHER 3u

static void on_send(void *context, uint64_t to, const void *body, size_t bytes)
{
    struct tri_registry_reader reader;

    (void)context;
    FUZZ_CHECK(to == SENDER || to == OTHER);
    FUZZ_CHECK(tri_registry_open(body, bytes, &reader) == NULL);
}

static void on_changed(void *context, enum tri_registry_what what,
                       const struct tri_registry_entry *entry)
{
    (void)context, (void)what;
    fuzz_touch(entry->name, entry->name_len + 1u);
    fuzz_touch(entry->tags, entry->tags_len + 1u);
}

static void copy_sections(struct tri_registry_reader *reader,
                          struct tri_registry_writer *writer)
{
    for (unsigned i = 0; i < reader->items; i++) {
        struct tri_registry_section section;
        struct tri_registry_item item;

        tri_registry_read_section(reader, &section);
        FUZZ_CHECK(tri_registry_open_section(writer));
        for (unsigned n = 0; n < section.entries; n++) {
            tri_registry_read_item(reader, &item);
            FUZZ_CHECK(tri_registry_write_item(writer, &item));
        }
        tri_registry_close_section(writer, &section);
    }
}

static void check_same(struct tri_registry_reader reader, const uint8_t *data,
                       size_t bytes)
{
    struct tri_registry_writer writer;
    struct tri_registry_mark mark;

    tri_registry_begin(&writer, reader.kind);
    if (reader.kind == TRI_REGISTRY_DELTA) {
        copy_sections(&reader, &writer);
    } else if (reader.kind == TRI_REGISTRY_DIGEST) {
        tri_registry_write_hash(&writer, reader.hash);
    } else {
        if (reader.kind == TRI_REGISTRY_VERSIONS)
            tri_registry_set_range(&writer, reader.low, reader.high);
        for (unsigned i = 0; i < reader.items; i++) {
            if (reader.kind == TRI_REGISTRY_BUCKET_HASHES) {
                tri_registry_write_hash(&writer,
                                        tri_registry_read_hash(&reader));
                continue;
            }
            tri_registry_read_mark(&reader, &mark);
            FUZZ_CHECK(tri_registry_write_mark(&writer, &mark));
        }
    }
    FUZZ_CHECK(writer.bytes == bytes);
    FUZZ_CHECK(memcmp(writer.body, data, bytes) == 0);
}

static struct tri_registry *open_registry(void)
{
    struct tri_registry_sink sink = { NULL, on_send, on_changed };
    struct tri_registry_claim claim = { .name = "a", .slot = 1 };
    struct tri_registry_event event = { .kind = TRI_REGISTRY_JOINED,
                                        .now_ns = 1 };
    struct tri_registry_config config;
    struct tri_registry *registry;

    tri_registry_config_init(&config);
    config.node = 1;
    config.seed = 1;
    config.owners_max = 4;
    config.entries_max = 16;
    FUZZ_CHECK(tri_registry_create(&config, &sink, &registry) == 0);
    event.node = SENDER;
    tri_registry_step(registry, &event);
    event.node = OTHER;
    tri_registry_step(registry, &event);
    FUZZ_CHECK(tri_registry_add(registry, 1, &claim) == 0);
    return registry;
}

/* Two pieces of the data, one after the other. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    size_t first = bytes > 0 && data[0] < bytes ? data[0] : bytes;
    size_t at[] = { 0, first, bytes };
    struct tri_registry *registry = open_registry();
    struct tri_registry_event event = { .node = SENDER, .now_ns = 2 };

    for (unsigned i = 0; i < 2; i++) {
        struct tri_registry_reader reader;
        uint8_t *body = malloc(at[i + 1] - at[i] + 1);

        if (body == NULL)
            break;
        memcpy(body, data + at[i], at[i + 1] - at[i]);
        if (i == 0 && first > 0)
            body[0] = data[first - 1] % 8; /* was the length */
        event.kind = TRI_REGISTRY_PACKET;
        event.body = body;
        event.body_bytes = at[i + 1] - at[i];
        if (tri_registry_open(body, event.body_bytes, &reader) == NULL)
            check_same(reader, body, event.body_bytes);
        tri_registry_step(registry, &event);
        event.kind = TRI_REGISTRY_TICK;
        event.now_ns += 200000000u;
        tri_registry_step(registry, &event);
        free(body);
    }
    event.kind = TRI_REGISTRY_GONE;
    tri_registry_step(registry, &event);
    tri_registry_destroy(&registry);
    return 0;
}
