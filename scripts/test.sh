#!/usr/bin/env bash
# Installs, builds and runs the tests. Usage: test.sh [--deep] [ARGUMENTS OF CTEST]   such as: test.sh -L unit
# Without --deep those that show that everything works. With it all: also sanitizers, clang-tidy, headers one by one, another
# LibTorch, packages, the page in a browser, networks with firewalls, machines short of memory, and 50 disturbances of one training.
set -euo pipefail
cd "$(dirname "$0")/.."

what=test
choice=(-LE '^deep$')
if [ "${1:-}" = --deep ]; then
    shift
    what=deep
    choice=()
fi
scripts/install_packages.sh "$what"
scripts/build.sh --tests
# Three at a time: of those that wait for programs one (they have a lock, tests/CMakeLists.txt), one that builds under a
# sanitizer, one of the others; the last two give way.
ctest --test-dir build --parallel 3 --output-on-failure --no-tests=error "${choice[@]}" "$@"
