/* SPDX-License-Identifier: BSD-3-Clause */
#include "group/quiesce_core.h"

#include <endian.h>
#include <string.h>

/* --- messages ------------------------------------------------------------- */

static void put16(unsigned char *at, uint16_t value)
{
    value = htole16(value);
    memcpy(at, &value, sizeof(value));
}

static void put32(unsigned char *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof(value));
}

static void put64(unsigned char *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof(value));
}

static uint16_t get16(const unsigned char *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof(value));
    return le16toh(value);
}

static uint32_t get32(const unsigned char *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return le32toh(value);
}

static uint64_t get64(const unsigned char *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return le64toh(value);
}

size_t tri_quiesce_encode(const struct tri_quiesce_message *message,
                          unsigned char *bytes_p)
{
    unsigned char *at = bytes_p + TRI_QUIESCE_HEADER_BYTES;

    assert(message->len <= TRI_QUIESCE_ENTRIES_MAX);
    bytes_p[0] = message->kind;
    bytes_p[1] = message->flags;
    put16(bytes_p + 2, message->len);
    put32(bytes_p + 4, message->call);
    put64(bytes_p + 8, message->instance);
    put64(bytes_p + 16, message->round);
    put64(bytes_p + 24, message->sent);
    put64(bytes_p + 32, message->received);
    put64(bytes_p + 40, message->dead);
    put32(bytes_p + 48, message->absent_len);
    put32(bytes_p + 52, message->busy_len);
    put64(bytes_p + 56, message->first);
    for (unsigned i = 0; i < message->len; i++, at += 8) {
        put32(at, message->entries[i].who);
        put32(at + 4, message->entries[i].what);
    }
    return (size_t)(at - bytes_p);
}

bool tri_quiesce_decode(const unsigned char *data, size_t bytes,
                        struct tri_quiesce_message *message_p)
{
    const unsigned char *at = data + TRI_QUIESCE_HEADER_BYTES;
    struct tri_quiesce_message message = { 0 };

    if (bytes < TRI_QUIESCE_HEADER_BYTES)
        return false;
    message.kind = data[0];
    message.flags = data[1];
    message.len = get16(data + 2);
    if (message.kind < TRI_QUIESCE_JOIN ||
        message.kind > TRI_QUIESCE_KIND_LAST ||
        (message.flags & ~TRI_QUIESCE_FLAGS) != 0 ||
        message.len > TRI_QUIESCE_ENTRIES_MAX ||
        bytes != TRI_QUIESCE_HEADER_BYTES + 8u * message.len)
        return false;
    message.call = get32(data + 4);
    message.instance = get64(data + 8);
    message.round = get64(data + 16);
    message.sent = get64(data + 24);
    message.received = get64(data + 32);
    message.dead = get64(data + 40);
    message.absent_len = get32(data + 48);
    message.busy_len = get32(data + 52);
    message.first = get64(data + 56);
    if (message.first != 0 && message.kind != TRI_QUIESCE_JOIN)
        return false;
    for (unsigned i = 0; i < message.len; i++, at += 8)
        message.entries[i] = (struct tri_quiesce_entry){ get32(at),
                                                         get32(at + 4) };
    *message_p = message;
    return true;
}

/* --- small things --------------------------------------------------------- */

static struct tri_quiesce_message *send(struct tri_quiesce_effects *effects,
                                        uint32_t to,
                                        enum tri_quiesce_kind kind)
{
    struct tri_quiesce_message *message;

    assert(effects->len < TRI_QUIESCE_SENDS_MAX);
    effects->sends[effects->len].to = to;
    message = &effects->sends[effects->len++].message;
    *message = (struct tri_quiesce_message){ .kind = (uint8_t)kind };
    return message;
}

uint32_t tri_quiesce_coordinator(const struct tri_quiesce *quiesce)
{
    uint32_t rank = 0;

    while (rank < quiesce->self && quiesce->members[rank].is_dead)
        rank++;
    return rank;
}

static bool is_coordinator(const struct tri_quiesce *quiesce)
{
    return tri_quiesce_coordinator(quiesce) == quiesce->self;
}

static void send_join(struct tri_quiesce *quiesce,
                      struct tri_quiesce_effects *effects, uint32_t to)
{
    struct tri_quiesce_message *join = send(effects, to, TRI_QUIESCE_JOIN);

