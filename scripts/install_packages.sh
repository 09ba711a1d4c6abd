#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that are missing. Usage: install_packages.sh build|test|deep|cross ARCH
set -euo pipefail

what=${1:-build}
case "$(uname -m)" in
    armv6l | armv7l | armhf | i386 | i686)
        echo "install_packages.sh: $(uname -m) is a 32-bit machine; LibTorch needs a 64-bit system" >&2
        exit 1
        ;;
esac

# CMAKE_PREFIX_PATH may name another LibTorch than the distribution's.
torch=(libtorch-dev)
IFS=: read -ra places <<<"${CMAKE_PREFIX_PATH:-}"
for place in "${places[@]}"; do
    for directory in "$place" "$place/torch"; do
        [ ! -e "$directory/include/torch/csrc/api/include/torch/version.h" ] || torch=()
    done
done

tools=(cmake ninja-build ccache pkg-config)
headers=(libcereal-dev nlohmann-json3-dev libexpected-dev libboost-dev)
libraries=("${torch[@]}" libopenblas0-pthread cppzmq-dev libzmq3-dev libboost-program-options-dev libyaml-cpp-dev libspdlog-dev libfmt-dev libsodium-dev
    libssl-dev libsqlite3-dev zlib1g-dev libjpeg-dev libpng-dev)
if [ "$what" = cross ]; then
    arch=${2:?expected an architecture, such as arm64, after cross}
    packages=("${tools[@]}" "crossbuild-essential-$arch" "${headers[@]}" "${libraries[@]/%/:$arch}")
else
    packages=("${tools[@]}" g++ "${headers[@]}" "${libraries[@]}" dataset-fashion-mnist)
fi
# What only tests need may be absent from a distribution: those tests are then left out.
optional=()
if [ "$what" = test ] || [ "$what" = deep ]; then
    packages+=(libgtest-dev)
    optional=(python3 python3-torch python3-torchvision python3-pil python3-numpy python3-yaml iproute2 procps)
fi
if [ "$what" = deep ]; then
    optional+=(clang-19 clang-tidy-19 libclang-rt-19-dev libbenchmark-dev chromium chromium-driver python3-selenium python3-pyte debootstrap
        dpkg-dev file)
fi

absent() {
    local package
    for package in "$@"; do
        dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
    done
}
mapfile -t missing < <(absent "${packages[@]}" "${optional[@]}")
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "install_packages.sh: needs root or sudo to install: ${missing[*]}" >&2
        exit 1
    }
    sudo=(sudo)
fi
echo "installing: ${missing[*]}" >&2
[ "$what" != cross ] || "${sudo[@]}" dpkg --add-architecture "$arch"
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
offered() { apt-cache show --no-all-versions "$1" >/dev/null 2>&1; }
mapfile -t missing < <(absent "${packages[@]}")
for package in "${missing[@]}"; do
    offered "$package" && continue
    remedy=
    [ "$package" != libtorch-dev ] || remedy=": pip install torch, and name its torch folder (or an unpacked LibTorch) in CMAKE_PREFIX_PATH"
    echo "install_packages.sh: $package is not in this distribution$remedy" >&2
    exit 1
done
for package in $(absent "${optional[@]}"); do
    if offered "$package"; then
        missing+=("$package")
    else
        echo "install_packages.sh: $package is not in this distribution; the tests that need it are left out" >&2
    fi
done
[ ${#missing[@]} -eq 0 ] && exit 0
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
