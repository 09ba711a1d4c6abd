# Fresh roots of Debian releases, for scripts that source this file: elsewhere.sh, make_packages.sh, and tests.
#   root_open DIR RELEASE [ARCH]   makes a root by debootstrap below the directory DIR (which must be empty or absent) and mounts
#                                  what programs need; ARCH other than this machine's: programs run in emulation
#   root_in DIR [--chdir=AT] COMMAND...   runs it inside, with a clean environment, in / or AT
#   root_take DIR                  this working tree's files into /ecopipe of the root
#   root_close DIR                 unmounts and removes it
#   emulate ARCH                   lets this machine start programs of ARCH, until root_end
#   root_end                       closes all that is open: for `trap root_end EXIT`
# Everything needs root. With ECOPIPE_CCACHE=DIR, compilations are remembered there. ECOPIPE_DEBIAN_MIRROR names a mirror.
# A root that already is one (it has /etc/debian_version) is used as it is, and stays: for who tries things again and again.

root_fail() {
    echo "$(basename "$0"): $1" >&2
    exit 1
}

# 77: what is missing is the machine's, not the sources' (tests are then skipped).
root_skip() {
    echo "$(basename "$0"): skipped: $1" >&2
    exit 77
}

root_machine=$(dpkg --print-architecture 2>/dev/null) || root_skip "needs Debian's dpkg"
root_opened=()
root_kept=()
root_emulated=()
root_binfmt_mounted=
root_tools=

# As this machine reaches its packages: the mirror of its own Debian sources.
root_mirror() {
    local found=${ECOPIPE_DEBIAN_MIRROR:-}
    [ -n "$found" ] ||
        found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null |
            grep -oE '^(URIs:|deb )[^#]*https?://[^ ]+/debian/?( |$)' | grep -oE 'https?://[^ ]+' | head -n 1) || true
    [ -n "$found" ] || root_skip "no Debian mirror among this machine's package sources; set ECOPIPE_DEBIAN_MIRROR"
    echo "$found"
}

root_needs() {
    [ "$(id -u)" = 0 ] || root_skip "needs root"
    command -v debootstrap >/dev/null || root_skip "needs debootstrap"
}

