#include "stage_runtime/data/folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "core/files.h"
#include "core/log.h"
#include "stage_runtime/data/picture.h"

namespace ecopipe {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kFilesMax = 10'000'000;
constexpr std::size_t kHeaderBytesMax = 1U << 20;
constexpr std::array<std::string_view, 3> kSplits{"train", "val", "test"};

struct Sample {
    std::string path;
    int label = 0;
};

struct Split {
    std::string path;
    std::vector<std::string> classes;
    std::vector<Sample> samples;
};

class FolderDataset : public Dataset {
  public:
    FolderDataset(Split split, int channels, PictureSize size)
        : split_(std::move(split)), channels_(channels), size_(size) {}
    std::int64_t size() const override { return static_cast<std::int64_t>(split_.samples.size()); }
    Shape sample_shape() const override { return {channels_, size_.height, size_.width}; }
    int num_classes() const override { return static_cast<int>(split_.classes.size()); }
    std::vector<std::string> class_names() const override { return split_.classes; }
    std::int64_t label(std::int64_t index) const override { return sample(index).label; }
    Result<Batch> batch(std::span<const std::int64_t> indices) const override {
        const auto n = static_cast<std::int64_t>(indices.size());
        Batch out{HostTensor::allocate(DType::kF32, {n, channels_, size_.height, size_.width}),
                  HostTensor::allocate(DType::kI64, {n})};
        const std::size_t each = out.inputs.as<float>().size() / indices.size();
        for (std::size_t i = 0; i < indices.size(); ++i) {
            const Sample& from = sample(indices[i]);
            ECOPIPE_ASSIGN_OR_RETURN(const std::string bytes,
                                     read_file(from.path, kPictureFileBytesMax));
            ECOPIPE_ASSIGN_OR_RETURN(const Picture picture,
                                     decode_picture(bytes, channels_, from.path));
            write_resized(picture, size_, out.inputs.as<float>().data() + i * each);
            out.labels.as<std::int64_t>()[i] = from.label;
        }
        return out;
    }

  private:
    [[nodiscard]] const Sample& sample(std::int64_t index) const {
        ECOPIPE_CHECK(index >= 0 && index < size());
        return split_.samples[static_cast<std::size_t>(index)];
    }
    Split split_;
    int channels_;
    PictureSize size_;
};

bool is_picture_name(const std::string& name) {
    std::string extension = fs::path(name).extension().string();
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

// Entries of a directory in byte order, hidden ones left out.
Result<std::vector<fs::path>> entries(const fs::path& directory) {
    std::vector<fs::path> out;
    std::error_code error;
    for (fs::directory_iterator at(directory, error), end; !error && at != end;
         at.increment(error)) {
        if (at->path().filename().string().starts_with('.')) continue;
        out.push_back(at->path());
        if (out.size() > kFilesMax)
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: holds more than {} files", directory.string(), kFilesMax));
    }
    if (error)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: cannot be read: {}", directory.string(), error.message()));
    std::sort(out.begin(), out.end());
    return out;
}

Result<Split> list_split(const fs::path& directory) {
    Split split;
    split.path = directory.string();
    ECOPIPE_ASSIGN_OR_RETURN(const auto classes, entries(directory));
    std::vector<std::vector<std::string>> files;
    std::size_t most = 0;
    for (const fs::path& one : classes) {
        if (!fs::is_directory(one))
            return fail(
                ExitCode::kBadFile,
                fmt::format("{}: expected a directory for each class, found a file", one.string()));
        split.classes.push_back(one.filename().string());
        files.emplace_back();
        ECOPIPE_ASSIGN_OR_RETURN(const auto here, entries(one));
        for (const fs::path& file : here) {
            if (!is_picture_name(file.string()) || !fs::is_regular_file(file))
                return fail(ExitCode::kBadFile,
                            fmt::format("{}: expected a .jpg or .png file", file.string()));
            files.back().push_back(file.string());
        }
        most = std::max(most, files.back().size());
        if (files.back().empty() && directory.filename() == "train")
            return fail(ExitCode::kBadFile, fmt::format("{}: holds no pictures", one.string()));
    }
    for (std::size_t turn = 0; turn < most; ++turn)
        for (std::size_t c = 0; c < files.size(); ++c)
            if (turn < files[c].size())
                split.samples.push_back({std::move(files[c][turn]), static_cast<int>(c)});
    if (split.samples.empty())
        return fail(ExitCode::kBadFile, fmt::format("{}: holds no pictures", directory.string()));
    return split;
}

// A split under another name would be left out without a word.
Result<void> check_split_names(const fs::path& directory) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto found, entries(directory));
    for (const fs::path& one : found)
        if (fs::is_directory(one) &&
            std::find(kSplits.begin(), kSplits.end(), one.filename().string()) == kSplits.end())
            return fail(ExitCode::kBadFile, fmt::format("{}: expected the directories {}",
                                                        one.string(), fmt::join(kSplits, ", ")));
    return {};
}

