/* SPDX-License-Identifier: BSD-3-Clause */
#include "sim.h"

/*
 * A line's connection keeps the order of what it carries. When it breaks, what
 * the wire held arrives up to a random frame, maybe late and behind the frames
 * of the next connection, and what the carrier held comes back in any way.
 */

/* Keeps some of the frames that left, for replays. */
static void keep_old(struct sim *sim, struct sim_line *line,
                     const struct sim_copy *copy)
{
    if (line->old_len < SIM_OLD_FRAMES)
        line->old[line->old_len++] = *copy;
    else if (sim_chance(sim, 50))
        line->old[tri_random_below(&sim->random, SIM_OLD_FRAMES)] = *copy;
}

static struct sim_event *arrive(struct sim *sim, unsigned from, unsigned to,
                                const struct sim_copy *copy, uint64_t at_ns)
{
    struct sim_event *event = sim_post(sim, SIM_ARRIVE, to, from, at_ns);

    event->copy = *copy;
    event->connection = sim_side(sim, from, to)->line.connection;
    return event;
}

bool sim_line_send(struct sim *sim, struct sim_frame *frame)
{
    struct sim_line *line = &sim_side(sim, frame->from, frame->to)->line;
    struct sim_event *event;

    if (line->in_flight >= sim->config.line_frames_max) {
        line->is_full = true;
        return false;
    }
    line->in_flight++;
    line->sent_ns = tri_max(line->sent_ns, sim->now_ns) +
                    sim_some_ns(sim, sim->config.latency_ns / 8);
    event = sim_post(sim, SIM_SENT, frame->from, frame->to, line->sent_ns);
    event->frame = frame;
    event->connection = line->connection;
    event->ok = !(sim_is_faulty(sim) && sim_chance(sim, sim->config.fail)) &&
                line->dead_until_ns <= sim->now_ns;
    return true;
}

bool sim_line_sent(struct sim *sim, struct sim_frame *frame,
                   uint64_t connection, bool ok)
{
    struct sim_line *line = &sim_side(sim, frame->from, frame->to)->line;
    bool is_lost = sim_is_faulty(sim) && sim_chance(sim, sim->config.loss);

    assert(line->in_flight > 0);
    line->in_flight--;
    keep_old(sim, line, &frame->copy);
    /* The connection that took it is gone: it may say anything. */
    if (connection != line->connection)
        return sim_chance(sim, 300);
    if (!ok)
        return false;
    if (is_lost || line->black_until_ns > sim->now_ns) {
        sim->stats.lost++;
        sim->stats.lost_stored += frame->is_stored;
        return true;
    }
    line->arrive_ns =
        tri_max(line->arrive_ns,
                sim->now_ns + sim_some_ns(sim, sim->config.latency_ns));
    arrive(sim, frame->from, frame->to, &frame->copy, line->arrive_ns);
    if (sim_is_faulty(sim) && sim_chance(sim, sim->config.duplicate))
        arrive(sim, frame->from, frame->to, &frame->copy,
               line->arrive_ns + sim_some_ns(sim, 50 * SIM_MS));
    return true;
}

static int by_seq(const void *a, const void *b)
{
    const struct sim_event *x = *(struct sim_event *const *)a;
    const struct sim_event *y = *(struct sim_event *const *)b;

    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* What the wire holds: a suffix is lost; sometimes all before it is late, by
 * seconds even. An event that is not to be is told so by its node. */
static void cut_wire(struct sim *sim, unsigned from, unsigned to)
{
    struct sim_line *line = &sim_side(sim, from, to)->line;
    struct sim_event **flying = calloc(sim->events_len + 1, sizeof(*flying));
    size_t len = 0, whole;

    assert_non_null(flying);
    for (size_t i = 0; i < sim->events_len; i++) {
        struct sim_event *event = sim->events[i];

        if (event->kind == SIM_ARRIVE && event->node == to &&
            event->peer == from && event->connection == line->connection)
            flying[len++] = event;
    }
    qsort(flying, len, sizeof(*flying), by_seq);
    whole = tri_random_below(&sim->random, (uint32_t)len + 1);
    for (size_t i = whole; i < len; i++) {
        flying[i]->copy.bytes = 0; /* does not arrive */
        sim->stats.lost++;
    }
    if (sim_chance(sim, 300)) {
        uint64_t late_ns = sim_some_ns(sim, 2 * SIM_S);

        for (size_t i = 0; i < whole; i++) {
            arrive(sim, from, to, &flying[i]->copy, sim->now_ns + late_ns);
            flying[i]->copy.bytes = 0;
        }
    }
    free(flying);
    line->connection++;
    line->arrive_ns = 0;
}

void sim_reset(struct sim *sim, unsigned a, unsigned b)
{
    cut_wire(sim, a, b);
    cut_wire(sim, b, a);
    sim_post(sim, SIM_BROKE, a, b, sim->now_ns + sim_some_ns(sim, 3 * SIM_MS));
    /* A side may not see it but by its completions, if at all. */
    if (sim_chance(sim, 800))
        sim_post(sim, SIM_BROKE, b, a,
                 sim->now_ns + sim_some_ns(sim, 300 * SIM_MS));
}

void sim_black_hole(struct sim *sim, unsigned from, unsigned to,
                    uint64_t until_ns)
{
    sim_side(sim, from, to)->line.black_until_ns = until_ns;
}

void sim_stop_node(struct sim *sim, unsigned node, uint64_t until_ns)
{
    sim->nodes[node].stopped_until_ns = until_ns;
}

void sim_stop_consumer(struct sim *sim, unsigned node, uint64_t until_ns)
{
    sim->nodes[node].lazy_until_ns = until_ns;
}

static void replay(struct sim *sim, unsigned from, unsigned to)
{
    struct sim_line *line = &sim_side(sim, from, to)->line;

    if (line->old_len > 0)
        arrive(sim, from, to,
               &line->old[tri_random_below(&sim->random, line->old_len)],
               sim->now_ns);
}

void sim_random_fault(struct sim *sim)
{
    unsigned a = tri_random_below(&sim->random, sim->config.nodes);
    unsigned b = (a + 1 + tri_random_below(&sim->random,
                                           sim->config.nodes - 1)) %
                 sim->config.nodes;
    uint64_t until_ns = sim->now_ns + sim_some_ns(sim, 3 * SIM_S);

    sim->stats.faults++;
    switch (tri_random_below(&sim->random, 8)) {
    case 0:
    case 1:
        sim_reset(sim, a, b);
        break;
    case 2:
        sim_black_hole(sim, a, b, until_ns);
        break;
    case 3:
        sim_side(sim, a, b)->line.dead_until_ns = until_ns;
        break;
    case 4:
        sim_stop_node(sim, a, until_ns);
        break;
    case 5:
        sim_stop_consumer(sim, a, until_ns);
        break;
    default:
        replay(sim, a, b);
        break;
    }
}