    join->call = quiesce->call;
    join->first = quiesce->first;
    join->instance = quiesce->instance;
    join->round = quiesce->done_instance;
    join->flags = quiesce->done_flags;
}

static void send_leave(struct tri_quiesce *quiesce,
                       struct tri_quiesce_effects *effects, uint32_t to)
{
    struct tri_quiesce_message *leave = send(effects, to, TRI_QUIESCE_LEAVE);

    leave->call = quiesce->calls;
    leave->round = quiesce->done_instance;
    leave->flags = quiesce->done_flags;
}

static void send_done(struct tri_quiesce *quiesce,
                      struct tri_quiesce_effects *effects, uint32_t to)
{
    struct tri_quiesce_message *done = send(effects, to, TRI_QUIESCE_DONE);

    done->instance = quiesce->done_instance;
    done->flags = quiesce->done_flags;
}

static void end_member_call(struct tri_quiesce_member *member)
{
    if (member->call > member->left)
        member->left = member->call;
    member->call = 0;
    member->first = member->instance = 0;
}

static void end_call(struct tri_quiesce *quiesce,
                     enum tri_quiesce_outcome outcome)
{
    assert(quiesce->call != 0 && quiesce->outcome == TRI_QUIESCE_PENDING);
    quiesce->outcome = outcome;
    quiesce->call = 0;
    quiesce->first = quiesce->instance = 0;
    quiesce->asker = TRI_QUIESCE_NONE;
    quiesce->is_running = false;
    end_member_call(&quiesce->members[quiesce->self]);
}

static void finish(struct tri_quiesce *quiesce)
{
    end_call(quiesce, (quiesce->done_flags & TRI_QUIESCE_GAVE_UP) != 0
                          ? TRI_QUIESCE_IS_GIVEN_UP
                          : TRI_QUIESCE_IS_QUIET);
}

static void enter_instance(struct tri_quiesce *quiesce, uint64_t instance)
{
    quiesce->instance = instance;
    if (quiesce->first == 0)
        quiesce->first = instance;
}

/* A call that took part in instances from `first` on; see invariant 2. */
static bool is_over(uint64_t first, uint64_t done_instance)
{
    return first != 0 && first <= done_instance;
}

/* --- what is it waiting for? ---------------------------------------------- */

static uint32_t why_of(const struct tri_quiesce *quiesce,
                       const struct tri_quiesce_member *member,
                       uint64_t now_ns)
{
    if (member->call == 0)
        return TRI_QUIESCE_IS_ABSENT;
    if (quiesce->is_running && !member->has_reported &&
        now_ns - quiesce->round_ns >= TRI_QUIESCE_SILENCE_NS)
        return TRI_QUIESCE_IS_SILENT;
    if ((member->flags & TRI_QUIESCE_ACTORS) != 0)
        return TRI_QUIESCE_HAS_ACTORS;
    return (member->flags & TRI_QUIESCE_OUTBOX) != 0 ? TRI_QUIESCE_HAS_OUTBOX
                                                     : 0;
}

/* What the coordinator knows. */
static void fill_status(const struct tri_quiesce *quiesce, uint64_t now_ns,
                        struct tri_quiesce_message *status)
{
    status->sent = quiesce->last_sent;
    status->received = quiesce->last_received;
    for (uint32_t i = 0; i < quiesce->len; i++) {
        const struct tri_quiesce_member *member = &quiesce->members[i];
        uint32_t why = member->is_dead ? 0 : why_of(quiesce, member, now_ns);

        status->absent_len += why == TRI_QUIESCE_IS_ABSENT;
        status->busy_len += why > TRI_QUIESCE_IS_ABSENT;
        if (why != 0 && status->len < TRI_QUIESCE_ENTRIES_MAX)
            status->entries[status->len++] =
                (struct tri_quiesce_entry){ i, why };
    }
}

/* --- coordinator ---------------------------------------------------------- */

static void begin_round(struct tri_quiesce *quiesce,
                        struct tri_quiesce_effects *effects, uint64_t now_ns)
{
    struct tri_quiesce_message *round = send(effects, TRI_QUIESCE_ALL,
                                             TRI_QUIESCE_ROUND);

