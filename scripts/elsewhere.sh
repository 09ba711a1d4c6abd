#!/usr/bin/env bash
# Builds and tries this working tree on another Debian release, or for another architecture, in a fresh root of its own
# (debootstrap), of which nothing stays behind. Usage: elsewhere.sh RELEASE [ARCH] [-- COMMAND...]
#   elsewhere.sh trixie                                builds everything; tests labelled unit, sim and golden, and identity
#   elsewhere.sh bookworm arm64                        builds the programs with a cross compiler; runs them in emulation
#   elsewhere.sh trixie -- scripts/build.sh            another command, in a copy of the working tree
# Environment: ECOPIPE_ELSEWHERE_ROOT=DIR, a root to use and keep; ECOPIPE_CCACHE=DIR, what compilers already made; and
# ECOPIPE_DEBIAN_MIRROR. Needs root. Exit code 77: no root, no debootstrap, no mirror in reach, or no emulation.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib_root.sh"

usage() {
    echo "elsewhere.sh: expected RELEASE [ARCH] [-- COMMAND...], found '$*'" >&2
    exit 2
}
names=()
command=()
given=("$@")
while [ $# -gt 0 ]; do
    case "$1" in
        --)
            shift
            command=("$@")
            break
            ;;
        -h | --help)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        -*) usage "${given[*]}" ;;
        *) names+=("$1") ;;
    esac
    shift
done
[ ${#names[@]} -ge 1 ] && [ ${#names[@]} -le 2 ] || usage "${given[*]}"
release=${names[0]}
arch=${names[1]:-$root_machine}

root=${ECOPIPE_ELSEWHERE_ROOT:-}
work=
if [ -z "$root" ]; then
    work=$(mktemp -d)
    root=$work/root
fi
finish() {
    root_end
    [ -z "$work" ] || rmdir "$work" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

seconds() { echo "elsewhere.sh: $release $arch: $1 after $SECONDS s"; }
root_open "$root" "$release"
[ -n "$work" ] || root_kept+=("$root")
root_take "$root"
inside() { root_in "$root" --chdir=/ecopipe "$@"; }
seconds "a root"
if [ "$arch" = "$root_machine" ]; then
    if [ ${#command[@]} -eq 0 ]; then
        inside scripts/build.sh --tests
        seconds "built"
        inside ctest --test-dir build -L '^(unit|sim|golden)$' --parallel 2 --output-on-failure --no-tests=error
        seconds "unit, sim and golden tests"
        inside ctest --test-dir build -R '^Identity\.' --output-on-failure --no-tests=error
        inside scripts/check_programs.sh build/bin
    else
        inside "${command[@]}"
    fi
else
    emulate "$arch"
    inside scripts/install_packages.sh cross "$arch"
    seconds "packages"
    inside scripts/build.sh --cross "$arch"
    seconds "built"
    if [ ${#command[@]} -eq 0 ]; then command=(scripts/check_programs.sh "build-$arch/bin"); fi
    inside "${command[@]}"
fi
seconds "done"
