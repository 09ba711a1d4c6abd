#!/usr/bin/env bash
# exported_models.py with whatever PyTorch there is, then the README's way of a newcomer.
# Usage: exported_models.sh BIN SOURCE BUILD [arguments of exported_models.py]
set -euo pipefail
bin=$1 source=$2 build=$3
shift 3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$("$here/pytorch_venv.sh" "$build/pytorch")
"$python" "$here/exported_models.py" "$bin" "$source" "$python" "$@"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The block from the README, in a directory of its own, with that interpreter for `python3`.
mkdir -p "$work/bin" "$work/build"
printf '#!/bin/sh\nexec "%s" "$@"\n' "$python" >"$work/bin/python3" # a link would not be of its environment
chmod +x "$work/bin/python3"
ln -s "$source/scripts" "$source/examples" "$work/"
ln -s "$bin" "$work/build/bin"
sed -n '/^pip install torch/,/^```$/p' "$source/README.md" | grep -v -e '^pip install' -e '^```$' >"$work/newcomer.sh"
[ "$(wc -l <"$work/newcomer.sh")" -ge 4 ] || { echo "exported_models.sh: the README's block is not there" >&2; exit 1; }
cd "$work"
PATH="$work/bin:$PATH" bash -euo pipefail newcomer.sh
