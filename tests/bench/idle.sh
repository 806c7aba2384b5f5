#!/usr/bin/env bash
# What a pair costs whose guest has nothing to do: user and system time of both members, percent of one CPU, and
# what its channel carries in both directions, TCP and UDP, kbit/s with Ethernet headers. Then the same
# time of a member that runs alone.
# Usage: tests/bench/idle.sh [SECONDS] [LOCKSTEP]
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-30}
lockstep=${2:-target/release/lockstep}
. tests/bench/lab.sh

bytes() { on $a cat /sys/class/net/chan/statistics/{rx,tx}_bytes | awk '{ sum += $1 } END { print sum }'; }

# share PID…: percent of one CPU that each takes, and kbit/s of the channel.
share() {
    local before after
    before="$(for p in "$@"; do spent "$p"; done | paste -sd' ') $(bytes)"
    sleep "$seconds"
    after="$(for p in "$@"; do spent "$p"; done | paste -sd' ') $(bytes)"
    echo "$before $after" | awk -v s="$seconds" '{
        n = NF / 2
        for (i = 1; i < n; i++) printf "%.2f ", ($(n + i) - $i) / s / 10
        printf "%.1f\n", ($(2 * n) - $n) * 8 / 1000 / s }'
}

pair "$lockstep" kv
# What follows a start, such as the announcements of the address, is over by then.
sleep 3
share "$primary" "$backup" | awk '{ printf "idle pair: primary %.2f %%, backup %.2f %%, both %.2f %%; channel %.1f kbit/s\n",
    $1, $2, $1 + $2, $3 }'
end "$primary" "$backup"
rm -rf "$scratch/arbiter"; mkdir "$scratch/arbiter"
begin $a "$lockstep" primary kv --solo --vm "bench-$$" --arbiter "file:$scratch/arbiter" --console none \
    --net tap=tap0 --channel 10.78.0.1:7700
serves
sleep 3
share "$pid" | awk '{ printf "idle alone: %.2f %%\n", $1 }'
