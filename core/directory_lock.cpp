#include "core/directory_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/log.h"

namespace ecopipe {

Result<DirectoryLock> DirectoryLock::take(const std::string& directory, const std::string& what) {
    DirectoryLock lock(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (lock.descriptor_ < 0)
        return fail(ExitCode::kRunFailed, fmt::format("{} {}: cannot be opened: {}", what,
                                                      directory, std::strerror(errno)));
    while (::flock(lock.descriptor_, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR) continue;
        if (errno == EWOULDBLOCK)
            return fail(ExitCode::kUsage,
                        fmt::format("{} {}: another process is at work in it", what, directory));
        log_warn("{} {}: cannot be locked against a second process: {}", what, directory,
                 std::strerror(errno));
        break;
    }
    return lock;
}

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

DirectoryLock& DirectoryLock::operator=(DirectoryLock&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
}

DirectoryLock::~DirectoryLock() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace ecopipe
