#!/usr/bin/env bash
# cmake/torch.cmake over LibTorchs made up here: which it takes, which it refuses, in one line each.
# Usage: torch_found_test.sh REPOSITORY
set -euo pipefail
export CMAKE_GENERATOR=Ninja  # make is not among what the build needs
repository=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A project of one line that includes the module, after what a case sets.
project() {
    mkdir -p "$work/project"
    cat >"$work/project/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.22)
project(p LANGUAGES CXX)
$1
include($repository/cmake/torch.cmake)
get_target_property(includes ecopipe::torch INTERFACE_INCLUDE_DIRECTORIES)
get_target_property(libraries ecopipe::torch INTERFACE_LINK_LIBRARIES)
message(STATUS "taken: \${ecopipe_torch_version} \${includes} \${libraries}")
CMAKE
}
# FILE SOURCE FLAGS...: a shared library.
library() {
    echo "$2" >"$work/source.cpp"
    c++ -shared -fPIC "$work/source.cpp" -o "$1" "${@:3}"
}
# PREFIX MAJOR MINOR: headers, and the two libraries.
libtorch() {
    local prefix=$1 major=$2 minor=$3
    mkdir -p "$prefix/include/torch/csrc/api/include/torch" "$prefix/include/ATen" "$prefix/include/c10" "$prefix/include/fmt" "$prefix/lib"
    printf '#define TORCH_VERSION_MAJOR %s\n#define TORCH_VERSION_MINOR %s\n#define TORCH_VERSION_PATCH 0\n' "$major" "$minor" \
        >"$prefix/include/torch/csrc/api/include/torch/version.h"
    library "$prefix/lib/libc10.so" 'int c10_symbol() { return 0; }'
    library "$prefix/lib/libtorch_cpu.so" 'int torch_symbol() { return 0; }'
}
# PREFIX: configures as if nothing were installed but there.
configure() {
    rm -rf "$work/build"
    CMAKE_PREFIX_PATH=$1 cmake -S "$work/project" -B "$work/build" -DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF >"$work/log" 2>&1
}
refused() {
    if configure "$1"; then
        echo "torch_found_test.sh: expected a refusal ($2)" >&2
        exit 1
    fi
    grep -qE "^ +ecopipe: $2" "$work/log" || {
        cat "$work/log" >&2
        echo "torch_found_test.sh: the refusal ($2) is not one line of its own" >&2
        exit 1
    }
}
taken() {
    configure "$1" || {
        cat "$work/log" >&2
        exit 1
    }
    grep -qE -- "-- taken: $2" "$work/log" || {
        cat "$work/log" >&2
        echo "torch_found_test.sh: expected to be taken: $2" >&2
        exit 1
    }
}

project ""
refused "$work/nowhere" 'expected LibTorch 1.13 or later, found none: apt install libtorch-dev, or name another'
libtorch "$work/old" 1 12
refused "$work/old" "expected LibTorch 1.13 or later, found 1.12.0 in $work/old: "
libtorch "$work/oldest" 1 8
refused "$work/oldest" 'expected LibTorch 1.13 or later, found 1.8.0'

libtorch "$work/first" 1 13
taken "$work/first" '1.13.0 '
# Of its headers only its own; of its libraries the two that the CPU needs, though it has more.
touch "$work/first/lib/libtorch_cuda.so"
taken "$work/first" "1.13.0 $work/build/torch_include;$work/build/torch_include/torch/csrc/api/include $work/first/lib/libtorch_cpu.so;$work/first/lib/libc10.so\$"
[ -d "$work/build/torch_include/ATen" ] && [ ! -e "$work/build/torch_include/fmt" ]

# A wheel: the torch folder, or the directory that it lies in. From 2.9 on the numbers are in another header.
libtorch "$work/site-packages/torch" 2 15
mkdir -p "$work/site-packages/torch/include/torch/headeronly"
mv "$work/site-packages/torch/include/torch/csrc/api/include/torch/version.h" "$work/site-packages/torch/include/torch/headeronly/"
echo '#include <torch/headeronly/version.h>' >"$work/site-packages/torch/include/torch/csrc/api/include/torch/version.h"
taken "$work/site-packages/torch" "2.15.0 .* $work/site-packages/torch/lib/libtorch_cpu.so"
taken "$work/site-packages" "2.15.0 .* $work/site-packages/torch/lib/libtorch_cpu.so"
# Another CMAKE_PREFIX_PATH in the same build directory counts.
CMAKE_PREFIX_PATH=$work/first cmake -S "$work/project" -B "$work/build" >"$work/log" 2>&1
grep -q -- "-- taken: 1.13.0 .*$work/first/lib/libtorch_cpu.so" "$work/log"

# A pip wheel before 2.7.
mkdir -p "$work/site-packages/torch/share/cmake/Torch"
echo 'set(TORCH_CXX_FLAGS "-D_GLIBCXX_USE_CXX11_ABI=0")' >"$work/site-packages/torch/share/cmake/Torch/TorchConfig.cmake"
refused "$work/site-packages/torch" 'expected a LibTorch with the C\+\+11 ABI .* found 2.15.0'
# A CUDA build whose CUDA libraries are elsewhere, then beside it.
library "$work/libcudart.so" 'int runtime() { return 0; }' -Wl,-soname,libcudart.so.99
libtorch "$work/cuda" 2 7
calls='int runtime(); int torch_symbol() { return runtime(); }'
library "$work/cuda/lib/libtorch_cpu.so" "$calls" "$work/libcudart.so"
refused "$work/cuda" "LibTorch 2.7.0 in $work/cuda needs libcudart.so.99: install"
cp "$work/libcudart.so" "$work/cuda/lib/libcudart.so.99"
library "$work/cuda/lib/libtorch_cpu.so" "$calls" "$work/libcudart.so" -Wl,-rpath,'$ORIGIN'
taken "$work/cuda" '2.7.0 '
rm "$work/cuda/lib/libc10.so"
refused "$work/cuda" "expected libc10.so of LibTorch 2.7.0 below $work/cuda/lib, found none"
echo 'not a library' >"$work/cuda/lib/libc10.so"
refused "$work/cuda" "expected LibTorch 2.7.0 in $work/cuda to link, found: "

project 'set(CMAKE_SIZEOF_VOID_P 4)'
refused "$work/first" 'expected a compiler for a 64-bit system, which LibTorch needs, found one for 32 bits'
echo "torch_found_test.sh: passed"
