#!/usr/bin/env bash
# What a request costs in `kv`: user and system time of the process, plain, recording and as the primary of a
# pair, with 50 clients, and with 50 that send 16 requests at a time. Medians of three in one run, and their
# ratios to plain. Several builds are measured in turn, so that they meet the same conditions.
# Usage: tests/bench/requests.sh [LOCKSTEP…]
set -euo pipefail
cd "$(dirname "$0")/../.."
builds=("$@")
[ $# -gt 0 ] || builds=(target/release/lockstep)
. tests/bench/lab.sh

# load PID REQUESTS ARGS…: microseconds of the process's time for each request.
load() {
    local pid=$1 requests=$2 before after; shift 2
    on $a redis-benchmark -h 10.77.0.2 -t set -n $((requests / 10)) "$@" -q >/dev/null 2>&1
    before=$(spent "$pid")
    on $a redis-benchmark -h 10.77.0.2 -t set -n "$requests" "$@" -q >/dev/null 2>&1
    after=$(spent "$pid")
    echo "$before $after $requests" | awk '{ print ($2 - $1) * 1000 / $3 }'
}

# both PID NAME: both loads, each result added to a file of its own.
both() {
    load "$1" 200000 -c 50 >>"$scratch/$2-50-1"
    load "$1" 1600000 -c 50 -P 16 >>"$scratch/$2-50-16"
}

for round in 1 2 3; do
    for build in "${!builds[@]}"; do
        lockstep=${builds[$build]}
        begin $a "$lockstep" run kv --net tap=tap0 --console none; serves
        both "$pid" "$build-plain"; end "$pid"
        begin $a "$lockstep" run kv --net tap=tap0 --console none --record "$scratch/record"; serves
        both "$pid" "$build-recording"; end "$pid"
        rm -rf "$scratch/record"
        pair "$lockstep" kv
        both "$primary" "$build-primary"; end "$primary" "$backup"
    done
done
for build in "${!builds[@]}"; do
    for load in 50-1 50-16; do
        for mode in plain recording primary; do
            median <"$scratch/$build-$mode-$load"
        done | paste -sd' ' | awk -v build="${builds[$build]}" -v load=$load '{
            split(load, l, "-")
            printf "%s: kv -c %d -P %d: plain %.2f us a request, recording %.2f (x %.2f), primary %.2f (x %.2f)\n",
                build, l[1], l[2], $1, $2, $2 / $1, $3, $3 / $1 }'
    done
done
