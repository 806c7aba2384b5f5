# Two hosts in network namespaces, for the other scripts here: each has a TAP on a bridge, the bridges are
# one network, and a link of its own carries the logging channel. Source it as root; everything that it
# made is gone when the script ends.
# shellcheck shell=bash
[ "$(id -u)" -eq 0 ] || { echo "$0: this makes network namespaces: run it as root" >&2; exit 1; }
for tool in ip redis-benchmark redis-cli; do
    command -v "$tool" >/dev/null || { echo "$0: needs $tool (iproute2, redis-tools)" >&2; exit 1; }
done
scratch=$(mktemp -d)
a=lockstep-a-$$ b=lockstep-b-$$
started=()

on() { local host=$1; shift; ip netns exec "$host" "$@"; }

clean() {
    [ ${#started[@]} -eq 0 ] || kill -9 "${started[@]}" 2>/dev/null || true
    for host in $a $b; do ip netns del "$host" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap clean EXIT

for host in $a $b; do
    ip netns add "$host"
    on "$host" ip link set lo up
    on "$host" ip link add br0 type bridge forward_delay 0
    on "$host" ip link set br0 up
    on "$host" ip tuntap add dev tap0 mode tap
    on "$host" ip link set tap0 master br0 up
    on "$host" ip link set tap0 type bridge_slave learning off
done
for wire in lan chan; do ip link add "$wire" netns $a type veth peer name "$wire" netns $b; done
for host in $a $b; do
    on "$host" ip link set lan master br0 up
    on "$host" ip link set chan up
done
on $a ip addr add 10.77.0.1/24 dev br0
on $a ip addr add 10.78.0.1/24 dev chan
on $b ip addr add 10.78.0.2/24 dev chan

# begin HOST ARGS…: starts a process on a host; its pid is in $pid.
begin() {
    local host=$1; shift
    ip netns exec "$host" "$@" </dev/null >>"$scratch/log" 2>&1 &
    pid=$!
    started+=("$pid")
}

# end PID…: ends what was started.
end() {
    kill "$@" 2>/dev/null || true
    wait "$@" 2>/dev/null || true
    started=()
}

# serves: waits until the guest answers; gives up after $patience seconds.
patience=20
serves() {
    local give_up=$((SECONDS + patience))
    until on $a redis-cli -h 10.77.0.2 ping 2>/dev/null | grep -q PONG; do
        [ $SECONDS -lt $give_up ] || { echo "the guest does not answer:" >&2; cat "$scratch/log" >&2; exit 1; }
        sleep 0.1
    done
}

# pair LOCKSTEP GUEST OPTIONS…: starts one, whose pids are in $primary and $backup, and waits until it serves.
pair() {
    local lockstep=$1
    shift
    rm -rf "$scratch/arbiter"; mkdir "$scratch/arbiter"
    local vm=(--vm "bench-$$" --arbiter "file:$scratch/arbiter" --console none --net tap=tap0)
    local channel=(--channel 10.78.0.1:7700)
    begin $a "$lockstep" primary "$@" "${vm[@]}" "${channel[@]}"; primary=$pid
    begin $b "$lockstep" backup "${vm[@]}" "${channel[@]}"; backup=$pid
    serves
}

# spent PID: user and system time of a process so far, milliseconds.
spent() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13) * 1000 / hz }' "/proc/$1/stat"; }

# median: of the numbers on standard input.
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
