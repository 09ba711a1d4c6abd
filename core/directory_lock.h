#pragma once
// One process at a time owns a directory: the state of a federation, the files of a run.

#include <string>

#include "core/result.h"

namespace ecopipe {

// Held until it is destroyed or the process ends, however it ends; children do not inherit it. It
// leaves no file (flock(2) on the directory itself).
class DirectoryLock {
  public:
    // `what` names the directory in a refusal: "--state". Errors: kUsage when another process (or
    // another lock of this one) holds it. On a file system that has no locks nothing is held.
    [[nodiscard]] static Result<DirectoryLock> take(const std::string& directory,
                                                    const std::string& what);
    DirectoryLock(DirectoryLock&& other) noexcept;
    DirectoryLock& operator=(DirectoryLock&& other) noexcept;
    ~DirectoryLock();

  private:
    explicit DirectoryLock(int descriptor) : descriptor_(descriptor) {}
    int descriptor_;
};

}  // namespace ecopipe
