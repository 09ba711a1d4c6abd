#pragma once
// What is asked for of a data set's samples.

#include <cstdint>
#include <optional>
#include <vector>

namespace ecopipe {

// Subtracted and divided by, one value a channel or one for all.
struct Normalization {
    std::vector<float> mean;
    std::vector<float> deviation;
    [[nodiscard]] bool given() const { return !mean.empty(); }
};

struct DataOptions {
    std::vector<int> classes;  // keep only these labels; empty: all
    std::int64_t limit = 0;    // then the first N of the training split; 0: all
    int channels =
        0;           // the model's: a one-channel image is repeated to fill it; 0: as the data are
    int height = 0;  // of images in a folder, resized; 0: as they are
    int width = 0;
    Normalization normalize{};
    double validation_fraction = 0;  // of the training split, drawn by `seed`
    std::uint64_t seed = 0;
    // A target that is no class and does not count; nothing: every integer target is a class.
    std::optional<std::int64_t> ignored_class = -100;
};

}  // namespace ecopipe
