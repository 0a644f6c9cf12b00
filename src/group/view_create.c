/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Creating a group: all of a list call it, each says HELLO to the first of the
 * list, which says START when all have come with the same list and options, or
 * FAIL. The control lane loses nothing between nodes that live, so each is said
 * once. Who has given up says WITHDRAW, and GONE to a START that is too late:
 * then it is no member, as if it had left.
 */

#include <stdlib.h>
#include <string.h>

#include "group/view_internal.h"

#define TIMEOUT_MS 30000

static const char *const backends[] = { "auto", "mpi", "native" };

/* --- options -------------------------------------------------------------- */

void troupe_group_options_init(troupe_group_options_t *options)
{
    *options = (troupe_group_options_t){
        .elastic = 1,
        .size_min = 1,
        .proof = 1,
        .on_minority = TROUPE_MINORITY_WAIT,
        .backend = "auto",
        .timeout_ms = TIMEOUT_MS,
    };
}

static int backend_of(const char *name, uint32_t *backend_p)
{
    for (uint32_t i = 0; i < tri_array_len(backends); i++)
        if (name == NULL || strcmp(name, backends[i]) == 0) {
            *backend_p = i;
            return 0;
        }
    return TROUPE_EINVAL;
}

bool tri_view_terms_are_valid(const struct tri_view_terms *terms)
{
    return terms->elastic <= 1 && terms->proof <= 1 && terms->check <= 1 &&
           terms->reproducible <= 1 && terms->size_min >= 1 &&
           (terms->size_max == 0 || terms->size_max >= terms->size_min) &&
           terms->on_minority <= TROUPE_MINORITY_STOP &&
           terms->backend < tri_array_len(backends);
}

static int terms_of(const troupe_group_options_t *options,
                    struct tri_view_terms *terms)
{
    *terms = (struct tri_view_terms){
        .elastic = options->elastic != 0,
        .size_min = options->size_min,
        .size_max = options->size_max,
        .proof = options->proof != 0,
        .on_minority = (uint32_t)options->on_minority,
        .check = options->check != 0,
        .reproducible = options->reproducible != 0,
    };
    if (backend_of(options->backend, &terms->backend) != 0 ||
        options->timeout_ms < TROUPE_FOREVER)
        return TROUPE_EINVAL;
    return tri_view_terms_are_valid(terms) ? 0 : TROUPE_EINVAL;
}

void tri_view_take_terms(struct troupe_group *group,
                         const struct tri_view_terms *terms)
{
    troupe_group_options_t *options = &group->options;

    group->terms = *terms;
    options->elastic = (int)terms->elastic;
    options->size_min = terms->size_min;
    options->size_max = terms->size_max;
    options->proof = (int)terms->proof;
    options->on_minority = (int)terms->on_minority;
    options->check = (int)terms->check;
    options->reproducible = (int)terms->reproducible;
    options->backend = backends[terms->backend];
}

/* --- groups in the making ------------------------------------------------- */

static bool is_name(const char *name)
{
    size_t len = name != NULL ? strlen(name) : 0;

    return len >= 1 && len <= TROUPE_GROUP_NAME_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                        "0123456789_.-") == len;
}

int tri_view_new(struct tri_runtime *runtime, const char *name,
                 const troupe_group_options_t *options,
                 struct troupe_group **group_p)
{
    troupe_group_options_t defaults;
    struct tri_view_terms terms;
    struct troupe_group *group;
    int rc;

    troupe_group_options_init(&defaults);
    if (options == NULL)
        options = &defaults;
    rc = is_name(name) ? terms_of(options, &terms) : TROUPE_EINVAL;
    if (rc != 0)
        return rc;
    group = calloc(1, sizeof(*group));
    if (group == NULL)
        return TROUPE_ENOMEM;
    group->runtime = runtime;
    memcpy(group->name, name, strlen(name));
    group->options.timeout_ms = options->timeout_ms;
    group->adopted.index = -1;
    group->outcome = 1;
    tri_view_take_terms(group, &terms);
    *group_p = group;
    return 0;
}

void tri_view_close_tensor(struct troupe_group *group)
{
    struct tri_runtime *runtime = group->runtime;

    if (group->id != 0 && runtime->tensor_closed != NULL)
        runtime->tensor_closed(runtime, group->id);
    group->tensor = NULL;
}

