#!/usr/bin/env bash
# Runs a script of the repository, with arguments that make it small, in a checkout of its own that is thrown away.
# Usage: run_example.sh BUILD_DIR SCRIPT [ARGUMENT...]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
script=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$root/examples" "$root/scripts" "$work/"
ln -s "$build" "$work/build"
"$work/$script" "$@"
