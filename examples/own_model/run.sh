#!/usr/bin/env bash
# torchvision's resnet18, fine-tuned on a folder of pictures by three devices (emulated here), and taken back into torchvision.
# The body is frozen, so nothing runs backward and nothing comes back over the network left of the head. Weights start at
# random here, since nothing is downloaded; with a state dict of your own, give export_sequential.py --state-dict FILE.
# Needs the Debian packages python3-torchvision and dataset-fashion-mnist.
#
#   run.sh [--pictures 1200] [--epochs 3] [--out run/own_model]
set -euo pipefail
cd "$(dirname "$0")/../.."
here=examples/own_model
bin=build/bin
pictures=1200 epochs=3 out=run/own_model

die() {
    echo "run.sh: $2" >&2
    exit "$1"
}
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die 2 "$1: expected a value, found none"
    case "$1" in
        --pictures) pictures=$2 ;;
        --epochs) epochs=$2 ;;
        --out) out=$2 ;;
        *) die 2 "expected --pictures, --epochs or --out, found '$1'" ;;
    esac
    shift 2
done
[[ $pictures =~ ^[0-9]{3,5}$ ]] || die 2 "--pictures: expected 100 to 60000, found '$pictures'"
[ -x $bin/ecopipe-train ] || die 2 "$bin/ecopipe-train is not there; run scripts/build.sh first"
# Debian's python3-torchvision belongs to Debian's python3, which need not be the first in the PATH.
python=/usr/bin/python3
[ -x $python ] || python=python3
mkdir -p "$out"
rm -rf "$out/pictures" "$out/tuned" "$out/reference"

echo "== a folder of pictures"
$python $here/make_pictures.py "$out/pictures" "$pictures" $((pictures / 6))
ls "$out/pictures/train"

echo "== the model from Python"
$python scripts/export_sequential.py resnet18 --num-classes 10 --input 3x32x32 --out "$out/resnet18.pt" | tail -n 1

# A plan names a TorchScript model by its file's hash, so it is written here. (Without --plan the planner decides, and may
# well leave so small a training on one device.)
cat >"$out/plan.json" <<JSON
{"schema": "ecopipe.plan/1", "model": "sha256:$(sha256sum "$out/resnet18.pt" | cut -d' ' -f1)",
 "batch": 48, "micro_batches": 4, "schedule": "1f1b",
 "stages": [{"device": "hub", "first_layer": 0, "last_layer": 5, "in_flight": 4, "recompute": false},
            {"device": "laptop", "first_layer": 6, "last_layer": 9, "in_flight": 3, "recompute": false},
            {"device": "pi", "first_layer": 10, "last_layer": 14, "in_flight": 1, "recompute": false}]}
JSON

learn=(--model "$out/resnet18.pt" --data "folder:$out/pictures" --resize 32x32
    --normalize 0.485,0.456,0.406/0.229,0.224,0.225 --augment flip,crop --freeze 'conv1.*,bn1.*,layer1*,layer2*,layer3*'
    --optimizer adamw --lr 0.002 --weight-decay 0.01 --lr-schedule cosine --warmup-steps 5 --clip-norm 1
    --validation-fraction 0.1 --early-stop 2 --epochs "$epochs")

echo "== fine-tuning on three devices"
$bin/ecopipe-train --local --cluster $here/cluster.yaml --plan "$out/plan.json" "${learn[@]}" --out "$out/tuned"

echo "== the same in one process"
$bin/ecopipe-train --single --batch 48 --micro-batches 4 "${learn[@]}" --out "$out/reference" --quiet
cmp "$out/tuned/model.safetensors" "$out/reference/model.safetensors"
cmp "$out/tuned/best.safetensors" "$out/reference/best.safetensors"
echo "byte-identical, the best and the last"

echo "== back in torchvision"
$python scripts/export_sequential.py resnet18 --num-classes 10 --input 3x32x32 --back "$out/tuned/model.safetensors" \
    --out "$out/resnet18.pth"
