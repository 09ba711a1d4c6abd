#!/usr/bin/env bash
# Installs, builds and runs every test. Arguments go to ctest: scripts/test.sh -L unit
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/build.sh --tests
ctest --test-dir build --output-on-failure --no-tests=error "$@"
