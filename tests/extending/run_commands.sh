#!/usr/bin/env bash
# Runs the command blocks of docs/EXTENDING.md (those without a language) in a directory of their own.
# Usage: run_commands.sh BUILD_DIR DOCUMENT
set -euo pipefail
build=$(cd "$1" && pwd)
document=$(readlink -f "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
for program in "$build"/bin/ecopipe-*; do ln -s "$program" "$work/bin/"; done
ln -s "$build/bin/extending_eager_schedule" "$work/bin/eager_schedule"
awk '/^```$/ && !inside { inside = 1; next } /^```/ && inside == 2 { inside = 0; next } /^```$/ { inside = 0; next }
     /^```/ && !inside { inside = 2; next } inside == 1 { print }' "$document" >"$work/commands.sh"
[ -s "$work/commands.sh" ] || { echo "run_commands.sh: $document has no commands" >&2; exit 1; }
cat >"$work/home.yaml" <<'YAML'
name: my-home
portal: hub
portal_address: 127.0.0.1
devices:
  - {name: hub, memory_mib: 1024, speed: 1.0}
  - {name: pi,  memory_mib: 512,  speed: 0.9}
default_link: {mbps: 940, latency_ms: 0.3}
YAML
cd "$work"
PATH=$work/bin:$PATH bash -euxo pipefail commands.sh
[ -s run/eager/model.safetensors ]
echo "run_commands.sh: passed"
