#!/usr/bin/env bash
# What shows that built or installed programs work on this machine: the self-check, and lenet5 through pipelines of one to
# three stages, whose weights must be those of one process byte for byte. Usage: check_programs.sh [DIRECTORY]
# Without DIRECTORY: those of PATH.
set -euo pipefail
at=${1:+$(cd "$1" && pwd)/}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${at}ecopipe-stage" --self-check
train=("${at}ecopipe-train" --model lenet5 --data synthetic:1x28x28:10:256 --steps 8 --quiet --no-evaluation --log-level warn)
"${train[@]}" --single --batch 32 --micro-batches 8 --out "$work/single"
# Equal cuts by hand, so that every device has layers whatever the planner would prefer.
"${at}ecopipe-profile" --model lenet5 --micro-batch 4 --seconds 0.01 --out "$work/profile.json" >/dev/null
layers=$(grep -c '"parameter_bytes"' "$work/profile.json")
for stages in 1 2 3; do
    list=
    for ((stage = 0; stage < stages; ++stage)); do
        list+="${list:+,}{\"device\":\"d$stage\",\"first_layer\":$((stage * layers / stages)),\"last_layer\":$(((stage + 1) * layers / stages - 1)),\"in_flight\":$((2 * (stages - stage) - 1)),\"recompute\":false}"
    done
    echo "{\"schema\":\"ecopipe.plan/1\",\"model\":\"lenet5\",\"batch\":32,\"micro_batches\":8,\"schedule\":\"1f1b\",\"stages\":[$list]}" >"$work/plan.json"
    "${train[@]}" --local --join-timeout-s 600 --plan "$work/plan.json" --out "$work/$stages"
    cmp "$work/single/model.safetensors" "$work/$stages/model.safetensors"
    echo "lenet5 on $stages stage(s): byte-identical to one process"
done