void tri_view_free(struct troupe_group *group)
{
    if (group == NULL)
        return;
    tri_view_close_tensor(group);
    tri_agree_destroy(&group->agree);
    for (uint32_t i = 0; i < TRI_VIEW_LISTS; i++)
        free(group->lists[i]);
    free(group->creating);
    free(group);
}

int tri_view_check_call(troupe_t *troupe, troupe_group_t **group_p)
{
    if (troupe == NULL || group_p == NULL)
        return TROUPE_EINVAL;
    return tri_worker_current() != NULL ? TROUPE_ECONTEXT : 0;
}

uint64_t tri_view_deadline(const struct troupe_group *group)
{
    return tri_deadline_ns(group->options.timeout_ms);
}

/* --- hellos --------------------------------------------------------------- */

static void drop_hello_locked(struct tri_views *views, uint32_t i)
{
    views->hellos[i] = views->hellos[--views->hellos_len];
}

static struct tri_view_hello *find_hello_locked(struct tri_views *views,
                                                uint64_t node,
                                                const char *name)
{
    for (uint32_t i = 0; i < views->hellos_len; i++)
        if (views->hellos[i].node == node &&
            strcmp(views->hellos[i].name, name) == 0)
            return &views->hellos[i];
    return NULL;
}

static bool grow_hellos_locked(struct tri_views *views)
{
    uint32_t max = views->hellos_max == 0 ? 64 : views->hellos_max * 2;
    struct tri_view_hello *hellos;

    if (max > TRI_VIEW_HELLOS_MAX)
        return false;
    hellos = realloc(views->hellos, max * sizeof(*hellos));
    if (hellos == NULL)
        return false;
    views->hellos = hellos;
    views->hellos_max = max;
    return true;
}

/* A place for one of this node, or NULL. A node has so many groups at most:
 * when it has said more, errors were among them that nobody took. */
static struct tri_view_hello *add_hello_locked(struct tri_views *views,
                                               uint64_t node)
{
    struct tri_view_hello *error = NULL;
    uint32_t len = 0;

    for (uint32_t i = 0; i < views->hellos_len; i++)
        if (views->hellos[i].node == node) {
            len++;
            if (views->hellos[i].error != 0)
                error = &views->hellos[i];
        }
    if (len >= TRI_VIEW_GROUPS_MAX)
        return error;
    if (views->hellos_len == views->hellos_max && !grow_hellos_locked(views))
        return NULL;
    return &views->hellos[views->hellos_len++];
}

/* Whether a create of this name fails here, too, before it looks at hellos. */
static bool is_in_use_locked(struct tri_views *views, const char *name)
{
    const struct troupe_group *group = tri_view_named_locked(views, name);

    return group != NULL && group->state != TRI_VIEW_CREATING;
}

static void take_hello_locked(struct tri_views *views, uint64_t node,
                              const struct tri_view_note *note)
{
    struct tri_view_hello *hello = find_hello_locked(views, node, note->name);

    /* The error would be kept for the next group of this name. */
    if (note->value < 0 && is_in_use_locked(views, note->name))
        return;
    if (hello == NULL)
        hello = add_hello_locked(views, node);
    if (hello == NULL)
        return; /* it is as one that has not come */
    *hello = (struct tri_view_hello){
        .node = node,
        .call = note->call,
        .digest = note->digest,
        .error = note->value < 0 ? note->value : 0,
    };
    memcpy(hello->name, note->name, sizeof(hello->name));
    tri_views_changed_locked(views);
}

void tri_view_create_gone_locked(struct tri_views *views, uint64_t node)
{
    for (uint32_t i = views->hellos_len; i-- > 0;)
        if (views->hellos[i].node == node)
            drop_hello_locked(views, i);
}

/* --- what the first of the list says -------------------------------------- */

static int begin_locked(struct troupe_group *group, uint64_t id)
{
    uint32_t max = group->terms.elastic ? TRI_AGREE_MEMBERS_MAX
                                        : group->creating_len;
    int rc = tri_view_make_core_locked(group, id, max);

    if (rc == 0)
        rc = tri_agree_begin(group->agree, group->creating,
                             group->creating_len);
    if (rc != 0)
        return rc;
    group->state = TRI_VIEW_MEMBER;
    (void)tri_view_adopt_locked(group); /* or later: see is_begun */
    tri_view_announce_locked(tri_views_of(group));
    tri_view_stand_if_idle_locked(group);
    tri_view_bury_locked(group);
    return 0;
}

