# SPDX-License-Identifier: BSD-3-Clause
#
# What the tests of `troupe run` have in common; sourced, in the build
# directory, with $srcdir set. $work is an empty directory, removed at the end,
# $troupe the command, $me the test's name.

me=${0##*/}
build=$PWD
srcdir=$(cd "$srcdir" && pwd)
export srcdir
launcher=${MPIRUN:-$(command -v mpirun.openmpi || command -v mpirun || true)}
case $("${launcher:-false}" --version 2>&1 || true) in
*"Open MPI"* | *OpenRTE*) ;;
*)
    echo "$me: no Open MPI, whose ranks survive a death: skipped"
    exit 77
    ;;
esac
TROUPE_MPIRUN=$launcher
# Ranks may be done at times that differ by more than the default of 5 s on a
# machine that has other things to do.
TROUPE_STOP_TIMEOUT_MS=${TROUPE_STOP_TIMEOUT_MS-60000}
export TROUPE_MPIRUN TROUPE_STOP_TIMEOUT_MS

troupe=$build/src/cli/troupe
work=$(mktemp -d "${TMPDIR:-/tmp}/troupe-$me.XXXXXX")
# Jobs are found here: other tests and other builds have the same names.
XDG_RUNTIME_DIR=$work
export XDG_RUNTIME_DIR
children=
trap 'kill $children 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP

fail() {
    echo "$me: $*"
    for file in "$work"/*.out; do
        sed "s/^/${file##*/}: /" "$file" 2>/dev/null || true
    done
    exit 1
}

# await COMMAND...: until it succeeds, for a minute.
await() {
    tries=600
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || fail "not within a minute: $*"
        sleep 0.1
    done
}

# start NAME COMMAND...: in the background; output and status go to NAME.out.
# Its process is $child.
start() {
    name=$1
    shift
    "$@" >"$work/$name.out" 2>&1 &
    child=$!
    children="$children $child"
}

# finish PID STATUS: waits for a child, which is to have that status.
finish() {
    got=0
    wait "$1" || got=$?
    [ $got = "$2" ] || fail "exit status $got instead of $2"
}

# has NAME [COUNT] PATTERN: so many lines of NAME.out, or at least one.
has() {
    if [ $# = 3 ]; then
        [ "$(grep -c -- "$3" "$work/$1.out")" = "$2" ]
    else
        grep -q -- "$2" "$work/$1.out"
    fi
}

must_have() {
    has "$@" || fail "$1: not these lines: $*"
}

# nodes JOB [STATE]: how many.
nodes() {
    "$troupe" ps "$1" | awk -v state="${2-}" '
        NR > 1 && (state == "" || $4 == state) { n++ } END { print n + 0 }'
}

has_nodes() {
    [ "$(nodes "$1" "$3")" = "$2" ]
}

# pid_of JOB RANK: its process.
pid_of() {
    "$troupe" ps "$1" | awk -v rank="$2" 'NR > 1 && $2 == rank { print $3 }'
}