    for (uint32_t i = 0; i < quiesce->len; i++)
        quiesce->members[i].has_reported = false;
    quiesce->reports_len = 0;
    quiesce->all_idle = quiesce->same_dead = true;
    quiesce->sent = quiesce->received = 0;
    quiesce->round++;
    quiesce->round_ns = now_ns;
    quiesce->next_round_ns = TRI_QUIESCE_NEVER;
    round->instance = quiesce->last_instance;
    round->round = quiesce->round;
    enter_instance(quiesce, quiesce->last_instance);
    quiesce->asker = quiesce->last_asker = quiesce->self;
    quiesce->asked_instance = quiesce->last_instance;
    quiesce->asked_round = quiesce->round;
    quiesce->asked_ns = now_ns;
}

/* Begins an instance if all are in. */
static void try_begin(struct tri_quiesce *quiesce,
                      struct tri_quiesce_effects *effects, uint64_t now_ns)
{
    uint64_t instance = quiesce->done_instance;

    if (!is_coordinator(quiesce) || quiesce->call == 0 || quiesce->is_running)
        return;
    for (uint32_t i = 0; i < quiesce->len; i++) {
        const struct tri_quiesce_member *member = &quiesce->members[i];

        if (member->is_dead)
            continue;
        if (member->call == 0)
            return;
        if (member->instance > instance)
            instance = member->instance;
    }
    if (quiesce->instance > instance)
        instance = quiesce->instance;
    if (quiesce->last_instance < instance)
        quiesce->last_instance = instance;
    quiesce->last_instance++;
    quiesce->is_running = true;
    quiesce->is_repeated = false;
    quiesce->took_over = false;
    quiesce->pause_ns = TRI_QUIESCE_PAUSE_MIN_NS;
    begin_round(quiesce, effects, now_ns);
}

/* The instance is over, for all. */
static void complete(struct tri_quiesce *quiesce,
                     struct tri_quiesce_effects *effects, uint8_t flags,
                     uint64_t now_ns)
{
    quiesce->done_instance = quiesce->last_instance;
    quiesce->done_flags = flags;
    send_done(quiesce, effects, TRI_QUIESCE_ALL);
    if (flags != 0) {
        struct tri_quiesce_message *done =
            &effects->sends[effects->len - 1].message;

        fill_status(quiesce, now_ns, done);
        quiesce->status = *done;
    }
    for (uint32_t i = 0; i < quiesce->len; i++)
        end_member_call(&quiesce->members[i]);
    finish(quiesce);
}

static void end_round(struct tri_quiesce *quiesce,
                      struct tri_quiesce_effects *effects, uint64_t now_ns)
{
    bool quiet = quiesce->all_idle && quiesce->same_dead &&
                 quiesce->sent == quiesce->received;
    bool same = quiesce->is_repeated &&
                quiesce->sent == quiesce->last_sent &&
                quiesce->received == quiesce->last_received;

    quiesce->last_sent = quiesce->sent;
    quiesce->last_received = quiesce->received;
    quiesce->is_repeated = quiet;
    if (quiet && same) {
        complete(quiesce, effects, 0, now_ns);
    } else if (quiet) {
        begin_round(quiesce, effects, now_ns);
    } else if (now_ns >= quiesce->patience_ns) {
        complete(quiesce, effects, TRI_QUIESCE_GAVE_UP, now_ns);
    } else {
        quiesce->next_round_ns = now_ns + quiesce->pause_ns;
        quiesce->pause_ns = tri_min(2 * quiesce->pause_ns,
                                    TRI_QUIESCE_PAUSE_MAX_NS);
    }
}

static void take_report(struct tri_quiesce *quiesce,
                        struct tri_quiesce_effects *effects, uint32_t rank,
                        const struct tri_quiesce_message *report,
                        uint64_t now_ns)
{
    struct tri_quiesce_member *member = &quiesce->members[rank];

    if (!quiesce->is_running || member->has_reported ||
        report->instance != quiesce->last_instance ||
        report->round != quiesce->round)
        return;
    member->has_reported = true;
    member->flags = report->flags;
    quiesce->all_idle &= report->flags == 0;
    quiesce->same_dead &= report->dead == quiesce->dead;
    quiesce->sent += report->sent;
    quiesce->received += report->received;
    if (++quiesce->reports_len == quiesce->len - quiesce->dead_len)
        end_round(quiesce, effects, now_ns);
}

