#!/usr/bin/env bash
# A model of the zoo, shufflenet_v2_x1_0, learns a folder of pictures from nothing, over three devices (emulated here), and once
# more in one process: the same bytes. The weights have torchvision's names, so torchvision.models.shufflenet_v2_x1_0 loads them.
# Needs the Debian packages python3-numpy, python3-pil and dataset-fashion-mnist.
#
#   run.sh [--pictures 3000] [--epochs 3] [--least 75] [--out run/shufflenet_pictures]
#
# Exit code 1 when less than so many percent of the test pictures are recognised.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=examples/shufflenet_pictures
bin=build/bin
pictures=3000 epochs=3 least=75 out=run/shufflenet_pictures

die() {
    echo "run.sh: $2" >&2
    exit "$1"
}
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die 2 "$1: expected a value, found none"
    case "$1" in
        --pictures) pictures=$2 ;;
        --epochs) epochs=$2 ;;
        --least) least=$2 ;;
        --out) out=$2 ;;
        *) die 2 "expected --pictures, --epochs, --least or --out, found '$1'" ;;
    esac
    shift 2
done
[[ $pictures =~ ^[0-9]{3,5}$ ]] || die 2 "--pictures: expected 100 to 60000, found '$pictures'"
[ -x $bin/ecopipe-train ] || die 2 "$bin/ecopipe-train is not there; run scripts/build.sh first"
python=/usr/bin/python3
[ -x $python ] || python=python3
mkdir -p "$out"
rm -rf "$out/pictures" "$out/pipeline" "$out/single"

echo "== a folder of pictures"
$python examples/own_model/make_pictures.py "$out/pictures" "$pictures" $((pictures / 6))

learn=(--model shufflenet_v2_x1_0 --data "folder:$out/pictures" --resize 64x64 --augment flip
    --normalize 0.286/0.353 --optimizer adamw --lr 0.002 --weight-decay 0.01 --lr-schedule cosine --warmup-steps 10
    --epochs "$epochs")

echo "== three devices"
$bin/ecopipe-train --local --cluster $here/cluster.yaml --plan $here/plan.json "${learn[@]}" --out "$out/pipeline" |
    tee "$out/pipeline.log"

echo "== the same in one process"
$bin/ecopipe-train --single --batch 32 --micro-batches 4 "${learn[@]}" --out "$out/single" --quiet --no-evaluation
cmp "$out/pipeline/model.safetensors" "$out/single/model.safetensors"
accuracy=$(sed -n 's/.*test accuracy \([0-9.]*\) %.*/\1/p' "$out/pipeline.log" | tail -n 1)
echo "byte-identical; $accuracy % of the test pictures recognised, wanted at least $least %"
awk -v found="$accuracy" -v least="$least" 'BEGIN { exit !(found >= least) }'
