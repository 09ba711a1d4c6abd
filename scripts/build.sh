#!/usr/bin/env bash
# Installs what is missing and builds the programs into build/bin. Usage: build.sh [--tests] [--cross ARCH]
# With --cross, for another Debian architecture (arm64), into build-ARCH/bin.
# CMAKE_PREFIX_PATH in the environment may name another LibTorch than the distribution's, or a pip wheel's torch folder.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    echo "build.sh: expected --tests, --cross ARCH or nothing, found '$*'" >&2
    exit 2
}
tests=OFF
cross=
given=$*
while [ $# -gt 0 ]; do
    case "$1" in
        --tests) tests=ON ;;
        --cross)
            [ $# -gt 1 ] || usage "$given"
            cross=$2
            shift
            ;;
        *) usage "$given" ;;
    esac
    shift
done

build=build
options=(-DECOPIPE_BUILD_TESTS="$tests")
if [ -n "$cross" ]; then
    scripts/install_packages.sh cross "$cross"
    build=build-$cross
    options+=(--toolchain cmake/debian_cross.cmake -DECOPIPE_ARCH="$cross")
elif [ "$tests" = ON ]; then
    scripts/install_packages.sh test
else
    scripts/install_packages.sh build
fi

# A file that includes torch takes over 1 GiB: as many jobs as cores and free memory (1.5 GiB a job) allow.
cores=$(nproc)
free_mib=$(awk '/MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
jobs=$((free_mib / 1536))
[ "$jobs" -lt 1 ] && jobs=1
[ "$jobs" -gt "$cores" ] && jobs=$cores

# ccache accepts precompiled headers only when told that defines and times inside them do not matter.
export CCACHE_SLOPPINESS=pch_defines,time_macros
cmake -S . -B "$build" -G Ninja "${options[@]}" >build.log 2>&1 || {
    # A refusal of ours is one line; what else went wrong is in the log's last lines.
    sed -n 's/^ *ecopipe: /build.sh: /p' build.log | grep . >&2 || tail -n 30 build.log >&2
    exit 1
}
rm -f build.log
cmake --build "$build" --parallel "$jobs"
