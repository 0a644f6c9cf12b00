/* SPDX-License-Identifier: BSD-3-Clause */
#include "sim.h"

/* --- the queue of events, a binary heap ---------------------------------- */

static bool is_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static void swap(struct sim *sim, size_t i, size_t j)
{
    struct sim_event *event = sim->events[i];

    sim->events[i] = sim->events[j];
    sim->events[j] = event;
}

static void push(struct sim *sim, struct sim_event *event)
{
    size_t i = sim->events_len++;

    if (i == sim->events_max) {
        sim->events_max = sim->events_max ? 2 * sim->events_max : 256;
        sim->events = realloc(sim->events,
                              sim->events_max * sizeof(*sim->events));
        assert_non_null(sim->events);
    }
    event->seq = sim->events_seq++;
    sim->events[i] = event;
    for (; i > 0 && is_before(sim->events[i], sim->events[(i - 1) / 2]);
         i = (i - 1) / 2)
        swap(sim, i, (i - 1) / 2);
}

static struct sim_event *pop(struct sim *sim)
{
    struct sim_event *first = sim->events[0];
    size_t i = 0, child;

    sim->events[0] = sim->events[--sim->events_len];
    while ((child = 2 * i + 1) < sim->events_len) {
        if (child + 1 < sim->events_len &&
            is_before(sim->events[child + 1], sim->events[child]))
            child++;
        if (!is_before(sim->events[child], sim->events[i]))
            break;
        swap(sim, i, child);
        i = child;
    }
    return first;
}

struct sim_event *sim_post(struct sim *sim, enum sim_kind kind, unsigned node,
                           unsigned peer, uint64_t at_ns)
{
    struct sim_event *event = calloc(1, sizeof(*event));

    assert_non_null(event);
    assert(at_ns >= sim->now_ns);
    event->at_ns = at_ns;
    event->kind = kind;
    event->node = (uint8_t)node;
    event->peer = (uint8_t)peer;
    push(sim, event);
    return event;
}

void sim_fail(struct sim *sim, const char *format, ...)
{
    va_list args;

    print_error("TROUPE_TEST_SEED=%llu, %llu us, event %llu: ",
                (unsigned long long)sim->config.seed,
                (unsigned long long)(sim->now_ns / SIM_US),
                (unsigned long long)sim->stats.events);
    va_start(args, format);
    vprint_error(format, args);
    va_end(args);
    print_error("\n");
    fail();
}

/* --- checks -------------------------------------------------------------- */

static void check_side(struct sim *sim, unsigned node, unsigned peer)
{
    struct sim_side *side = sim_side(sim, node, peer);
    const char *broken = tri_session_check(&side->session);

    if (broken)
        sim_fail(sim, "node %u to %u: invariant %s", node, peer, broken);
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        if (side->unconsumed[lane] >
            side->session.config.window_bytes[lane])
            sim_fail(sim, "node %u keeps more than a window", node);
}

/* A frame of ours is acknowledged: the other side took it in, unless it is
 * dead, and has forgotten. */
static void check_arrived(struct sim *sim, const struct tri_stored *stored)
{
    const struct sim_frame *frame =
        tri_container_of(stored, const struct sim_frame, stored);
    const struct sim_side *other = sim_side(sim, frame->to, frame->from);
    const struct tri_session_rx *rx = &other->session.rx[stored->lane];
    uint64_t ahead = stored->number - rx->next_number;

    if (!other->is_open || stored->number < rx->next_number ||
        (ahead < TRI_SESSION_FRAMES_MAX && rx->arrived >> ahead & 1))
        return;
    sim_fail(sim, "acknowledged and never arrived");
}

static void check_delivery(struct sim *sim, unsigned node, unsigned peer,
                           enum tri_lane lane, uint64_t payload)
{
    struct sim_side *side = sim_side(sim, node, peer);

