#!/usr/bin/env bash
# Makes the Debian packages, or takes those that are made, and installs `ecopipe` on a machine of its release that has no
# compiler: a fresh root made by debootstrap. There it must train pipelines on this machine, and be removed again.
# Usage: deb_test.sh BUILD_DIR, or deb_test.sh PACKAGES_DIR RELEASE ARCH (another architecture: in emulation).
# Exit code 77, "skipped": no root, no debootstrap, no Debian mirror in reach, or no emulation.
set -euo pipefail
given=$(cd "$1" && pwd)
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$repository/scripts/lib_root.sh"
root_needs
for tool in dpkg-shlibdeps file; do command -v $tool >/dev/null || root_skip "needs dpkg-dev and file"; done
. /etc/os-release
release=${2:-$VERSION_CODENAME}
arch=${3:-$root_machine}
[ $# -gt 1 ] || [ "${ID:-}" = debian ] || root_skip "the release here is not Debian's"

work=$(mktemp -d)
root=$work/root
# dpkg syncs every file that it writes: in memory, where there is plenty, the machine is made three times as fast.
memory_gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
[ "$memory_gib" -lt 6 ] || mount -t tmpfs none "$work" || true
cleanup() {
    root_end
    if mountpoint -q "$root/proc" || mountpoint -q "$root/dev"; then return; fi
    if mountpoint -q "$work"; then umount "$work"; fi
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

packages=$given
if [ $# -eq 1 ]; then
    packages=$work/packages
    (cd "$given" && cpack -B "$packages" >"$work/cpack.log" 2>&1) || { cat "$work/cpack.log" >&2; exit 1; }
fi
program=$(ls "$packages"/ecopipe_*_"$arch".deb)
development=$(ls "$packages"/libecopipe-dev_*_"$arch".deb)
dpkg-deb -f "$program" Package Version Architecture Depends
dpkg-deb -f "$program" Depends >"$work/depends"
grep -qE 'libtorch[0-9]' "$work/depends" || { echo "deb_test.sh: libtorch is not among the dependencies" >&2; exit 1; }
dpkg-deb -I "$program" conffiles
dpkg-deb -c "$development" >"$work/contents"
grep -q 'lib/.*cmake/ecopipe/ecopipeConfig.cmake' "$work/contents"

root_open "$root" "$release" "$arch"
cp "$program" "$root/tmp/ecopipe.deb"
inside() { root_in "$root" "$@"; }
root_apt "$root" /tmp/ecopipe.deb
for compiler in g++ gcc cc cmake; do
    if inside sh -c "command -v $compiler" >/dev/null; then
        echo "deb_test.sh: $compiler is there; the test means nothing" >&2
        exit 1
    fi
done

inside ecopipe-plan --version
for name in train stage plan profile fl-server bench; do inside "ecopipe-$name" --help >/dev/null; done
cp "$repository/scripts/check_programs.sh" "$root/tmp/"
inside /tmp/check_programs.sh
inside ecopipe-train --single --model lenet5 --data synthetic:1x28x28:10:64 --batch 32 --steps 1 --quiet --no-evaluation --out /tmp/single
inside ecopipe-train status --out /tmp/single
# An edited settings file stays through a second installation, and goes with purge.
echo '# mine' >>"$root/etc/ecopipe/ecopipe-stage.env"
inside dpkg -i /tmp/ecopipe.deb >"$work/dpkg.log" 2>&1
grep -q '^# mine' "$root/etc/ecopipe/ecopipe-stage.env"
[ -e "$root/lib/systemd/system/ecopipe-stage.service" ] || [ -e "$root/usr/lib/systemd/system/ecopipe-stage.service" ]
grep -q '/usr/bin/ecopipe-stage' "$root/usr/lib/systemd/system/ecopipe-stage.service"
inside dpkg --purge ecopipe >"$work/dpkg.log" 2>&1
[ ! -e "$root/etc/ecopipe/ecopipe-stage.env" ] && [ ! -e "$root/usr/bin/ecopipe-train" ]
echo "deb_test.sh: passed"
