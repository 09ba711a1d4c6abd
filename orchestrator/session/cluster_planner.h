#pragma once
// What a session asks when devices came, went or changed their speed.

#include <map>
#include <set>
#include <string>

#include "core/result.h"
#include "domain/plan.h"
#include "orchestrator/session/recovery.h"

namespace ecopipe {

// How devices have changed since they were profiled and the cluster file was written.
struct Conditions {
    std::map<std::string, double> slowness;  // how many times slower it has become
    std::map<std::string, double>
        tensor_mib;  // what its tensors may take, where that is too little
};

// One thread. Plans keep the run's batch and micro-batch count: bytes depend on them.
class ClusterPlanner {
  public:
    virtual ~ClusterPlanner() = default;
    // The best plan over these devices. Errors: why there is none.
    [[nodiscard]] virtual Result<Plan> plan(const std::set<std::string>& devices,
                                            const Conditions& conditions) = 0;
    // What a step of this plan takes.
    [[nodiscard]] virtual Result<double> step_ms(const Plan& plan,
                                                 const Conditions& conditions) = 0;
    // The slowest link of the cluster, for what a move costs; 0: unlimited.
    [[nodiscard]] virtual double slowest_mbps() const = 0;
    // Who keeps whose replica. `layer_bytes`: of each layer's state.
    [[nodiscard]] virtual ReplicaPlan replicas(const Plan& plan,
                                               const std::set<std::string>& spares,
                                               const std::map<int, double>& layer_bytes) = 0;
};

}  // namespace ecopipe
