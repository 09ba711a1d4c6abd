#!/usr/bin/env bash
# A model written and pre-trained in Python, fine-tuned by a cluster of two devices, loaded back into Python.
# The model is an nn.Sequential with batch norm and dropout that knows five kinds of clothes; the cluster teaches it all ten.
# Needs the Debian packages python3-torch and python3-numpy.
#
#   run.sh [--out run/fine_tune]
set -euo pipefail
cd "$(dirname "$0")/../.."
here=examples/fine_tune
bin=build/bin
out=run/fine_tune
if [ $# -eq 2 ] && [ "$1" = --out ]; then
    out=$2
elif [ $# -ne 0 ]; then
    echo "run.sh: expected --out DIR or nothing" >&2
    exit 2
fi
[ -x $bin/ecopipe-train ] || {
    echo "run.sh: $bin/ecopipe-train is not there; run scripts/build.sh first" >&2
    exit 2
}
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
    --data fashion-mnist --data-limit 10000 --epochs 1 --lr 0.02 --out "$out/tuned"

echo "== back in Python"
$python $here/evaluate.py "$out/tuned/model.pt" 70
