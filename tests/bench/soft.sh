#!/usr/bin/env bash
# The software CPU in one run: instructions a second, what recording costs on top (processor time, the best of
# three), and how late a 1 ms timer's interrupts come to a tight loop that counts nothing.
# Usage: tests/bench/soft.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
lockstep=$PWD/target/release/lockstep
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cargo build --release --quiet
"$lockstep" bench cpu

# seconds OPTION…: the least processor time of three runs of `mips`.
seconds() {
    local TIMEFORMAT='%U %S' best=
    for number in 1 2 3; do
        { time "$lockstep" run mips --cpu soft "${@//NUMBER/$number}" </dev/null >"$scratch/out" 2>&1; } 2>&1
    done | awk '{ t = $1 + $2; if (!best || t < best) best = t } END { print best }'
}
plain=$(seconds) recorded=$(seconds --record "$scratch/NUMBER")
echo "$plain $recorded" | awk '{ printf "recording: %.2f s without, %.2f s with, %.1f %% on top\n", $1, $2, 100 * ($2 / $1 - 1) }'

# The thread of the vCPU: its processor time, and how long it waited for a processor.
"$lockstep" run latency-plain --cpu soft </dev/null >"$scratch/out" 2>/dev/null &
while for thread in /proc/$!/task/*; do
    [ "$(cat "$thread/comm" 2>/dev/null)" != vcpu ] || cp "$thread/schedstat" "$scratch/vcpu" 2>/dev/null || true
done && kill -0 $! 2>/dev/null; do sleep 0.1; done
grep ' ns p50 ' "$scratch/out"
awk '{ printf "its vCPU ran for %.2f s and waited %.2f s for a processor\n", $1 / 1e9, $2 / 1e9 }' "$scratch/vcpu"
