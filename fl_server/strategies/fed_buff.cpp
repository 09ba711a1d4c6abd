#include "fl_server/strategies/always_busy.h"
#include "fl_server/strategies/kinds.h"
#include "fl_server/strategies/staleness.h"

namespace ecopipe {
namespace {

// Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation" (AISTATS 2022): the
// changes of K updates, whoever sends them, w <- w + server_lr (1 / K) sum of s(tau_k) delta_k with
// s = 1 / sqrt(1 + tau). The sum is divided by K, not by the weights: stale updates make a smaller
// step.
class FedBuff : public AlwaysBusy {
  public:
    FedBuff(BusyRules rules, const Parameters& parameters, RobustSettings robust)
        : AlwaysBusy(rules),
          buffer_(parameters.integer("buffer")),
          lr_(parameters.number("server_lr")),
          weight_(StalenessWeight::from(parameters)),
          slot_(0, robust) {}
    std::string name() const override { return "fedbuff"; }

  private:
    void use(const Update& update) override {
        slot_.add(update.cluster, update.sequence, weight_.at(update.staleness), decisions());
    }

    // Updates that came while the last commit was under way may have made it more than K.
    void commit_if_due() override {
        if (slot_.count() < buffer_) return;
        std::vector<std::string> clusters = slot_.clusters();
        const auto close = slot_.close(static_cast<double>(clusters.size()), decisions());
        slot_.clear();
        if (!close) return;
        Recipe recipe;
        recipe.close = {*close};
        recipe.next = {Term{}, Term{Term::Source::kDelta, 0, 0, "", lr_}};
        commit({0, std::move(clusters), std::move(recipe), {}});
    }

    void save_more(Json& state) const override {
        AlwaysBusy::save_more(state);
        state["slot"] = slot_.save();
    }
    void restore_more(const Json& state) override {
        AlwaysBusy::restore_more(state);
        slot_.restore(state.at("slot"));
    }

    std::size_t buffer_;
    double lr_;
    StalenessWeight weight_;
    UpdateSlot slot_;
};

}  // namespace

StrategyKind fed_buff() {
    return {"fedbuff",
            "the mean change of K updates, whoever sends them",
            joined(joined(BusyRules::rules(),
                          {integer_rule("buffer", 1, 1000000, 10, "updates of a commit, K"),
                           number_rule("server_lr", 1e-9, 1000, 1.0, "step of the server")}),
                   StalenessWeight::rules("poly", 0.5, 4)),
            0,
            [](const Parameters& p) { return std::size_t{p.integer("buffer")}; },
            [](const StrategySettings& s) -> std::unique_ptr<Strategy> {
                return std::make_unique<FedBuff>(BusyRules::from(s.parameters, s.seed),
                                                 s.parameters, s.robust);
            }};
}

}  // namespace ecopipe
