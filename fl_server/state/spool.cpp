#include "fl_server/state/spool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "core/files.h"

namespace ecopipe {
namespace {

tl::unexpected<Error> system_error(const std::string& path, const char* doing) {
    return fail(ExitCode::kRunFailed,
                fmt::format("{}: cannot {}: {}", path, doing, std::strerror(errno)));
}

bool disk_is_full() { return errno == ENOSPC || errno == EDQUOT; }

}  // namespace

SpoolWriter::SpoolWriter(int descriptor, std::string path, UpdateCheck check, std::size_t bytes)
    : descriptor_(descriptor), path_(std::move(path)), check_(std::move(check)), expected_(bytes) {}

SpoolWriter::~SpoolWriter() {
    ::close(descriptor_);
    if (!finished_) ::unlink(path_.c_str());
}

Result<std::unique_ptr<SpoolWriter>> SpoolWriter::create(const std::string& path, UpdateCheck check,
                                                         std::size_t bytes) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return system_error(path, "create");
    return std::unique_ptr<SpoolWriter>(new SpoolWriter(fd, path, std::move(check), bytes));
}

Result<bool> SpoolWriter::append(std::span<const std::byte> bytes) {
    ECOPIPE_RETURN_IF_ERROR(check_.feed(bytes));
    hash_.update(bytes);
    for (std::size_t done = 0; done < bytes.size();) {
        const ssize_t n = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && disk_is_full()) return false;
        if (n < 0) return system_error(path_, "write");
        done += static_cast<std::size_t>(n);
    }
    // On its way to the disk while the rest comes, so that the sync at the end has little to wait
    // for. Where it fails, that one waits longer.
    ::sync_file_range(descriptor_, 0, 0, SYNC_FILE_RANGE_WRITE);
    received_ += bytes.size();
    return true;
}

Result<bool> SpoolWriter::finish(const std::string& sha256) {
    if (hash_.hex() != sha256)
        return fail(ExitCode::kBadFile, "its bytes do not have the hash announced");
    if (::fdatasync(descriptor_) != 0) {
        if (disk_is_full()) return false;
        return system_error(path_, "sync");
    }
    finished_ = true;
    return true;
}

Result<Spool> Spool::open(const std::string& directory) {
    ECOPIPE_RETURN_IF_ERROR(make_private_directory(directory));
    return Spool(directory);
}

std::string Spool::file_name(std::uint64_t task, std::uint16_t slice) {
    return fmt::format("{}.{}", task, slice);
}

Result<void> Spool::sync() const {
    const int fd = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return system_error(directory_, "open");
    const int code = ::fsync(fd);
    ::close(fd);
    if (code != 0) return system_error(directory_, "sync");
    return {};
}

void Spool::remove(const std::string& file) const { ::unlink(path(file).c_str()); }

Result<void> Spool::remove_unless(
    const std::function<Result<bool>(std::uint64_t task, const std::string& file)>& wanted) const {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(directory_, ignored)) {
        const std::string file = entry.path().filename().string();
        std::uint64_t task = 0;
        std::from_chars(file.data(), file.data() + file.size(), task);
        ECOPIPE_ASSIGN_OR_RETURN(const bool stays, wanted(task, file));
        if (!stays) std::filesystem::remove(entry.path(), ignored);
    }
    return {};
}

std::uint64_t Spool::free_bytes() const {
    struct statvfs facts{};
    if (::statvfs(directory_.c_str(), &facts) != 0) return 0;
    return static_cast<std::uint64_t>(facts.f_bavail) * facts.f_frsize;
}

}  // namespace ecopipe
