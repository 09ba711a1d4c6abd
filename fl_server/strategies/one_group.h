#pragma once
// The synchronous strategies of one group of all: they differ in the optimiser that the server
// applies to the averaged change.
//
// McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data"
// (AISTATS 2017), Algorithm 1, told as a change of the global model:
//   w <- w + sum over k of (n_k / n) (w_k - w)

#include <memory>
#include <optional>

#include "fl_server/strategies/grouped_rounds.h"

namespace ecopipe {

class OneGroup : public GroupedRounds {
  public:
    OneGroup(std::string name, GroupRules rules, std::optional<ServerOptimizer> optimizer)
        : GroupedRounds(rules), name_(std::move(name)), optimizer_(optimizer) {}
    [[nodiscard]] std::string name() const override { return name_; }

  protected:
    [[nodiscard]] std::vector<std::string> candidates(std::uint32_t) const override {
        return roster().idle();
    }
    [[nodiscard]] Recipe recipe(const std::vector<ClosedRound>& rounds) override;

  private:
    std::string name_;
    std::optional<ServerOptimizer> optimizer_;
};

}  // namespace ecopipe
