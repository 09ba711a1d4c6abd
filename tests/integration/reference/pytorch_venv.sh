#!/usr/bin/env bash
# Prints an interpreter with PyTorch 2.6 or later and torchvision: $ECOPIPE_PYTORCH, the python3 here if it has one, else that of a
# virtual environment in DIR, which is made once. Exit code 77 when there is none and none can be had.
# Usage: pytorch_venv.sh DIR
set -euo pipefail
serves() { "$1" -c 'import torch, torchvision, sys; sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6))' 2>/dev/null; }
for python in "${ECOPIPE_PYTORCH:-}" "$1/bin/python" "$(command -v python3)"; do
    if [ -n "$python" ] && [ -x "$python" ] && serves "$python"; then
        echo "$python"
        exit 0
    fi
done
{
    /usr/bin/python3 -m venv "$1" 2>&1 || python3 -m venv "$1" 2>&1
    timeout 600 "$1/bin/pip" install --quiet torch torchvision 2>&1
} >"$1.log" || {
    echo "pytorch_venv.sh: skipped: no PyTorch can be installed: $(tail -n 1 "$1.log")" >&2
    exit 77
}
serves "$1/bin/python" || {
    echo "pytorch_venv.sh: skipped: what was installed is no PyTorch 2.6 with torchvision" >&2
    exit 77
}
echo "$1/bin/python"
