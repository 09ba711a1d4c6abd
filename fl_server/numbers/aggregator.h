#pragma once
// Executes what a strategy decides about numbers: `Fold`s into slots and `Recipe`s into versions.
// The server and the simulator use the same one. It holds the global model, the slots that are
// open, the models that recipes keep, and the server optimiser's moments; updates and bases are
// read block by block. No sockets, no clock.
//
// The result of a commit does not depend on the order of the folds before it. Nothing here is
// thread-safe; with `threads` > 1 a fold or commit splits the parameter range, which changes no
// bit.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fl_server/numbers/accumulator.h"
#include "fl_server/numbers/block_source.h"
#include "fl_server/numbers/model_layout.h"
#include "fl_server/numbers/recipe.h"
#include "fl_server/numbers/slot_rules.h"
#include "fl_server/numbers/update_check.h"

namespace ecopipe {

// An admitted update: checked against its base (see UpdateCheck).
struct CheckedUpdate {
    BlockSourcePtr bytes;
    std::uint64_t base_version = 0;
    UpdateMeasure measure;
};

// The flat bytes of a version that updates may start from.
using BaseLookup = std::function<Result<BlockSourcePtr>(std::uint64_t version)>;

struct AggregatorOptions {
    double norm_clip = 0;  // a delta's parameters are scaled down to this L2 norm; 0: never
    int threads = 1;
    // Slots keep their updates' sources, which the robust rules read again at the commit. Without,
    // a rule other than the mean is refused.
    bool keep_sources = true;
};

// Everything that a later commit depends on, besides the open slots.
struct AggregatorState {
    std::uint64_t version = 0;
    std::shared_ptr<const std::string> global;  // flat bytes
    std::map<std::string, std::shared_ptr<const std::string>> stored;
    std::shared_ptr<const std::string> moments;  // m then v, F32; null before the first optimiser

    // The kept model kServedModel, else the global one.
    [[nodiscard]] const std::shared_ptr<const std::string>& served() const {
        const auto kept = stored.find(kServedModel);
        return kept == stored.end() ? global : kept->second;
    }
};

class Aggregator {
  public:
    // `layout` must outlive it. `bases` is asked for versions other than the current one.
    Aggregator(const ModelLayout& layout, AggregatorState start, BaseLookup bases,
               AggregatorOptions options);

    // Errors: kRunFailed for a weight or a count outside the limits, a base that is not to be had,
    // an update that cannot be read; the slot must then be given up.
    [[nodiscard]] Result<void> fold(const Fold& fold, const CheckedUpdate& update);

    // The next version. Errors: kRunFailed when a rule refuses (too few updates), a recipe names
    // what is not there, or a value would not be finite; nothing has changed then.
    struct Committed {
        std::uint64_t version = 0;
        std::string sha256;  // of the flat bytes
    };
    [[nodiscard]] Result<Committed> commit(const Recipe& recipe);

    [[nodiscard]] const AggregatorState& state() const { return state_; }
    [[nodiscard]] std::size_t folds(SlotId slot) const;
    [[nodiscard]] double norm_clip() const { return options_.norm_clip; }
    [[nodiscard]] double clip_factor(const UpdateMeasure& measure) const;

  private:
    struct Slot {
        std::unique_ptr<Accumulator> sums;
        std::vector<KeptUpdate> kept;
    };
    struct Plan;  // a recipe with its names resolved

    [[nodiscard]] Result<BlockSourcePtr> base(std::uint64_t version) const;
    [[nodiscard]] Result<Plan> resolve(const Recipe& recipe);
    [[nodiscard]] Result<void> commit_blocks(Plan& plan, std::size_t first, std::size_t last) const;
    [[nodiscard]] std::string next_memory();
    [[nodiscard]] Result<void> each_range(
        const std::function<Result<void>(std::size_t first, std::size_t last)>& work) const;
    void merge_integers(const Block& block, const std::byte* update);

    const ModelLayout& layout_;
    AggregatorState state_;
    BlockSourcePtr global_source_;
    std::shared_ptr<std::string> own_;    // the current global, once made here
    std::shared_ptr<std::string> spare_;  // an earlier global whose memory may be used again
    BaseLookup bases_;
    AggregatorOptions options_;
    std::map<SlotId, Slot> slots_;
    std::vector<std::unique_ptr<Accumulator>> free_;
    std::string integers_;  // the maxima so far, at the integer blocks' lanes
};

}  // namespace ecopipe
