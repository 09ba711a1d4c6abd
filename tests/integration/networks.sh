#!/usr/bin/env bash
# A cluster of three machines (network namespaces) that have IPv6 addresses alone, and the same with two that do not reach one another:
# the weights are those of one process. Usage: networks.sh BIN_DIRECTORY. Needs root; leaves with 77 without.
set -euo pipefail
bin=${1:?networks.sh: needs the directory of the programs}
if [ "$(id -u)" -ne 0 ] || ! unshare --net true 2>/dev/null || ! command -v ip >/dev/null; then
    echo "networks.sh: needs root, network namespaces and ip"
    exit 77
fi
work=$(mktemp -d)
tag=eco$$
names=(hub a b)
processes=()
clean_up() {
    for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; done
    for name in "${names[@]}" switch; do ip netns del "$tag$name" 2>/dev/null || true; done
    rm -rf "$work"
}
trap clean_up EXIT

ip netns add "${tag}switch"
ip -n "${tag}switch" link add bridge type bridge
ip -n "${tag}switch" link set bridge up
for i in 0 1 2; do
    space=$tag${names[i]}
    ip netns add "$space"
    ip -n "${tag}switch" link add "port$i" type veth peer name eth0 netns "$space"
    ip -n "${tag}switch" link set "port$i" master bridge up
    ip -n "$space" -6 address add "fd77::$((i + 1))/64" dev eth0 nodad
    ip -n "$space" link set eth0 up
    ip -n "$space" link set lo up
done
for pair in a:3 b:2; do # ready for `blocked`
    echo "ip -n $tag${pair%:*} -6 route add blackhole fd77::${pair#*:}/128"
done >"$work/block"

cat >"$work/cluster.yaml" <<YAML
name: home
portal: hub
portal_address: fd77::1
devices:
  - {name: hub, memory_mib: 1024, speed: 1}
  - {name: a, memory_mib: 1024, speed: 1}
  - {name: b, memory_mib: 1024, speed: 2}
default_link: {mbps: 1000, latency_ms: 0.1}
YAML
cat >"$work/plan.json" <<'JSON'
{"schema": "ecopipe.plan/1", "model": "lenet5", "batch": 32, "micro_batches": 4, "schedule": "1f1b", "stages": [
 {"device": "hub", "first_layer": 0, "last_layer": 3, "in_flight": 3, "recompute": false},
 {"device": "a", "first_layer": 4, "last_layer": 7, "in_flight": 2, "recompute": false},
 {"device": "b", "first_layer": 8, "last_layer": 11, "in_flight": 1, "recompute": false}]}
JSON
training=(--model lenet5 --data synthetic:1x28x28:10:640 --batch 32 --micro-batches 4 --steps 40 --no-evaluation --quiet)
"$bin/ecopipe-train" --single "${training[@]}" --out "$work/single"

# train NAME: over all three, to the bytes of one process
train() {
    local stages=()
    processes=()
    ip netns exec "${tag}hub" "$bin/ecopipe-train" --cluster "$work/cluster.yaml" --plan "$work/plan.json" --insecure "${training[@]}" --out "$work/$1" 2>"$work/$1.said" &
    local portal=$!
    processes+=("$portal")
    for name in "${names[@]}"; do
        ip netns exec "$tag$name" "$bin/ecopipe-stage" --join 'tcp://[fd77::1]:5599' --name "$name" --insecure 2>"$work/$1.$name" &
        stages+=($!)
        processes+=($!)
    done
    wait "$portal" || { cat "$work/$1.said"; echo "networks.sh: $1: the portal failed"; exit 1; }
    for stage in "${stages[@]}"; do wait "$stage" || { tail -n 3 "$work/$1".*; echo "networks.sh: $1: a stage failed"; exit 1; }; done
    processes=()
    cmp "$work/single/model.safetensors" "$work/$1/model.safetensors"
}

train whole
if grep -q 'cannot reach' "$work/whole.said"; then cat "$work/whole.said"; exit 1; fi
bash "$work/block"
train blocked
# Without b, which is twice as fast, a step would take longer: a is left out.
grep -q 'a cannot reach b at tcp://\[fd77::3\]:[0-9]*; the others go on without a;' "$work/blocked.said" || {
    cat "$work/blocked.said"
    echo "networks.sh: the pair was not told"
    exit 1
}
echo "networks.sh: IPv6 alone, and a pair that does not reach one another: the same weights"
