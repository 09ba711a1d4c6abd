#include <fmt/format.h>
#include <zlib.h>

#include <array>
#include <cstring>
#include <filesystem>

#include "stage_runtime/data/image_dataset.h"

// IDX, the format of MNIST: two zero bytes, the element type (8: unsigned byte), the rank,
// big-endian 32-bit dimensions, then the elements. Files may be gzipped.
namespace ecopipe {
namespace {

constexpr std::uint64_t kBytesMax = 8ULL << 30;

struct Idx {
    std::vector<std::uint32_t> shape;
    std::vector<std::uint8_t> bytes;
};

class GzFile {  // reads plain files as they are
  public:
    explicit GzFile(const std::string& path) : file_(::gzopen(path.c_str(), "rb")) {}
    GzFile(const GzFile&) = delete;
    GzFile& operator=(const GzFile&) = delete;
    ~GzFile() {
        if (file_ != nullptr) ::gzclose(file_);
    }
    [[nodiscard]] bool ok() const { return file_ != nullptr; }
    // Bytes read before the end of the file or a broken stream.
    [[nodiscard]] std::size_t read(std::uint8_t* out, std::size_t size) {
        std::size_t got = 0;
        while (got < size) {
            const auto part = static_cast<unsigned>(std::min<std::size_t>(size - got, 1U << 30));
            const int n = ::gzread(file_, out + got, part);
            if (n <= 0) break;
            got += static_cast<std::size_t>(n);
        }
        return got;
    }

  private:
    gzFile file_;
};

Result<Idx> read_idx_file(const std::string& path, std::size_t rank) {
    const auto bad = [&](const std::string& problem) {
        return fail(ExitCode::kBadFile, fmt::format("{}: {}", path, problem));
    };
    GzFile file(path);
    if (!file.ok()) return bad("cannot open");
    std::array<std::uint8_t, 4> magic{};
    if (file.read(magic.data(), 4) != 4) return bad("is too short for an IDX header");
    if (magic[0] != 0 || magic[1] != 0 || magic[2] != 8 || magic[3] != rank)
        return bad(fmt::format(
            "expected an IDX file of unsigned bytes of rank {}, found another header", rank));
    Idx idx;
    std::uint64_t total = 1;
    for (std::size_t i = 0; i < rank; ++i) {
        std::array<std::uint8_t, 4> word{};
        if (file.read(word.data(), 4) != 4) return bad("is too short for an IDX header");
        const std::uint32_t dimension = (std::uint32_t{word[0]} << 24) |
                                        (std::uint32_t{word[1]} << 16) |
                                        (std::uint32_t{word[2]} << 8) | word[3];
        idx.shape.push_back(dimension);
        if (dimension == 0 || total > kBytesMax / dimension)
            return bad("its header claims an absurd size");
        total *= dimension;
    }
    // Grow with what is really there: a header alone never makes us allocate its claim.
    constexpr std::size_t kStep = 16U << 20;
    while (idx.bytes.size() < total) {
        const std::size_t have = idx.bytes.size();
        const std::size_t step = std::min<std::size_t>(kStep, total - have);
        idx.bytes.resize(have + step);
        const std::size_t got = file.read(idx.bytes.data() + have, step);
        if (got != step)
            return bad(fmt::format("is truncated: expected {} bytes of data, found {}", total,
                                   have + got));
    }
    std::uint8_t extra = 0;
    if (file.read(&extra, 1) != 0) return bad("has bytes after its data");
    return idx;
}

std::string existing(const std::string& directory, const std::string& name) {
    const std::string plain = (std::filesystem::path(directory) / name).string();
    return std::filesystem::exists(plain) ? plain : plain + ".gz";
}

}  // namespace

Result<Images> read_idx(const std::string& directory, bool train) {
    const std::string prefix = train ? "train" : "t10k";
    const std::string image_path = existing(directory, prefix + "-images-idx3-ubyte");
    const std::string label_path = existing(directory, prefix + "-labels-idx1-ubyte");
    ECOPIPE_ASSIGN_OR_RETURN(Idx images, read_idx_file(image_path, 3));
    ECOPIPE_ASSIGN_OR_RETURN(Idx labels, read_idx_file(label_path, 1));
    if (images.shape[0] != labels.shape[0])
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: expected {} labels as there are images, found {}", label_path,
                                images.shape[0], labels.shape[0]));
    Images out;
    out.shape = {1, images.shape[1], images.shape[2]};
    out.pixels = std::move(images.bytes);
    out.labels = std::move(labels.bytes);
    for (const std::uint8_t label : out.labels)
        out.num_classes = std::max(out.num_classes, label + 1);
    return out;
}

}  // namespace ecopipe
