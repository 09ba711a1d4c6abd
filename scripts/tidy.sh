#!/usr/bin/env bash
# clang-tidy-19 with .clang-tidy over the files that need no torch. Usage: tidy.sh [--quick] [FILE...]   (default: all)
# --quick: core, transport and whatever has a mutex (clang checks who holds it) alone, without the path-sensitive analyzer,
# which takes half of the time.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-tidy-19 >/dev/null || scripts/install_packages.sh test
command -v clang-tidy-19 >/dev/null || {
    echo "tidy.sh: needs clang-tidy-19" >&2
    exit 77
}
build=build-tidy
options=(--quiet -p "$build")
where='/'
if [ "${1:-}" = --quick ]; then
    shift
    options+=('--checks=-clang-analyzer-*')
    where='/(core|transport)/'
fi
# Without precompiled headers, whose commands clang-tidy would need built, and each file alone: what one lacks is seen.
cmake -S . -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=clang++-19 -DECOPIPE_TORCH=OFF -DECOPIPE_BUILD_TESTS=OFF \
    -DCMAKE_UNITY_BUILD=OFF -DECOPIPE_PRECOMPILE=OFF >/dev/null
files=("$@")
if [ ${#files[@]} -eq 0 ]; then
    mapfile -t files < <(python3 -c '
import json, os, re, sys
def has_mutex(file):  # or its header has; an inbox is a template, seen where it is used
    return any(re.search("\"core/(mutex|inbox).h\"", open(f).read()) for f in (file, file[:-3] + "h") if os.path.exists(f))
for entry in json.load(open(sys.argv[1] + "/compile_commands.json")):
    if not re.search("/build[^/]*/", entry["file"]) and (re.search(sys.argv[2], entry["file"]) or has_mutex(entry["file"])):
        print(entry["file"])' "$build" "$where" | sort -u)
fi
printf '%s\n' "${files[@]}" | xargs -P "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}" -n 4 clang-tidy-19 "${options[@]}"
