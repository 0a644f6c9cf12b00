/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE

/*
 * The arena of a team on one host: made by the first member, announced to the
 * others, who open the maker's descriptor through /proc.
 *
 * An arena is in use only when all members have attached it, each by a flag in
 * its own area; who cannot never sets it, and tells all. So all members agree
 * on whether they have one.
 */

#include "tensor/native/shm_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "os/shm.h"

/* All chunks of a member together: what lets it work on for some time without
 * the others, also where they share a core. Of a team: bounded. */
#define CHUNKS_BYTES_MAX ((size_t)64 << 20)
#define CHUNK_BYTES_MAX ((size_t)64 << 10)
#define CHUNK_BYTES_MIN (TRI_SHM_MEMBERS_MAX * TRI_CACHE_LINE)

/* TRI_SHM_ARENA's payload: u32 pid, u32 descriptor, u64 bytes, u64 nonce. */
#define ARENA_BYTES TRI_SHM_RECORD_BYTES_MAX

static size_t chunk_bytes_for(uint32_t len)
{
    size_t bytes = CHUNKS_BYTES_MAX / SHM_DEPTH / len / SHM_PAGE * SHM_PAGE;

    return tri_max(tri_min(bytes, CHUNK_BYTES_MAX), CHUNK_BYTES_MIN);
}

static size_t arena_bytes(const struct tri_shm *shm)
{
    return tri_align_up((1 + (size_t)shm->len) * SHM_PAGE +
                            shm->chunk_bytes * SHM_DEPTH * shm->len,
                        SHM_PAGE);
}

/* --- the maker ------------------------------------------------------------ */

static int make(struct tri_shm *shm)
{
    struct shm_title *title;
    void *map;
    int rc;

    if (getrandom(&shm->nonce, sizeof(shm->nonce), 0) !=
        (ssize_t)sizeof(shm->nonce))
        return TROUPE_ESYSTEM;
    shm->nonce |= 1; /* not what fresh memory holds */
    rc = tri_shm_create("troupe-team", shm->bytes, &shm->fd, &map);
    if (rc != 0)
        return rc;
    title = map;
    title->nonce = shm->nonce;
    title->bytes = shm->bytes;
    shm->base = map;
    return 0;
}

/* --- the others ----------------------------------------------------------- */

static int attach(struct tri_shm *shm, uint32_t pid, uint32_t fd_there)
{
    char path[64];
    void *map;
    int rc, fd;

    snprintf(path, sizeof(path), "/proc/%u/fd/%u", pid, fd_there);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK); /* whatever it is */
    if (fd < 0) {
        tri_info("shared memory of a team: %s: %m", path);
        return TROUPE_ESYSTEM;
    }
    rc = tri_shm_attach(fd, shm->bytes, &map);
    close(fd);
    if (rc != 0)
        return rc;
    /* The pid may be another process's by now: it has another nonce. */
    if (((struct shm_title *)map)->nonce != shm->nonce) {
        tri_shm_unmap(map, shm->bytes);
        return TROUPE_EPROTO;
    }
    shm->base = map;
    return 0;
}

/* --- telling -------------------------------------------------------------- */

static void tell(struct tri_shm *shm, enum tri_shm_what what)
{
    shm->telling = (uint16_t)what;
    shm->told = 0;
}

static void fail(struct tri_shm *shm)
{
    if (!shm->failed)
        tri_info("a team of %u members cannot share memory", shm->len);
    shm->failed = true;
    tell(shm, TRI_SHM_FAILED);
}

static void have(struct tri_shm *shm)
{
    shm->own = shm_area_of(shm, shm->index);
    /* release: pairs with all_ready */
    atomic_store_explicit(&shm->own->ready, shm->nonce, memory_order_release);
}

