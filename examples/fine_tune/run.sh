#!/usr/bin/env bash
# A model written and pre-trained in Python, fine-tuned by a cluster of two devices, loaded back into Python.
# The model is an nn.Sequential with batch norm and dropout that knows five kinds of clothes; the cluster teaches it all ten.
# Needs the Debian packages python3-torch and python3-numpy.
#
#   run.sh [--samples 10000] [--least 70] [--out run/fine_tune]
#
# Exit code 1 when the tuned model is right about less than so many percent of all ten kinds.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=examples/fine_tune
bin=build/bin
samples=10000 least=70 out=run/fine_tune

die() {
    echo "run.sh: $2" >&2
    exit "$1"
}
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die 2 "$1: expected a value, found none"
    case "$1" in
        --samples) samples=$2 ;;
        --least) least=$2 ;;
        --out) out=$2 ;;
        *) die 2 "expected --samples, --least or --out, found '$1'" ;;
    esac
    shift 2
done
[ -x $bin/ecopipe-train ] || die 2 "$bin/ecopipe-train is not there; run scripts/build.sh first"
# Debian's python3-torch belongs to Debian's python3, which need not be the first in the PATH.
python=/usr/bin/python3
[ -x $python ] || python=python3
mkdir -p "$out"
rm -rf "$out/tuned" "$out/model.pt"

echo "== pre-training in Python"
$python $here/pretrain.py "$out/model.pt"

# A plan names a TorchScript model by its file's hash, so it is written here: the first convolution on the hub, the rest on
# the laptop. (Without --plan the planner would decide, and may well leave a small model on one device.)
cat >"$out/plan.json" <<JSON
{"schema": "ecopipe.plan/1", "model": "sha256:$(sha256sum "$out/model.pt" | cut -d' ' -f1)",
 "batch": 64, "micro_batches": 4, "schedule": "1f1b",
 "stages": [{"device": "hub", "first_layer": 0, "last_layer": 3, "in_flight": 2, "recompute": false},
            {"device": "laptop", "first_layer": 4, "last_layer": 12, "in_flight": 1, "recompute": false}]}
JSON

echo "== fine-tuning on two devices"
$bin/ecopipe-train --local --cluster $here/cluster.yaml --plan "$out/plan.json" --model "$out/model.pt" \
    --data fashion-mnist --data-limit "$samples" --epochs 1 --lr 0.02 --out "$out/tuned"

echo "== back in Python"
$python $here/evaluate.py "$out/tuned/model.pt" "$least"
