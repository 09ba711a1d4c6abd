#!/usr/bin/env bash
# Runs README.md's first use on two machines as a reader would: each machine is a network namespace, joined to the other by a
# virtual cable. What is run are the ```bash blocks that follow a line <!-- run: MACHINE NAME --> with MACHINE hub or pi.
# A block whose marker ends in "&" has a terminal of its own: the next one starts beside it. A block without waits for
# all before it. Every block must succeed.
#
#   run_readme_blocks.sh [--deadline-s 300] [--keep]    (--keep leaves the working directory for a look)
#
# Needs root and iproute2 (exit code 77, "skipped", without), and the programs in build/bin.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
deadline_s=300 keep=no

die() {
    echo "run_readme_blocks.sh: $2" >&2
    exit "$1"
}
while [ $# -gt 0 ]; do
    case "$1" in
        --deadline-s)
            [[ ${2:-} =~ ^[0-9]+$ ]] || die 2 "--deadline-s: expected seconds, found '${2:-}'"
            deadline_s=$2
            shift
            ;;
        --keep) keep=yes ;;
        *) die 2 "expected --deadline-s or --keep, found '$1'" ;;
    esac
    shift
done
[ -x "$root/build/bin/ecopipe-train" ] || die 2 "build/bin/ecopipe-train is not there; run scripts/build.sh first"
if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null; then die 77 "skipped: needs root and iproute2 for network namespaces"; fi

space=ecopipe-$$
work=$(mktemp -d)
groups=() names=()

cleanup() {
    for group in "${groups[@]}"; do kill -KILL -- "-$group" 2>/dev/null || true; done
    # Also what a block started over ssh.
    for machine in hub pi; do ip netns pids "$space-$machine" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true; done
    wait 2>/dev/null || true
    ip netns del "$space-hub" 2>/dev/null || true
    ip netns del "$space-pi" 2>/dev/null || true
    if [ "$keep" = yes ]; then echo "left: $work"; else rm -rf "$work"; fi
}
trap cleanup EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# ---- two machines and a cable ------------------------------------------------------------------------------------

if ! ip netns add "$space-hub" 2>/dev/null; then die 77 "skipped: network namespaces cannot be made here"; fi
ip netns add "$space-pi"
ip link add ep0 netns "$space-hub" type veth peer name ep0 netns "$space-pi"
for machine in hub:192.168.1.10 pi:192.168.1.21; do
    ip -n "$space-${machine%%:*}" link set lo up
    ip -n "$space-${machine%%:*}" address add "${machine##*:}/24" dev ep0
    ip -n "$space-${machine%%:*}" link set ep0 up
done

# ---- the blocks --------------------------------------------------------------------------------------------------

# Writes block N's commands to N.sh and prints "N MACHINE NAME [&]".
extract() {
    awk -v work="$work" '
        /^<!-- run: .* -->$/ {
            marker = $0
            sub(/^<!-- run: /, "", marker)
            sub(/ -->$/, "", marker)
            next
        }
        marker != "" && /^```bash$/ { ++n; file = work "/" n ".sh"; printf "" >file; print n, marker; inside = 1; next }
        inside && /^```$/ { close(file); inside = 0; marker = ""; next }
        inside { print >>file }
    ' "$root/README.md" "$root/docs/guide/operator.md" "$root/docs/guide/researcher.md" "$root/docs/guide/install.md"
}

# A reader has cloned the repository and built it on both machines; here both see one working directory.
mkdir "$work/ecopipe"
ln -s "$root/build" "$root/scripts" "$root/examples" "$work/ecopipe/"
# ssh between them: who logs in lands beside that directory, on the machine with that address.
mkdir "$work/programs"
cat >"$work/programs/ssh" <<STUB
#!/usr/bin/env bash
while [[ \$1 == -* ]]; do if [[ \$1 == -[oF] ]]; then shift 2; else shift; fi; done
case \$1 in
    user@192.168.1.10) machine=hub ;;
    user@192.168.1.21) machine=pi ;;
    *) echo "ssh: \$1 is no machine here" >&2; exit 255 ;;
esac
cd "$work" && exec ip netns exec "$space-\$machine" sh -c "\${*:2}"
STUB
chmod +x "$work/programs/ssh"

started=$SECONDS
await_all() {
    local i code
    for i in "${!groups[@]}"; do
        while kill -0 "${groups[i]}" 2>/dev/null; do
            if ((SECONDS - started > deadline_s)); then
                show
                die 1 "not done after $deadline_s s: ${names[i]}"
            fi
            sleep 0.2
        done
        code=0
        wait "${groups[i]}" || code=$?
        if [ "$code" != 0 ]; then
            show
            die 1 "${names[i]}: exit code $code"
        fi
    done
    groups=() names=()
}
show() { tail -n 20 "$work"/*.log >&2 || true; }

blocks=$(extract)
[ -n "$blocks" ] || die 1 "the pages have no block to run"
while read -r number machine name beside; do
    [ "$beside" = '&' ] || await_all
    echo "== on $machine: $name"
    (
        cd "$work/ecopipe"
        PATH=$work/programs:$PATH exec setsid ip netns exec "$space-$machine" bash -euo pipefail "$work/$number.sh" >"$work/$number-$name.log" 2>&1 </dev/null
    ) &
    groups+=($!) names+=("$machine $name")
    [ "$beside" = '&' ] || await_all
done <<<"$blocks"
await_all
for log in "$work"/*.log; do tail -n 3 "$log" | sed "s/^/$(basename "$log" .log): /"; done
echo "run_readme_blocks.sh: $(wc -l <<<"$blocks") blocks ran in $((SECONDS - started)) s"
