#pragma once
// Plans for the toy model: layers in the devices' order, as even as their speeds are; or, `sliced`,
// two groups of layers on each of at most three devices.

#include "orchestrator/session/cluster_planner.h"

namespace ecopipe::sim {

class SimPlanner : public ClusterPlanner {
  public:
    explicit SimPlanner(bool sliced) : sliced_(sliced) {}
    Result<Plan> plan(const std::set<std::string>& devices, const Slowness& slowness) override;
    Result<double> step_ms(const Plan& plan, const Slowness& slowness) override;
    double slowest_mbps() const override { return 0; }
    ReplicaPlan replicas(const Plan& plan, const std::set<std::string>& spares,
                         const std::map<int, double>& layer_bytes) override;

  private:
    bool sliced_;
};

}  // namespace ecopipe::sim
