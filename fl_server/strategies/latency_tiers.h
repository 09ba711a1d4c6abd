#pragma once
// Clients cut into tiers of equal size by the latency that they had when they were first profiled:
// the fixed tiers of FedAT and TiFL.

#include <map>
#include <string>
#include <vector>

#include "core/strict_json.h"
#include "fl_server/strategies/roster.h"

namespace ecopipe {

class LatencyTiers {
  public:
    explicit LatencyTiers(std::uint32_t tiers) : tiers_(tiers) {}

    // Takes a client's latency the first time that it is known, and cuts anew then; ties go by
    // name. Tells whether any client's tier changed.
    bool profile(const ClientFacts& facts);
    // A client whose latency is not known is in the last tier.
    [[nodiscard]] std::uint32_t tier_of(const std::string& cluster) const;
    // Idle members, in name order.
    [[nodiscard]] std::vector<std::string> idle(const Roster& roster, std::uint32_t tier) const;
    [[nodiscard]] const std::map<std::string, std::uint32_t>& tiers() const { return tier_; }

    [[nodiscard]] Json save() const { return latency_s_; }
    void restore(const Json& state);

  private:
    void cut();
    std::uint32_t tiers_;
    std::map<std::string, double> latency_s_;
    std::map<std::string, std::uint32_t> tier_;
};

}  // namespace ecopipe
