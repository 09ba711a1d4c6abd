#!/usr/bin/env bash
# Makes the Debian packages and installs `ecopipe` on a machine of the same release that has no compiler: a fresh root
# made by debootstrap. There it must plan, train a pipeline on this machine, and be removed again.
# Usage: deb_test.sh BUILD_DIR. Exit code 77, "skipped": no root, no debootstrap, or no Debian mirror in reach.
set -euo pipefail
build=$(cd "$1" && pwd)
skip() {
    echo "skipped: $1" >&2
    exit 77
}
[ "$(id -u)" = 0 ] || skip "needs root"
command -v debootstrap >/dev/null || skip "needs debootstrap"
command -v dpkg-shlibdeps >/dev/null || skip "needs dpkg-dev"
. /etc/os-release
[ "${ID:-}" = debian ] || skip "the release here is not Debian's"
mirror=${ECOPIPE_DEBIAN_MIRROR:-http://deb.debian.org/debian}

work=$(mktemp -d)
root=$work/root
# dpkg syncs every file that it writes: in memory, where there is plenty, the machine is made three times as fast.
memory_gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
[ "$memory_gib" -lt 6 ] || mount -t tmpfs none "$work" || true
cleanup() {
    for mounted in dev/shm dev proc; do umount "$root/$mounted" 2>/dev/null || umount -l "$root/$mounted" 2>/dev/null || true; done
    if mountpoint -q "$root/proc" || mountpoint -q "$root/dev"; then
        echo "deb_test.sh: $root is still mounted; left" >&2
    else
        if mountpoint -q "$work"; then umount "$work"; fi
        rm -rf --one-file-system "$work"
    fi
}
trap cleanup EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

(cd "$build" && cpack -B "$work/packages" >"$work/cpack.log" 2>&1) || { cat "$work/cpack.log" >&2; exit 1; }
program=$(ls "$work"/packages/ecopipe_*.deb)
development=$(ls "$work"/packages/libecopipe-dev_*.deb)
dpkg-deb -f "$program" Package Version Architecture Depends
dpkg-deb -f "$program" Depends >"$work/depends"
grep -q 'libtorch1.13' "$work/depends" || { echo "deb_test.sh: libtorch is not among the dependencies" >&2; exit 1; }
dpkg-deb -I "$program" conffiles
dpkg-deb -c "$development" >"$work/contents"
grep -q 'lib/.*cmake/ecopipe/ecopipeConfig.cmake' "$work/contents"

debootstrap --variant=minbase "$VERSION_CODENAME" "$root" "$mirror" >"$work/debootstrap.log" 2>&1 ||
    { tail -n 5 "$work/debootstrap.log" >&2; skip "debootstrap could not reach $mirror"; }
# As this machine reaches its packages.
cp -r /etc/apt/apt.conf.d "$root/etc/apt/"
cp -r /etc/apt/sources.list.d "$root/etc/apt/" && rm -f "$root"/etc/apt/sources.list.d/{google,nodesource}*
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
cp "$program" "$root/tmp/ecopipe.deb"
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"; }
inside apt-get update -qq >"$work/apt.log" 2>&1 || true
inside apt-get install -y -qq --no-install-recommends /tmp/ecopipe.deb >>"$work/apt.log" 2>&1 || { tail -n 20 "$work/apt.log" >&2; exit 1; }
for compiler in g++ gcc cc cmake; do
    if inside sh -c "command -v $compiler" >/dev/null; then
        echo "deb_test.sh: $compiler is there; the test means nothing" >&2
        exit 1
    fi
done

inside ecopipe-plan --version
for name in train stage plan profile fl-server bench; do inside "ecopipe-$name" --help >/dev/null; done
cat >"$root/tmp/cluster.yaml" <<'YAML'
name: home
portal: hub
portal_address: 127.0.0.1
devices:
  - {name: hub, memory_mib: 1024, speed: 1.0}
  - {name: pi, memory_mib: 512, speed: 0.9}
default_link: {mbps: 1000, latency_ms: 0.1}
YAML
inside ecopipe-train --local --cluster /tmp/cluster.yaml --model lenet5 --data synthetic:1x28x28:10:256 --batch 32 --steps 8 --quiet \
    --no-evaluation --log-level warn --out /tmp/pipeline
inside ecopipe-train --single --model lenet5 --data synthetic:1x28x28:10:256 --batch 32 --steps 8 --quiet --no-evaluation --out /tmp/single
cmp "$root/tmp/pipeline/model.safetensors" "$root/tmp/single/model.safetensors"
inside ecopipe-train status --out /tmp/pipeline
# An edited settings file stays through a second installation, and goes with purge.
echo '# mine' >>"$root/etc/ecopipe/ecopipe-stage.env"
inside dpkg -i /tmp/ecopipe.deb >>"$work/apt.log" 2>&1
grep -q '^# mine' "$root/etc/ecopipe/ecopipe-stage.env"
[ -e "$root/lib/systemd/system/ecopipe-stage.service" ] || [ -e "$root/usr/lib/systemd/system/ecopipe-stage.service" ]
grep -q '/usr/bin/ecopipe-stage' "$root/usr/lib/systemd/system/ecopipe-stage.service"
inside dpkg --purge ecopipe >>"$work/apt.log" 2>&1
[ ! -e "$root/etc/ecopipe/ecopipe-stage.env" ] && [ ! -e "$root/usr/bin/ecopipe-train" ]
echo "deb_test.sh: passed"