/* Sends what is to be told to those that have not got it yet. */
static void tell_on(struct tri_shm *shm)
{
    unsigned char payload[ARENA_BYTES];
    struct tri_writer writer = { payload, payload + sizeof(payload) };

    if (shm->telling == 0)
        return;
    if (shm->telling == TRI_SHM_ARENA) {
        tri_put_u32(&writer, (uint32_t)getpid());
        tri_put_u32(&writer, (uint32_t)shm->fd);
        tri_put_u64(&writer, shm->bytes);
        tri_put_u64(&writer, shm->nonce);
    }
    for (; shm->told < shm->len; shm->told++)
        if (shm->told != shm->index &&
            shm->setup.send(shm->setup.arg, shm->told, shm->telling, payload,
                            (size_t)(writer.at - payload)) == TROUPE_EFULL)
            return; /* others' errors: it is dying, and the view with it */
    shm->telling = 0;
}

int tri_shm_received(struct tri_shm *shm, uint32_t member, uint16_t what,
                     const void *payload, size_t bytes)
{
    struct tri_reader reader = tri_reader_of(payload, bytes);
    uint64_t size;
    uint32_t pid, fd;

    if (what == TRI_SHM_FAILED && bytes == 0) {
        shm->failed = true;
        return 0;
    }
    if (what != TRI_SHM_ARENA || member != 0 || shm->index == 0 ||
        bytes != ARENA_BYTES || shm->base != NULL || shm->failed)
        return TROUPE_EPROTO;
    pid = tri_get_u32(&reader);
    fd = tri_get_u32(&reader);
    size = tri_get_u64(&reader);
    shm->nonce = tri_get_u64(&reader);
    if (size != shm->bytes || shm->nonce == 0 || attach(shm, pid, fd) != 0)
        fail(shm);
    else
        have(shm);
    return 0;
}

/* --- open and close ------------------------------------------------------- */

int tri_shm_open(const struct tri_shm_setup *setup, struct tri_shm **shm_p)
{
    struct tri_shm *shm;

    assert(setup->len > 0 && setup->index < setup->len);
    assert(setup->chunk_bytes % TRI_CACHE_LINE == 0);
    if (setup->len > TRI_SHM_MEMBERS_MAX)
        return TROUPE_ELIMIT;
    shm = calloc(1, sizeof(*shm));
    if (shm == NULL)
        return TROUPE_ENOMEM;
    shm->setup = *setup;
    shm->len = setup->len;
    shm->index = setup->index;
    shm->chunk_bytes = setup->chunk_bytes != 0 ? setup->chunk_bytes
                                               : chunk_bytes_for(setup->len);
    shm->bytes = arena_bytes(shm);
    shm->fd = -1;
    for (unsigned i = 0; i < TRI_SHM_OPS_MAX; i++) {
        shm->ops[i].next = shm->unused;
        shm->unused = &shm->ops[i];
    }
    if (shm->index == 0 && make(shm) == 0) {
        have(shm);
        tell(shm, TRI_SHM_ARENA);
    } else if (shm->index == 0) {
        fail(shm);
    }
    *shm_p = shm;
    return 0;
}

static bool all_ready(struct tri_shm *shm)
{
    /* acquire: pairs with have */
    for (; shm->ready < shm->len; shm->ready++)
        if (atomic_load_explicit(&shm_area_of(shm, shm->ready)->ready,
                                 memory_order_acquire) != shm->nonce)
            return false;
    return true;
}

int tri_shm_open_progress(struct tri_shm *shm)
{
    tell_on(shm);
    if (shm->is_open)
        return 0;
    if (shm->failed)
        return shm->telling != 0 ? TRI_COLL_PENDING : TROUPE_ETRANSPORT;
    if (shm->base == NULL || !all_ready(shm))
        return TRI_COLL_PENDING;
    if (shm->fd >= 0)
        close(shm->fd);
    shm->fd = -1;
    shm->is_open = true;
    return 0;
}

void tri_shm_close(struct tri_shm **shm_p)
{
    struct tri_shm *shm = *shm_p;

    *shm_p = NULL;
    if (shm == NULL)
        return;
    if (shm->base != NULL)
        tri_shm_unmap(shm->base, shm->bytes);
    if (shm->fd >= 0)
        close(shm->fd);
    free(shm);
}
