#include "stage_runtime/data/image_dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "stage_runtime/data/grey.h"

namespace ecopipe {
namespace {

class ImageDataset : public Dataset {
  public:
    ImageDataset(Images images, std::int64_t repeat)
        : images_(std::move(images)), repeat_(repeat) {}

    std::int64_t size() const override { return static_cast<std::int64_t>(images_.labels.size()); }
    Shape sample_shape() const override {
        return {images_.shape[0] * repeat_, images_.shape[1], images_.shape[2]};
    }
    int num_classes() const override { return images_.num_classes; }
    std::int64_t label(std::int64_t index) const override {
        return images_.labels[static_cast<std::size_t>(index)];
    }
    Result<Batch> batch(std::span<const std::int64_t> indices) const override {
        const auto n = static_cast<std::int64_t>(indices.size());
        Shape shape = sample_shape();
        shape.insert(shape.begin(), n);
        Batch out{HostTensor::allocate(DType::kF32, shape), HostTensor::allocate(DType::kI64, {n})};
        float* pixels = out.inputs.as<float>().data();
        std::int64_t* labels = out.labels.as<std::int64_t>().data();
        const std::size_t bytes = images_.sample_bytes();
        for (const std::int64_t index : indices) {
            ECOPIPE_CHECK(index >= 0 && index < size());
            const std::uint8_t* source =
                images_.pixels.data() + static_cast<std::size_t>(index) * bytes;
            for (std::int64_t r = 0; r < repeat_; ++r)
                for (std::size_t i = 0; i < bytes; ++i)
                    *pixels++ = static_cast<float>(source[i]) / 255.0F;
            *labels++ = label(index);
        }
        return out;
    }

  private:
    Images images_;
    std::int64_t repeat_;
};

// Three planes of colour to one of grey, in place.
void make_grey(Images& images) {
    const std::size_t plane = images.sample_bytes() / 3;
    for (std::size_t sample = 0; sample < images.labels.size(); ++sample) {
        const std::uint8_t* from = images.pixels.data() + sample * plane * 3;
        std::uint8_t* to = images.pixels.data() + sample * plane;
        for (std::size_t i = 0; i < plane; ++i)
            to[i] = grey_of(from[i], from[plane + i], from[2 * plane + i]);
    }
    images.pixels.resize(images.labels.size() * plane);
    images.shape[0] = 1;
}

}  // namespace

Result<std::unique_ptr<Dataset>> make_image_dataset(Images images, const DataOptions& options,
                                                    bool limited) {
    for (const int wanted : options.classes)
        if (wanted < 0 || wanted >= images.num_classes)
            return fail(ExitCode::kUsage,
                        fmt::format("--classes: expected labels from 0 to {}, found {}",
                                    images.num_classes - 1, wanted));
    const std::size_t bytes = images.sample_bytes();
    const std::size_t most = limited && options.limit > 0 ? static_cast<std::size_t>(options.limit)
                                                          : images.labels.size();
    std::size_t kept = 0;
    for (std::size_t i = 0; i < images.labels.size() && kept < most; ++i) {
        const int label = images.labels[i];
        const bool wanted = options.classes.empty() ||
                            std::find(options.classes.begin(), options.classes.end(), label) !=
                                options.classes.end();
        if (!wanted) continue;
        if (kept != i)
            std::memcpy(images.pixels.data() + kept * bytes, images.pixels.data() + i * bytes,
                        bytes);
        images.labels[kept++] = static_cast<std::uint8_t>(label);
    }
    if (kept == 0) return fail(ExitCode::kUsage, "--data: no sample is left to train or test on");
    images.labels.resize(kept);
    images.pixels.resize(kept * bytes);
    if (options.channels == 1 && images.shape[0] == 3) make_grey(images);
    const std::int64_t repeat = options.channels > 1 && images.shape[0] == 1
                                    ? static_cast<std::int64_t>(options.channels)
                                    : 1;
    return std::make_unique<ImageDataset>(std::move(images), repeat);
}

}  // namespace ecopipe
