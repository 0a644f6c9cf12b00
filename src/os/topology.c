/* SPDX-License-Identifier: BSD-3-Clause */
#include "os/topology.h"

#include <hwloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

static int read_cores(struct tri_topology *topology)
{
    hwloc_topology_t machine;
    hwloc_bitmap_t bound;
    hwloc_obj_t core = NULL;

    if (hwloc_topology_init(&machine) != 0)
        return TROUPE_ENOMEM;
    if (hwloc_topology_load(machine) != 0) {
        hwloc_topology_destroy(machine);
        tri_error("hwloc cannot read this machine's topology");
        return TROUPE_ESYSTEM;
    }
    bound = hwloc_bitmap_alloc();
    if (hwloc_get_cpubind(machine, bound, HWLOC_CPUBIND_PROCESS) != 0)
        hwloc_bitmap_copy(bound, hwloc_topology_get_allowed_cpuset(machine));
    while ((core = hwloc_get_next_obj_by_type(machine, HWLOC_OBJ_CORE,
                                              core)) != NULL) {
        if (core->logical_index < TRI_CORES_MAX &&
            hwloc_bitmap_intersects(core->cpuset, bound)) {
            topology->bound.bits[core->logical_index / 64] |=
                1ull << (core->logical_index % 64);
            topology->bound_len++;
        }
    }
    hwloc_bitmap_free(bound);
    hwloc_topology_destroy(machine);
    if (topology->bound_len == 0) {
        topology->bound.bits[0] = 1;
        topology->bound_len = 1;
    }
    return 0;
}

static uint64_t hash_inode(uint64_t hash, const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return hash;
    hash = tri_fnv64(hash, &st.st_dev, sizeof(st.st_dev));
    return tri_fnv64(hash, &st.st_ino, sizeof(st.st_ino));
}

static uint64_t host_key(void)
{
    uint64_t hash = TRI_FNV64_OFFSET;
    uid_t uid = getuid();
    char boot[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (file != NULL) {
        if (fgets(boot, sizeof(boot), file) == NULL)
            boot[0] = '\0';
        fclose(file);
    }
    hash = tri_fnv64(hash, boot, strlen(boot));
    hash = hash_inode(hash, "/proc/self/ns/net");
    hash = hash_inode(hash, "/proc/self/ns/pid");
    return tri_fnv64(hash, &uid, sizeof(uid));
}

int tri_topology_read(struct tri_topology *topology_p)
{
    memset(topology_p, 0, sizeof(*topology_p));
    topology_p->host = host_key();
    return read_cores(topology_p);
}

static bool has_core(const struct tri_coreset *set, unsigned core)
{
    return (set->bits[core / 64] >> (core % 64)) & 1;
}

uint32_t tri_topology_workers(const struct tri_coreset *own,
                              const struct tri_coreset *all, uint32_t all_len)
{
    double share = 0;

    for (unsigned core = 0; core < TRI_CORES_MAX; core++) {
        uint32_t sharers = 0;

        if (!has_core(own, core))
            continue;
        for (uint32_t i = 0; i < all_len; i++)
            sharers += has_core(&all[i], core);
        share += 1.0 / (double)tri_max(sharers, 1);
    }
    return share < 1 ? 1 : (uint32_t)(share + 0.001);
}
