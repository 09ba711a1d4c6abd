#!/usr/bin/env bash
# Starts one ecopipe-stage per device of a cluster file, over ssh where a device has `host: user@address`, and stops
# exactly what it started. Run it on the portal, beside the ecopipe-train that the stages join.
#
#   launch_stages.sh cluster.yaml up|status|check|down [options]
#
#   up      starts a stage on every device that has none running; all of them or none
#   status  one line a device: running, since when, its last line of log
#   check   tries ssh, the program, its version, BLAS, numeric class and free memory, and the ports in both directions
#   down    stops what `up` started and fetches the logs
#
#   --insecure              hand --insecure to the stages: needed when they talk over other addresses than loopback
#   --keys DIR              hand --keys to the stages: a directory of ecopipe-keygen that every device has at this path
#   --stay                  hand --stay on: stages serve run after run
#   --model FILE.pt         copy this TorchScript file to every device and let its stage load from there
#   --program PATH          ecopipe-stage on this machine (default: build/bin of this repository, else the PATH)
#   --remote-program PATH   ecopipe-stage on the others, absolute, from the login directory or in the PATH
#                           (default: ecopipe-stage)
#   --remote-dir DIR        where the others keep log and model, from the login directory (default: .ecopipe)
#   --state DIR             pids and logs here (default: run/CLUSTER of this repository)
#   --ssh-config FILE       as in ssh -F
#   -- ARGUMENT...          more arguments for every ecopipe-stage
#
# Exit codes: 0 done; 1 failed (for status: some stage is not running); 2 usage; 3 the cluster file is invalid; 4 a device
# or a port is unreachable; 5 versions differ. Needs python3-yaml here; on the devices a POSIX shell, and perl for `check`.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)

die() { # CODE MESSAGE
    echo "launch_stages.sh: $2" >&2
    exit "$1"
}

# ---- arguments ---------------------------------------------------------------------------------------------------

usage() { sed -n '/^# Starts/,/^# Exit/{s/^# \{0,1\}//;p}' "$0"; }

insecure=no keys='' stay=no model='' program='' remote_program=ecopipe-stage remote_dir=.ecopipe state='' ssh_config=''
words=() extra=()
while [ $# -gt 0 ]; do
    case "$1" in
        --help)
            usage
            exit 0
            ;;
        --insecure) insecure=yes ;;
        --stay) stay=yes ;;
        --keys | --model | --program | --remote-program | --remote-dir | --state | --ssh-config)
            [ $# -ge 2 ] || die 2 "$1: expected a value, found none"
            case "$1" in
                --keys) keys=$2 ;;
                --model) model=$2 ;;
                --program) program=$2 ;;
                --remote-program) remote_program=$2 ;;
                --remote-dir) remote_dir=$2 ;;
                --state) state=$2 ;;
                --ssh-config) ssh_config=$2 ;;
            esac
            shift
            ;;
        --)
            shift
            extra=("$@")
            break
            ;;
        -*) die 2 "unknown option $1 (--help lists them)" ;;
        *) words+=("$1") ;;
    esac
    shift
done
[ ${#words[@]} -eq 2 ] || die 2 "expected CLUSTER.yaml and one of up, status, check, down (--help)"
cluster_file=${words[0]} action=${words[1]}
case "$action" in
    up | status | check | down) ;;
    *) die 2 "expected up, status, check or down, found '$action'" ;;
esac
[ -r "$cluster_file" ] || die 3 "$cluster_file: cannot be read"
if [ -n "$model" ] && [ ! -r "$model" ]; then die 3 "$model: cannot be read"; fi
if [ -z "$program" ]; then
    program=$here/build/bin/ecopipe-stage
    [ -x "$program" ] || program=ecopipe-stage
fi

# ---- the cluster file --------------------------------------------------------------------------------------------

# Debian's python3-yaml belongs to Debian's python3, which need not be the first in the PATH.
python=python3
if [ -x /usr/bin/python3 ]; then python=/usr/bin/python3; fi
"$python" -c 'import yaml' 2>/dev/null || die 1 "needs python3-yaml: apt install python3-yaml"

