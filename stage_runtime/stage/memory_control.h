#pragma once
// What a device recomputes as memory comes and goes: before each training step it takes the
// quickest point of its frontier that fits what its tensors may take now. Pure; one thread.
//
// The problem: other programs share a device's memory, and a plan is made once. What a step takes
// is known beforehand (memory_frontier.h), and another point costs nothing but the time that it
// recomputes: bytes do not depend on it, and nothing is loaded anew. So the device decides by
// itself, between two steps, and tells its portal. Predictions err, and what replicas and
// evaluations take is not in them: what was measured beyond the prediction counts with every point.

#include <cstdint>
#include <optional>
#include <vector>

#include "domain/plan.h"

namespace ecopipe {

// What a device's tensors may take.
struct MemoryBudget {
    std::uint64_t bytes = 0;
    bool by_hand = false;  // else by what is free, and never more than planned
    bool pressed = false;  // others wait for memory: less than now
};

class MemoryControl {
  public:
    struct Move {
        Segments recomputed;
        std::uint64_t budget_bytes = 0;
        std::uint64_t needed_bytes = 0;  // with the point that is taken
        double recompute_ms = 0;         // a micro-batch
    };

    // Another plan: where the device can go (an empty frontier: nowhere), what it recomputes by the
    // plan, and what that takes. A plan that is off its frontier is taken for the quickest point
    // that takes no more.
    void configure(std::vector<MemoryPoint> frontier, const Segments& planned,
                   std::uint64_t planned_bytes);
    [[nodiscard]] bool active() const { return !frontier_.empty(); }
    // Before a training step: where to go, if elsewhere than the device is; or again, when it has
    // become short of memory or no longer is. Without a budget where the plan has it. A quicker
    // point is taken when it has fitted twice in a row, with something to spare.
    [[nodiscard]] std::optional<Move> next(std::optional<MemoryBudget> budget);
    // What the step took at most.
    void measured(std::uint64_t peak_bytes);

  private:
    [[nodiscard]] std::uint64_t needed(std::size_t point) const;
    [[nodiscard]] std::size_t fitting(double bytes) const;

    std::vector<MemoryPoint> frontier_;
    std::size_t planned_ = 0;
    std::size_t at_ = 0;
    bool off_ = false;          // the frontier, so far
    std::uint64_t beyond_ = 0;  // of what was measured lately, above the prediction
    bool short_ = false;
    bool quicker_before_ = false;  // one fitted at the last look
    int looks_ = 0;                // since the last move
};

}  // namespace ecopipe
