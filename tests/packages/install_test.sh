#!/usr/bin/env bash
# Installs the build into a directory of its own, builds a stranger's project against it, and runs what came out and the
# installed programs. Usage: install_test.sh BUILD_DIR
set -euo pipefail
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

DESTDIR=$work/root cmake --install "$build" --prefix /opt/ecopipe >"$work/install.log"
root=$work/root/opt/ecopipe
cmake -S "$here/consumer" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$root" -DCMAKE_BUILD_TYPE=Debug >"$work/configure.log" 2>&1 ||
    { cat "$work/configure.log" >&2; exit 1; }
cmake --build "$work/consumer" >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; exit 1; }
"$work/consumer/consumer"
# Nothing of the build tree or of the sources may be named in what is installed.
if grep -rIl -e "$build" -e "$(dirname "$here")" "$root" >&2; then
    echo "install_test.sh: an installed file names the build tree" >&2
    exit 1
fi
# Headers include headers that are installed too.
"$root/bin/ecopipe-plan" --version
"$root/bin/ecopipe-train" --single --model lenet5 --data synthetic:1x28x28:10:64 --steps 1 --batch 8 --quiet --no-evaluation --out "$work/run"
grep -q "/opt/ecopipe/bin/ecopipe-stage" "$root/lib/systemd/system/ecopipe-stage.service"
# Another minor version is not this one.
printf 'cmake_minimum_required(VERSION 3.22)\nproject(p LANGUAGES CXX)\nfind_package(ecopipe 0.2 REQUIRED)\n' >"$work/CMakeLists.txt"
if cmake -S "$work" -B "$work/other" -DCMAKE_PREFIX_PATH="$root" >/dev/null 2>&1; then
    echo "install_test.sh: version 0.2 was asked for, and 0.1 was taken" >&2
    exit 1
fi
echo "install_test.sh: passed"
