#!/usr/bin/env bash
# From nothing to a trained pipeline and a short federation on this machine alone, in under ten minutes on two cores:
# installs, builds, profiles, plans, trains over emulated unequal devices on Fashion-MNIST, compares the weights with those
# of one process, federates two clusters. Results lie in run/demo; a second call keeps what is built and trains afresh.
#
#   demo.sh [--small]    (--small trains for seconds only, with the programs that are built already: a test does so)
set -euo pipefail
cd "$(dirname "$0")/.."

samples=12000 home_samples=3000 rounds=4 small=no
if [ $# -eq 1 ] && [ "$1" = --small ]; then
    small=yes samples=640 home_samples=200 rounds=2
elif [ $# -ne 0 ]; then
    echo "demo.sh: expected --small or nothing" >&2
    exit 2
fi

say() { printf '\n== %s\n' "$*"; }
started=$SECONDS
out=run/demo
bin=build/bin

if [ $small = no ]; then
    say "building (the first time takes some minutes)"
    said=$(scripts/build.sh) || {
        tail -n 20 <<<"$said" >&2
        exit 1
    }
fi
rm -rf "$out"
mkdir -p "$out"

cat >"$out/cluster.yaml" <<'YAML'
name: demo-home
portal: hub
portal_address: 127.0.0.1
devices:
  - {name: hub, memory_mib: 1024, speed: 0.8}
  - {name: laptop, memory_mib: 1024, speed: 0.6}
  - {name: pi, memory_mib: 256, speed: 0.2}
default_link: {mbps: 400, latency_ms: 0.5}
YAML

say "profiling fashion_cnn on this machine"
$bin/ecopipe-profile --model fashion_cnn --micro-batch 2,4,8,16 --seconds 0.3 --device-name reference --out "$out/profile.json"

say "planning for three unequal devices"
$bin/ecopipe-plan --cluster "$out/cluster.yaml" --profile "$out/profile.json" --batch 64 --micro-batches 8 --out "$out/plan.json"

learning=(--model fashion_cnn --data fashion-mnist --data-limit "$samples" --epochs 2 --optimizer adam --lr 0.002
    --lr-schedule cosine)
say "training a pipeline over the emulated devices (the page that is named below shows it while it trains)"
$bin/ecopipe-train --local --cluster "$out/cluster.yaml" --plan "$out/plan.json" "${learning[@]}" --web 127.0.0.1:0 \
    --out "$out/pipeline"

say "the same training in one process"
$bin/ecopipe-train --single --batch 64 --micro-batches 8 "${learning[@]}" --no-evaluation --quiet --out "$out/single"
cmp "$out/pipeline/model.safetensors" "$out/single/model.safetensors" || {
    echo "demo.sh: the weights of the pipeline and of one process differ" >&2
    exit 1
}
echo "model.safetensors: the same bytes, over three devices and in one process"

say "federating two clusters, each with half of the classes"
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
}
trap cleanup EXIT
cat >"$out/server.yaml" <<'YAML'
client: {epochs: 1, batch: 32, micro_batches: 4, lr: 0.02}
YAML
port=$((20000 + RANDOM % 20000))
$bin/ecopipe-fl-server --bind "tcp://127.0.0.1:$port" --model lenet5 --state "$out/server" --rounds "$rounds" \
    --eval-data fashion-mnist --config "$out/server.yaml" >"$out/server.log" 2>&1 &
pids+=($!)
server=$!
clients=()
for half in 0,1,2,3,4 5,6,7,8,9; do
    name=home-${half%%,*}
    $bin/ecopipe-train --single --model lenet5 --data fashion-mnist --classes "$half" --data-limit "$home_samples" \
        --federated "tcp://127.0.0.1:$port" --cluster-name "$name" --out "$out/$name" --quiet >"$out/$name.log" 2>&1 &
    pids+=($!)
    clients+=($!)
done
for pid in "${clients[@]}" "$server"; do
    wait "$pid" || {
        echo "demo.sh: the federation failed; its logs are in $out/*.log" >&2
        exit 1
    }
done
pids=()
grep -o 'round [0-9]* done.*' "$out/server.log"

say "done in $((SECONDS - started)) s"
cat <<END
pipeline    $out/pipeline/model.safetensors   trained weights, PyTorch's names, as one process makes them
            $out/pipeline/metrics.jsonl       one line a step
            $out/pipeline/timeline.json       open in https://ui.perfetto.dev
federation  $out/server/model.safetensors     the global model
            $out/server/rounds.jsonl          one line a round
page        --web 127.0.0.1:8080 on ecopipe-train or ecopipe-fl-server shows a run: curves, devices, links, timeline
END