# Prints the cluster's name, portal, address and port, then name, host, data address, data port, threads and memory of each
# device, one field a line ("-" for none). ecopipe-train checks the rest of the file.
read_cluster() {
    "$python" - "$1" <<'PYTHON'
import re
import sys

import yaml

path = sys.argv[1]


def refuse(place, text):
    sys.exit(f"launch_stages.sh: {path}: {place}: {text}")


class Strict(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            refuse(f"line {node.start_mark.line + 1}", f"the key {twice[0]!r} stands there twice")
        return super().construct_mapping(node, deep)


try:
    with open(path, encoding="utf-8") as file:
        root = yaml.load(file, Strict)
except (yaml.YAMLError, UnicodeDecodeError) as error:
    refuse("file", " ".join(f"expected YAML: {error}".split()))


def field(where, table, key, kind, pattern, default):
    value = table.get(key, default)
    wanted = {str: "text", int: "a whole number", float: "a number"}[kind]
    if value is None:
        refuse(where, f"expected {key}, found none")
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        refuse(where, f"{key}: expected {wanted}, found {value!r}")
    if kind is str and value != "-" and not re.fullmatch(pattern, value):
        refuse(where, f"{key}: found {value!r}")
    if kind is int and not pattern[0] <= value <= pattern[1]:
        refuse(where, f"{key}: expected {pattern[0]} to {pattern[1]}, found {value}")
    return value


NAME = r"[A-Za-z0-9._-]{1,64}"
ADDRESS = r"[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"


# IPv6 with or without brackets in the file; with them before a port.
def bracketed(address):
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


if not isinstance(root, dict):
    refuse("file", "expected a table with name, portal and devices")
name = field("file", root, "name", str, NAME, None)
portal = field("file", root, "portal", str, NAME, None)
address = bracketed(field("file", root, "portal_address", str, ADDRESS, None))
port = field("file", root, "port", int, (1, 65535), 5599)
devices = root.get("devices")
if not isinstance(devices, list) or not devices:
    refuse("devices", "expected a list of devices")
lines, names = [], []
for index, device in enumerate(devices):
    where = f"devices[{index}]"
    if not isinstance(device, dict):
        refuse(where, "expected a table")
    own = field(where, device, "name", str, NAME, None)
    if own in names:
        refuse(where, f"name: expected a name of its own, found {own!r} again")
    names.append(own)
    host = field(where, device, "host", str, r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9._:-]*", "-")
    if host.startswith("-") and host != "-":
        refuse(where, f"host: found {host!r}")
    lines += [own, "-" if host.split("@")[-1] in ("localhost", "127.0.0.1") else host]
    lines.append(bracketed(field(where, device, "data_address", str, ADDRESS, "-")))
    lines.append(field(where, device, "data_port", int, (0, 65535), 0))
    lines.append(field(where, device, "threads", int, (1, 4096), 1))
    lines.append(int(field(where, device, "memory_mib", float, None, None)))
if portal not in names:
    refuse("portal", f"expected a device of this cluster, found {portal!r}")
print(*[name, portal, address, port], *lines, sep="\n")
PYTHON
}

cluster_text=$(read_cluster "$cluster_file") || exit 3
mapfile -t fields <<<"$cluster_text"
cluster=${fields[0]} portal=${fields[1]} portal_address=${fields[2]} portal_port=${fields[3]}
devices=()
declare -A host data_address data_port threads memory_mib
for ((i = 4; i + 5 < ${#fields[@]}; i += 6)); do
    name=${fields[i]}
    devices+=("$name")
    host[$name]=${fields[i + 1]#-}
    data_address[$name]=${fields[i + 2]#-}
    data_port[$name]=${fields[i + 3]}
    threads[$name]=${fields[i + 4]}
    memory_mib[$name]=${fields[i + 5]}
done

state=${state:-$here/run/$cluster}
mkdir -p "$state" || die 1 "$state: cannot be made"
exec 8>"$state/lock"
flock -w 30 8 || die 1 "$state: another launch_stages.sh is at work on this cluster"

# ---- running something on a device -------------------------------------------------------------------------------

ssh_command=(ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o LogLevel=ERROR)
if [ -n "$ssh_config" ]; then ssh_command+=(-F "$ssh_config"); fi

quoted() { # each argument in single quotes, for a shell at the other end
    local word
    for word in "$@"; do printf "'%s' " "${word//\'/\'\\\'\'}"; done
}

# on DEVICE COMMAND ARGUMENT...: runs it there; ssh's own failure is 255. Descriptor 8 is the lock and stays here.
on() {
    local device=$1
    shift
    if [ -z "${host[$device]}" ]; then
        "$@" 8>&-
    else
        "${ssh_command[@]}" "${host[$device]}" "$(quoted "$@")" 8>&-
    fi
}

# What runs on a device: a small program for sh, given with its arguments. A process is known by pid, start time and
# boot, so that a number used again is never taken for it.
# shellcheck disable=SC2016
agent='
identity() { # of a process: its start time and this boot; nothing when it is gone or only waits to be reaped
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    set -- ${stat##*) }
    [ "$1" != Z ] || return 1
    echo "${20} $(cat /proc/sys/kernel/random/boot_id)"
}
same() { [ "$(identity "$1")" = "$2 $3" ]; }
do=$1
shift
case $do in
    start) # DIR NAME PROGRAM ARGUMENT...: prints pid, start time, boot
        log=$1/$2.log
        mkdir -p "$1" || exit 1
        program=$(command -v "$3") || { echo "$3: is not there" >&2; exit 1; }
        shift 3
        setsid nohup "$program" "$@" >"$log" 2>&1 </dev/null &
        pid=$!
        echo "$pid $(identity $pid)"
        ;;
    alive) same "$@" ;;
    since) # seconds that it runs
        same "$1" "$2" "$3" || exit 1
        awk -v start="$2" -v hz="$(getconf CLK_TCK)" "{printf \"%d\\n\", \$1 - start / hz}" /proc/uptime
        ;;
    stop) # PID START BOOT: SIGTERM, then SIGKILL; a stage gives its portal five seconds to answer its leave
        same "$@" || exit 0
        kill "$1"
        tries=0
        while [ $tries -lt 80 ]; do
            sleep 0.1
            same "$@" || exit 0
            tries=$((tries + 1))
        done
        kill -KILL "$1"
        ;;
    has) # DIR FILE SHA256
        [ "$(sha256sum "$1/$2" 2>/dev/null | cut -d" " -f1)" = "$3" ]
        ;;
    put) # DIR FILE, bytes on stdin
        mkdir -p "$1" && cat >"$1/$2.new" && mv "$1/$2.new" "$1/$2"
        ;;
    settled) # LOG PID START BOOT: whether it lives once it has said something, or after five seconds
        log=$1
        shift
        tries=0
        while [ $tries -lt 50 ] && same "$@" && [ ! -s "$log" ]; do
            sleep 0.1
            tries=$((tries + 1))
        done
        sleep 0.2
        same "$@"
        ;;
    tail) tail -n 1 "$1" 2>/dev/null | cut -c 1-200 ;;
