/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The processes of this host's members: a pidfd for each, from the moment the
 * member is known, so that its end is known in about a millisecond whether we
 * ever talked to it or not. What cannot be watched (no more descriptors, a
 * hidden /proc) is left to probes.
 */

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "member/member_internal.h"
#include "os/process.h"

/* Descriptors for it: a host has no more ranks than this, nearly ever. */
#define WATCHES_MAX 4096
#define ENDS_LEN 32

/* The socket's number in the epoll set; the others are node ids. */
#define SOCKET_NUMBER 0

bool tri_member_watch(struct tri_member *member, struct tri_contact *contact,
                      const struct tri_member_card *card)
{
    struct epoll_event event = { .events = EPOLLIN,
                                 .data.u64 = contact->node };
    int rc;

    if (card->host != member->host || card->pid == 0 ||
        card->pid == (uint32_t)getpid() || contact->pidfd >= 0 ||
        member->contacts.len > WATCHES_MAX)
        return true;
    rc = tri_process_open((pid_t)card->pid, card->started, &contact->pidfd);
    if (rc != 0)
        return rc != TROUPE_ENODE;
    contact->pid = card->pid;
    if (epoll_ctl(member->epoll_fd, EPOLL_CTL_ADD, contact->pidfd, &event) < 0)
        tri_member_unwatch(member, contact);
    return true;
}

void tri_member_unwatch(struct tri_member *member, struct tri_contact *contact)
{
    struct epoll_event event = { .events = 0 };

    if (contact->pidfd < 0)
        return;
    /* A forked child may hold a copy: closing alone would not end it. */
    epoll_ctl(member->epoll_fd, EPOLL_CTL_DEL, contact->pidfd, &event);
    close(contact->pidfd);
    contact->pidfd = -1;
}

/* It waits for a core, or for the disk; or it did so until just now, and what
 * it said then has come, but was not read yet. */
bool tri_member_is_starved(void *context, uint64_t node)
{
    struct tri_member *member = context;
    struct tri_contact *contact = tri_contacts_find(&member->contacts, node);
    struct pollfd socket = { .fd = member->socket.fd, .events = POLLIN };
    enum tri_process_state state;

    if (contact == NULL || contact->pidfd < 0)
        return false;
    state = tri_process_state((pid_t)contact->pid, TRI_CONTROL_THREAD);
    return state == TRI_PROCESS_WAITS ||
           (state == TRI_PROCESS_SLEEPS && poll(&socket, 1, 0) > 0);
}

bool tri_member_look(struct tri_member *member)
{
    struct epoll_event ends[ENDS_LEN];
    bool readable = false;
    int len;

    do {
        len = epoll_wait(member->epoll_fd, ends, ENDS_LEN, 0);
        for (int i = 0; i < len; i++) {
            struct tri_contact *contact;

            if (ends[i].data.u64 == SOCKET_NUMBER) {
                readable = true;
                continue;
            }
            contact = tri_contacts_find(&member->contacts, ends[i].data.u64);
            if (contact == NULL)
                continue;
            tri_member_unwatch(member, contact);
            contact->ended = member->ends = true;
        }
    } while (len == ENDS_LEN);
    return readable;
}
