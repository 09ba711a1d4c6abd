#include "planner/search/twin_groups.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "domain/sum_blocks.h"

namespace ecopipe {
namespace {

constexpr double kUnbounded = std::numeric_limits<double>::infinity();

class Enumeration {
  public:
    Enumeration(const CostModel& model, int sum_blocks, const std::function<double()>& limit_ms,
                const std::function<bool(const TwinGroups&)>& look)
        : model_(model), sum_blocks_(sum_blocks), limit_ms_(limit_ms), look_(look) {
        least_ms_.push_back(0);
        for (int layer = 0; layer < model.layers(); ++layer) {
            double least = kUnbounded;
            for (int d = 0; d < model.devices(); ++d)
                least = std::min(least, model.work_ms(d, layer, layer));
            least_ms_.push_back(least_ms_.back() + least);
        }
        before_block_.push_back(0);
        for (int block = 0; block < sum_blocks; ++block)
            before_block_.push_back(before_block_.back() +
                                    micro_batches_of({block}, model.micro_batches(), sum_blocks));
        used_.assign(static_cast<std::size_t>(model.devices()), false);
    }

    void run() { add_stage(0, 0); }

  private:
    struct Quickest {  // of a stage's devices
        double forward_ms;
        double backward_ms;
    };

    // A stage that begins at `first`; `ahead_ms`: one micro-batch through the stages before.
    void add_stage(int first, double ahead_ms) {
        if (first == model_.layers()) {
            const bool shared = std::any_of(groups_.begin(), groups_.end(), [](const auto& group) {
                return group.devices.size() > 1;
            });
            if (shared) stopped_ = !look_(groups_);
            return;
        }
        for (int last = first; last < model_.layers() && !stopped_; ++last) {
            if (last + 1 < model_.layers() && !model_.may_cut_before(last + 1)) continue;
            groups_.push_back({{}, first, last, {}});
            add_device(sum_blocks_, sum_blocks_, ahead_ms, {kUnbounded, kUnbounded});
            groups_.pop_back();
        }
    }
    // One more device of the last group, with at most `most` of the `left` blocks: counts fall, as
    // whoever has most has the first blocks.
    void add_device(int left, int most, double ahead_ms, Quickest quickest) {
        const int first = groups_.back().first;
        const int last = groups_.back().last;
        if (left == 0) {
            const int next = last + 1;
            const auto free = std::count(used_.begin(), used_.end(), false);
            const double rest_ms = least_ms_.back() - least_ms_[static_cast<std::size_t>(next)];
            const double ms = ahead_ms + quickest.forward_ms + quickest.backward_ms;
            if (rest_ms > 0 &&
                (free == 0 ||
                 ms + model_.micro_batches() * rest_ms / static_cast<double>(free) >= limit_ms_()))
                return;
            add_stage(next, ms);
            return;
        }
        for (int d = 0; d < model_.devices(); ++d) {
            if (used_[static_cast<std::size_t>(d)]) continue;
            const StageCost cost = model_.stage_cost({d, first, last, false});
            const double each_ms = cost.forward_ms + cost.backward_ms;
            for (int count = std::min(left, most); count > 0 && !stopped_; --count) {
                const auto begin = static_cast<std::size_t>(sum_blocks_ - left);
                const int own =
                    before_block_[begin + static_cast<std::size_t>(count)] - before_block_[begin];
                if (ahead_ms + own * each_ms >= limit_ms_()) continue;
                used_[static_cast<std::size_t>(d)] = true;
                groups_.back().devices.push_back(d);
                groups_.back().blocks.push_back(count);
                add_device(left - count, count, ahead_ms,
                           {std::min(quickest.forward_ms, cost.forward_ms),
                            std::min(quickest.backward_ms, cost.backward_ms)});
                groups_.back().devices.pop_back();
                groups_.back().blocks.pop_back();
                used_[static_cast<std::size_t>(d)] = false;
            }
        }
    }

    const CostModel& model_;
    const int sum_blocks_;
    const std::function<double()>& limit_ms_;
    const std::function<bool(const TwinGroups&)>& look_;
    std::vector<double> least_ms_;   // [l]: layers before l, each on the device that is quickest
    std::vector<int> before_block_;  // [b]: micro-batches of the blocks before b
    std::vector<bool> used_;
    TwinGroups groups_;
    bool stopped_ = false;
};

}  // namespace

void for_all_twin_groups(const CostModel& model, int sum_blocks,
                         const std::function<double()>& limit_ms,
                         const std::function<bool(const TwinGroups&)>& look) {
    Enumeration(model, sum_blocks, limit_ms, look).run();
}

}  // namespace ecopipe
