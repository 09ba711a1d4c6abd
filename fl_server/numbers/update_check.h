#pragma once
// Measures one update against its base while its bytes stream by: every value finite, how far the
// farthest element moved, no variance below 0, no counter that leaps, the norm of the parameters'
// delta. Pure.

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "fl_server/numbers/block_source.h"
#include "fl_server/numbers/model_layout.h"

namespace ecopipe {

// Of a whole update or of one slice of it; those of slices add up.
struct UpdateMeasure {
    double squared_norm = 0;   // of the parameters' delta, buffers left out
    double parameter_max = 0;  // largest |delta| of a parameter
    double buffer_max = 0;

    // Deterministic when called in slice order.
    void add(const UpdateMeasure& other);
};

class UpdateCheck {
  public:
    // The flat bytes [begin, end) of a model; `begin` is a tensor's first byte. `scratch` outlives
    // it, has kBlockBytesMax, and may serve any number of checks: it holds nothing between calls.
    UpdateCheck(const ModelLayout& layout, BlockSourcePtr base, std::size_t begin, std::size_t end,
                std::span<std::byte> scratch);

    // The next bytes, in order, cut anywhere. Errors: kBadFile with the reason for a rejection
    // (naming the tensor), which ends the check; kRunFailed when the base cannot be read.
    [[nodiscard]] Result<void> feed(std::span<const std::byte> bytes);
    [[nodiscard]] bool complete() const { return at_ == end_; }
    [[nodiscard]] const UpdateMeasure& measure() const { return measure_; }

  private:
    [[nodiscard]] Result<void> check(const Block& block, const std::byte* update);

    const ModelLayout& layout_;
    BlockSourcePtr base_;
    std::size_t end_;
    std::size_t at_;              // bytes before this are checked or in pending_
    std::size_t next_block_ = 0;  // index of the block that at_ is in
    std::vector<std::byte> pending_;
    std::span<std::byte> scratch_;
    UpdateMeasure measure_;
};

// A whole update at once, as the simulator has it.
[[nodiscard]] Result<UpdateMeasure> measure_update(const ModelLayout& layout,
                                                   const BlockSource& update, BlockSourcePtr base);

}  // namespace ecopipe