/*
 * Somebody knows that an instance is over. Who is still in it, as far as we
 * know, is told; see invariant 2.
 */
static void note_done(struct tri_quiesce *quiesce,
                      struct tri_quiesce_effects *effects, uint64_t instance,
                      uint8_t flags)
{
    bool any = false;

    if (instance <= quiesce->done_instance)
        return;
    quiesce->done_instance = instance;
    quiesce->done_flags = flags;
    for (uint32_t i = 0; i < quiesce->len; i++) {
        struct tri_quiesce_member *member = &quiesce->members[i];

        if (i == quiesce->self || member->is_dead || member->call == 0 ||
            !is_over(member->first, instance))
            continue;
        end_member_call(member);
        any = true;
    }
    if (any)
        send_done(quiesce, effects, TRI_QUIESCE_ALL);
    if (quiesce->call != 0 && is_over(quiesce->first, instance))
        finish(quiesce);
}

static void on_join(struct tri_quiesce *quiesce,
                    struct tri_quiesce_effects *effects, uint32_t rank,
                    const struct tri_quiesce_message *join, uint64_t now_ns)
{
    struct tri_quiesce_member *member = &quiesce->members[rank];

    note_done(quiesce, effects, join->round, join->flags);
    if (join->call <= member->left || join->call < member->call)
        return; /* overtaken */
    if (is_over(join->first, quiesce->done_instance)) {
        member->call = join->call;
        end_member_call(member);
        send_done(quiesce, effects, rank);
        return;
    }
    if (join->call != member->call) {
        quiesce->is_running = false; /* it does not know this instance */
        member->first = member->instance = 0;
        member->flags = 0;
    }
    member->call = join->call;
    if (member->first == 0)
        member->first = join->first;
    if (member->instance < join->instance)
        member->instance = join->instance;
    try_begin(quiesce, effects, now_ns);
}

static void on_leave(struct tri_quiesce *quiesce,
                     struct tri_quiesce_effects *effects, uint32_t rank,
                     const struct tri_quiesce_message *leave)
{
    struct tri_quiesce_member *member = &quiesce->members[rank];

    if (member->left < leave->call)
        member->left = leave->call;
    if (member->call != 0 && member->call <= leave->call) {
        member->call = 0;
        member->first = member->instance = 0;
        quiesce->is_running = false;
    }
    note_done(quiesce, effects, leave->round, leave->flags);
}

/* --- member --------------------------------------------------------------- */

/* A later round of the same coordinator has come already. */
static bool is_overtaken(const struct tri_quiesce *quiesce, uint32_t rank,
                         const struct tri_quiesce_message *round)
{
    return rank == quiesce->last_asker &&
           round->instance == quiesce->asked_instance &&
           round->round <= quiesce->asked_round;
}

static void on_round(struct tri_quiesce *quiesce,
                     struct tri_quiesce_effects *effects, uint32_t rank,
                     const struct tri_quiesce_message *round, uint64_t now_ns)
{
    if (quiesce->call == 0) {
        send_leave(quiesce, effects, rank);
        return;
    }
    if (round->instance < quiesce->instance ||
        round->instance <= quiesce->done_instance ||
        is_overtaken(quiesce, rank, round))
        return;
    enter_instance(quiesce, round->instance);
    quiesce->asker = quiesce->last_asker = rank;
    quiesce->asked_instance = round->instance;
    quiesce->asked_round = round->round;
    quiesce->asked_ns = now_ns;
}

static void on_done(struct tri_quiesce *quiesce,
                    struct tri_quiesce_effects *effects,
                    const struct tri_quiesce_message *done)
{
    if (quiesce->call != 0 && is_over(quiesce->first, done->instance))
        quiesce->status = *done;
    note_done(quiesce, effects, done->instance, done->flags);
}

