#!/usr/bin/env bash
# Two homes that each own half of the kinds of clothes in Fashion-MNIST, 3,000 pictures each. Neither can pass 50 % alone:
# it has never seen the other half. Through a federation they learn one model of all ten kinds; no picture leaves a home.
# Each home is a pipeline of two devices; all runs on this machine.
#
#   run.sh [--seeds 1,2,3] [--rounds 12] [--samples 3000] [--least 70] [--out run/federation_of_two_homes]
#
# Prints each seed's mean accuracy over the last four rounds. Exit code 1 when their mean is below --least percent.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=examples/federation_of_two_homes
bin=build/bin
seeds=1,2,3 rounds=12 samples=3000 least=70 out=run/federation_of_two_homes

die() {
    echo "run.sh: $2" >&2
    exit "$1"
}
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die 2 "$1: expected a value, found none"
    case "$1" in
        --seeds) seeds=$2 ;;
        --rounds) rounds=$2 ;;
        --samples) samples=$2 ;;
        --least) least=$2 ;;
        --out) out=$2 ;;
        *) die 2 "expected --seeds, --rounds, --samples, --least or --out, found '$1'" ;;
    esac
    shift 2
done
[[ $seeds =~ ^[0-9]+(,[0-9]+)*$ ]] || die 2 "--seeds: expected numbers like 1,2,3, found '$seeds'"
[[ $rounds =~ ^([4-9]|[1-9][0-9]{1,4})$ ]] || die 2 "--rounds: expected 4 to 99999, found '$rounds'"
[ -x $bin/ecopipe-fl-server ] || die 2 "$bin/ecopipe-fl-server is not there; run scripts/build.sh first"

# Only what this script started ends with it.
running=()
cleanup() {
    if [ ${#running[@]} -gt 0 ]; then kill "${running[@]}" 2>/dev/null || true; fi
    wait
}
trap cleanup EXIT

# The server takes any free port and says which.
wait_for_port() { # LOG
    local tries port=''
    for ((tries = 0; tries < 300; ++tries)); do
        port=$(sed -n 's/.*listening on tcp:\/\/127\.0\.0\.1:\([0-9]*\).*/\1/p' "$1")
        [ -n "$port" ] && break
        kill -0 "${running[0]}" 2>/dev/null || die 1 "the server ended: $(tail -n 1 "$1")"
        sleep 0.1
    done
    echo "${port:?the server does not listen}"
}

federate() { # SEED
    local dir=$out/seed_$1 port home process
    mkdir -p "$dir"
    : >"$dir/server.log"
    $bin/ecopipe-fl-server --bind tcp://127.0.0.1:0 --model lenet5 --state "$dir/server" --strategy fedavg \
        --rounds "$rounds" --min-clusters 2 --eval-data fashion-mnist --seed "$1" --config $here/server.yaml \
        2>"$dir/server.log" &
    running=($!)
    port=$(wait_for_port "$dir/server.log")
    for home in north south; do
        local classes=0,1,2,3,4
        if [ $home = south ]; then classes=5,6,7,8,9; fi
        $bin/ecopipe-train --local --cluster $here/$home.yaml --plan $here/plan.json --model lenet5 \
            --data fashion-mnist --classes $classes --data-limit "$samples" --seed "$1" --quiet \
            --federated "tcp://127.0.0.1:$port" --out "$dir/$home" >"$dir/$home.log" 2>&1 &
        running+=($!)
    done
    for process in "${running[@]}"; do
        wait "$process" || die 1 "seed $1 failed: $(tail -qn 1 "$dir"/*.log | tr '\n' ' ')"
    done
    running=()
}

# One accuracy a round, in percent.
accuracies() { sed -n 's/.*"accuracy":\([0-9.e-]*\).*/\1/p' "$out/seed_$1/server/rounds.jsonl" | awk '{ printf "%.1f\n", 100 * $1 }'; }

# What one home reaches by itself in as many epochs, tested on all ten kinds.
train_alone() { # HOME CLASSES
    local dir=$out/alone_$1
    {
        $bin/ecopipe-train --single --model lenet5 --data fashion-mnist --classes "$2" --data-limit "$samples" \
            --epochs $((2 * rounds)) --batch 64 --micro-batches 2 --lr 0.1 --momentum 0 --no-evaluation --quiet --out "$dir"
        $bin/ecopipe-train --single --model lenet5 --data fashion-mnist --evaluate-only --init "$dir/model.safetensors" \
            --quiet --out "$dir.test"
    } >"$dir.log" 2>&1 || die 1 "$1 alone failed: $(tail -n 1 "$dir.log")"
    sed -n "s/.*test accuracy \([0-9.]*\) %.*/$1 alone: \1 % of all ten kinds/p" "$dir.log" | tail -n 1
}

started=$SECONDS
mkdir -p "$out"
rm -rf "$out"/seed_* "$out"/alone_*
train_alone north 0,1,2,3,4
train_alone south 5,6,7,8,9
means=()
for seed in ${seeds//,/ }; do
    federate "$seed"
    mean=$(accuracies "$seed" | tail -n 4 | awk '{ sum += $1 } END { printf "%.2f", sum / NR }')
    means+=("$mean")
    echo "seed $seed: mean of the last four of $rounds rounds $mean %; each round: $(accuracies "$seed" | tr '\n' ' ')"
done

mean=$(printf '%s\n' "${means[@]}" | awk '{ sum += $1 } END { printf "%.2f", sum / NR }')
echo "mean over ${#means[@]} seed(s): $mean %, wanted at least $least %; $((SECONDS - started)) s; the models are in $out/seed_*/server"
awk -v mean="$mean" -v least="$least" 'BEGIN { exit !(mean >= least) }'
