#!/usr/bin/env bash
# What counting branch edges costs, as ratios in one run: the guest `bench` with and without the
# instrumentation, and `kv` under redis-benchmark if this is root with iproute2 and redis-tools.
# Usage: tests/bench/counter.sh [QUANTUM]
set -euo pipefail
cd "$(dirname "$0")/../.."
quantum=${1:-100000}
lockstep=$PWD/target/release/lockstep
scratch=$(mktemp -d)
namespace=lockstep-bench-$$
trap 'ip netns del "$namespace" 2>/dev/null || true; rm -rf "$scratch"' EXIT

cargo build --release --quiet
# RUSTFLAGS stand in for those of guests/.cargo/config.toml: the same, less the instrumentation.
flags=$(grep -o '"-[^"]*"' guests/.cargo/config.toml | tr -d '"' | grep -v -e sancov -e sanitizer | tr '\n' ' ')
(cd guests && RUSTFLAGS=$flags cargo build --release --quiet --target-dir "$scratch/plain" -p bench -p kv)
plain=$scratch/plain/x86_64-unknown-linux-gnu/release
ship=$(ls -td target/release/build/lockstep-*/out/guests/x86_64-unknown-linux-gnu/release | head -1)

# times ELF: "kernel nanoseconds" lines, the best of three runs.
times() {
    for _ in 1 2 3; do "$lockstep" run "$1" --quantum "$quantum" </dev/null; done |
        awk '$1 == "bench:" && $4 == "ns" && NF == 4 { if (!($2 in best) || $3 < best[$2]) best[$2] = $3 }
             END { for (k in best) print k, best[k] }' | sort
}
join <(times "$plain/bench") <(times "$ship/bench") |
    awk '{ printf "%-8s plain %9.1f ms, counted %9.1f ms, ratio %.2f\n", $1, $2 / 1e6, $3 / 1e6, $3 / $2 }'

[ "$(id -u)" -eq 0 ] && command -v ip >/dev/null && command -v redis-benchmark >/dev/null || exit 0
ip netns add "$namespace"
inside="ip netns exec $namespace"
$inside ip link set lo up
$inside ip tuntap add dev tap0 mode tap
$inside ip addr add 10.77.0.1/24 dev tap0
$inside ip link set tap0 up

# rate ELF CLIENTS PIPELINE: requests per second, the best of three.
rate() {
    $inside "$lockstep" run "$1" --net tap=tap0 --quantum "$quantum" --console none </dev/null 2>/dev/null &
    local guest=$!
    until $inside redis-cli -h 10.77.0.2 ping 2>/dev/null | grep -q PONG; do :; done
    for _ in 1 2 3; do
        $inside redis-benchmark -h 10.77.0.2 -t set -n $((20000 * $3)) -c "$2" -P "$3" --csv
    done | awk -F'"' '$2 == "SET" && $4 > best { best = $4 } END { print best }'
    kill "$guest"
    wait "$guest" || true
}
for load in "1 1" "50 1" "50 16"; do
    # shellcheck disable=SC2086
    a=$(rate "$plain/kv" $load) b=$(rate "$ship/kv" $load)
    echo "$load $a $b" | awk '{ printf "kv -c %d -P %d: plain %.0f/s, counted %.0f/s, ratio of times %.2f\n", $1, $2, $3, $4, $3 / $4 }'
done
