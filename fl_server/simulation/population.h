#pragma once
// The virtual clusters: which samples each has and how slow each is. Keyed by seed. Pure.

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "fl_server/simulation/settings.h"
#include "fl_server/strategies/strategy.h"

namespace ecopipe {

struct VirtualClient {
    std::string name;                   // "client-007"
    std::vector<std::int64_t> samples;  // indices into the training split
    std::vector<std::uint64_t> label_counts;
    int main_label = 0;  // that ties it to a band
    std::size_t band = 0;
    double delay_s = 0;
    double compute_s = 0;

    [[nodiscard]] double latency_s() const { return delay_s + compute_s; }
};

class Population {
  public:
    // `labels`: of every training sample. Every sample goes to exactly one client. Errors: kUsage
    // when there are fewer samples than clients, or a class has no client.
    [[nodiscard]] static Result<Population> create(const std::vector<std::int64_t>& labels,
                                                   int classes, std::size_t clients,
                                                   std::int64_t local_epochs,
                                                   const SimulationSettings& settings,
                                                   std::uint64_t seed);

    [[nodiscard]] const std::vector<VirtualClient>& clients() const { return clients_; }
    [[nodiscard]] ClientFacts facts(std::size_t client) const;
    // The n-th drift: some clients draw band and latency anew.
    void drift(std::uint64_t n);
    // After `drifts` of them, from the beginning.
    void restore(std::uint64_t drifts);

  private:
    void draw_delay(std::size_t client, std::uint64_t n);
    SimulationSettings settings_;
    std::uint64_t seed_ = 0;
    std::vector<VirtualClient> clients_;
    std::vector<std::size_t> first_band_;
};

}  // namespace ecopipe
