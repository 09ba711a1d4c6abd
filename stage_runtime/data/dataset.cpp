#include "stage_runtime/data/dataset.h"

#include <fmt/format.h>

#include <numeric>

#include "core/log.h"
#include "core/random.h"
#include "stage_runtime/data/image_dataset.h"

namespace ecopipe {
namespace {

// Where the Debian package dataset-fashion-mnist puts its files.
constexpr const char* kFashionMnist = "/usr/share/datasets/fashion-mnist";

Result<Images> read_images(const std::string& spec, bool train) {
    const std::size_t colon = spec.find(':');
    const std::string format = spec.substr(0, colon);
    const std::string rest = colon == std::string::npos ? "" : spec.substr(colon + 1);
    if (spec == "fashion-mnist") {
        auto images = read_idx(kFashionMnist, train);
        if (!images) images.error().message += " (apt install dataset-fashion-mnist)";
        return images;
    }
    if (!rest.empty() && format == "idx") return read_idx(rest, train);
    if (!rest.empty() && format == "cifar10") return read_cifar10(rest, train);
    if (!rest.empty() && format == "synthetic") return make_synthetic(rest, train);
    return fail(ExitCode::kUsage, fmt::format("--data: expected fashion-mnist, idx:DIR, "
                                              "cifar10:DIR or synthetic:CxHxW:CLASSES:COUNT, "
                                              "found '{}'",
                                              printable(spec)));
}

}  // namespace

Result<std::unique_ptr<Dataset>> open_test_data(const std::string& spec,
                                                const DataOptions& options) {
    ECOPIPE_ASSIGN_OR_RETURN(Images images, read_images(spec, false));
    return make_image_dataset(std::move(images), options, false);
}

Result<DataSplits> open_data(const std::string& spec, const DataOptions& options) {
    ECOPIPE_ASSIGN_OR_RETURN(Images train, read_images(spec, true));
    ECOPIPE_ASSIGN_OR_RETURN(Images test, read_images(spec, false));
    if (train.shape != test.shape)
        return fail(ExitCode::kBadFile,
                    fmt::format("--data {}: training images are {}, test images {}", spec,
                                shape_text(train.shape), shape_text(test.shape)));
    train.num_classes = test.num_classes = std::max(train.num_classes, test.num_classes);
    DataSplits splits;
    ECOPIPE_ASSIGN_OR_RETURN(splits.train, make_image_dataset(std::move(train), options, true));
    ECOPIPE_ASSIGN_OR_RETURN(splits.test, make_image_dataset(std::move(test), options, false));
    return splits;
}

std::vector<std::int64_t> epoch_order(std::int64_t samples, std::uint64_t seed, std::uint64_t epoch,
                                      bool shuffle) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(samples));
    std::iota(order.begin(), order.end(), 0);
    if (shuffle) {
        constexpr std::uint64_t kPurpose = 0xEC0C;  // apart from every other use of the seed
        Rng rng(keyed_seed(seed, {kPurpose, epoch}));
        rng.shuffle(order);
    }
    return order;
}

}  // namespace ecopipe
