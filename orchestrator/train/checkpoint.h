#pragma once
// A training's state on disk: DIR/checkpoints/step-N.checkpoint. Torch-free.
//
// Layout: "ECOCKPT" and a version byte, the header's length (u32) and CRC-32C (u32), the header in
// JSON (step, flags, every tensor's name, dtype, shape, place and CRC-32C), the tensors' bytes.
// Little-endian. A file is written beside its place, fsynced and renamed, so it is there whole or
// not at all; a bit that flips later shows in a checksum.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "core/host_tensor.h"
#include "core/result.h"
#include "core/strict_json.h"
#include "orchestrator/train/validation_history.h"

namespace ecopipe {

struct Checkpoint {
    std::uint64_t step = 0;  // committed steps; the data cursor follows from it
    OrderedJson flags;       // of the run, those that bytes depend on
    ValidationHistory validation;
    TensorMap state;  // weights, buffers, moments
};

// Errors: kRunFailed naming the file and what the system says; earlier files are untouched.
[[nodiscard]] Result<void> write_checkpoint(const std::string& path, const Checkpoint& checkpoint);
// Errors: kBadFile for a file that is cut short, damaged or no checkpoint; kMismatch for one of a
// newer version.
[[nodiscard]] Result<Checkpoint> read_checkpoint(const std::string& path);

// The checkpoints of one run.
class CheckpointStore {
  public:
    explicit CheckpointStore(std::string directory) : directory_(std::move(directory)) {}
    // Writes one and removes all but the newest two.
    [[nodiscard]] Result<void> write(const Checkpoint& checkpoint) const;
    // The newest that is valid; `skipped` is told of each that is not. Nothing when there is none.
    // Errors: kMismatch, since a newer program's checkpoint must not be passed over.
    [[nodiscard]] Result<std::optional<Checkpoint>> newest(
        const std::function<void(const std::string& why)>& skipped) const;

  private:
    std::string directory_;
};

}  // namespace ecopipe