/* It gave up meanwhile: the others hear that it is no member. */
static void refuse_start_locked(struct tri_views *views, uint64_t node,
                                const struct tri_view_note *start)
{
    struct tri_view_note gone = { .group = start->group,
                                  .number = tri_now_ns() };

    views->closed[views->closed_next++ % TRI_VIEW_CLOSED_MAX] = start->group;
    tri_view_say(views, node, TRI_VIEW_GONE, &gone);
}

static void take_start_locked(struct tri_views *views, uint64_t node,
                              const struct tri_view_note *note)
{
    struct troupe_group *group = tri_view_named_locked(views, note->name);

    if (group == NULL || group->state != TRI_VIEW_CREATING ||
        group->outcome != 1 || group->call != note->call ||
        group->creating[0] != node || note->group == 0) {
        refuse_start_locked(views, node, note);
        return;
    }
    group->outcome = begin_locked(group, note->group);
    if (group->outcome != 0)
        refuse_start_locked(views, node, note);
    tri_views_changed_locked(views);
}

static void take_fail_locked(struct tri_views *views, uint64_t node,
                             const struct tri_view_note *note)
{
    struct troupe_group *group = tri_view_named_locked(views, note->name);

    if (group == NULL || group->state != TRI_VIEW_CREATING ||
        group->outcome != 1 || group->call != note->call ||
        group->creating[0] != node)
        return;
    group->outcome = note->value < 0 ? note->value : TROUPE_EPROTO;
    tri_views_changed_locked(views);
}

void tri_view_create_note_locked(struct tri_views *views, uint64_t node,
                                 enum tri_view_what what,
                                 const struct tri_view_note *note)
{
    struct tri_view_hello *hello;

    switch (what) {
    case TRI_VIEW_HELLO:
        take_hello_locked(views, node, note);
        break;
    case TRI_VIEW_WITHDRAW:
        hello = find_hello_locked(views, node, note->name);
        if (hello != NULL && hello->call == note->call)
            drop_hello_locked(views, (uint32_t)(hello - views->hellos));
        break;
    case TRI_VIEW_START:
        take_start_locked(views, node, note);
        break;
    default:
        take_fail_locked(views, node, note);
        break;
    }
}

/* --- the first of the list ------------------------------------------------ */

static uint64_t digest_of(const struct troupe_group *group)
{
    uint64_t hash = tri_fnv64(TRI_FNV64_OFFSET, &group->terms,
                              sizeof(group->terms));

    return tri_fnv64(hash, group->creating,
                     group->creating_len * sizeof(*group->creating));
}

/* Anybody of the list is gone: it will never come. */
static bool is_one_gone(const struct troupe_group *group)
{
    for (uint32_t i = 0; i < group->creating_len; i++) {
        enum tri_view_life life = tri_view_life_of(
            group->runtime, group->creating[i], NULL);

        if (life == TRI_VIEW_DEAD || life == TRI_VIEW_LEFT)
            return true;
    }
    return false;
}

static uint32_t count_hellos_locked(const struct tri_views *views,
                                    const char *name)
{
    uint32_t len = 0;

    for (uint32_t i = 0; i < views->hellos_len; i++)
        len += strcmp(views->hellos[i].name, name) == 0;
    return len;
}

/* 1: some have not come yet. An error, too, waits for all, so that all are
 * told. O(members), and squared once, in the end. */
static int look_for_all_locked(struct troupe_group *group)
{
    struct tri_views *views = tri_views_of(group);
    uint64_t digest = digest_of(group);
    int rc = 0;

    if (is_one_gone(group))
        return TROUPE_ENODE;
    if (count_hellos_locked(views, group->name) + 1 < group->creating_len)
        return 1;
    for (uint32_t i = 1; i < group->creating_len; i++) {
        const struct tri_view_hello *hello = find_hello_locked(
            views, group->creating[i], group->name);

        if (hello == NULL)
            return 1;
        if (hello->error != 0)
            rc = hello->error;
        else if (hello->digest != digest && rc == 0)
            rc = TROUPE_EMISMATCH;
    }
    return rc;
}

/* Says to all of the list that have come what became of it. Others wait for
 * another group of this name, which may yet be. */
