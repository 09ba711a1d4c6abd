#include "core/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/log.h"
#include "core/sha256.h"

namespace ecopipe {
namespace {

class Descriptor {
  public:
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    [[nodiscard]] int get() const { return fd_; }

  private:
    int fd_;
};

tl::unexpected<Error> system_failure(ExitCode code, const std::string& path, const char* doing) {
    return fail(code, fmt::format("{}: cannot {}: {}", path, doing, std::strerror(errno)));
}

bool write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
}

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t bytes_max) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file.get() < 0) return system_failure(ExitCode::kBadFile, path, "open");
    struct stat info{};
    if (::fstat(file.get(), &info) != 0) return system_failure(ExitCode::kBadFile, path, "stat");
    if (!S_ISREG(info.st_mode)) return fail(ExitCode::kBadFile, path + ": is not a regular file");
    const auto size = static_cast<std::size_t>(info.st_size);
    if (size > bytes_max)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: expected at most {} bytes, found {}", path, bytes_max, size));
    std::string bytes(size, '\0');
    std::size_t got = 0;
    while (got < size) {
        const ssize_t n = ::read(file.get(), bytes.data() + got, size - got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return system_failure(ExitCode::kBadFile, path, "read");
        if (n == 0) break;
        got += static_cast<std::size_t>(n);
    }
    bytes.resize(got);
    return bytes;
}

Result<void> write_file_atomically(const std::string& path, std::string_view bytes) {
    const std::array<std::string_view, 1> parts{bytes};
    return write_file_atomically(path, parts);
}

Result<void> write_file_atomically(const std::string& path,
                                   std::span<const std::string_view> parts) {
    const std::string temporary = path + ".tmp";
    const auto give_up = [&](const char* doing) {
        auto failure = system_failure(ExitCode::kRunFailed, path, doing);
        ::unlink(temporary.c_str());
        return failure;
    };
    {
        const Descriptor file(
            ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        if (file.get() < 0) return system_failure(ExitCode::kRunFailed, path, "create");
        for (const std::string_view part : parts)
            if (!write_all(file.get(), part)) return give_up("write");
        if (::fsync(file.get()) != 0) return give_up("sync");
    }
    if (::rename(temporary.c_str(), path.c_str()) != 0) return give_up("rename");
    const auto parent = std::filesystem::path(path).parent_path();
    const Descriptor directory(
        ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() >= 0) ::fsync(directory.get());
    return {};
}

Result<void> replace_file(const std::string& path, std::string_view bytes) {
    const std::string temporary = path + ".tmp";
    {
        const Descriptor file(
            ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        if (file.get() < 0) return system_failure(ExitCode::kRunFailed, path, "create");
        if (!write_all(file.get(), bytes)) {
            auto failure = system_failure(ExitCode::kRunFailed, path, "write");
            ::unlink(temporary.c_str());
            return failure;
        }
    }
    if (::rename(temporary.c_str(), path.c_str()) == 0) return {};
    auto failure = system_failure(ExitCode::kRunFailed, path, "rename");
    ::unlink(temporary.c_str());
    return failure;
}

Result<LineAppender> LineAppender::open(const std::string& path) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) return system_failure(ExitCode::kRunFailed, path, "open");
    return LineAppender(fd, path);
}

LineAppender::LineAppender(int descriptor, std::string path)
    : descriptor_(descriptor), path_(std::move(path)) {}
LineAppender::LineAppender(LineAppender&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      waiting_(std::move(other.waiting_)) {}
LineAppender& LineAppender::operator=(LineAppender&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(path_, other.path_);
    std::swap(waiting_, other.waiting_);
    return *this;
}
LineAppender::~LineAppender() {
    if (descriptor_ < 0) return;
    static_cast<void>(flush());
    ::close(descriptor_);
}

Result<void> LineAppender::append(std::string_view line) {
    waiting_.append(line) += '\n';
    return flush();
}

Result<void> LineAppender::flush() {
    std::size_t done = 0;
    while (done < waiting_.size()) {
        const ssize_t n = ::write(descriptor_, waiting_.data() + done, waiting_.size() - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break;
        done += static_cast<std::size_t>(n);
    }
    const bool all = done == waiting_.size();
    waiting_.erase(0, done);
    if (!all) return system_failure(ExitCode::kRunFailed, path_, "write");
    return {};
}

Result<void> make_directories(const std::string& path) {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error)
        return fail(ExitCode::kRunFailed,
                    fmt::format("{}: cannot create: {}", path, error.message()));
    return {};
}

Result<void> make_private_directory(const std::string& path) {
    ECOPIPE_RETURN_IF_ERROR(make_directories(path));
    if (::chmod(path.c_str(), 0700) != 0)
        log_warn("{}: others may read it: {}", path, std::strerror(errno));
    return {};
}

Result<void> make_private_file(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return system_failure(ExitCode::kRunFailed, path, "open");
    if (::fchmod(fd, 0600) != 0) log_warn("{}: others may read it: {}", path, std::strerror(errno));
    ::close(fd);
    return {};
}

std::string sha256_hex(std::string_view bytes) {
    Sha256 hash;
    hash.update(std::as_bytes(std::span(bytes)));
    return hash.hex();
}

}  // namespace ecopipe
