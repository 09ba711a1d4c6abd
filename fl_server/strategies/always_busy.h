#pragma once
// Asynchronous strategies: so many clients train at any time, each from the newest model when it
// starts; who finishes is replaced by an idle one at random.

#include "fl_server/strategies/parameters.h"
#include "fl_server/strategies/serial_strategy.h"

namespace ecopipe {

struct BusyRules {
    std::uint32_t clients = 0;        // at work at once; 0: all
    std::uint32_t min_clients = 1;    // connected, before the first starts
    std::uint32_t max_staleness = 0;  // an update beyond it is dropped; 0: none is
    std::uint64_t seed = 0;

    [[nodiscard]] static ParameterRules rules();
    [[nodiscard]] static BusyRules from(const Parameters& parameters, std::uint64_t seed);
};

class AlwaysBusy : public SerialStrategy {
  protected:
    explicit AlwaysBusy(BusyRules rules) : rules_(rules) {}

    virtual void use(const Update& update) = 0;
    virtual void commit_if_due() = 0;

    void admitted(const Update& update) override;
    void advance() override;
    void save_more(Json& state) const override { state["assigned"] = assigned_; }
    void restore_more(const Json& state) override {
        assigned_ = state.at("assigned").get<std::uint64_t>();
    }

  private:
    BusyRules rules_;
    std::uint64_t assigned_ = 0;
};

}  // namespace ecopipe
