#!/usr/bin/env bash
# Linux in software. First how long a boot to the first program takes, plain, recording and replaying, beside
# QEMU with its instruction counter on the same kernel and initramfs: medians, each in turn with the other.
# Then, if it is root, redis-server in the guest: requests a second plain, recording and as a pair, and how
# fast the recording grows, idle and loaded.
# Needs target/linux (guests/linux/make) and qemu-system-x86_64; for Redis also iproute2 and redis-tools.
# Usage: tests/bench/linux.sh [ROUNDS] [LOCKSTEP]
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5}
lockstep=$(realpath "${2:-target/release/lockstep}")
guest=$PWD/target/linux
[ -s "$guest/versions" ] || { echo "$0: there is no guest: run guests/linux/make first" >&2; exit 1; }
command -v qemu-system-x86_64 >/dev/null || { echo "$0: needs qemu-system-x86_64 (qemu-system-x86)" >&2; exit 1; }
if [ "$(id -u)" -eq 0 ]; then
    . tests/bench/lab.sh
else
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
fi
boot='console=ttyS0 rdinit=/sbin/up-and-off'
linux=("$guest/vmlinuz" --initrd "$guest/initrd.img" --cpu soft --mem 256)

# timed NAME COMMAND…: adds the time that it takes, seconds, to a file; it must succeed, and the guest's first
# program must have run.
timed() {
    local name=$1 TIMEFORMAT=%R
    shift
    { time timeout 600 "$@" </dev/null >"$scratch/out" 2>"$scratch/err"; } 2>>"$scratch/$name" &&
        grep -q 'the first program runs' "$scratch/out" ||
        { echo "$0: no boot: $*" >&2; tail -n 5 "$scratch/out" "$scratch/err" >&2; exit 1; }
}

qemu() {
    local name=$1 counter=$2
    timed "$name" qemu-system-x86_64 -M pc -accel tcg -m 256 -kernel "$guest/vmlinuz" -initrd "$guest/initrd.img" \
        -append "$boot" -nodefaults -display none -serial stdio -no-reboot -icount "$counter"
}

for ((round = 0; round < rounds; round++)); do
    rm -rf "$scratch/boot-log"
    timed plain "$lockstep" run "${linux[@]}" --append "$boot"
    qemu qemu-plain shift=auto
    timed record "$lockstep" run "${linux[@]}" --append "$boot" --record "$scratch/boot-log"
    qemu qemu-record "shift=auto,rr=record,rrfile=$scratch/rr"
    timed replay "$lockstep" replay "$scratch/boot-log"
    qemu qemu-replay "shift=auto,rr=replay,rrfile=$scratch/rr"
done
for name in plain qemu-plain record qemu-record replay qemu-replay; do median <"$scratch/$name"; done | paste -sd' ' |
    awk -v rounds="$rounds" '{
        printf "boot to the first program, seconds, median of %d\n", rounds
        printf "%-10s %9s %9s %9s\n", "", "lockstep", "qemu", "ratio"
        printf "%-10s %9.2f %9.2f %9.2f\n", "plain", $1, $2, $1 / $2
        printf "%-10s %9.2f %9.2f %9.2f\n", "recording", $3, $4, $3 / $4
        printf "%-10s %9.2f %9.2f %9.2f\n", "replay", $5, $6, $5 / $6
        printf "recording / plain: lockstep %.3f, qemu %.3f; replay / recording: lockstep %.3f, qemu %.3f\n",
            $3 / $1, $4 / $2, $5 / $3, $6 / $4 }'
qemu-system-x86_64 --version | head -n 1
[ "$(id -u)" -eq 0 ] || { echo 'redis-server is left out, as this is not root'; exit 0; }

serving=("${linux[@]}" --append 'console=ttyS0 lockstep.redis')
patience=120

# load NAME: requests a second of 50 clients that each wait for their answers, added to a file.
load() {
    on $a redis-benchmark -h 10.77.0.2 -t set -c 50 -n 20000 --csv 2>/dev/null |
        awk -F'"' '$2 == "SET" { print $4 }' >>"$scratch/$1"
}

# grown SECONDS: kbit/s by which the recording grows.
grown() {
    local before
    before=$(stat -c %s "$scratch/record/log")
    sleep "$1"
    echo "$before $(stat -c %s "$scratch/record/log") $1" | awk '{ printf "%.1f", ($2 - $1) * 8 / 1000 / $3 }'
}

for round in 1 2 3; do
    rm -rf "$scratch/record"
    begin $a "$lockstep" run "${serving[@]}" --net tap=tap0 --console none; serves
    load redis-plain; end "$pid"
    begin $a "$lockstep" run "${serving[@]}" --net tap=tap0 --console none --record "$scratch/record"; serves
    # What follows a start, such as looking for other hosts, is over by then.
    sleep 10
    idle=$(grown 10)
    before=$(stat -c %s "$scratch/record/log") began=$EPOCHREALTIME
    load redis-recording
    loaded=$(echo "$before $(stat -c %s "$scratch/record/log") $began $EPOCHREALTIME" |
        awk '{ printf "%.1f", ($2 - $1) * 8 / 1000 / ($4 - $3) }')
    end "$pid"
    pair "$lockstep" "${serving[@]}"
    load redis-pair; end "$primary" "$backup"
done
for mode in plain recording pair; do median <"$scratch/redis-$mode"; done | paste -sd' ' |
    awk -v idle="$idle" -v loaded="$loaded" '{
        printf "redis-server, 50 clients, SETs a second: plain %.0f, recording %.0f (x %.2f), pair %.0f (x %.2f)\n",
            $1, $2, $2 / $1, $3, $3 / $1
        printf "its recording grows by %s kbit/s idle, %s kbit/s loaded\n", idle, loaded }'
