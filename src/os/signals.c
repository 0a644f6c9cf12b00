/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dladdr */
#endif
#include "os/signals.h"

#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

#include "base/base.h"
#include "base/log.h"

static const int taken_signals[] = { SIGINT,  SIGILL,  SIGABRT,
                                     SIGBUS,  SIGSEGV, SIGTERM };

/* The file name of the library that a handler lies in, or NULL. */
static const char *handler_library(const struct sigaction *action)
{
    Dl_info info;
    const char *slash;
    void *handler;

    /* Both forms of a handler share their place; a function pointer may not
     * be cast to the data pointer that dladdr wants. */
    memcpy(&handler, &action->sa_handler, sizeof(handler));
    if (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN ||
        dladdr(handler, &info) == 0 || !info.dli_fname)
        return NULL;
    slash = strrchr(info.dli_fname, '/');
    return slash ? slash + 1 : info.dli_fname;
}

void tri_signals_undo_foreign(void)
{
    for (size_t i = 0; i < tri_array_len(taken_signals); i++) {
        struct sigaction action;
        const char *library;

        if (sigaction(taken_signals[i], NULL, &action) != 0)
            continue;
        library = handler_library(&action);
        if (!library ||
            (!strstr(library, "infinipath") && !strstr(library, "psm")))
            continue;
        tri_debug("signal %d taken back from %s", taken_signals[i], library);
        action = (struct sigaction){ .sa_handler = SIG_DFL };
        sigaction(taken_signals[i], &action, NULL);
    }
}

void tri_signals_ignore_pipe(void)
{
    struct sigaction action;

    if (sigaction(SIGPIPE, NULL, &action) != 0 ||
        action.sa_handler != SIG_DFL)
        return;
    action = (struct sigaction){ .sa_handler = SIG_IGN };
    sigaction(SIGPIPE, &action, NULL);
}