esac
'
ask() { # DEVICE WORD ARGUMENT...
    local device=$1
    shift
    on "$device" sh -c "$agent" agent "$@" </dev/null
}

directory_of() { # where a device keeps its log
    if [ -z "${host[$1]}" ]; then echo "$state"; else echo "$remote_dir/$cluster"; fi
}

# ---- up, status, down --------------------------------------------------------------------------------------------

process_of() { # DEVICE: sets pid, start, boot; fails when nothing was started
    [ -s "$state/$1.pid" ] || return 1
    read -r pid start boot <"$state/$1.pid"
}

running() { # DEVICE: 0 yes, 1 no, 255 cannot tell
    process_of "$1" || return 1
    ask "$1" alive "$pid" "$start" "$boot"
}

place_of() { echo "${host[$1]:-this machine}"; }

stop_device() { # DEVICE
    process_of "$1" || return 0
    ask "$1" stop "$pid" "$start" "$boot" || return 1
    rm -f "$state/$1.pid"
    fetch_log "$1"
}

fetch_log() { # DEVICE
    if [ -z "${host[$1]}" ]; then return 0; fi
    on "$1" cat "$(directory_of "$1")/$1.log" >"$state/$1.log" 2>/dev/null || true
}

reach() { # DEVICE: fails when ssh does, with its last line in `reason`
    reason=$(on "$1" true 2>&1 </dev/null) && return 0
    reason="ssh to ${host[$1]} failed: ${reason##*$'\n'}"
    return 1
}

