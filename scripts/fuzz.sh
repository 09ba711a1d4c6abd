#!/usr/bin/env bash
# Fuzzes the decoders for long. Usage: fuzz.sh [--seconds N] [TARGET...]   (default: 600 s each, all targets)
# What it finds lies in build-asan-ubsan/; inputs that reach new code are kept in build-asan-ubsan/corpus/.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=600
if [ "${1:-}" = --seconds ]; then
    seconds=${2:?fuzz.sh: --seconds needs a number}
    shift 2
fi
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for directory in fuzz/corpus/*/; do targets+=("$(basename "$directory")"); done
fi
scripts/install_packages.sh test
cmake --preset asan-ubsan >/dev/null
cmake --build build-asan-ubsan --target fuzzers
for target in "${targets[@]}"; do
    found=build-asan-ubsan/corpus/$target
    mkdir -p "$found"
    log=build-asan-ubsan/fuzz_$target.log
    code=0
    build-asan-ubsan/bin/fuzz_"$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="build-asan-ubsan/$target-" "$found" "fuzz/corpus/$target" >"$log" 2>&1 || code=$?
    echo "$target: $(awk '/stat::number_of_executed_units/ {print $2}' "$log") executions, exit code $code"
    [ "$code" -eq 0 ] || { tail -n 30 "$log" >&2; exit 1; }
done
