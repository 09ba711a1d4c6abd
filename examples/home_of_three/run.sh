#!/usr/bin/env bash
# Trains fashion_cnn as a pipeline over three unequal devices, emulated on this machine, then once more in one process, and
# compares the two models byte for byte: where a layer runs changes nothing but the time.
#
#   run.sh [--samples 6400] [--out run/home_of_three] [-- FLAG...]    (flags for both trainings)
set -euo pipefail
cd "$(dirname "$0")/../.."
here=examples/home_of_three
bin=build/bin
samples=6400 out=run/home_of_three

die() {
    echo "run.sh: $2" >&2
    exit "$1"
}
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    [ $# -ge 2 ] || die 2 "$1: expected a value, found none"
    case "$1" in
        --samples) samples=$2 ;;
        --out) out=$2 ;;
        *) die 2 "expected --samples or --out, found '$1'" ;;
    esac
    shift 2
done
[ -x $bin/ecopipe-train ] || die 2 "$bin/ecopipe-train is not there; run scripts/build.sh first"
rm -rf "$out/pipeline" "$out/single"

# The same for both: model, data, seed, batch and micro-batch count decide every bit of the result.
common=(--model fashion_cnn --data fashion-mnist --data-limit "$samples" --batch 64 --micro-batches 8 --seed 1 "${@:2}")

echo "== a pipeline over hub, laptop and pi"
$bin/ecopipe-train --local --cluster $here/cluster.yaml "${common[@]}" --out "$out/pipeline"
for device in hub laptop pi; do
    grep -q "\"device\": \"$device\"" "$out/pipeline/plan.json" ||
        echo "$device is a spare: a pipeline without it is faster"
done

echo "== the same in one process"
$bin/ecopipe-train --single "${common[@]}" --out "$out/single"

cmp "$out/pipeline/model.safetensors" "$out/single/model.safetensors"
echo "the two models are byte-identical; open $out/pipeline/timeline.json in a Chrome trace viewer to see the pipeline"