root_open() {
    local dir=$1 release=$2 arch=${3:-$root_machine} mirror options=(--variant=minbase) log
    root_needs
    mirror=$(root_mirror)
    [ "$arch" = "$root_machine" ] || emulate "$arch"
    mkdir -p "$dir"
    if [ -e "$dir/etc/debian_version" ]; then
        ! mountpoint -q "$dir/dev" || root_fail "expected a root that nobody is in, found mounts in $dir"
        root_kept+=("$dir")
        root_opened+=("$dir")
    else
        # Before it is known as a root, so that nobody's files are removed with it.
        [ -z "$(ls -A "$dir")" ] || root_fail "expected an empty directory, found files in $dir"
        root_opened+=("$dir")
        log=$(mktemp)
        # debootstrap's second stage runs the root's own programs.
        [ "$arch" = "$root_machine" ] || options+=(--arch="$arch")
        debootstrap "${options[@]}" "$release" "$dir" "$mirror" >"$log" 2>&1 || {
            tail -n 5 "$log" >&2
            rm -f "$log"
            root_skip "debootstrap could not make $release ($arch) from $mirror"
        }
        rm -f "$log"
        # How this machine reaches its packages, and what makes dpkg quick: a root that is thrown away needs no fsync.
        cp -r /etc/apt/apt.conf.d /etc/apt/auth.conf.d "$dir/etc/apt/" 2>/dev/null || true
        rm -f "$dir"/etc/apt/sources.list.d/*
        echo "deb $mirror $release main" >"$dir/etc/apt/sources.list"
        echo force-unsafe-io >"$dir/etc/dpkg/dpkg.cfg.d/ecopipe"
    fi
    # A mount of its own, as programs that make namespaces expect of /; private, so that none of it reaches this machine.
    mount --bind "$dir" "$dir"
    mount --make-private "$dir"
    mkdir -p "$dir/dev/shm"
    mount --bind /dev "$dir/dev"
    mount --make-private "$dir/dev"
    mount --bind /dev/pts "$dir/dev/pts"
    mount -t tmpfs none "$dir/dev/shm"
    mount -t proc proc "$dir/proc"
    mount -t sysfs -o ro sys "$dir/sys"
    if [ -n "${ECOPIPE_CCACHE:-}" ]; then
        mkdir -p "$ECOPIPE_CCACHE" "$dir/ccache"
        mount --bind "$ECOPIPE_CCACHE" "$dir/ccache"
    fi
    # Names are resolved as here.
    cp -L /etc/resolv.conf /etc/hosts "$dir/etc/" 2>/dev/null || true
}

root_in() {
    local dir=$1 at=/ settings=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive)
    shift
    [[ $1 != --chdir=* ]] || { at=${1#--chdir=} && shift; }
    [ ! -d "$dir/ccache" ] || settings+=(CCACHE_DIR=/ccache)
    # What an emulated processor is: that of a Raspberry Pi 4.
    [ ${#root_emulated[@]} -eq 0 ] || settings+=(QEMU_CPU=cortex-a72)
    chroot "$dir" /usr/bin/env -i --chdir="$at" "${settings[@]}" "$@"
}

root_apt() {
    local dir=$1 log
    shift
    log=$(mktemp)
    { root_in "$dir" apt-get update -qq && root_in "$dir" apt-get install -y -qq --no-install-recommends "$@"; } >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        rm -f "$log"
        root_fail "could not install $*"
    }
    rm -f "$log"
}

# What git knows of the working tree, or all but the builds.
root_take() {
    local here
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    mkdir -p "$1/ecopipe"
    if git -C "$here" rev-parse --git-dir >/dev/null 2>&1; then
        (cd "$here" && git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
            [ ! -e "$file" ] || printf '%s\0' "$file"
        done | tar -c --null -T -) | tar -x -C "$1/ecopipe"
    else
        tar -c -C "$here" --exclude='./build*' --exclude=./run . | tar -x -C "$1/ecopipe"
    fi
}

root_close() {
    local dir=$1 kept
    # With what programs inside have mounted.
    ! mountpoint -q "$dir" || umount -R "$dir" 2>/dev/null || umount -R -l "$dir" 2>/dev/null || true
    ! grep -q " $(realpath "$dir")[ /]" /proc/self/mounts || {
        echo "$(basename "$0"): something is still mounted in $dir, which is left" >&2
        return
    }
    for kept in "${root_kept[@]}"; do [ "$kept" != "$dir" ] || return 0; done
    rm -rf --one-file-system "$dir"
}

# The kernel is told which interpreter ELF files of that machine have; it keeps the interpreter open (flag F), so that roots need none.
emulate() {
    local arch=$1 machine magic name interpreter at=/proc/sys/fs/binfmt_misc
    case "$arch" in
        arm64) machine=aarch64 magic='\xb7\x00' ;;
        *) root_fail "expected amd64 or arm64, found '$arch'" ;;
    esac
    name=ecopipe-$machine
    if [ ! -e "$at/register" ]; then
        mount -t binfmt_misc none "$at" 2>/dev/null || root_skip "this kernel has no binfmt_misc: programs of $arch cannot be started"
        root_binfmt_mounted=$at
    fi
    # One that is there already serves, if chroots see it.
    ! grep -lqs "^flags:.*F" "$at/qemu-$machine" "$at/$name" || return 0
    interpreter=$(command -v "qemu-$machine-static") || {
        # Taken from its package and not installed, so that nothing stays.
        root_tools=$(mktemp -d)
        (cd "$root_tools" && chmod 755 . && apt-get download -qq qemu-user-static >/dev/null 2>&1 && dpkg -x qemu-user-static_*.deb .) ||
            root_skip "needs qemu-user-static"
        interpreter=$root_tools/usr/bin/qemu-$machine-static
    }
    [ -x "$interpreter" ] || root_skip "needs qemu-user-static"
    printf ':%s:M::\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00%s:%s:%s:F' "$name" "$magic" \
        '\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff' "$interpreter" >"$at/register" ||
        root_skip "the kernel takes no interpreter for programs of $arch"
    root_emulated+=("$at/$name")
}

root_end() {
    local each
    for each in "${root_opened[@]}"; do root_close "$each"; done
    for each in "${root_emulated[@]}"; do echo -1 >"$each" || true; done
    [ -z "$root_binfmt_mounted" ] || umount "$root_binfmt_mounted" || true
    [ -z "$root_tools" ] || rm -rf "$root_tools"
    root_opened=() root_emulated=() root_binfmt_mounted='' root_tools=''
}
