#include <fmt/format.h>

#include <filesystem>

#include "core/files.h"
#include "stage_runtime/data/image_dataset.h"

// CIFAR-10's binary version: records of one label byte and 3x32x32 pixel bytes; data_batch_1..5.bin
// and test_batch.bin.
namespace ecopipe {

Result<Images> read_cifar10(const std::string& directory, bool train) {
    constexpr std::size_t kPixels = 3 * 32 * 32;
    constexpr std::size_t kRecord = kPixels + 1;
    constexpr std::size_t kFileBytesMax = 1U << 30;
    constexpr int kClasses = 10;
    std::vector<std::string> names;
    if (train) {
        for (int i = 1; i <= 5; ++i) names.push_back(fmt::format("data_batch_{}.bin", i));
    } else {
        names = {"test_batch.bin"};
    }
    Images out;
    out.shape = {3, 32, 32};
    out.num_classes = kClasses;
    for (const std::string& name : names) {
        const std::string path = (std::filesystem::path(directory) / name).string();
        ECOPIPE_ASSIGN_OR_RETURN(const std::string bytes, read_file(path, kFileBytesMax));
        if (bytes.empty() || bytes.size() % kRecord != 0)
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: expected whole records of {} bytes, found {} bytes", path,
                                    kRecord, bytes.size()));
        for (std::size_t at = 0; at < bytes.size(); at += kRecord) {
            const auto label = static_cast<std::uint8_t>(bytes[at]);
            if (label >= kClasses)
                return fail(ExitCode::kBadFile,
                            fmt::format("{}: record {}: expected a label below {}, found {}", path,
                                        at / kRecord, kClasses, label));
            out.labels.push_back(label);
            const auto* pixels = reinterpret_cast<const std::uint8_t*>(bytes.data()) + at + 1;
            out.pixels.insert(out.pixels.end(), pixels, pixels + kPixels);
        }
    }
    return out;
}

}  // namespace ecopipe
