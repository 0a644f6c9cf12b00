/* SPDX-License-Identifier: BSD-3-Clause */
#include "data.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "random.h"

enum { LINE_BYTES_MAX = 1024, FOLDERS_UP_MAX = 8, PIXEL_MAX = 16 };

/* --- finding the file ---------------------------------------------------- */

static int try_folder(const char *folder, char *path, size_t path_bytes)
{
    static const char *const places[] = {
        "data/digits.csv.gz",
        "examples/data/digits.csv.gz",
    };

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        int len = snprintf(path, path_bytes, "%s/%s", folder, places[i]);

        if (len > 0 && (size_t)len < path_bytes && access(path, R_OK) == 0)
            return 0;
    }
    return -1;
}

int dataset_find(const char *given, char *path, size_t path_bytes)
{
    char folder[PATH_MAX];
    ssize_t len;

    if (given)
        return snprintf(path, path_bytes, "%s", given) < (int)path_bytes ? 0
                                                                         : -1;
    len = readlink("/proc/self/exe", folder, sizeof(folder) - 1);
    folder[len < 0 ? 0 : len] = '\0';
    /* From a build folder the sources are a few folders up. */
    for (int up = 0; up < FOLDERS_UP_MAX; up++) {
        char *slash = strrchr(folder, '/');

        if (!slash)
            break;
        *slash = '\0';
        if (try_folder(folder, path, path_bytes) == 0)
            return 0;
    }
    if (try_folder(".", path, path_bytes) == 0)
        return 0;
    /* `make check` says where the sources are, wherever it builds. */
    return getenv("srcdir") ? try_folder(getenv("srcdir"), path, path_bytes)
                            : -1;
}

/* --- reading it ---------------------------------------------------------- */

static int parse_line(const char *line, sample_t *sample)
{
    for (int i = 0; i <= MODEL_PIXELS; i++) {
        char *end;
        long value;

        errno = 0;
        value = strtol(line, &end, 10);
        if (end == line || errno != 0 || value < 0)
            return -1;
        if (i < MODEL_PIXELS) {
            if (*end != ',' || value > PIXEL_MAX)
                return -1;
            sample->pixels[i] = (float)value / PIXEL_MAX;
            line = end + 1;
        } else {
            if (strspn(end, "\r\n") != strlen(end) || value >= MODEL_DIGITS)
                return -1;
            sample->label = (int)value;
        }
    }
    return 0;
}

/* Returns the number of samples, or -1. */
static int read_samples(gzFile file, const char *path, sample_t *samples)
{
    char line[LINE_BYTES_MAX];
    int samples_len = 0, error;

    while (gzgets(file, line, sizeof(line))) {
        if (samples_len == DATASET_SAMPLES_MAX) {
            fprintf(stderr, "%s: more than %d samples\n", path, samples_len);
            return -1;
        }
        if (parse_line(line, &samples[samples_len]) != 0) {
            fprintf(stderr, "%s:%d: not %d pixels and a label\n", path,
                    samples_len + 1, MODEL_PIXELS);
            return -1;
        }
        samples_len++;
    }
    gzerror(file, &error);
    if (error < 0 || samples_len < 10) {
        fprintf(stderr, "%s: %s\n", path,
                error < 0 ? "damaged" : "too few samples");
        return -1;
    }
    return samples_len;
}

static void shuffle(sample_t *samples, int samples_len, uint64_t seed)
{
    uint64_t random = seed;

    for (int i = samples_len; i > 1; i--) {
        uint32_t j = random_below(&random, (uint32_t)i);
        sample_t sample = samples[i - 1];

        samples[i - 1] = samples[j];
        samples[j] = sample;
    }
}

int dataset_load(dataset_t *data, const char *path, uint64_t seed)
{
    gzFile file = gzopen(path, "rb");
    sample_t *samples;
    int samples_len;

    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    samples = calloc(DATASET_SAMPLES_MAX, sizeof(*samples));
    samples_len = samples ? read_samples(file, path, samples) : -1;
    gzclose(file);
    if (samples_len < 0) {
        free(samples);
        return -1;
    }
    shuffle(samples, samples_len, seed);
    data->held_out_len = (uint32_t)samples_len / 5;
    data->train_len = (uint32_t)samples_len - data->held_out_len;
    data->train = samples;
    data->held_out = samples + data->train_len;
    return 0;
}

void dataset_free(dataset_t *data)
{
    free(data->train);
    memset(data, 0, sizeof(*data));
}
