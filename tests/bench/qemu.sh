#!/usr/bin/env bash
# The software CPU beside QEMU's translator and this host's processor, on one file of kernels in C.
# Million guest instructions a second of processor time: of Lockstep, of QEMU in system mode with an exact
# count (-icount), of QEMU without one, and of a process on this host, which is built from the same source.
# Usage: tests/bench/qemu.sh (with gcc, jq and qemu-system-x86_64)
set -euo pipefail
cd "$(dirname "$0")/../.."
lockstep=${LOCKSTEP:-$PWD/target/release/lockstep}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
[ -n "${LOCKSTEP-}" ] || cargo build --release --quiet --bin lockstep

gcc -O2 -ffreestanding -fno-stack-protector -fno-pie -mno-red-zone -nostdlib -static \
    -o "$scratch/kernels" tests/bench/kernels.c
gcc -O2 -DPROCESS -o "$scratch/process" tests/bench/kernels.c

# Nanoseconds of processor time of all threads of process $1.
spent() {
    cat "/proc/$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# qemu OPTION…: kernel, value and nanoseconds. What the firmware prints may stand before the first line.
qemu() {
    local began=0 line name what value
    mkfifo "$scratch/serial"
    qemu-system-x86_64 -M pc -m 64 -nodefaults -display none -serial stdio -no-reboot -accel tcg "$@" \
        -kernel "$scratch/kernels" </dev/null >"$scratch/serial" &
    while read -r line; do
        read -r name what value <<<"${line##*mips: }"
        case $name:$what in
        *:begins*) began=$(spent $!) ;;
        *:gives) echo "$name ${value%$'\r'} $(($(spent $!) - began))" ;;
        done*) kill $! ;;
        esac
    done <"$scratch/serial"
    wait $! || true
    rm "$scratch/serial"
}

"$lockstep" bench cpu --json "$scratch/kernels" >"$scratch/ours"
qemu -icount shift=0 >"$scratch/icount"
qemu >"$scratch/free"
"$scratch/process" | awk '{ print $2, $4, $6 }' >"$scratch/native"

# The same values everywhere, or the times compare different things.
values() { awk '$1 != "syscalls" { print $1, $2 }' "$1"; }
for other in free native; do
    cmp <(values "$scratch/icount") <(values "$scratch/$other")
done

jq -r '.kernels[] | "\(.name) \(.instructions) \(.mips)"' "$scratch/ours" | awk -v dir="$scratch" '
    function rate(table, name, steps) {
        return (name in table) ? sprintf("%.0f", steps * 1000 / table[name]) : "-"
    }
    BEGIN {
        while ((getline line < (dir "/icount")) > 0) { split(line, f, " "); icount[f[1]] = f[3] }
        while ((getline line < (dir "/free")) > 0) { split(line, f, " "); free[f[1]] = f[3] }
        while ((getline line < (dir "/native")) > 0) { split(line, f, " "); native[f[1]] = f[3] }
        printf "%-9s %12s %9s %12s %9s %9s\n", "kernel", "instructions", "Lockstep", "QEMU icount", "QEMU", "native"
    }
    {
        printf "%-9s %12d %9.0f %12s %9s %9s\n", $1, $2, $3, rate(icount, $1, $2), rate(free, $1, $2), rate(native, $1, $2)
        if ($1 in icount) { n++; ours += log($3); theirs += log($2 * 1000 / icount[$1]); open += log($2 * 1000 / free[$1]) }
    }
    END { printf "%-9s %12s %9.0f %12.0f %9.0f\n", "mean", "", exp(ours / n), exp(theirs / n), exp(open / n) }'
