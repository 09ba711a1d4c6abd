#include "fl_server/numbers/block_source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/check.h"

namespace ecopipe {
namespace {

class MemorySource : public BlockSource {
  public:
    explicit MemorySource(std::shared_ptr<const std::string> bytes) : bytes_(std::move(bytes)) {}

    Result<std::span<const std::byte>> read(std::size_t offset, std::size_t size,
                                            std::size_t alignment,
                                            std::span<std::byte> scratch) const override {
        ECOPIPE_CHECK(offset + size <= bytes_->size());
        const auto view = std::as_bytes(std::span(*bytes_)).subspan(offset, size);
        if (reinterpret_cast<std::uintptr_t>(view.data()) % alignment == 0) return view;
        std::memcpy(scratch.data(), view.data(), size);
        return scratch.first(size);
    }

  private:
    std::shared_ptr<const std::string> bytes_;
};

class FileSource : public BlockSource {
  public:
    FileSource(int descriptor, std::string path, std::size_t data_offset)
        : descriptor_(descriptor), path_(std::move(path)), data_offset_(data_offset) {}
    ~FileSource() override { ::close(descriptor_); }
    FileSource(const FileSource&) = delete;
    FileSource& operator=(const FileSource&) = delete;

    Result<std::span<const std::byte>> read(std::size_t offset, std::size_t size, std::size_t,
                                            std::span<std::byte> scratch) const override {
        ECOPIPE_CHECK(size <= scratch.size());
        for (std::size_t got = 0; got < size;) {
            const ssize_t n = ::pread(descriptor_, scratch.data() + got, size - got,
                                      static_cast<off_t>(data_offset_ + offset + got));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0)
                return fail(ExitCode::kBadFile,
                            fmt::format("{}: {} at byte {}", path_,
                                        n == 0 ? "ends" : std::strerror(errno), offset + got));
            got += static_cast<std::size_t>(n);
        }
        return scratch.first(size);
    }

  private:
    int descriptor_;
    std::string path_;
    std::size_t data_offset_;
};

class JoinedSource : public BlockSource {
  public:
    explicit JoinedSource(std::vector<std::pair<BlockSourcePtr, std::size_t>> parts)
        : parts_(std::move(parts)) {}

    Result<std::span<const std::byte>> read(std::size_t offset, std::size_t size,
                                            std::size_t alignment,
                                            std::span<std::byte> scratch) const override {
        for (std::size_t p = 0; p < parts_.size(); ++p) {
            const auto& [part, bytes] = parts_[p];
            if (offset >= bytes) {
                offset -= bytes;
                continue;
            }
            if (size <= bytes - offset) return part->read(offset, size, alignment, scratch);
            const std::size_t head = bytes - offset;
            ECOPIPE_ASSIGN_OR_RETURN(auto first,
                                     part->read(offset, head, alignment, scratch.first(head)));
            std::memmove(scratch.data(), first.data(), head);
            std::vector<std::byte> rest(size - head);
            const JoinedSource tail(
                {parts_.begin() + static_cast<std::ptrdiff_t>(p) + 1, parts_.end()});
            ECOPIPE_ASSIGN_OR_RETURN(auto second, tail.read(0, size - head, 1, rest));
            std::memcpy(scratch.data() + head, second.data(), size - head);
            return scratch.first(size);
        }
        return fail(ExitCode::kBadFile, "an update's slices end early");
    }

  private:
    std::vector<std::pair<BlockSourcePtr, std::size_t>> parts_;
};

}  // namespace

BlockSourcePtr memory_source(std::shared_ptr<const std::string> bytes) {
    return std::make_shared<MemorySource>(std::move(bytes));
}

Result<BlockSourcePtr> file_source(const std::string& path, std::size_t data_offset) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
    return BlockSourcePtr(std::make_shared<FileSource>(fd, path, data_offset));
}

BlockSourcePtr joined_source(std::vector<std::pair<BlockSourcePtr, std::size_t>> parts) {
    if (parts.size() == 1) return parts.front().first;
    return std::make_shared<JoinedSource>(std::move(parts));
}

}  // namespace ecopipe