static void on_message(struct tri_quiesce *quiesce,
                       struct tri_quiesce_effects *effects, uint32_t rank,
                       const struct tri_quiesce_message *message,
                       uint64_t now_ns)
{
    if (rank >= quiesce->len || rank == quiesce->self ||
        quiesce->members[rank].is_dead)
        return;
    switch (message->kind) {
    case TRI_QUIESCE_JOIN:
        on_join(quiesce, effects, rank, message, now_ns);
        break;
    case TRI_QUIESCE_LEAVE:
        on_leave(quiesce, effects, rank, message);
        break;
    case TRI_QUIESCE_CALL:
        if (quiesce->call != 0)
            send_join(quiesce, effects, rank);
        else
            send_leave(quiesce, effects, rank);
        break;
    case TRI_QUIESCE_ROUND:
        on_round(quiesce, effects, rank, message, now_ns);
        break;
    case TRI_QUIESCE_REPORT:
        take_report(quiesce, effects, rank, message, now_ns);
        break;
    case TRI_QUIESCE_DONE:
        on_done(quiesce, effects, message);
        break;
    case TRI_QUIESCE_QUERY:
        fill_status(quiesce, now_ns,
                    send(effects, rank, TRI_QUIESCE_STATUS));
        break;
    case TRI_QUIESCE_STATUS:
        if (quiesce->call != 0 && rank == tri_quiesce_coordinator(quiesce))
            quiesce->status = *message;
        break;
    default:
        break;
    }
}

/* --- the other events ----------------------------------------------------- */

/* Takes over if the coordinator has died; or joins the new one. */
static void look_for_coordinator(struct tri_quiesce *quiesce,
                                 struct tri_quiesce_effects *effects,
                                 uint64_t now_ns)
{
    if (!is_coordinator(quiesce))
        return;
    if (!quiesce->was_coordinator)
        quiesce->took_over = true;
    quiesce->was_coordinator = true;
    if (quiesce->call == 0)
        return;
    if (quiesce->took_over)
        send(effects, TRI_QUIESCE_ALL, TRI_QUIESCE_CALL);
    try_begin(quiesce, effects, now_ns);
}

static void on_start(struct tri_quiesce *quiesce,
                     struct tri_quiesce_effects *effects,
                     const struct tri_quiesce_event *event)
{
    struct tri_quiesce_member *self = &quiesce->members[quiesce->self];
    uint64_t time_ns = event->deadline_ns > event->now_ns
                           ? event->deadline_ns - event->now_ns
                           : 0;

    assert(quiesce->call == 0);
    quiesce->call = ++quiesce->calls;
    quiesce->first = quiesce->instance = 0;
    quiesce->patience_ns = event->patience_ns;
    quiesce->deadline_ns = event->deadline_ns;
    quiesce->query_ns = event->deadline_ns;
    if (event->deadline_ns != TRI_QUIESCE_NEVER)
        quiesce->query_ns -= tri_min(time_ns / 4, TRI_QUIESCE_QUERY_NS);
    quiesce->outcome = TRI_QUIESCE_PENDING;
    quiesce->status.kind = 0;
    quiesce->last_sent = quiesce->last_received = 0;
    self->call = quiesce->call;
    self->flags = 0;
    if (is_coordinator(quiesce))
        look_for_coordinator(quiesce, effects, event->now_ns);
    else
        send_join(quiesce, effects, tri_quiesce_coordinator(quiesce));
}

static void on_death(struct tri_quiesce *quiesce,
                     struct tri_quiesce_effects *effects, uint32_t rank,
                     uint64_t now_ns)
{
    uint32_t before = tri_quiesce_coordinator(quiesce);

    if (rank >= quiesce->len || rank == quiesce->self ||
        quiesce->members[rank].is_dead)
        return;
    quiesce->members[rank].is_dead = true;
    quiesce->dead_len++;
    quiesce->dead ^= tri_mix64(rank + 1ull);
    if (quiesce->asker == rank)
        quiesce->asker = TRI_QUIESCE_NONE;
    if (quiesce->is_running) {
        /* the sums so far have counts of the dead */
        quiesce->is_repeated = false;
        begin_round(quiesce, effects, now_ns);
    } else if (is_coordinator(quiesce)) {
        look_for_coordinator(quiesce, effects, now_ns);
    } else if (before == rank && quiesce->call != 0) {
        quiesce->status.kind = 0;
        send_join(quiesce, effects, tri_quiesce_coordinator(quiesce));
    }
}

