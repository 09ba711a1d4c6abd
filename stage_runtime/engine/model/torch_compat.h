#pragma once
// The process-wide switches of torch and its BLAS, and what they say about themselves, in one
// place. The header is plain. What differs between LibTorch 1.13 and 2.x is in torch_version.h.

#include <string>

namespace ecopipe {

// Once, before any torch work: threads of torch and of the BLAS; the allocator that counts; no
// autograd of its own.
void configure_torch(int threads);

// TorchScript must compute the same bits on every call: the graph optimiser, which changes backward
// bits after the first call, is off for the calling thread and the process.
void keep_bits_stable();

struct TorchVersions {
    std::string torch;
    std::string blas;  // "OpenBLAS ...", or "reference BLAS" when no faster one is loaded
    bool fast_blas = false;
    std::string instruction_set;
};
[[nodiscard]] TorchVersions torch_versions();

// Logs the one-line warning that a missing OpenBLAS deserves: reference BLAS is 15-50 times slower.
void warn_without_fast_blas();

}  // namespace ecopipe
