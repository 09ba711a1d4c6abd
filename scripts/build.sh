#!/usr/bin/env bash
# Installs what is missing and builds the programs into build/bin. Usage: build.sh [--tests]
set -euo pipefail
cd "$(dirname "$0")/.."

tests=OFF
for argument in "$@"; do
    case "$argument" in
        --tests) tests=ON ;;
        *)
            echo "build.sh: expected --tests or nothing, found '$argument'" >&2
            exit 2
            ;;
    esac
done

if [ "$tests" = ON ]; then scripts/install_packages.sh test; else scripts/install_packages.sh build; fi

# A file that includes torch takes over 1 GiB: as many jobs as cores and free memory (1.5 GiB a job) allow.
cores=$(nproc)
free_mib=$(awk '/MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
jobs=$((free_mib / 1536))
[ "$jobs" -lt 1 ] && jobs=1
[ "$jobs" -gt "$cores" ] && jobs=$cores

# ccache accepts precompiled headers only when told that defines and times inside them do not matter.
export CCACHE_SLOPPINESS=pch_defines,time_macros
cmake -S . -B build -G Ninja -DECOPIPE_BUILD_TESTS="$tests" >build.log 2>&1 || {
    tail -n 30 build.log >&2
    exit 1
}
rm -f build.log
cmake --build build --parallel "$jobs"