static void answer_locked(struct troupe_group *group, uint64_t id, int rc)
{
    struct tri_views *views = tri_views_of(group);
    struct tri_view_note note = { .group = id, .value = rc };

    memcpy(note.name, group->name, sizeof(note.name));
    for (uint32_t i = 1; i < group->creating_len; i++) {
        const struct tri_view_hello *hello = find_hello_locked(
            views, group->creating[i], group->name);

        if (hello == NULL)
            continue;
        note.call = hello->call;
        tri_view_say(views, hello->node,
                     rc == 0 ? TRI_VIEW_START : TRI_VIEW_FAIL, &note);
        drop_hello_locked(views, (uint32_t)(hello - views->hellos));
    }
}

static bool are_all_here(void *arg)
{
    struct troupe_group *group = arg;

    if (group->outcome == 1)
        group->outcome = look_for_all_locked(group);
    return group->outcome != 1;
}

/* A view is adopted. */
static bool is_begun(void *arg)
{
    struct troupe_group *group = arg;

    if (group->adopted.epoch != 0 || group->excluded)
        return true;
    if (!tri_view_adopt_locked(group))
        return false;
    tri_view_stand_if_idle_locked(group);
    return true;
}

/* The group is made; its members need not all be known here yet. Who runs out
 * of time now is a member, and says that it is none. */
static int wait_for_members(struct troupe_group *group, struct tri_seat *seat,
                            uint64_t deadline_ns)
{
    struct tri_views *views = tri_views_of(group);
    struct tri_agree_event quit = { .kind = TRI_AGREE_QUIT };
    int rc = tri_view_wait(views, seat, is_begun, group, deadline_ns);

    tri_views_lock(views);
    if (rc == 0 && group->adopted.epoch == 0)
        rc = TROUPE_EEXCLUDED;
    if (rc != 0)
        tri_view_step_locked(group, &quit);
    tri_views_unlock(views);
    return rc;
}

/* Another one of the same name, later, is another group. */
static uint64_t make_id(const struct troupe_group *group)
{
    uint64_t id = tri_fnv64(TRI_FNV64_OFFSET, group->name,
                            strlen(group->name));

    return tri_mix64(id ^ group->runtime->node ^ tri_mix64(group->call)) | 1;
}

static int gather(struct troupe_group *group, struct tri_seat *seat)
{
    struct tri_views *views = tri_views_of(group);
    uint64_t id = make_id(group), deadline_ns = tri_view_deadline(group);
    int rc;

    do {
        rc = tri_view_wait(views, seat, are_all_here, group, deadline_ns);
        tri_views_lock(views);
        if (rc == 0) /* one may have given up since */
            rc = group->outcome = look_for_all_locked(group);
        /* Before the others hear of it: what they say then is for its core. */
        if (rc == 0)
            rc = begin_locked(group, id);
        if (rc != 1)
            answer_locked(group, id, rc);
        tri_views_unlock(views);
    } while (rc == 1);
    return rc == 0 ? wait_for_members(group, seat, deadline_ns) : rc;
}

/* --- the others ----------------------------------------------------------- */

static struct tri_view_note hello_of(const struct troupe_group *group, int rc)
{
    struct tri_view_note note = {
        .call = group->call,
        .digest = digest_of(group),
        .value = rc,
    };

    memcpy(note.name, group->name, sizeof(note.name));
    return note;
}

/* 1: it is said; or later, as who asks may know a node before we do. */
static int say_hello_locked(struct troupe_group *group)
{
    struct tri_view_note note = hello_of(group, 0);
    uint64_t first = group->creating[0];
    enum tri_view_life life = tri_view_life_of(group->runtime, first, NULL);
    int rc = tri_view_say(tri_views_of(group), first, TRI_VIEW_HELLO, &note);

    group->has_come = rc == 0;
    if (rc == TROUPE_ENODE && life == TRI_VIEW_UNKNOWN)
        return 1;
    return rc == 0 ? 1 : rc;
}

static bool is_answered(void *arg)
{
    struct troupe_group *group = arg;

    if (group->outcome == 1 && is_one_gone(group))
        group->outcome = TROUPE_ENODE;
    if (group->outcome == 1 && !group->has_come)
        group->outcome = say_hello_locked(group);
    return group->outcome != 1;
}

