#!/usr/bin/env bash
# clang-tidy-19 with .clang-tidy over the files that need no torch. Usage: tidy.sh [--quick] [FILE...]   (default: all)
# --quick: core and transport alone, without the path-sensitive analyzer, which takes half of the time.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-tidy-19 >/dev/null || scripts/install_packages.sh test
command -v clang-tidy-19 >/dev/null || {
    echo "tidy.sh: needs clang-tidy-19" >&2
    exit 77
}
options=(--quiet -p build-asan-ubsan)
where='/'
if [ "${1:-}" = --quick ]; then
    shift
    options+=('--checks=-clang-analyzer-*')
    where='/(core|transport)/'
fi
cmake --preset asan-ubsan >/dev/null
files=("$@")
if [ ${#files[@]} -eq 0 ]; then
    mapfile -t files < <(python3 -c '
import json, re, sys
for entry in json.load(open("build-asan-ubsan/compile_commands.json")):
    if not re.search("/(tests|fuzz|build[^/]*)/", entry["file"]) and re.search(sys.argv[1], entry["file"]):
        print(entry["file"])' "$where" | sort -u)
fi
printf '%s\n' "${files[@]}" | xargs -P "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}" -n 4 nice -n 5 clang-tidy-19 "${options[@]}"
