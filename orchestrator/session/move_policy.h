#pragma once
// When layers are moved between two steps: why one would, whether it is time, and whether it pays.
// Pure; one thread.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "orchestrator/session/cluster_planner.h"
#include "orchestrator/session/drift.h"

namespace ecopipe {

struct MoveOptions {
    std::uint64_t cooldown_steps = 20;  // after a look, so that a move shows its worth first
    double fixed_ms = 150;              // configure, load, fill the pipeline
    DriftOptions drift;
};

class MovePolicy {
  public:
    explicit MovePolicy(MoveOptions options = {}) : options_(options), drift_(options.drift) {}

    // Something that a new plan may answer to. `must`: it has to.
    void because(std::string reason, bool must = false);
    // Milliseconds that a device computed in a step of the usual size. A drift is a reason.
    void measured(const std::string& device, double busy_ms);
    // What a device's tensors may take, if its layers take more whatever it recomputes. That is a
    // reason, and its end another.
    void short_of_memory(const std::string& device, std::optional<double> tensor_mib);
    void another_process(const std::string& device);
    [[nodiscard]] const Conditions& conditions() const { return conditions_; }

    // Another plan is in force: devices do other work than before.
    void plan_changed() { drift_.plan_changed(); }
    // This device's work is another, though its layers are the same.
    void work_changed(const std::string& device) { drift_.work_changed(device); }
    // All have gone back to `step`: that is a new plan's chance to show its worth.
    void recovered_at(std::uint64_t step) { next_step_ = step + options_.cooldown_steps; }

    // Whether there is something to look at before `step`.
    [[nodiscard]] bool due(std::uint64_t step) const {
        return !reasons_.empty() && (must_ || memory_ || step >= next_step_);
    }
    struct Look {
        std::string reason;
        bool must = false;    // whatever it costs
        bool memory = false;  // the layers do not fit where they are
    };
    // The look that is due; the next is not for a while.
    [[nodiscard]] Look take(std::uint64_t step);
    // Whether `candidate` is worth moving to. `bytes`: that would move.
    struct Weighed {
        MoveOffer offer;
        bool pays = false;
    };
    [[nodiscard]] Result<Weighed> weigh(ClusterPlanner& planner, const Plan& current,
                                        const Plan& candidate, double bytes,
                                        std::uint64_t remaining_steps) const;

  private:
    MoveOptions options_;
    DriftDetector drift_;
    Conditions conditions_;
    std::vector<std::string> reasons_;
    bool must_ = false;
    bool memory_ = false;
    std::uint64_t next_step_ = 0;
};

}  // namespace ecopipe
