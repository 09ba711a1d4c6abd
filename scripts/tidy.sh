#!/usr/bin/env bash
# clang-tidy-19 with .clang-tidy over the files that need no torch. Usage: tidy.sh [FILE...]   (default: all of them)
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install_packages.sh test
cmake --preset asan-ubsan >/dev/null
files=("$@")
if [ ${#files[@]} -eq 0 ]; then
    mapfile -t files < <(python3 -c '
import json
for entry in json.load(open("build-asan-ubsan/compile_commands.json")):
    if "/tests/" not in entry["file"] and "/fuzz/" not in entry["file"]:
        print(entry["file"])' | sort -u)
fi
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy-19 --quiet -p build-asan-ubsan
