#!/usr/bin/env bash
# The units of scripts/systemd under a real systemd: boots this machine's own files as a container (systemd-nspawn, a
# network of its own), installs the units as the README says for one device, a second device, a portal and a server,
# and then restarts every part by `systemctl restart` and by SIGKILL, powers the container off and on, and pulls its plug.
# The federation must go on after each, by itself. Needs root and the package systemd-container. Not part of CI, since
# few CI machines may boot a container; takes some 5 minutes.
#
#   tests/systemd/restart_every_part.sh [BUILD_DIR]
set -euo pipefail
cd "$(dirname "$0")/../.."
source_dir=$PWD
build=$(readlink -f "${1:-build}")
command -v systemd-nspawn > /dev/null || { echo "systemd-nspawn is missing: apt-get install systemd-container" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "must be run as root, to boot a container" >&2; exit 1; }

work=$(mktemp -d /tmp/ecopipe-units.XXXXXX)
root=$work/root
nspawn=
init=
# The container's first process takes all others with it.
pull_the_plug() {
    [ -z "$init" ] || kill -KILL "$init" 2> /dev/null || true
    wait "$nspawn" 2> /dev/null || true
}
cleanup() {
    [ -z "$nspawn" ] || pull_the_plug
    umount "$root/usr" 2> /dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# This machine's /usr below a writable layer, a copy of its /etc, and an empty /var.
mkdir -p "$root"/{usr,proc,sys,dev,run,tmp,root,var/{log,tmp,lib}} "$work"/{upper,workdir}
for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
cp -a /etc "$root/etc"
rm -rf "$root/etc/machine-id" "$root"/etc/systemd/system/*.wants
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s /dev/null "$root/etc/systemd/system/systemd-networkd-wait-online.service"  # there is loopback alone
ln -s /dev/null "$root/etc/systemd/system/systemd-firstboot.service"
mount -t overlay overlay -o "lowerdir=/usr,upperdir=$work/upper,workdir=$work/workdir" "$root/usr"

# As the README says, with everything on one address; a second stage unit stands for a second device.
cp "$build"/bin/ecopipe-{stage,train,fl-server} "$root/usr/local/bin/"
cp scripts/systemd/*.service "$root/etc/systemd/system/"
mkdir -p "$root/etc/ecopipe"
cp scripts/systemd/*.env scripts/systemd/server.yaml "$root/etc/ecopipe/"
cd "$root/etc/ecopipe"
sed -i 's/192.168.1.[0-9]*/127.0.0.1/; s/ --insecure//; s/--insecure//' ./*.env
sed -i 's/ECOPIPE_ROUNDS=.*/ECOPIPE_ROUNDS=100000/; s/--min-clusters 2/--min-clusters 1/' ecopipe-fl-server.env
sed -i 's/ECOPIPE_TRAIN_FLAGS=.*/ECOPIPE_TRAIN_FLAGS=--data-limit 1000 --join-timeout-s 600/' ecopipe-federated.env
sed 's/ECOPIPE_DEVICE=pi/ECOPIPE_DEVICE=hub/' ecopipe-stage.env > ecopipe-stage-hub.env
sed -e 's/ecopipe-stage.env/ecopipe-stage-hub.env/; s/^StateDirectory=.*/StateDirectory=ecopipe-stage-hub ecopipe-stage-hub\/models/' \
    -e 's/\/var\/lib\/ecopipe-stage/\/var\/lib\/ecopipe-stage-hub/g' \
    "$source_dir/scripts/systemd/ecopipe-stage.service" > "$root/etc/systemd/system/ecopipe-stage-hub.service"
cat > cluster.yaml << 'YAML'
name: my-home
portal: hub
portal_address: 127.0.0.1
devices:
  - {name: hub, memory_mib: 1024, speed: 1.0}
  - {name: pi, memory_mib: 1024, speed: 1.0}
default_link: {mbps: 940, latency_ms: 0.3}
YAML
cd "$source_dir"
units=(ecopipe-stage ecopipe-stage-hub ecopipe-federated ecopipe-fl-server)
for unit in "${units[@]}"; do
    ln -s "/etc/systemd/system/$unit.service" "$root/etc/systemd/system/multi-user.target.wants/$unit.service"
done

boot() {
    systemd-nspawn --quiet --directory="$root" --boot --machine="ecopipe-units-$$" --private-network --register=no \
        --keep-unit --console=pipe < /dev/null > "$work/console" 2>&1 &
    nspawn=$!
    for _ in $(seq 100); do
        init=$(pgrep -P "$nspawn" systemd || true)
        [ -n "$init" ] && inside systemctl is-active --quiet multi-user.target 2> /dev/null && return
        sleep 0.3
    done
    echo "FAILED: the container does not boot: $(tail -n 3 "$work/console")" >&2
    exit 1
}
inside() { nsenter --target "$init" --all -- "$@"; }
rounds() { { cat "$root"/var/lib/private/ecopipe-fl-server/{,*/}rounds.jsonl 2> /dev/null || true; } | wc -l; }
# Three more rounds within two minutes, or the units' last words.
goes_on() {
    local from deadline=$((SECONDS + 120)) start=$SECONDS
    from=$(rounds)
    while [ "$(rounds)" -lt $((from + 3)) ]; do
        if [ $SECONDS -ge $deadline ]; then
            echo "FAILED after $1: rounds stand at $from" >&2
            for unit in "${units[@]}"; do inside journalctl --no-pager -n 12 -u "$unit" >&2; done
            exit 1
        fi
        sleep 0.5
    done
    printf '%-46s rounds %4d -> %4d, %3d s\n' "$1" "$from" "$(rounds)" $((SECONDS - start))
}

boot
goes_on "boot"
for unit in "${units[@]}"; do
    inside systemctl restart "$unit"
    goes_on "systemctl restart $unit"
done
for unit in "${units[@]}"; do
    inside systemctl kill --kill-whom=main --signal=KILL "$unit"
    goes_on "SIGKILL of $unit"
done
inside systemctl poweroff
wait "$nspawn" || true
boot
goes_on "poweroff and boot"
pull_the_plug
boot
goes_on "plug pulled and boot"
for unit in "${units[@]}"; do
    failed=$(inside systemctl is-failed "$unit" || true)
    [ "$failed" = active ] || { echo "FAILED: $unit is $failed" >&2; exit 1; }
done
echo "every part was restarted and the federation went on"
