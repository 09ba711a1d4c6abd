#!/usr/bin/env bash
# The fast loop: builds all that needs no LibTorch, each file by itself, into build-fast, and runs its unit, simulation and golden
# tests. Usage: fast.sh [ARGUMENTS OF CTEST]   such as: fast.sh -R '^Sim\.'
set -euo pipefail
cd "$(dirname "$0")/.."

export CCACHE_SLOPPINESS=pch_defines,time_macros
cmake --preset fast >/dev/null
cmake --build build-fast
ctest --test-dir build-fast -L '^(unit|sim|golden)$' -LE '^deep$' --parallel "$(nproc)" --output-on-failure --no-tests=error "$@"
