#pragma once
// Images as bytes in memory, handed out as floats in [0, 1]: what every image format reads into.

#include "stage_runtime/data/data_options.h"
#include "stage_runtime/data/dataset.h"

namespace ecopipe {

struct Images {
    Shape shape;  // [channels, height, width]
    int num_classes = 0;
    std::vector<std::uint8_t> pixels;  // [n, channels, height, width]
    std::vector<std::uint8_t> labels;  // [n]

    [[nodiscard]] std::size_t sample_bytes() const {
        return static_cast<std::size_t>(shape[0] * shape[1] * shape[2]);
    }
};

// Keeps `options.classes`, then the first `options.limit` (when `limited`), and repeats one channel
// or makes three grey, as asked. Errors: kUsage when nothing is left or a class does not exist.
[[nodiscard]] Result<std::unique_ptr<Dataset>> make_image_dataset(Images images,
                                                                  const DataOptions& options,
                                                                  bool limited);

// The formats. `train` picks the split.
[[nodiscard]] Result<Images> read_idx(const std::string& directory, bool train);
[[nodiscard]] Result<Images> read_cifar10(const std::string& directory, bool train);
// `text`: CxHxW:CLASSES:COUNT. Class patterns plus noise, learnable, the same on every machine.
[[nodiscard]] Result<Images> make_synthetic(const std::string& text, bool train);

}  // namespace ecopipe
