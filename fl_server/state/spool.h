#pragma once
// Updates on disk: a slice's bytes are written as they come while they are checked and hashed; what
// is complete is fsynced. One thread.

#include <functional>
#include <memory>
#include <string>

#include "core/sha256.h"
#include "fl_server/numbers/update_check.h"

namespace ecopipe {

// One slice on its way. Destroyed before `finish`, it leaves no file.
class SpoolWriter {
  public:
    [[nodiscard]] static Result<std::unique_ptr<SpoolWriter>> create(const std::string& path,
                                                                     UpdateCheck check,
                                                                     std::size_t bytes);
    ~SpoolWriter();
    SpoolWriter(const SpoolWriter&) = delete;
    SpoolWriter& operator=(const SpoolWriter&) = delete;

    // The next bytes; false when the disk has no room for them. Errors: kBadFile with a reason to
    // reject the update; kRunFailed when the disk fails.
    [[nodiscard]] Result<bool> append(std::span<const std::byte> bytes);
    [[nodiscard]] std::size_t received() const { return received_; }
    [[nodiscard]] std::size_t expected() const { return expected_; }
    // All bytes are there: compares the hash and fsyncs. As above.
    [[nodiscard]] Result<bool> finish(const std::string& sha256);
    [[nodiscard]] const UpdateMeasure& measure() const { return check_.measure(); }

  private:
    SpoolWriter(int descriptor, std::string path, UpdateCheck check, std::size_t bytes);
    int descriptor_;
    std::string path_;
    UpdateCheck check_;
    Sha256 hash_;
    std::size_t expected_;
    std::size_t received_ = 0;
    bool finished_ = false;
};

class Spool {
  public:
    [[nodiscard]] static Result<Spool> open(const std::string& directory);
    [[nodiscard]] std::string path(const std::string& file) const {
        return directory_ + "/" + file;
    }
    [[nodiscard]] static std::string file_name(std::uint64_t task, std::uint16_t slice);
    // fsyncs the directory: what was created or deleted stays so.
    [[nodiscard]] Result<void> sync() const;
    void remove(const std::string& file) const;
    // Files of updates whose task and name `wanted` does not want.
    [[nodiscard]] Result<void> remove_unless(
        const std::function<Result<bool>(std::uint64_t task, const std::string& file)>& wanted)
        const;
    // Bytes free on the disk, for others than root.
    [[nodiscard]] std::uint64_t free_bytes() const;

  private:
    explicit Spool(std::string directory) : directory_(std::move(directory)) {}
    std::string directory_;
};

}  // namespace ecopipe