    if (!side->is_open)
        sim_fail(sim, "node %u got a frame of the dead %u", node, peer);
    if (payload != side->delivered[lane])
        sim_fail(sim, "node %u got %llu of node %u on lane %u, not %llu", node,
                 (unsigned long long)payload, peer, lane,
                 (unsigned long long)side->delivered[lane]);
    if (payload >= sim_side(sim, peer, node)->stored[lane])
        sim_fail(sim, "node %u got what was not sent", node);
}

static void check_side_rests(struct sim *sim, unsigned node, unsigned peer)
{
    struct sim_side *side = sim_side(sim, node, peer);
    bool is_whole = side->is_open && sim_side(sim, peer, node)->is_open;

    if (side->frames != 0)
        sim_fail(sim, "node %u to %u: %llu frames are left", node, peer,
                 (unsigned long long)side->frames);
    if (tri_session_due_ns(&side->session) != TRI_NS_NEVER ||
        !tri_session_is_clear(&side->session))
        sim_fail(sim, "node %u to %u does not rest", node, peer);
    for (unsigned lane = 0; is_whole && lane < TRI_LANES; lane++) {
        if (side->backlog[lane] != 0 || side->budget[lane] != 0 ||
            side->unconsumed[lane] != 0)
            sim_fail(sim, "node %u to %u: lane %u stands", node, peer, lane);
        if (side->delivered[lane] != sim_side(sim, peer, node)->stored[lane])
            sim_fail(sim, "node %u misses frames of %u on lane %u", node,
                     peer, lane);
        if (side->session.rx[lane].arrived != 0)
            sim_fail(sim, "node %u still holds frames", node);
    }
    if (is_whole && side->rest != 0)
        sim_fail(sim, "node %u to %u: unacknowledged", node, peer);
}

void sim_check_rest(struct sim *sim)
{
    for (unsigned node = 0; node < sim->config.nodes; node++)
        for (unsigned peer = 0; peer < sim->config.nodes; peer++)
            if (node != peer)
                check_side_rests(sim, node, peer);
}

/* --- what the glue does -------------------------------------------------- */

static void return_frame(struct sim *sim, struct tri_stored *stored,
                         bool is_rest)
{
    struct sim_frame *frame =
        tri_container_of(stored, struct sim_frame, stored);
    struct sim_side *side = sim_side(sim, frame->from, frame->to);

    if (stored->in_flight)
        sim_fail(sim, "a frame was freed that the carrier has");
    assert_true(side->frames > 0);
    side->frames--;
    side->returned++;
    side->rest += is_rest;
    free(frame);
}

static void return_freed(struct sim *sim, struct tri_stored_list *freed)
{
    while (!STAILQ_EMPTY(freed)) {
        struct tri_stored *stored = STAILQ_FIRST(freed);

        STAILQ_REMOVE_HEAD(freed, next);
        check_arrived(sim, stored);
        return_frame(sim, stored, false);
    }
}

/* Stores what the backlog has, as long as it can be. */
static void fill_store(struct sim *sim, unsigned node, unsigned peer)
{
    struct sim_side *side = sim_side(sim, node, peer);

    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        while (side->backlog[lane] > 0) {
            uint32_t bytes =
                100 + tri_random_below(&sim->random,
                                       sim->config.frame_bytes_max - 99);
            struct sim_frame *frame;

            if (!tri_session_may_store(&side->session, lane, bytes,
                                       sim->now_ns))
                break;
            frame = calloc(1, sizeof(*frame));
            assert_non_null(frame);
            frame->from = (uint8_t)node;
            frame->to = (uint8_t)peer;
            frame->is_stored = true;
            frame->copy.bytes = bytes;
            frame->copy.payload = side->stored[lane]++;
            tri_session_store(&side->session, lane, &frame->stored, bytes,
                              sim->now_ns);
            side->backlog[lane]--;
            side->frames++;
        }
    }
}

