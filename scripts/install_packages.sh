#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that are missing. Usage: install_packages.sh build|test
set -euo pipefail

what=${1:-build}
case "$(uname -m)" in
    armv6l | armv7l | armhf | i386 | i686)
        echo "install_packages.sh: $(uname -m) is a 32-bit machine; LibTorch needs a 64-bit system" >&2
        exit 1
        ;;
esac

packages=(cmake ninja-build g++ ccache pkg-config libtorch-dev libopenblas0-pthread libzmq3-dev cppzmq-dev libcereal-dev
    libboost-dev libboost-program-options-dev nlohmann-json3-dev libyaml-cpp-dev libspdlog-dev libfmt-dev libexpected-dev
    libsodium-dev libssl-dev libsqlite3-dev zlib1g-dev libjpeg-dev libpng-dev dataset-fashion-mnist)
if [ "$what" = test ]; then
    packages+=(clang-19 clang-tidy-19 libclang-rt-19-dev libgtest-dev libbenchmark-dev python3 python3-torch python3-torchvision python3-pil python3-numpy python3-yaml iproute2 procps
        chromium chromium-driver python3-selenium python3-pyte debootstrap dpkg-dev)
fi

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
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
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
