#pragma once
// ClusterPlanner over the planner's search: the same cluster and profiles as at the start, less the
// devices that are gone, at the speeds that were measured.

#include <functional>
#include <optional>

#include "orchestrator/session/cluster_planner.h"
#include "planner/search/partition.h"

namespace ecopipe {

struct ReplannerOptions {
    Cluster cluster;
    // Called once, when the first plan is asked for and `profiles` is empty.
    std::function<Result<std::vector<ModelProfile>>()> measure;
    std::vector<ModelProfile> profiles;
    PlanRequest request;        // batch and micro-batches of the run
    std::optional<Plan> given;  // the user's: in force whenever all its devices are there
    bool replicas = true;
    bool links_known = true;                         // else replicas could crowd out the training
    std::function<Result<void>(const Plan&)> check;  // that stages can run it
};

class Replanner : public ClusterPlanner {
  public:
    explicit Replanner(ReplannerOptions options) : options_(std::move(options)) {}
    Result<Plan> plan(const std::set<std::string>& devices, const Conditions& conditions) override;
    Result<double> step_ms(const Plan& plan, const Conditions& conditions) override;
    [[nodiscard]] double slowest_mbps() const override;
    ReplicaPlan replicas(const Plan& plan, const std::set<std::string>& spares,
                         const std::map<int, double>& layer_bytes) override;

  private:
    Result<void> have_profiles();
    // The cluster and profiles of these devices at their speeds now.
    [[nodiscard]] std::pair<Cluster, std::vector<ModelProfile>> as_it_is(
        const std::set<std::string>& devices, const Conditions& conditions) const;

    ReplannerOptions options_;
};

}  // namespace ecopipe
