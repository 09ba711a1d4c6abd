#include "stage_runtime/data/augmentation.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/glob.h"
#include "core/log.h"
#include "core/random.h"

namespace ecopipe {
namespace {

constexpr std::uint64_t kPurpose = 0xA463;  // apart from every other use of the seed
constexpr std::int64_t kShiftShare = 8;

struct Image {
    std::int64_t channels, height, width;
};

// out[y][x] = in[y + down][x + right], mirrored before that.
void move_image(float* image, const Image& shape, bool mirror, std::int64_t down,
                std::int64_t right, const std::vector<float>& padding,
                std::vector<float>& scratch) {
    const auto plane = static_cast<std::size_t>(shape.height * shape.width);
    scratch.resize(plane);
    for (std::int64_t c = 0; c < shape.channels; ++c, image += plane) {
        const float black =
            padding.empty() ? 0 : padding[padding.size() == 1 ? 0 : static_cast<std::size_t>(c)];
        for (std::int64_t y = 0; y < shape.height; ++y)
            for (std::int64_t x = 0; x < shape.width; ++x) {
                const std::int64_t from_y = y + down;
                const std::int64_t shifted = x + right;
                const bool inside =
                    from_y >= 0 && from_y < shape.height && shifted >= 0 && shifted < shape.width;
                const std::int64_t from_x = mirror ? shape.width - 1 - shifted : shifted;
                scratch[static_cast<std::size_t>(y * shape.width + x)] =
                    inside ? image[from_y * shape.width + from_x] : black;
            }
        std::copy(scratch.begin(), scratch.end(), image);
    }
}

}  // namespace

Result<Augmentation> parse_augmentation(const std::string& text, const Normalization& normalize) {
    Augmentation out;
    for (const std::string& word : split_patterns(text)) {
        if (word != "flip" && word != "crop")
            return fail(ExitCode::kUsage, fmt::format("--augment: expected flip, crop or both "
                                                      "parted by a comma, found '{}'",
                                                      printable(word)));
        (word == "flip" ? out.flip : out.crop) = true;
    }
    if (!out.any())
        return fail(ExitCode::kUsage, "--augment: expected flip, crop or both, found neither");
    const std::size_t count = std::max(normalize.mean.size(), normalize.deviation.size());
    for (std::size_t c = 0; c < count; ++c) {
        const auto of = [&](const std::vector<float>& list) {
            return list[list.size() == 1 ? 0 : c];
        };
        out.padding.push_back((0 - of(normalize.mean)) / of(normalize.deviation));
    }
    return out;
}

Result<void> check_augmentable(const Dataset& data) {
    const std::int64_t first = 0;
    ECOPIPE_ASSIGN_OR_RETURN(const Batch sample, data.batch({&first, 1}));
    if (sample.inputs.dtype() == DType::kF32 && sample.inputs.shape().size() == 4) return {};
    return fail(ExitCode::kUsage,
                fmt::format("--augment: expected images, found samples of shape {} {}",
                            dtype_name(sample.inputs.dtype()), shape_text(data.sample_shape())));
}

void augment(Batch& batch, std::span<const std::int64_t> indices, const Augmentation& how,
             std::uint64_t seed, std::uint64_t epoch) {
    if (!how.any()) return;
    const Shape& shape = batch.inputs.shape();
    const Image image{shape[1], shape[2], shape[3]};
    const std::int64_t reach_y = std::max<std::int64_t>(1, image.height / kShiftShare);
    const std::int64_t reach_x = std::max<std::int64_t>(1, image.width / kShiftShare);
    const auto each = static_cast<std::size_t>(image.channels * image.height * image.width);
    std::vector<float> scratch;
    for (std::size_t i = 0; i < indices.size(); ++i) {
        Rng rng(keyed_seed(seed, {kPurpose, epoch, static_cast<std::uint64_t>(indices[i])}));
        const auto shift = [&](std::int64_t reach) {
            return static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(2 * reach + 1))) -
                   reach;
        };
        // Every draw is made, so that one augmentation does not change the other.
        const bool mirror = (rng.next() >> 63U) != 0 && how.flip;
        const std::int64_t down = shift(reach_y);
        const std::int64_t right = shift(reach_x);
        move_image(batch.inputs.as<float>().data() + i * each, image, mirror, how.crop ? down : 0,
                   how.crop ? right : 0, how.padding, scratch);
    }
}

}  // namespace ecopipe
