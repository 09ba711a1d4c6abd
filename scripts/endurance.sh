#!/usr/bin/env bash
# One training whose stages and portal are killed, stopped and started again at random moments, KILLS times (1200), compared file by file with the same
# training undisturbed. Usage: endurance.sh [KILLS [SEED]]. Needs the programs (scripts/build.sh); on failure the logs stay, where the last line says.
set -euo pipefail
cd "$(dirname "$0")/.."

kills=${1:-1200}
exec /usr/bin/python3 tests/integration/endurance.py build/bin "$kills" "${@:2}"
