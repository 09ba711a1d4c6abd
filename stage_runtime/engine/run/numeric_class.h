#pragma once
// Which devices compute the same bits: a hash of a fixed forward-backward-update.

#include <cstdint>
#include <string>

#include "core/result.h"

namespace ecopipe {

struct NumericClass {
    std::uint64_t hash = 0;
    std::string summary;  // "libtorch 1.13.1, OpenBLAS ..., AVX2, 1 thread"
};

// Trains a small convolutional network for two steps with the thread count in force and hashes
// every bit of the result. Takes about 20 ms.
[[nodiscard]] Result<NumericClass> measure_numeric_class(int threads);

}  // namespace ecopipe
