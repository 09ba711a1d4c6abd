#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "core/log.h"
#include "core/random.h"
#include "stage_runtime/data/image_dataset.h"

namespace ecopipe {

Result<Images> make_synthetic(const std::string& text, bool train) {
    constexpr long kSideMax = 4096;
    constexpr long kCountMax = 100'000'000;
    constexpr std::size_t kBytesMax = 8ULL << 30;
    constexpr std::string_view kSeparators = "xx::";
    std::array<long, 5> numbers{};
    bool whole = true;
    const char* at = text.data();
    const char* const end = at + text.size();
    for (std::size_t i = 0; whole && i < numbers.size(); ++i) {
        const auto [stop, error] = std::from_chars(at, end, numbers[i]);
        const bool last = i == kSeparators.size();
        whole =
            error == std::errc() && (last ? stop == end : stop != end && *stop == kSeparators[i]);
        at = last ? stop : stop + 1;
    }
    const auto [c, h, w, classes, count] = numbers;
    const auto within = [](long v, long high) { return v >= 1 && v <= high; };
    if (!whole || !within(c, kSideMax) || !within(h, kSideMax) || !within(w, kSideMax) ||
        !within(classes, 255) || !within(count, kCountMax))
        return fail(
            ExitCode::kUsage,
            fmt::format(
                "--data: expected synthetic:CxHxW:CLASSES:COUNT with at most 255 classes, found "
                "'synthetic:{}'",
                printable(text)));
    Images out;
    out.shape = {c, h, w};
    out.num_classes = static_cast<int>(classes);
    const long samples = std::max(1L, train ? count : count / 5);
    const std::size_t bytes = out.sample_bytes();
    if (bytes > kBytesMax / static_cast<std::size_t>(samples))
        return fail(ExitCode::kUsage, "--data: synthetic data above 8 GiB");
    out.pixels.resize(static_cast<std::size_t>(samples) * bytes);
    out.labels.resize(static_cast<std::size_t>(samples));
    std::vector<std::vector<std::uint8_t>> patterns(static_cast<std::size_t>(classes));
    for (std::size_t k = 0; k < patterns.size(); ++k) {
        Rng rng(keyed_seed(k, "synthetic pattern"));
        patterns[k].resize(bytes);
        for (auto& pixel : patterns[k]) pixel = static_cast<std::uint8_t>(rng.below(128));
    }
    for (std::size_t i = 0; i < out.labels.size(); ++i) {
        Rng rng(keyed_seed(i, train ? "synthetic train" : "synthetic test"));
        out.labels[i] = static_cast<std::uint8_t>(rng.below(static_cast<std::uint64_t>(classes)));
        const auto& pattern = patterns[out.labels[i]];
        for (std::size_t p = 0; p < bytes; ++p)
            out.pixels[i * bytes + p] = static_cast<std::uint8_t>(pattern[p] + rng.below(128));
    }
    return out;
}

}  // namespace ecopipe