/* The header of a frame that goes out for the first time. */
static void fill_header(const struct sim_side *side,
                        const struct tri_session_out *out,
                        struct sim_frame *frame, struct tri_frame *header_p)
{
    *header_p = (struct tri_frame){
        .version = TRI_FRAME_VERSION_MAX,
        .bytes = frame->copy.bytes,
        .records = out->what == TRI_SESSION_SEND_STORED,
        .source = frame->from,
        .destination = frame->to,
    };
    tri_session_fill(&side->session, out, header_p);
    tri_frame_encode(frame->copy.header, header_p);
}

/* Sends one. False: there is nothing, or no room. */
static bool send_one(struct sim *sim, unsigned node, unsigned peer)
{
    struct sim_side *side = sim_side(sim, node, peer);
    struct tri_session_out out = tri_session_next(&side->session, sim->now_ns);
    bool again = out.stored && out.stored->handed != 0;
    struct sim_frame *frame;
    struct tri_frame header;

    if (out.what == TRI_SESSION_SEND_NOTHING)
        return false;
    if (out.what == TRI_SESSION_SEND_STORED) {
        frame = tri_container_of(out.stored, struct sim_frame, stored);
    } else {
        frame = calloc(1, sizeof(*frame));
        assert_non_null(frame);
        frame->from = (uint8_t)node;
        frame->to = (uint8_t)peer;
        frame->copy.bytes = TRI_FRAME_HEADER_BYTES;
    }
    if (!again)
        fill_header(side, &out, frame, &header);
    if (!sim_line_send(sim, frame)) {
        if (!frame->is_stored)
            free(frame);
        return false;
    }
    tri_session_handed(&side->session, &out, again ? NULL : &header,
                       sim->now_ns);
    sim->stats.handed += frame->is_stored;
    sim->stats.acks += !frame->is_stored;
    return true;
}

static void pump_side(struct sim *sim, unsigned node, unsigned peer)
{
    struct sim_side *side = sim_side(sim, node, peer);
    uint64_t due_ns;

    if (!side->is_open)
        return;
    fill_store(sim, node, peer);
    for (unsigned n = 0; send_one(sim, node, peer); n++)
        if (n > 1000)
            sim_fail(sim, "node %u sends without end", node);
    check_side(sim, node, peer);
    due_ns = tri_session_due_ns(&side->session);
    if (due_ns <= sim->now_ns) { /* the carrier is full: a completion wakes */
        if (side->line.in_flight == 0)
            sim_fail(sim, "node %u is due, and has nothing", node);
        return;
    }
    if (due_ns >= sim->nodes[node].wake_ns)
        return;
    sim->nodes[node].wake_ns = due_ns;
    sim_post(sim, SIM_WAKE, node, node, due_ns);
}

static void pump_node(struct sim *sim, unsigned node)
{
    for (unsigned peer = 0; peer < sim->config.nodes; peer++)
        if (peer != node)
            pump_side(sim, node, peer);
}

static void deliver(struct sim *sim, unsigned node, unsigned peer,
                    enum tri_lane lane, uint64_t payload, uint32_t bytes)
{
    struct sim_side *side = sim_side(sim, node, peer);
    uint64_t at_ns;

    check_delivery(sim, node, peer, lane, payload);
    side->delivered[lane]++;
    side->delivered_ns[lane] = sim->now_ns;
    if (lane != TRI_LANE_DATA) {
        tri_session_consumed(&side->session, lane, bytes, sim->now_ns);
        return;
    }
    side->unconsumed[lane] += bytes;
    at_ns = sim->now_ns + sim_some_ns(sim, sim->config.consume_ns);
    sim_post(sim, SIM_CONSUME, node, peer, at_ns)->bytes = bytes;
}

static void deliver_held(struct sim *sim, unsigned node, unsigned peer,
                         enum tri_lane lane)
{
    struct tri_session *session = &sim_side(sim, node, peer)->session;
    struct tri_held *held;

