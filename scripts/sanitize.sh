#!/usr/bin/env bash
# Builds what needs no torch with clang's sanitizers and runs its tests. Usage: sanitize.sh [asan-ubsan|tsan]... [--all]
# Without --all, what every byte from a network goes through and where threads meet: core, transport with its keys and data
# plane, and with asan-ubsan a short run of the fuzz targets of the wire. --all takes some 20 minutes.
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
command -v clang++-19 >/dev/null || scripts/install_packages.sh test
command -v clang++-19 >/dev/null || {
    echo "sanitize.sh: needs clang++-19" >&2
    exit 77
}

tests=(core_test transport_test keys_test data_plane_test)
fuzzers=(messages frames tensors keys)
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/scripts/tsan.supp" CCACHE_SLOPPINESS=pch_defines,time_macros
# What is built is told only when it fails.
build() {
    cmake --build "$build" "$@" >"$build/build.log" 2>&1 || {
        tail -n 50 "$build/build.log" >&2
        exit 1
    }
}
for preset in "${presets[@]}"; do
    build=build-$preset
    cmake --preset "$preset" >/dev/null
    if [ "$all" = yes ]; then
        build
        ctest --test-dir "$build" --output-on-failure --no-tests=error -LE documentation
        continue
    fi
    targets=("${tests[@]}")
    filter=()
    if [ "$preset" = asan-ubsan ]; then
        targets+=("${fuzzers[@]/#/fuzz_}")
        filter=("${fuzzers[@]/#/fuzz.}")
    fi
    build --target "${targets[@]}"
    for test in "${tests[@]}"; do "$build/bin/$test" --gtest_brief=1; done
    for name in "${filter[@]}"; do ctest --test-dir "$build" -R "^$name\$" --output-on-failure --no-tests=error; done
done