place_model() { # DEVICE: sets `models`, the directory that its stage loads from
    models=.
    if [ -z "$model" ]; then return 0; fi
    if [ -z "${host[$1]}" ]; then
        models=$(cd "$(dirname "$model")" && pwd)
        return 0
    fi
    local file sum
    file=$(basename "$model")
    sum=$(sha256sum "$model" | cut -d' ' -f1)
    models=$(directory_of "$1")/models
    if ask "$1" has "$models" "$file" "$sum"; then return 0; fi
    echo "$1: copying $file to ${host[$1]}:$models/"
    on "$1" sh -c "$agent" agent put "$models" "$file" <"$model"
}

start_device() { # DEVICE: on failure `reason` says why
    local device=$1 models stage=$remote_program words
    reason=''
    place_model "$device" || return 1
    if [ -z "${host[$device]}" ]; then stage=$program; fi
    words=(--join "tcp://$portal_address:$portal_port" --name "$device" --threads "${threads[$device]}" --models "$models")
    if [ -n "${data_address[$device]}" ]; then words+=(--data-address "${data_address[$device]}"); fi
    if [ "${data_port[$device]}" != 0 ]; then words+=(--data-port "${data_port[$device]}"); fi
    if [ "$insecure" = yes ]; then words+=(--insecure); fi
    if [ -n "$keys" ]; then words+=(--keys "$keys"); fi
    if [ "$stay" = yes ]; then words+=(--stay); fi
    reason=$(ask "$device" start "$(directory_of "$device")" "$device" "$stage" "${words[@]}" "${extra[@]}" \
        2>&1 >"$state/$device.pid.new") || return 1
    mv "$state/$device.pid.new" "$state/$device.pid"
}

