#pragma once
// One accumulator of updates as a strategy sees it, with the robust rule that combines them.
//
// Plain means are folded as updates arrive. A robust rule must see all of a round's updates
// at once and refuses too few, so its folds are held back until the round closes:
//   median        of each coordinate                     at least 3 updates
//   trimmed_mean  cuts floor(trim * n) at each end       at least 1 / trim
//   multi_krum    f byzantine clients, the mean of m     at least 2 f + 3
// (robust_rules.h has their sources.)

#include <optional>
#include <string>
#include <vector>

#include "core/strict_json.h"
#include "fl_server/numbers/recipe.h"
#include "fl_server/strategies/strategy.h"

namespace ecopipe {

struct RobustSettings {
    Combine::Rule rule = Combine::Rule::kMean;
    double trim = 0.2;
    std::uint32_t byzantine = 1;
    std::uint32_t keep = 0;  // of multi-Krum, m; 0: as many as it allows, n - f - 2

    [[nodiscard]] std::string name() const;
    // How so many updates are combined; `divisor` is the mean's.
    [[nodiscard]] Combine combine(std::size_t updates, double divisor) const;
    // Why they cannot, or "".
    [[nodiscard]] std::string refusal(std::size_t updates) const;
};

class UpdateSlot {
  public:
    UpdateSlot(SlotId slot, RobustSettings robust) : slot_(slot), robust_(robust) {}

    // Decides the fold, now or at the close. `weight` > 0; robust rules count every update once.
    void add(const std::string& cluster, std::uint64_t sequence, double weight,
             StrategyDecisions& decisions);
    [[nodiscard]] std::size_t count() const { return clusters_.size(); }
    // How to combine what was added; the slot is empty then. Nothing when a robust rule has too
    // few: they are dropped with that reason. `divisor`: of the mean, 0 for the sum of weights.
    [[nodiscard]] std::optional<Recipe::Close> close(double divisor, StrategyDecisions& decisions);
    // Whose updates are in it; of the last close after it.
    [[nodiscard]] const std::vector<std::string>& clusters() const { return clusters_; }
    void clear();

    [[nodiscard]] Json save() const;
    void restore(const Json& state);

  private:
    SlotId slot_;
    RobustSettings robust_;
    std::vector<Fold> held_;
    std::vector<std::string> clusters_;
};

}  // namespace ecopipe
