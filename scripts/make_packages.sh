#!/usr/bin/env bash
# Makes the Debian packages of this working tree for other machines, which then need no compiler: each in a fresh root of its
# release, cross-compiled where the architecture is another. Usage: make_packages.sh [--try] [--out DIR] [RELEASE/ARCH...]
#   make_packages.sh                                  bookworm and trixie, for amd64 and arm64, into packages/RELEASE/
#   make_packages.sh --try bookworm/arm64             for a Raspberry Pi; then installed and run in a root without a compiler
# Environment: ECOPIPE_PACKAGES_ROOTS=DIR, roots to use and keep as DIR/RELEASE-ARCH; ECOPIPE_CCACHE=DIR, what compilers already
# made; ECOPIPE_DEBIAN_MIRROR. Needs root. Exit code 77: no root, no debootstrap, no mirror in reach, or no emulation.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib_root.sh"

out=packages
try=
wanted=()
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --try) try=1 ;;
        --out)
            [ $# -gt 1 ] || root_fail "expected a directory after --out"
            out=$2
            shift
            ;;
        [a-z]*/amd64 | [a-z]*/arm64) wanted+=("$1") ;;
        *)
            echo "make_packages.sh: expected --try, --out DIR or RELEASE/ARCH (ARCH: amd64 or arm64), found '$1'" >&2
            exit 2
            ;;
    esac
    shift
done
[ ${#wanted[@]} -gt 0 ] || wanted=(bookworm/amd64 bookworm/arm64 trixie/amd64 trixie/arm64)
mkdir -p "$out"
out=$(cd "$out" && pwd)

work=$(mktemp -d)
finish() {
    root_end
    rmdir "$work" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

for each in "${wanted[@]}"; do
    release=${each%/*}
    arch=${each#*/}
    begun=$SECONDS
    root=${ECOPIPE_PACKAGES_ROOTS:-$work}/$release-$arch
    root_open "$root" "$release"
    root_take "$root"
    inside() { root_in "$root" --chdir=/ecopipe "$@"; }
    root_apt "$root" dpkg-dev file
    if [ "$arch" = "$root_machine" ]; then
        build=build
        inside scripts/build.sh
    else
        build=build-$arch
        emulate "$arch" # some packages run programs of their own while they are installed
        inside scripts/build.sh --cross "$arch"
    fi
    # dpkg-shlibdeps reads what it is told to build for from the environment.
    inside bash -c 'cd "$1" && eval "$(dpkg-architecture -a "$2" -s 2>/dev/null)" && rm -rf packages && cpack -B packages' cpack "$build" "$arch" >"$work.log" 2>&1 || {
        cat "$work.log" >&2
        rm -f "$work.log"
        root_fail "could not pack for $each"
    }
    rm -f "$work.log"
    mkdir -p "$out/$release"
    for package in "$root/ecopipe/$build"/packages/*.deb; do
        cp "$package" "$out/$release/"
        echo "$out/$release/$(basename "$package"): $(($(stat -c %s "$package") / 1024)) KiB, after $((SECONDS - begun)) s"
    done
    # One root at a time: each takes some GiB.
    root_end
    [ -z "$try" ] || "$here/../tests/packages/deb_test.sh" "$out/$release" "$release" "$arch"
done