up() {
    local device last started=()
    undo() {
        for device in "${started[@]}"; do stop_device "$device" || true; done
        rm -f "$state"/*.pid.new
    }
    trap 'undo; exit 130' INT
    trap 'undo; exit 143' TERM
    for device in "${devices[@]}"; do
        reach "$device" || die 4 "$device: $reason; nothing was started"
    done
    for device in "${devices[@]}"; do
        if running "$device"; then
            echo "$device: runs already on $(place_of "$device"), process $pid"
            continue
        fi
        if ! start_device "$device"; then
            undo
            die 1 "$device: could not be started on $(place_of "$device"): ${reason##*$'\n'}; nothing was left running"
        fi
        started+=("$device")
        process_of "$device"
        echo "$device: started on $(place_of "$device"), process $pid"
    done
    # A refused flag, a missing library or a port in use shows at once.
    for device in "${started[@]}"; do
        process_of "$device"
        if ask "$device" settled "$(directory_of "$device")/$device.log" "$pid" "$start" "$boot"; then continue; fi
        last=$(ask "$device" tail "$(directory_of "$device")/$device.log") || true
        undo
        die 1 "$device: ended at once: ${last:-no word in its log}; nothing was left running"
    done
}

status() {
    local device code all=0 since
    for device in "${devices[@]}"; do
        if ! process_of "$device"; then
            echo "$device: not started"
            all=1
            continue
        fi
        code=0
        since=$(ask "$device" since "$pid" "$start" "$boot") || code=$?
        if [ "$code" = 255 ]; then
            echo "$device: ssh to ${host[$device]} failed"
            all=4
            continue
        fi
        if [ "$code" = 0 ]; then
            printf '%s: running on %s, process %s, for %s s' "$device" "$(place_of "$device")" "$pid" "$since"
        else
            printf '%s: ended' "$device"
            if [ $all = 0 ]; then all=1; fi
        fi
        printf ' | %s\n' "$(ask "$device" tail "$(directory_of "$device")/$device.log" || true)"
    done
    return "$all"
}

down() { # all at once: each may take seconds to leave
    local device code=0
    declare -A stopping
    for device in "${devices[@]}"; do
        if process_of "$device"; then
            stop_device "$device" &
            stopping[$device]=$!
        else
            echo "$device: not started"
        fi
    done
    for device in "${!stopping[@]}"; do
        if wait "${stopping[$device]}"; then
            echo "$device: stopped; its log is $state/$device.log"
        else
            echo "launch_stages.sh: $device: could not be stopped: ssh to ${host[$device]} failed" >&2
            code=4
        fi
    done
    return "$code"
}

# ---- check -------------------------------------------------------------------------------------------------------

# An ear accepts connections and closes them until its standard input ends or 90 s have passed. It prints its port, or
# "busy" when something listens there already (an ecopipe-train, a stage).
# shellcheck disable=SC2016
ear='
use IO::Socket::IP; $| = 1; alarm 90;
my $socket;
# Everywhere is IPv4 alone where there is no IPv6.
for ($ARGV[0] eq "*" ? ("::", "0.0.0.0") : $ARGV[0]) {
    $socket ||= IO::Socket::IP->new(LocalAddr => $_, LocalPort => $ARGV[1], Listen => 8, ReuseAddr => 1, V6Only => 0);
}
if (!$socket) { print "busy\n"; exit 0 }
print $socket->sockport, "\n";
for (;;) {
    my $ready = ""; vec($ready, 0, 1) = 1; vec($ready, fileno($socket), 1) = 1;
    select($ready, undef, undef, undef);
    last if vec($ready, 0, 1);
    $socket->accept if vec($ready, fileno($socket), 1);
}'
# Prints each ADDRESS:PORT of its arguments that cannot be dialled.
# shellcheck disable=SC2016
dialler='
use IO::Socket::IP;
for (@ARGV) { print "$_\n" unless IO::Socket::IP->new(PeerAddr => $_, Timeout => 4) }'

json() { # KEY, a JSON line on stdin
    "$python" -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1], ""))' "$1"
}

# What other devices dial: its data address, else the address that ssh uses, else the portal's (it runs there).
reached_at() {
    local at=${data_address[$1]}
    if [ -z "$at" ] && [ -n "${host[$1]}" ]; then at=${host[$1]##*@}; fi
    echo "${at:-$portal_address}"
}

problem() { # CODE DEVICE MESSAGE: counts; the gravest code wins: 4, then 5, then 1
    echo "launch_stages.sh: $2: $3" >&2
    case "$1$worst" in
        4? | 5[01] | 10) worst=$1 ;;
    esac
}

check_programs() { # sets `sound`: the devices that ssh reaches
    local device facts free classes=() versions=()
    for device in "${devices[@]}"; do
        if ! reach "$device"; then
            problem 4 "$device" "$reason"
            continue
        fi
        sound+=("$device")
        local stage=$remote_program
        if [ -z "${host[$device]}" ]; then stage=$program; fi
        if ! facts=$(on "$device" "$stage" --self-check --threads "${threads[$device]}" 2>&1 </dev/null); then
            problem 1 "$device" "$stage --self-check failed on $(place_of "$device"): ${facts##*$'\n'}"
            continue
        fi
        facts=$(grep '^{' <<<"$facts" | tail -n 1)
        free=$(json memory_mib <<<"$facts")
        versions+=("$(json version <<<"$facts")")
        classes+=("$(json numeric_class <<<"$facts")")
        printf '%s: version %s, %s, %s cores, %s MiB free, numeric class %s (%s)\n' "$device" "${versions[-1]}" \
            "$(json cpu <<<"$facts")" "$(json cores <<<"$facts")" "$free" "${classes[-1]}" \
            "$(json numeric_summary <<<"$facts")"
        if [ "$free" -lt "${memory_mib[$device]}" ]; then
            problem 1 "$device" "memory_mib: the cluster file says ${memory_mib[$device]}, only $free MiB are free"
        fi
        if [ "$(json fast_blas <<<"$facts")" != True ]; then
            echo "$device: warning: LibTorch runs on the reference BLAS, which is many times slower; install libopenblas0-pthread"
        fi
    done
    if [ ${#versions[@]} -gt 0 ] && [ "$(printf '%s\n' "${versions[@]}" | sort -u | wc -l)" -gt 1 ]; then
        problem 5 "cluster $cluster" "the devices run different versions of ecopipe; install one"
    fi
    if [ ${#classes[@]} -gt 0 ]; then
        if [ "$(printf '%s\n' "${classes[@]}" | sort -u | wc -l)" -gt 1 ]; then
            echo "cluster $cluster: more than one numeric class: weights equal those of one process to float tolerance"
        else
            echo "cluster $cluster: one numeric class: weights are byte-identical to those of one process"
        fi
    fi
}

# An ear at the portal's port and at every device's data port; then every device dials the portal and every other device.
check_ports() {
    local device other places=() wanted silent
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkfifo "$work/open"
    exec 9<>"$work/open" # the ears read from it; when this end closes they leave
    listen() { # KEY DEVICE ADDRESS PORT
        on "$2" perl -e "$ear" "$3" "$4" <"$work/open" 9>&- >"$work/$1" 2>/dev/null &
    }
    heard_port() { # KEY WANTED: the port that the ear has, or the wanted one when it is busy
        local port='' tries
        for ((tries = 0; tries < 100; ++tries)); do
            port=$(head -n 1 "$work/$1" 2>/dev/null) || true
            [ -n "$port" ] && break
            sleep 0.1
        done
        if [ "$port" = busy ]; then port=$2; fi
        echo "${port:-0}"
    }
    listen @portal "$portal" "$portal_address" "$portal_port"
    for device in "${sound[@]}"; do listen "$device" "$device" "*" "${data_port[$device]}"; done
    declare -A place
    place[@portal]=$portal_address:$(heard_port @portal "$portal_port")
    for device in "${sound[@]}"; do place[$device]=$(reached_at "$device"):$(heard_port "$device" "${data_port[$device]}"); done
    for device in "${sound[@]}"; do
        places=("${place[@portal]}")
        for other in "${sound[@]}"; do
            if [ "$other" != "$device" ]; then places+=("${place[$other]}"); fi
        done
        if ! silent=$(on "$device" perl -e "$dialler" "${places[@]}" </dev/null 9>&-); then
            problem 1 "$device" "perl is missing there: the ports were not tried"
            continue
        fi
        for wanted in $silent; do
            other='the portal'
            for name in "${sound[@]}"; do [ "${place[$name]}" = "$wanted" ] && other=$name; done
            if [ "$wanted" = "${place[@portal]}" ]; then other='the portal'; fi
            problem 4 "$device" "cannot reach $other at $wanted"
        done
        [ -n "$silent" ] || echo "$device: reaches the portal and $((${#places[@]} - 1)) other device(s)"
    done
    exec 9>&-
    wait
}

check() {
    worst=0 sound=()
    check_programs
    local known=no device
    for device in "${sound[@]}"; do [ "$device" = "$portal" ] && known=yes; done
    if [ "$known" = yes ]; then check_ports; fi
    return "$worst"
}

"$action"