// From the first bytes, unless a header is longer (previews, depth maps) or `exactly` is asked for,
// which a PNG's orientation behind its pixels decides.
Result<PictureSize> size_of_file(const std::string& path, bool exactly) {
    std::ifstream file(path, std::ios::binary);
    std::string bytes(kHeaderBytesMax, '\0');
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    bytes.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
    const auto size = picture_size(bytes, path);
    const bool complete = bytes.size() < kHeaderBytesMax;
    if (complete || (size && (!exactly || size->height == size->width))) return size;
    ECOPIPE_ASSIGN_OR_RETURN(const std::string all, read_file(path, kPictureFileBytesMax));
    return picture_size(all, path);
}

// Reads every header; `size` is filled from the first when it is not given.
Result<void> check_headers(const Split& split, bool resized, PictureSize& size) {
    for (const Sample& sample : split.samples) {
        ECOPIPE_ASSIGN_OR_RETURN(const PictureSize found, size_of_file(sample.path, !resized));
        if (resized) continue;
        if (size.height == 0) size = found;
        if (size.height != found.height || size.width != found.width)
            return fail(
                ExitCode::kUsage,
                fmt::format("{}: expected {}x{} as the first picture, found {}x{}; give "
                            "--resize HxW",
                            sample.path, size.height, size.width, found.height, found.width));
    }
    return {};
}

Result<void> check_classes(const Split& train, const Split& other) {
    if (train.classes == other.classes) return {};
    std::vector<std::string> differ;
    std::set_symmetric_difference(train.classes.begin(), train.classes.end(), other.classes.begin(),
                                  other.classes.end(), std::back_inserter(differ));
    return fail(ExitCode::kBadFile,
                fmt::format("{}: expected the {} classes of {}, found {}; {} is in one alone",
                            other.path, train.classes.size(), train.path, other.classes.size(),
                            printable(differ.front())));
}

}  // namespace

Result<DataSplits> open_folder(const std::string& directory, const DataOptions& options) {
    if (options.channels != 0 && options.channels != 1 && options.channels != 3)
        return fail(ExitCode::kUsage,
                    fmt::format("--data folder: pictures have 1 or 3 channels, the model needs {}",
                                options.channels));
    const int channels = options.channels == 1 ? 1 : 3;
    PictureSize size{options.height, options.width};
    const bool resized = options.height > 0;
    ECOPIPE_RETURN_IF_ERROR(check_split_names(directory));
    std::vector<Split> found;
    std::vector<std::string> names;
    for (const std::string_view name : kSplits) {
        const fs::path path = fs::path(directory) / name;
        if (!found.empty() && !fs::exists(path)) continue;
        ECOPIPE_ASSIGN_OR_RETURN(Split split, list_split(path));
        ECOPIPE_RETURN_IF_ERROR(check_headers(split, resized, size));
        if (!found.empty()) ECOPIPE_RETURN_IF_ERROR(check_classes(found.front(), split));
        found.push_back(std::move(split));
        names.emplace_back(name);
    }
    DataSplits splits;
    for (std::size_t i = 0; i < found.size(); ++i) {
        auto& target = names[i] == "train" ? splits.train
                       : names[i] == "val" ? splits.validation
                                           : splits.test;
        target = std::make_unique<FolderDataset>(std::move(found[i]), channels, size);
    }
    return splits;
}

}  // namespace ecopipe
