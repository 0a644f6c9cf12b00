%% SPDX-License-Identifier: BSD-3-Clause
%%
%% Erlang processes. The number of schedulers is erl's +S; -extra carries
%%     pingpong ROUNDS | counting MESSAGES | create ACTORS | idle ACTORS

-module(actors).
-export([main/0]).

main() ->
    [What, Text] = init:get_plain_arguments(),
    N = list_to_integer(Text),
    case What of
        "pingpong" -> timed(fun pingpong/1, N, 2 * N);
        "counting" -> timed(fun counting/1, N, N);
        "create" -> timed(fun create/1, N, N);
        "idle" -> idle(N)
    end,
    erlang:halt(0).

timed(Work, N, Messages) ->
    Work(N div 10 + 1),
    Began = erlang:monotonic_time(nanosecond),
    Work(N),
    Took = erlang:monotonic_time(nanosecond) - Began,
    io:format("~.3f ns message~n", [Took / Messages]).

pingpong(Rounds) ->
    Main = self(),
    Pong = spawn(fun pong/0),
    spawn(fun() -> ping(Pong, Rounds), Pong ! stop, Main ! done end),
    receive done -> ok end.

ping(_Pong, 0) ->
    ok;
ping(Pong, Left) ->
    Pong ! {self(), Left},
    receive _Answer -> ping(Pong, Left - 1) end.

pong() ->
    receive
        {From, Left} -> From ! Left - 1, pong();
        stop -> ok
    end.

counting(Messages) ->
    Main = self(),
    Counter = spawn(fun() -> count(Messages), Main ! done end),
    spawn(fun() -> produce(Counter, Messages) end),
    receive done -> ok end.

count(0) ->
    ok;
count(Left) ->
    receive _Value -> count(Left - 1) end.

produce(_To, 0) ->
    ok;
produce(To, Left) ->
    To ! Left,
    produce(To, Left - 1).

create(Actors) ->
    Main = self(),
    Handled = atomics:new(1, []),
    Once = fun() ->
        receive _Value -> ok end,
        case atomics:add_get(Handled, 1, 1) of
            Actors -> Main ! done;
            _ -> ok
        end
    end,
    create(Once, Actors),
    receive done -> ok end.

create(_Once, 0) ->
    ok;
create(Once, Left) ->
    spawn(Once) ! Left,
    create(Once, Left - 1).

idle(Actors) ->
    Main = self(),
    Started = atomics:new(1, []),
    Idler = fun() ->
        case atomics:add_get(Started, 1, 1) of
            Actors -> Main ! done;
            _ -> ok
        end,
        idler(0)
    end,
    Before = resident_bytes(),
    spawn_idle(Idler, Actors),
    receive done -> ok end,
    io:format("~.3f B bytes~n", [(resident_bytes() - Before) / Actors]).

spawn_idle(_Idler, 0) ->
    ok;
spawn_idle(Idler, Left) ->
    spawn(Idler),
    spawn_idle(Idler, Left - 1).

idler(Value) ->
    receive By -> idler(Value + By) end.

resident_bytes() ->
    {ok, File} = file:open("/proc/self/statm", [read, raw]),
    {ok, Line} = file:read(File, 200),
    ok = file:close(File),
    [_Size, Pages | _] = string:split(Line, " ", all),
    list_to_integer(Pages) * 4096.