    while ((held = tri_session_next_held(session, lane))) {
        struct sim_held *kept = tri_container_of(held, struct sim_held, held);

        deliver(sim, node, peer, lane, kept->payload, held->bytes);
        free(kept);
    }
}

static void hold(struct sim *sim, struct sim_side *side,
                 const struct tri_frame *frame, uint64_t payload)
{
    struct sim_held *kept;

    if (sim_is_faulty(sim) && sim_chance(sim, sim->config.no_memory))
        return;
    kept = calloc(1, sizeof(*kept));
    assert_non_null(kept);
    kept->held.number = frame->number;
    kept->held.bytes = frame->bytes;
    kept->payload = payload;
    tri_session_hold(&side->session, frame->lane, &kept->held);
    sim->stats.held++;
}

static void receive(struct sim *sim, const struct sim_event *event)
{
    struct sim_side *side = sim_side(sim, event->node, event->peer);
    struct tri_stored_list freed = STAILQ_HEAD_INITIALIZER(freed);
    struct tri_frame frame;
    const char *reason;

    if (event->copy.bytes == 0 || !side->is_open)
        return;
    reason = tri_frame_decode(event->copy.header, event->copy.bytes, &frame);
    if (reason)
        sim_fail(sim, "%s", reason);
    switch (tri_session_receive(&side->session, &frame, sim->now_ns, &freed)) {
    case TRI_SESSION_DELIVER:
        deliver(sim, event->node, event->peer, frame.lane,
                event->copy.payload, frame.bytes);
        deliver_held(sim, event->node, event->peer, frame.lane);
        break;
    case TRI_SESSION_HOLD:
        hold(sim, side, &frame, event->copy.payload);
        break;
    case TRI_SESSION_DROP:
        sim->stats.dropped++;
        break;
    case TRI_SESSION_NOTHING:
        break;
    }
    return_freed(sim, &freed);
    pump_side(sim, event->node, event->peer);
}

static void sent(struct sim *sim, const struct sim_event *event)
{
    struct sim_side *side = sim_side(sim, event->node, event->peer);
    struct sim_frame *frame = event->frame;
    bool ok = sim_line_sent(sim, frame, event->connection, event->ok);

    if (!frame->is_stored) {
        free(frame);
    } else if (tri_session_given_back(&side->session, &frame->stored, ok,
                                      sim->now_ns)) {
        if (side->is_open)
            check_arrived(sim, &frame->stored);
        return_frame(sim, &frame->stored, !side->is_open);
    }
    pump_side(sim, event->node, event->peer);
}

static void consume(struct sim *sim, const struct sim_event *event)
{
    struct sim_side *side = sim_side(sim, event->node, event->peer);
    uint64_t lazy_until_ns = sim->nodes[event->node].lazy_until_ns;

    if (!side->is_open)
        return;
    if (lazy_until_ns > sim->now_ns) {
        sim_post(sim, SIM_CONSUME, event->node, event->peer, lazy_until_ns)
            ->bytes = event->bytes;
        return;
    }
    side->unconsumed[TRI_LANE_DATA] -= event->bytes;
    tri_session_consumed(&side->session, TRI_LANE_DATA, event->bytes,
                         sim->now_ns);
    pump_side(sim, event->node, event->peer);
}

static void produce(struct sim *sim, const struct sim_event *event)
{
    struct sim_side *side = sim_side(sim, event->node, event->peer);
    bool more = false;

    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        uint32_t n = tri_random_below(&sim->random, 40);

        n = (uint32_t)tri_min(n, side->budget[lane]);
        side->budget[lane] -= n;
        side->backlog[lane] += n;
        more = more || side->budget[lane] > 0;
    }
    if (more)
        sim_post(sim, SIM_PRODUCE, event->node, event->peer,
                 sim->now_ns + sim_some_ns(sim, 30 * SIM_MS));
    pump_side(sim, event->node, event->peer);
}

