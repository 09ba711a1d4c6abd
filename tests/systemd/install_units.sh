#!/usr/bin/env bash
# Runs docs/guide/install.md's block of "As services" as it stands, over an /etc and a /usr/local/bin that are thrown away, and lets systemd
# check the units with the programs in place. No unit is started: restart_every_part.sh does that, on a machine that may
# boot a container. Usage: install_units.sh BUILD_DIR
# Exit code 77, "skipped": no root, no systemd, or nothing can be mounted here.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
skip() {
    echo "skipped: $1" >&2
    exit 77
}
if [ $# -eq 1 ]; then
    [ "$(id -u)" = 0 ] || skip "needs root"
    command -v systemd-analyze >/dev/null || skip "needs systemd"
    unshare --mount mount -t tmpfs none /mnt 2>/dev/null || skip "nothing can be mounted here"
    work=$(mktemp -d)
    trap 'rmdir "$work"' EXIT
    unshare --mount "$0" "$build" "$work"
    exit
fi

# In a mount namespace of its own, which takes what is written with it.
work=$2
mount -t tmpfs none "$work"
for place in /etc /usr/local/bin; do
    layer=$work/layers$place
    mkdir -p "$layer/upper" "$layer/work"
    mount -t overlay none -o "lowerdir=$place,upperdir=$layer/upper,workdir=$layer/work" "$place" 2>/dev/null || skip "no overlay can be mounted here"
done
mkdir "$work/bin" "$work/ecopipe"
ln -s "$root/scripts" "$work/ecopipe/"
ln -s "$build" "$work/ecopipe/build"
# The block says sudo, and --now; here systemd looks at the units, and enables them in the files alone.
cat >"$work/bin/sudo" <<'STUB'
#!/bin/sh
exec "$@"
STUB
cat >"$work/bin/systemctl" <<'STUB'
#!/bin/sh
case "$1 $2" in
    "daemon-reload ") exec systemd-analyze verify /etc/systemd/system/ecopipe-*.service ;;
    "enable --now") SYSTEMD_OFFLINE=1 exec /usr/bin/systemctl enable "$3" ;;
    *) echo "systemctl: $* is not expected here" >&2; exit 1 ;;
esac
STUB
chmod +x "$work"/bin/*
awk '/^## / { here = $0 == "## As services" } here && /^```/ { inside = !inside; next } here && inside' "$root/docs/guide/install.md" >"$work/block.sh"
[ -s "$work/block.sh" ] || { echo "install_units.sh: docs/guide/install.md has no block under As services" >&2; exit 1; }
cd "$work/ecopipe"
PATH=$work/bin:$PATH bash -euxo pipefail "$work/block.sh"
for name in stage fl-server federated; do
    [ -L "/etc/systemd/system/multi-user.target.wants/ecopipe-$name.service" ] || { echo "install_units.sh: ecopipe-$name is not enabled" >&2; exit 1; }
    settings=$(sed -n 's/^EnvironmentFile=//p' "/etc/systemd/system/ecopipe-$name.service")
    # Every setting that a unit uses is in its file.
    for setting in $(grep -o 'ECOPIPE_[A-Z_]*' "/etc/systemd/system/ecopipe-$name.service" | sort -u); do
        grep -q "^$setting=" "$settings" || { echo "install_units.sh: $settings does not set $setting" >&2; exit 1; }
    done
done
echo "install_units.sh: passed"
