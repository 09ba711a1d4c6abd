#pragma once
// Which state of a training is its best, and when to stop: by the losses on the validation split.
// Pure. It is part of a checkpoint.

#include <cstdint>
#include <vector>

#include "core/result.h"
#include "core/strict_json.h"

namespace ecopipe {

class ValidationHistory {
  public:
    // The loss after `step` committed steps. True when it is below all before: the best. A loss
    // that is no finite number never is.
    bool add(std::uint64_t step, double loss);
    [[nodiscard]] bool has(std::uint64_t step) const;
    // Evaluations since the best one; all, when there is none.
    [[nodiscard]] std::uint64_t without_improvement() const;
    // The best evaluation's step; 0 before there is one.
    [[nodiscard]] std::uint64_t best_step() const;
    [[nodiscard]] double best_loss() const;  // infinite before there is one
    // Training goes on from `step`: what came later is forgotten.
    void rewind(std::uint64_t step);

    // As in a checkpoint: a list of {step, loss}, without a loss that is not finite.
    [[nodiscard]] OrderedJson json() const;
    static ValidationHistory read(std::vector<Fields> list);

  private:
    struct Entry {
        std::uint64_t step = 0;
        double loss = 0;
    };
    [[nodiscard]] const Entry* best() const;
    std::vector<Entry> entries_;  // in the order of steps
};

}  // namespace ecopipe
