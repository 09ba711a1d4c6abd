#pragma once
// `simulation:` of server.yaml: the virtual clusters of ecopipe-fl-sim and how they are watched.

#include <string>
#include <vector>

#include "core/strict_json.h"

namespace ecopipe {

struct LatencyBand {
    double low_s = 0;
    double high_s = 0;
};

struct SimulationSettings {
    // A cluster's extra latency is drawn once, uniformly from its band; the bands hold equally many
    // clusters. These are those of the Eco-FL authors' scripts.
    std::vector<LatencyBand> bands = {{0, 0}, {0, 5}, {6, 10}, {11, 15}, {20, 30}};
    double compute_s_per_sample = 0.005;  // and local epoch: 3 s for 200 samples and 3 epochs
    std::string split = "classes";        // classes | dirichlet | iid
    int classes_per_client = 2;           // classes: client u has u, u+1, ... modulo the classes
    double dirichlet_alpha = 0.5;
    double quantity_skew = 0;            // sigma of a log-normal factor on a cluster's samples
    std::string labels = "independent";  // of the band (RLG-IID) | tied to it (RLG-NIID)
    double drift_every_s = 0;            // 0: latencies stay
    double drift_share = 0.1;            // so many clusters draw band and latency anew then
    double failure_share = 0;            // of tasks that never bring their update
    double evaluate_every_s = 20;
    int evaluation_samples = 0;  // of the test split, the same for all; 0: all
    std::vector<std::int64_t> targets_percent = {60, 65, 70, 75};
};

void read_simulation(Fields fields, SimulationSettings& settings);
[[nodiscard]] OrderedJson simulation_json(const SimulationSettings& settings);

}  // namespace ecopipe