void sim_send(struct sim *sim, unsigned from, unsigned to, enum tri_lane lane,
              uint32_t frames)
{
    sim_side(sim, from, to)->backlog[lane] += frames;
    pump_side(sim, from, to);
}

/* --- the end of a session ------------------------------------------------ */

static void close_side(struct sim *sim, unsigned node, unsigned peer)
{
    struct sim_side *side = sim_side(sim, node, peer);
    struct tri_stored_list rest;
    struct tri_held *held;
    struct tri_stored *stored;

    if (!side->is_open)
        return;
    side->is_open = false;
    tri_session_end(&side->session, &rest);
    while ((stored = STAILQ_FIRST(&rest))) {
        STAILQ_REMOVE_HEAD(&rest, next);
        if (!stored->in_flight)
            return_frame(sim, stored, true);
    }
    while ((held = tri_session_take_held(&side->session)))
        free(tri_container_of(held, struct sim_held, held));
    check_side(sim, node, peer);
}

void sim_kill(struct sim *sim, unsigned node)
{
    sim->nodes[node].is_dead = true;
    for (unsigned peer = 0; peer < sim->config.nodes; peer++) {
        if (peer == node)
            continue;
        close_side(sim, node, peer);
        sim_post(sim, SIM_LEARN, peer, node,
                 sim->now_ns + sim_some_ns(sim, SIM_S));
        if (sim_chance(sim, 700))
            sim_reset(sim, peer, node);
        if (sim_chance(sim, 700))
            sim_side(sim, peer, node)->line.dead_until_ns = TRI_NS_NEVER;
    }
}

/* --- running ------------------------------------------------------------- */

static void handle(struct sim *sim, const struct sim_event *event)
{
    struct sim_side *side;

    if (event->kind == SIM_FAULT) {
        sim_random_fault(sim);
        if (sim_is_faulty(sim))
            sim_post(sim, SIM_FAULT, 0, 0,
                     sim->now_ns + sim_some_ns(sim,
                                               2 * sim->config.fault_gap_ns));
        return;
    }
    if (event->kind == SIM_WAKE) {
        if (sim->nodes[event->node].wake_ns == event->at_ns) {
            sim->nodes[event->node].wake_ns = TRI_NS_NEVER;
            pump_node(sim, event->node);
        }
        return;
    }
    side = sim_side(sim, event->node, event->peer);
    if (event->kind == SIM_ARRIVE) {
        receive(sim, event);
    } else if (event->kind == SIM_SENT) {
        sent(sim, event);
    } else if (event->kind == SIM_CONSUME) {
        consume(sim, event);
    } else if (event->kind == SIM_LEARN) {
        close_side(sim, event->node, event->peer);
    } else if (side->is_open && event->kind == SIM_PRODUCE) {
        produce(sim, event);
    } else if (side->is_open && event->kind == SIM_BROKE) {
        tri_session_broke(&side->session, sim->now_ns);
        pump_side(sim, event->node, event->peer);
    }
}

/* A stopped node does it later, all in the same order; completions even of a
 * dead one's frames are told, for the frames' sake. */
static bool is_put_off(struct sim *sim, struct sim_event *event)
{
    struct sim_node *node = &sim->nodes[event->node];

    if (event->kind == SIM_FAULT || node->is_dead ||
        node->stopped_until_ns <= sim->now_ns)
        return false;
    if (event->kind == SIM_WAKE && node->wake_ns == event->at_ns)
        node->wake_ns = node->stopped_until_ns;
    event->at_ns = node->stopped_until_ns;
    push(sim, event);
    return true;
}

bool sim_run(struct sim *sim, uint64_t until_ns)
{
    while (sim->events_len > 0 && sim->events[0]->at_ns <= until_ns) {
        struct sim_event *event = pop(sim);

        sim->now_ns = event->at_ns;
        if (is_put_off(sim, event))
            continue;
        sim->stats.events++;
        handle(sim, event);
        free(event);
        if (sim->stats.events == sim->die_at_event)
            sim_kill(sim, sim->victim);
    }
    if (until_ns != TRI_NS_NEVER)
        sim->now_ns = tri_max(sim->now_ns, until_ns);
    return sim->events_len > 0;
}