static void on_snapshot(struct tri_quiesce *quiesce,
                        struct tri_quiesce_effects *effects,
                        const struct tri_quiesce_event *event)
{
    struct tri_quiesce_message report = {
        .kind = TRI_QUIESCE_REPORT,
        .flags = event->flags,
        .instance = quiesce->asked_instance,
        .round = quiesce->asked_round,
        .sent = event->sent,
        .received = event->received,
        .dead = quiesce->dead,
    };
    uint32_t asker = quiesce->asker;

    if (asker == TRI_QUIESCE_NONE ||
        (event->flags != 0 &&
         event->now_ns - quiesce->asked_ns < TRI_QUIESCE_LINGER_NS))
        return;
    quiesce->asker = TRI_QUIESCE_NONE;
    if (asker == quiesce->self)
        take_report(quiesce, effects, asker, &report, event->now_ns);
    else
        *send(effects, asker, TRI_QUIESCE_REPORT) = report;
}

static void expire(struct tri_quiesce *quiesce,
                   struct tri_quiesce_effects *effects)
{
    uint32_t coordinator = tri_quiesce_coordinator(quiesce);

    if (quiesce->status.kind == 0)
        quiesce->status = (struct tri_quiesce_message){
            .kind = TRI_QUIESCE_STATUS,
            .len = 1,
            .busy_len = 1,
            .entries = { { coordinator, TRI_QUIESCE_IS_SILENT } },
        };
    if (coordinator != quiesce->self)
        send_leave(quiesce, effects, coordinator);
    end_call(quiesce, TRI_QUIESCE_IS_EXPIRED);
}

/* The deadline is near. Later, those whose deadline is a bit earlier have left,
 * and would be taken for absent. */
static void query(struct tri_quiesce *quiesce,
                  struct tri_quiesce_effects *effects, uint64_t now_ns)
{
    quiesce->query_ns = TRI_QUIESCE_NEVER;
    effects->asks = true;
    if (is_coordinator(quiesce)) {
        quiesce->status =
            (struct tri_quiesce_message){ .kind = TRI_QUIESCE_STATUS };
        fill_status(quiesce, now_ns, &quiesce->status);
    } else {
        send(effects, tri_quiesce_coordinator(quiesce), TRI_QUIESCE_QUERY);
    }
}

static void on_tick(struct tri_quiesce *quiesce,
                    struct tri_quiesce_effects *effects, uint64_t now_ns)
{
    if (quiesce->call == 0)
        return;
    if (now_ns >= quiesce->query_ns)
        query(quiesce, effects, now_ns);
    if (now_ns >= quiesce->deadline_ns) {
        expire(quiesce, effects);
        return;
    }
    if (quiesce->is_running && now_ns >= quiesce->next_round_ns)
        begin_round(quiesce, effects, now_ns);
}

/* --- all of it ------------------------------------------------------------ */

void tri_quiesce_init(struct tri_quiesce *quiesce, uint32_t self, uint32_t len,
                      struct tri_quiesce_member *members)
{
    assert(self < len);
    *quiesce = (struct tri_quiesce){
        .self = self,
        .len = len,
        .members = members,
        .asker = TRI_QUIESCE_NONE,
        .was_coordinator = self == 0,
        .next_round_ns = TRI_QUIESCE_NEVER,
    };
}

void tri_quiesce_step(struct tri_quiesce *quiesce,
                      const struct tri_quiesce_event *event,
                      struct tri_quiesce_effects *effects_p)
{
    effects_p->len = 0;
    effects_p->asks = false;
    switch (event->kind) {
    case TRI_QUIESCE_ON_START:
        on_start(quiesce, effects_p, event);
        break;
    case TRI_QUIESCE_ON_MESSAGE:
        on_message(quiesce, effects_p, event->rank, event->message,
                   event->now_ns);
        break;
    case TRI_QUIESCE_ON_DEATH:
        on_death(quiesce, effects_p, event->rank, event->now_ns);
        break;
    case TRI_QUIESCE_ON_SNAPSHOT:
        on_snapshot(quiesce, effects_p, event);
        break;
    case TRI_QUIESCE_ON_TICK:
        on_tick(quiesce, effects_p, event->now_ns);
        break;
    }
    assert(!quiesce->is_running ||
           (quiesce->call != 0 && is_coordinator(quiesce)));
}

uint64_t tri_quiesce_next_ns(const struct tri_quiesce *quiesce)
{
    uint64_t next_ns = tri_min(quiesce->deadline_ns, quiesce->query_ns);

    if (quiesce->call == 0)
        return TRI_QUIESCE_NEVER;
    return quiesce->is_running ? tri_min(next_ns, quiesce->next_round_ns)
                               : next_ns;
}
