#!/usr/bin/env bash
# Installs, builds and runs every test. Arguments go to ctest: scripts/test.sh -L unit
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/build.sh --tests
# Two at a time: those that start programs have a lock (tests/CMakeLists.txt), the others run beside them.
ctest --test-dir build --parallel 2 --output-on-failure --no-tests=error "$@"
