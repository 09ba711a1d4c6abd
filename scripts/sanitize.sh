#!/usr/bin/env bash
# Builds what needs no torch with clang's sanitizers and runs its tests. Usage: sanitize.sh [asan-ubsan|tsan] [--all]
# Without --all: transport, core, the session's logic, the stage's protocol, the simulated clusters and, with
# asan-ubsan, a short run of every fuzz target; left out are the planner's long searches, which have one thread.
set -euo pipefail
cd "$(dirname "$0")/.."

all=no
presets=()
for argument in "$@"; do
    case "$argument" in
        asan-ubsan | tsan) presets+=("$argument") ;;
        --all) all=yes ;;
        *)
            echo "sanitize.sh: expected asan-ubsan, tsan or --all, found '$argument'" >&2
            exit 2
            ;;
    esac
done
[ ${#presets[@]} -gt 0 ] || presets=(asan-ubsan tsan)
scripts/install_packages.sh test

targets=(core_test transport_test keys_test data_plane_test session_logic_test stage_protocol_test sim_test)
for preset in "${presets[@]}"; do
    build=build-$preset
    cmake --preset "$preset" >/dev/null
    if [ "$all" = yes ]; then
        cmake --build "$build"
    else
        more=()
        [ "$preset" = asan-ubsan ] && more=(fuzzers)
        cmake --build "$build" --target "${targets[@]}" "${more[@]}"
    fi
    export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=0 UBSAN_OPTIONS=print_stacktrace=1
    export TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/scripts/tsan.supp"
    if [ "$all" = yes ]; then
        ctest --test-dir "$build" --output-on-failure --no-tests=error -LE documentation
    else
        for target in "${targets[@]}"; do "$build/bin/$target" --gtest_brief=1; done
        [ "$preset" = asan-ubsan ] && ctest --test-dir "$build" -L fuzz --output-on-failure --no-tests=error
    fi
done
