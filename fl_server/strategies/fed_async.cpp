#include <deque>

#include "fl_server/strategies/always_busy.h"
#include "fl_server/strategies/kinds.h"
#include "fl_server/strategies/staleness.h"

namespace ecopipe {
namespace {

// Xie, Koyejo and Gupta, "Asynchronous Federated Optimization" (2019), Algorithm 1: each update is
// mixed in as it comes, w <- (1 - a_t) w + a_t w_k with a_t = alpha s(tau), tau counted when it is
// mixed in.
class FedAsync : public AlwaysBusy {
  public:
    FedAsync(BusyRules rules, double alpha, StalenessWeight weight)
        : AlwaysBusy(rules), alpha_(alpha), weight_(weight) {}
    std::string name() const override { return "fedasync"; }

  private:
    struct Ready {
        std::string cluster;
        std::uint64_t sequence = 0;
        std::uint64_t base_version = 0;
    };

    void use(const Update& update) override {
        ready_.push_back({update.cluster, update.sequence, update.base_version});
    }

    void commit_if_due() override {
        if (ready_.empty()) return;
        const Ready update = std::move(ready_.front());
        ready_.pop_front();
        const double share = alpha_ * weight_.at(version() - update.base_version);
        decisions().emplace_back(Fold{update.cluster, update.sequence, 0, 1});
        Recipe recipe;
        recipe.close = {Recipe::Close{0, {}}};
        recipe.next = {Term{Term::Source::kGlobal, 0, 0, "", 1 - share},
                       Term{Term::Source::kBase, update.base_version, 0, "", share},
                       Term{Term::Source::kDelta, 0, 0, "", share}};
        commit({0, {update.cluster}, std::move(recipe), {}});
    }

    void save_more(Json& state) const override {
        AlwaysBusy::save_more(state);
        Json ready = Json::array();
        for (const Ready& update : ready_)
            ready.push_back({update.cluster, update.sequence, update.base_version});
        state["ready"] = std::move(ready);
    }

    void restore_more(const Json& state) override {
        AlwaysBusy::restore_more(state);
        ready_.clear();
        for (const Json& update : state.at("ready"))
            ready_.push_back({update.at(0).get<std::string>(), update.at(1).get<std::uint64_t>(),
                              update.at(2).get<std::uint64_t>()});
    }

    double alpha_;
    StalenessWeight weight_;
    std::deque<Ready> ready_;
};

}  // namespace

StrategyKind fed_async() {
    return {
        "fedasync",
        "every update is mixed in as it comes, by its staleness",
        joined(joined(BusyRules::rules(), {number_rule("alpha", 1e-6, 1, 0.6, "mixing weight")}),
               StalenessWeight::rules("poly", 0.5, 4)),
        0.005,
        [](const Parameters&) { return std::size_t{1}; },
        [](const StrategySettings& s) -> std::unique_ptr<Strategy> {
            return std::make_unique<FedAsync>(BusyRules::from(s.parameters, s.seed),
                                              s.parameters.number("alpha"),
                                              StalenessWeight::from(s.parameters));
        }};
}

}  // namespace ecopipe
