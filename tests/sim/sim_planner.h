#pragma once
// Plans for the toy model: layers in the devices' order, as even as their speeds are; or two groups
// of layers on each of at most three devices, interleaved or there and back (v-half); or, with
// several sum blocks, two or three devices a stage, the last one alone with two blocks where there
// are three.

#include "orchestrator/session/cluster_planner.h"
#include "planner/schedule/schedule.h"

namespace ecopipe::sim {

class SimPlanner : public ClusterPlanner {
  public:
    SimPlanner(Placing placing, int sum_blocks) : placing_(placing), sum_blocks_(sum_blocks) {}
    Result<Plan> plan(const std::set<std::string>& devices, const Conditions& conditions) override;
    Result<double> step_ms(const Plan& plan, const Conditions& conditions) override;
    double slowest_mbps() const override { return 0; }
    ReplicaPlan replicas(const Plan& plan, const std::set<std::string>& spares,
                         const std::map<int, double>& layer_bytes) override;

  private:
    [[nodiscard]] Plan with_twins(const std::vector<std::string>& devices) const;

    Placing placing_;
    int sum_blocks_;
};

}  // namespace ecopipe::sim
