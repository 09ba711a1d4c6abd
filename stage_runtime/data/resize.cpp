#include <algorithm>
#include <cmath>

#include "stage_runtime/data/picture.h"

namespace ecopipe {
namespace {

// Where an output pixel comes from: `weights` over source pixels from `first` on.
struct Taps {
    std::size_t first = 0;
    std::vector<float> weights;
};

std::vector<Taps> taps(int from, int to) {
    std::vector<Taps> out(static_cast<std::size_t>(to));
    const double scale = static_cast<double>(from) / to;
    const double reach = std::max(scale, 1.0);
    for (int i = 0; i < to; ++i) {
        const double centre = (i + 0.5) * scale;
        const int first = std::max(0, static_cast<int>(centre - reach + 0.5));
        const int end = std::min(from, static_cast<int>(centre + reach + 0.5));
        std::vector<double> weights;
        double sum = 0;
        for (int x = first; x < end; ++x) {
            weights.push_back(std::max(0.0, 1 - std::abs((x + 0.5 - centre) / reach)));
            sum += weights.back();
        }
        Taps& here = out[static_cast<std::size_t>(i)];
        here.first = static_cast<std::size_t>(first);
        for (const double weight : weights)
            here.weights.push_back(static_cast<float>(weight / sum));
    }
    return out;
}

}  // namespace

void write_resized(const Picture& picture, PictureSize size, float* out) {
    const auto channels = static_cast<std::size_t>(picture.channels);
    const auto width_in = static_cast<std::size_t>(picture.size.width);
    const auto height_in = static_cast<std::size_t>(picture.size.height);
    const auto width = static_cast<std::size_t>(size.width);
    const auto height = static_cast<std::size_t>(size.height);
    const auto pixel = [&](std::size_t y, std::size_t x, std::size_t c) {
        return static_cast<float>(picture.pixels[(y * width_in + x) * channels + c]);
    };
    if (width == width_in && height == height_in) {
        for (std::size_t c = 0; c < channels; ++c)
            for (std::size_t y = 0; y < height; ++y)
                for (std::size_t x = 0; x < width; ++x) *out++ = pixel(y, x, c) / 255.0F;
        return;
    }
    const std::vector<Taps> across = taps(picture.size.width, size.width);
    const std::vector<Taps> down = taps(picture.size.height, size.height);
    std::vector<float> rows(height_in * width);  // one channel, resized across
    for (std::size_t c = 0; c < channels; ++c) {
        for (std::size_t y = 0; y < height_in; ++y)
            for (std::size_t x = 0; x < width; ++x) {
                float sum = 0;
                for (std::size_t t = 0; t < across[x].weights.size(); ++t)
                    sum += across[x].weights[t] * pixel(y, across[x].first + t, c);
                rows[y * width + x] = sum;
            }
        for (std::size_t y = 0; y < height; ++y)
            for (std::size_t x = 0; x < width; ++x) {
                float sum = 0;
                for (std::size_t t = 0; t < down[y].weights.size(); ++t)
                    sum += down[y].weights[t] * rows[(down[y].first + t) * width + x];
                *out++ = std::clamp(sum / 255.0F, 0.0F, 1.0F);
            }
    }
}

}  // namespace ecopipe
