#pragma once
// What runs in virtual time amount to: the time to each accuracy, the best accuracy, a picture.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/strict_json.h"
#include "fl_server/simulation/virtual_run.h"

namespace ecopipe {

// The evaluations in the text of a run's file.
[[nodiscard]] Result<std::vector<EvaluationPoint>> evaluations_in(const std::string& text,
                                                                  const std::string& source);
// The first of three evaluations in a row that reach `accuracy`; nothing when there are none.
[[nodiscard]] std::optional<double> time_to(const std::vector<EvaluationPoint>& points,
                                            double accuracy);

// One strategy's runs, by seed.
using SeedRuns = std::map<std::int64_t, std::vector<EvaluationPoint>>;
struct StrategyRuns {
    std::string name;
    SeedRuns seeds;
};

// For each strategy `time_to_s` (target percent to one value a seed, null where it was not reached,
// and the mean where every seed reached it), `best_accuracy` and `final_accuracy`.
[[nodiscard]] OrderedJson summary_json(const std::vector<StrategyRuns>& runs,
                                       const std::vector<std::int64_t>& targets_percent);
[[nodiscard]] std::string summary_table(const OrderedJson& summary);
// Accuracy against virtual time: the mean over seeds as a line, their spread as a band.
[[nodiscard]] std::string accuracy_svg(const std::vector<StrategyRuns>& runs,
                                       const std::string& title);

}  // namespace ecopipe
