/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The C++ Actor Framework 0.17.
 *     caf pingpong ROUNDS THREADS
 *     caf counting MESSAGES THREADS
 *     caf create ACTORS THREADS
 *     caf idle ACTORS THREADS
 */

#include <atomic>
#include <future>
#include <string>

#include <caf/all.hpp>

#include "../bench.h"

using namespace caf;

namespace {

using go_on = atom_constant<atom("go")>;

// Sending all at once is no faster than yielding in between and fills memory.
constexpr uint64_t burst = 1000;

std::atomic<uint64_t> handled;
std::promise<void> *done;

behavior answerer(event_based_actor *self)
{
    return { [=](uint64_t left) {
        self->send(actor_cast<actor>(self->current_sender()), left - 1);
    } };
}

behavior starter(event_based_actor *self, actor other, uint64_t left)
{
    return { [=](go_on) { self->send(other, left); },
             [=](uint64_t left_now) {
                 if (left_now <= 1)
                     done->set_value();
                 else
                     self->send(other, left_now - 1);
             } };
}

behavior counter(event_based_actor *, uint64_t messages)
{
    auto counted = std::make_shared<uint64_t>(0);

    return { [=](uint64_t) {
        if (++*counted == messages)
            done->set_value();
    } };
}

behavior producer(event_based_actor *self, actor to, uint64_t messages)
{
    auto sent = std::make_shared<uint64_t>(0);

    return { [=](go_on) {
        for (uint64_t i = 0; i < burst && *sent < messages; i++)
            self->send(to, (*sent)++);
        if (*sent < messages)
            self->send(self, go_on::value);
    } };
}

behavior once(event_based_actor *self, uint64_t actors)
{
    return { [=](uint64_t) {
        if (handled.fetch_add(1) + 1 == actors)
            done->set_value();
        self->quit();
    } };
}

struct idle_state {
    uint64_t value = 0;
};

behavior idler(stateful_actor<idle_state> *self, uint64_t actors)
{
    if (handled.fetch_add(1) + 1 == actors)
        done->set_value();
    return { [=](uint64_t by) { self->state.value += by; } };
}

void pingpong(actor_system &system, uint64_t rounds)
{
    auto pong = system.spawn(answerer);
    auto ping = system.spawn(starter, pong, 2 * rounds);

    anon_send(ping, go_on::value);
    done->get_future().wait();
    anon_send_exit(ping, exit_reason::user_shutdown);
    anon_send_exit(pong, exit_reason::user_shutdown);
}

void counting(actor_system &system, uint64_t messages)
{
    auto to = system.spawn(counter, messages);
    auto from = system.spawn(producer, to, messages);

    anon_send(from, go_on::value);
    done->get_future().wait();
    anon_send_exit(from, exit_reason::user_shutdown);
    anon_send_exit(to, exit_reason::user_shutdown);
}

void create(actor_system &system, uint64_t actors)
{
    handled = 0;
    for (uint64_t i = 0; i < actors; i++)
        anon_send(system.spawn(once, actors), i);
    done->get_future().wait();
}

void idle(actor_system &system, uint64_t actors)
{
    std::vector<actor> all;
    double before;

    all.reserve(actors);
    for (uint64_t i = 0; i < actors; i++)
        all.emplace_back();
    before = bench_resident_bytes();
    for (uint64_t i = 0; i < actors; i++)
        all[i] = system.spawn(idler, actors);
    done->get_future().wait();
    bench_print((bench_resident_bytes() - before) / double(actors), "B",
                "bytes");
    for (auto &one : all)
        anon_send_exit(one, exit_reason::user_shutdown);
}

void timed(void (*work)(actor_system &, uint64_t), actor_system &system,
           uint64_t n, double messages)
{
    std::promise<void> warm, measured;
    int64_t began;

    done = &warm;
    work(system, n / 10 + 1);
    done = &measured;
    began = bench_now_ns();
    work(system, n);
    bench_print(double(bench_now_ns() - began) / messages, "ns", "message");
}

} // namespace

int main(int argc, char **argv)
{
    std::string what = argc > 1 ? argv[1] : "";
    uint64_t n = bench_number(argc, argv, 2);
    actor_system_config config;
    std::promise<void> last;

    bench_watchdog();
    config.set("scheduler.max-threads", bench_number(argc, argv, 3));
    actor_system system{ config };
    if (what == "pingpong") {
        timed(pingpong, system, n, 2.0 * double(n));
    } else if (what == "counting") {
        timed(counting, system, n, double(n));
    } else if (what == "create") {
        timed(create, system, n, double(n));
    } else if (what == "idle") {
        done = &last;
        idle(system, n);
    } else {
        bench_die("usage: caf pingpong|counting|create|idle N THREADS");
    }
    // The figures are out; tearing a million actors down takes long.
    fflush(stdout);
    _exit(0);
}