static void open_side(struct sim *sim, unsigned node, unsigned peer)
{
    struct sim_side *side = sim_side(sim, node, peer);
    bool has_work = false;

    tri_session_init(&side->session, &tri_session_config_default);
    side->is_open = true;
    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        side->budget[lane] = sim->config.budget[lane];
        has_work = has_work || side->budget[lane] > 0;
    }
    if (has_work)
        sim_post(sim, SIM_PRODUCE, node, peer, sim->now_ns);
}

struct sim *sim_create(const struct sim_config *config)
{
    struct sim *sim = calloc(1, sizeof(*sim));

    assert_non_null(sim);
    sim->config = *config;
    sim->now_ns = SIM_S;
    sim->config.faults_until_ns += sim->now_ns;
    tri_random_init(&sim->random, tri_mix64(config->seed));
    for (unsigned node = 0; node < config->nodes; node++) {
        sim->nodes[node].wake_ns = TRI_NS_NEVER;
        for (unsigned peer = 0; peer < config->nodes; peer++)
            if (peer != node)
                open_side(sim, node, peer);
    }
    if (config->fault_gap_ns > 0)
        sim_post(sim, SIM_FAULT, 0, 0, sim->now_ns);
    return sim;
}

/* What is left is given back. */
void sim_destroy(struct sim **sim_p)
{
    struct sim *sim = *sim_p;

    for (unsigned node = 0; node < sim->config.nodes; node++)
        for (unsigned peer = 0; peer < sim->config.nodes; peer++)
            if (node != peer)
                close_side(sim, node, peer);
    while (sim->events_len > 0) {
        struct sim_event *event = pop(sim);

        if (event->kind == SIM_SENT) {
            sim->now_ns = tri_max(sim->now_ns, event->at_ns);
            sent(sim, event);
        }
        free(event);
    }
    free(sim->events);
    free(sim);
    *sim_p = NULL;
}

struct sim_config sim_calm_config(uint64_t seed)
{
    return (struct sim_config){
        .seed = seed,
        .nodes = 2,
        .line_frames_max = 16,
        .latency_ns = 100 * SIM_US,
        .consume_ns = 50 * SIM_US,
        .frame_bytes_max = TRI_FRAME_BYTES_MAX,
    };
}

/* Of any magnitude from 1 us to 67 ms. */
static uint64_t some_time(struct tri_random *random)
{
    return tri_random_below(random, 1u << (10 + tri_random_below(random, 17)));
}

struct sim_config sim_random_config(uint64_t seed)
{
    struct sim_config config = sim_calm_config(seed);
    struct tri_random random;

    tri_random_init(&random, tri_mix64(~seed));
    config.nodes = 2 + tri_random_below(&random, SIM_NODES_MAX - 1);
    config.faults_until_ns = tri_random_below(&random, 4000) * SIM_MS;
    config.fault_gap_ns = (1 + tri_random_below(&random, 300)) * SIM_MS;
    if (tri_random_below(&random, 2))
        config.loss = tri_random_below(&random, 300);
    if (tri_random_below(&random, 2))
        config.duplicate = tri_random_below(&random, 200);
    if (tri_random_below(&random, 2))
        config.fail = tri_random_below(&random, 200);
    if (tri_random_below(&random, 2))
        config.no_memory = tri_random_below(&random, 500);
    config.line_frames_max = 1 + tri_random_below(&random, 64);
    config.latency_ns = 8 + some_time(&random);
    config.consume_ns = some_time(&random);
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        config.budget[lane] = tri_random_below(
            &random, 1u << (4 + tri_random_below(&random, 5)));
    config.frame_bytes_max =
        100 + tri_random_below(&random, TRI_FRAME_BYTES_MAX - 99);
    return config;
}
