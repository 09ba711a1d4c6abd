#pragma once
// The robust rules over a slot's kept updates, read block by block: memory is a few rows of one
// block however large the model and however many the updates.

#include <string>
#include <vector>

#include "fl_server/numbers/block_source.h"
#include "fl_server/numbers/model_layout.h"
#include "fl_server/numbers/recipe.h"

namespace ecopipe {

struct KeptUpdate {
    std::string cluster;
    std::uint64_t sequence = 0;
    double clip = 1;
    BlockSourcePtr update;
    std::uint64_t base_version = 0;
    BlockSourcePtr base;  // when the slot is being closed
};

// `count` elements of a floating block from `first` on, as doubles in `out`.
[[nodiscard]] Result<void> read_values(const ModelLayout& layout, const Block& block,
                                       const BlockSource& source, std::size_t first,
                                       std::size_t count, double* out);

// The updates that multi-Krum keeps; distances are between clipped deltas of parameters.
[[nodiscard]] Result<std::vector<KeptUpdate>> krum_choice(const ModelLayout& layout,
                                                          std::vector<KeptUpdate> updates,
                                                          const Combine& combine);

// One block's delta by a rule other than the mean. `updates` are sorted by cluster and sequence,
// for multi-Krum already chosen.
[[nodiscard]] Result<void> combine_block(const ModelLayout& layout, const Block& block,
                                         const std::vector<KeptUpdate>& updates,
                                         const Combine& combine, double* out);

}  // namespace ecopipe
