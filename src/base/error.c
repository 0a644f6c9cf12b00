/* SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>

#include <troupe/error.h>

#include "base/base.h"

static const struct {
    int value;
    const char *name;
    const char *text;
} errors[] = {
#define X(name, value, text) { value, #name, text },
    TROUPE_ERRORS(X)
#undef X
};

const char *troupe_strerror(int error)
{
    if (error == 0)
        return "success";
    for (size_t i = 0; i < tri_array_len(errors); i++)
        if (errors[i].value == error)
            return errors[i].text;
    return error <= TROUPE_E_USER ? "an error code of the program"
                                  : "not an error code of troupe";
}

const char *troupe_error_name(int error)
{
    if (error == 0)
        return "ok";
    for (size_t i = 0; i < tri_array_len(errors); i++)
        if (errors[i].value == error)
            return errors[i].name;
    return error <= TROUPE_E_USER ? "user" : "unknown";
}
