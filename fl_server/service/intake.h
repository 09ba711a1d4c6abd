#pragma once
// Updates on their way in: an update is announced slice by slice, its chunks are spooled while they
// are checked, and it is complete when all slices of its task are there and cover the model. No
// sockets, no journal. One thread.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fl_server/numbers/aggregator.h"
#include "fl_server/service/limits.h"
#include "fl_server/state/spool.h"
#include "transport/wire/federation_messages.h"

namespace ecopipe {

// What a task's update is held against.
struct ExpectedUpdate {
    std::uint64_t task = 0;
    std::uint64_t base_version = 0;
    BlockSourcePtr base;
    std::uint64_t samples = 0;  // that its cluster has, of which it may claim no more; 0: not told
};

struct CompleteUpdate {
    UpdateSlice first;  // the announcement of its first slice
    UpdateMeasure measure;
    std::string sha256;       // of the slices, in layer order, separated by blanks
    std::string spool;        // file names, likewise
    std::string slice_bytes;  // sizes, likewise
};

// The update as the aggregator reads it, from what a CompleteUpdate says of its files.
[[nodiscard]] Result<CheckedUpdate> open_spooled(const Spool& spool, const std::string& files,
                                                 const std::string& sizes,
                                                 std::uint64_t base_version,
                                                 const UpdateMeasure& measure);

class Intake {
  public:
    // All must outlive it.
    Intake(const ModelLayout& layout, const Spool& spool, const ServerLimits& limits)
        : layout_(layout), spool_(spool), limits_(limits) {}

    struct Announced {
        std::string reason;      // to reject the whole update; "" when it is fine
        std::size_t offset = 0;  // the chunks from here on are wanted
        std::size_t bytes = 0;
    };
    // Again for the same slice: goes on where it was; with another hash: begins anew.
    [[nodiscard]] Result<Announced> announce(const ExpectedUpdate& expected,
                                             const UpdateSlice& slice);

    struct Progress {
        bool known = false;    // the chunk was the next of a slice under way
        std::string reason;    // to reject the whole update
        bool no_room = false;  // the disk is full: what is there of the update is best abandoned
        std::size_t left = 0;  // bytes of the slice still to come
        std::optional<CompleteUpdate> complete;
    };
    [[nodiscard]] Result<Progress> chunk(std::uint64_t task, std::uint16_t slice,
                                         std::size_t offset, std::span<const std::byte> bytes);
    // Forgets a task's slices and deletes their files.
    void abandon(std::uint64_t task);
    [[nodiscard]] std::size_t under_way() const { return tasks_.size(); }
    // That slices under way will still take of the disk.
    [[nodiscard]] std::size_t bytes_to_come() const;

  private:
    struct Slice {
        UpdateSlice announced;
        std::unique_ptr<SpoolWriter> writer;  // null once it is complete
        UpdateMeasure measure;
    };
    using Slices = std::map<std::uint16_t, Slice>;
    [[nodiscard]] std::string problem(const ExpectedUpdate& expected,
                                      const UpdateSlice& slice) const;
    // Why complete slices make no update, "" when they do.
    [[nodiscard]] std::string cover(const Slices& slices) const;

    const ModelLayout& layout_;
    const Spool& spool_;
    const ServerLimits& limits_;
    std::vector<std::byte> scratch_ = std::vector<std::byte>(kBlockBytesMax);
    std::map<std::uint64_t, Slices> tasks_;
};

}  // namespace ecopipe
