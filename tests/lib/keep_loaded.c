/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Only in builds with a sanitizer: libraries stay loaded until the process
 * ends. Open MPI unloads its plugins in MPI_Finalize and leaks what they
 * allocated; the leak sanitizer, which looks at the very end, could no longer
 * say whose that is, and tests/suppressions would not match.
 */
int dlclose(void *handle);

/* What the linker is told to need, so that this file is taken: dlclose alone
 * would be the sanitizer's. */
extern const int tri_keep_loaded;
const int tri_keep_loaded = 1;

int dlclose(void *handle)
{
    (void)handle;
    return 0;
}
