#pragma once
// Training images shown a little different each epoch. What happens to a sample is keyed by (seed,
// epoch, its index), so that it is the same on any partition and in any replay.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "stage_runtime/data/data_options.h"
#include "stage_runtime/data/dataset.h"

namespace ecopipe {

struct Augmentation {
    bool flip = false;           // mirrors half of the images, left to right
    bool crop = false;           // shifts by up to an eighth of the side, filled with black
    std::vector<float> padding;  // black, a channel or one for all: after normalisation it is not 0
    [[nodiscard]] bool any() const { return flip || crop; }
};

// "flip", "crop" or "flip,crop". Errors: kUsage.
[[nodiscard]] Result<Augmentation> parse_augmentation(const std::string& text,
                                                      const Normalization& normalize);
// Errors: kUsage when the samples are no images [channels, height, width] of numbers.
[[nodiscard]] Result<void> check_augmentable(const Dataset& data);

// `batch` holds the samples at `indices`.
void augment(Batch& batch, std::span<const std::int64_t> indices, const Augmentation& how,
             std::uint64_t seed, std::uint64_t epoch);

}  // namespace ecopipe