static int come(struct troupe_group *group, struct tri_seat *seat)
{
    struct tri_views *views = tri_views_of(group);
    struct tri_view_note note = hello_of(group, 0);
    uint64_t deadline_ns = tri_view_deadline(group);
    int rc = tri_view_wait(views, seat, is_answered, group, deadline_ns);

    tri_views_lock(views);
    if (group->outcome == 1)
        group->outcome = rc; /* a START is too late now */
    rc = group->outcome;
    if (rc != 0 && group->has_come) /* its HELLO would be the next one's */
        tri_view_say(views, group->creating[0], TRI_VIEW_WITHDRAW, &note);
    tri_views_unlock(views);
    return rc == 0 ? wait_for_members(group, seat, deadline_ns) : rc;
}

/* --- the calls ------------------------------------------------------------ */

/* The list: this node in it, and nobody twice. */
static int check_nodes(const struct tri_runtime *runtime,
                       const uint64_t *nodes, uint32_t len)
{
    bool is_here = false;

    if (nodes == NULL || len == 0)
        return TROUPE_EINVAL;
    if (len > TRI_AGREE_MEMBERS_MAX)
        return TROUPE_ELIMIT;
    for (uint32_t i = 0; i < len; i++) {
        is_here |= nodes[i] == runtime->node;
        for (uint32_t k = 0; k < i; k++)
            if (nodes[k] == nodes[i])
                return TROUPE_EINVAL;
        if (nodes[i] == 0)
            return TROUPE_EINVAL;
    }
    return is_here ? 0 : TROUPE_EINVAL;
}

/* The name is in use here: who waits for us hears of it. */
static void say_failed(struct troupe_group *group, int rc)
{
    struct tri_views *views = tri_views_of(group);
    struct tri_view_note note = hello_of(group, rc);

    tri_views_lock(views);
    if (group->creating[0] == group->runtime->node)
        answer_locked(group, 0, rc);
    else
        tri_view_say(views, group->creating[0], TRI_VIEW_HELLO, &note);
    tri_views_unlock(views);
}

static int create(struct troupe_group *group)
{
    struct tri_runtime *runtime = group->runtime;
    struct tri_seat seat;
    int rc = tri_view_insert(runtime->views, group);

    if (rc != 0) {
        say_failed(group, rc);
        return rc;
    }
    tri_seat_take(runtime, &seat);
    rc = group->creating[0] == runtime->node ? gather(group, &seat)
                                             : come(group, &seat);
    tri_seat_leave(&seat);
    if (rc != 0)
        tri_view_remove(runtime->views, group);
    return rc;
}

int troupe_group_create_of(troupe_t *troupe, const char *name,
                           const uint64_t *nodes, uint32_t nodes_len,
                           const troupe_group_options_t *options,
                           troupe_group_t **group_p)
{
    struct tri_runtime *runtime = (struct tri_runtime *)troupe;
    struct troupe_group *group;
    int rc = tri_view_check_call(troupe, group_p);

    if (rc == 0)
        rc = check_nodes(runtime, nodes, nodes_len);
    if (rc == 0)
        rc = tri_view_new(runtime, name, options, &group);
    if (rc != 0)
        return rc;
    group->creating = malloc(nodes_len * sizeof(*nodes));
    if (group->creating != NULL) {
        memcpy(group->creating, nodes, nodes_len * sizeof(*nodes));
        group->creating_len = nodes_len;
    }
    rc = group->creating != NULL ? create(group) : TROUPE_ENOMEM;
    if (rc != 0)
        tri_view_free(group);
    else
        *group_p = group;
    return rc;
}

int troupe_group_create(troupe_t *troupe, const char *name,
                        const troupe_group_options_t *options,
                        troupe_group_t **group_p)
{
    struct tri_runtime *runtime = (struct tri_runtime *)troupe;
    uint64_t *nodes;
    uint32_t len;
    int rc = tri_view_check_call(troupe, group_p);

    if (rc != 0)
        return rc;
    len = (uint32_t)runtime->size;
    nodes = malloc(len * sizeof(*nodes));
    if (nodes == NULL)
        return TROUPE_ENOMEM;
    for (uint32_t i = 0; i < len; i++)
        nodes[i] = (int)i == runtime->rank ? runtime->node
                                           : runtime->link.peers[i].node;
    rc = troupe_group_create_of(troupe, name, nodes, len, options, group_p);
    free(nodes);
    return rc;
}
