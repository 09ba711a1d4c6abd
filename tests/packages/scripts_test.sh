#!/usr/bin/env bash
# What the scripts that install and make packages decide, without a root, a network or a compiler: install_packages.sh over a made-up
# dpkg and apt; what elsewhere.sh, make_packages.sh and lib_root.sh refuse. Usage: scripts_test.sh REPOSITORY
set -euo pipefail
scripts=$(cd "$1" && pwd)/scripts
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "scripts_test.sh: $1" >&2
    [ ! -e "$work/out" ] || cat "$work/out" >&2
    exit 1
}

# A distribution: nothing is installed, all is offered but what $work/absent names; what apt-get and dpkg are told is kept.
mkdir "$work/bin"
for name in apt-get dpkg sudo; do
    printf '#!/bin/sh\necho "%s $*" >>"%s/said"\n' "$name" "$work" >"$work/bin/$name"
done
printf '#!/bin/sh\nexit 1\n' >"$work/bin/dpkg-query"
printf '#!/bin/sh\nfor last; do :; done\n! grep -qx "$last" "%s/absent"\n' "$work" >"$work/bin/apt-cache"
printf '#!/bin/sh\necho 0\n' >"$work/bin/id"
printf '#!/bin/sh\necho "$MACHINE"\n' >"$work/bin/uname"
chmod +x "$work"/bin/*
export MACHINE=x86_64
install() {
    : >"$work/said"
    PATH=$work/bin:$PATH "$scripts/install_packages.sh" "$@" >"$work/out" 2>&1
}
told() { grep -qE -- "$1" "$work/said" || fail "expected apt or dpkg to be told $1, found: $(cat "$work/said")"; }
not_told() { ! grep -qE -- "$1" "$work/said" || fail "expected apt and dpkg not to be told $1"; }
: >"$work/absent"
unset CMAKE_PREFIX_PATH

install build || fail "build"
told 'apt-get install .* g\+\+ .* libtorch-dev .* dataset-fashion-mnist'
not_told 'clang|arm64'
install test || fail "test"
told 'apt-get install .* libgtest-dev .*python3-torch'
not_told 'clang|chromium'
install deep || fail "deep"
told 'apt-get install .* libgtest-dev .*clang-19 .*chromium'
install cross arm64 || fail "cross"
told 'dpkg --add-architecture arm64'
told 'apt-get install .* crossbuild-essential-arm64 .* libtorch-dev:arm64 libopenblas0-pthread:arm64'
not_told ' g\+\+ |nlohmann-json3-dev:arm64'
# Another LibTorch is named: the distribution's is not wanted.
mkdir -p "$work/site-packages/torch/include/torch/csrc/api/include/torch"
touch "$work/site-packages/torch/include/torch/csrc/api/include/torch/version.h"
for place in "$work/site-packages/torch" "/nowhere:$work/site-packages"; do
    CMAKE_PREFIX_PATH=$place install build || fail "with $place"
    told 'apt-get install .* libopenblas0-pthread'
    not_told libtorch-dev
done
CMAKE_PREFIX_PATH=/nowhere install build
told libtorch-dev
# A distribution without LibTorch; one without what some tests need.
echo libtorch-dev >"$work/absent"
! install build || fail "libtorch-dev is absent: expected a refusal"
grep -q '^install_packages.sh: libtorch-dev is not in this distribution: pip install torch, .*CMAKE_PREFIX_PATH$' "$work/out" || fail "which remedy"
not_told 'apt-get install'
echo clang-19 >"$work/absent"
install deep || fail "clang-19 is absent"
grep -q 'clang-19 is not in this distribution; the tests that need it are left out' "$work/out" || fail "clang-19 is not said"
told 'apt-get install .* clang-tidy-19'
not_told 'clang-19 '
for machine in armv7l i686; do
    ! MACHINE=$machine install build || fail "$machine: expected a refusal"
    grep -q "^install_packages.sh: $machine is a 32-bit machine" "$work/out" || fail "$machine"
done

# LINE COMMAND...: leaves with 2 and says it.
refuses() {
    local code=0
    "${@:2}" >"$work/out" 2>&1 || code=$?
    [ "$code" = 2 ] && grep -qF -- "$1" "$work/out" || fail "expected code 2 and '$1', found code $code"
}
refuses "build.sh: expected --tests, --cross ARCH or nothing, found '--test'" "$scripts/build.sh" --test
refuses "build.sh: expected --tests, --cross ARCH or nothing, found '--cross'" "$scripts/build.sh" --cross
refuses "elsewhere.sh: expected RELEASE [ARCH] [-- COMMAND...], found ''" "$scripts/elsewhere.sh"
refuses "found 'trixie amd64 more'" "$scripts/elsewhere.sh" trixie amd64 more
refuses "make_packages.sh: expected --try, --out DIR or RELEASE/ARCH (ARCH: amd64 or arm64), found 'trixie/armhf'" "$scripts/make_packages.sh" trixie/armhf
[ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null || exit 0
# A directory with somebody's files is no place for a root, and keeps them.
mkdir "$work/mine" && touch "$work/mine/file"
! bash -c '. "$1/lib_root.sh"; trap root_end EXIT; root_open "$2" trixie' root "$scripts" "$work/mine" >"$work/out" 2>&1 || fail "expected a refusal"
grep -q "expected an empty directory, found files in $work/mine" "$work/out" && [ -e "$work/mine/file" ] || fail "the directory's file"
echo "scripts_test.sh: passed"
