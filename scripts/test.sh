#!/usr/bin/env bash
# Installs, builds and runs every test. Arguments go to ctest: scripts/test.sh -L unit
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/build.sh --tests
# Three at a time: of those that wait for programs one (they have a lock, tests/CMakeLists.txt), one that builds under a
# sanitizer, one of the others; the last two give way.
ctest --test-dir build --parallel 3 --output-on-failure --no-tests=error "$@"
