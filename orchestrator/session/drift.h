#pragma once
// Whether a device has become slower or faster than the plan took it for, and whether moving layers
// pays. Pure: no clocks.
//
// The problem: a plan is right for the speeds that it was made for. A device that gets hot, or has
// other work besides, holds up all the others. But the times of its steps are noisy. A limit on a
// single step takes every hiccup for a drift; a mean over many steps tells late what was plain
// early. A CUSUM adds up by how much each step is off, less a slack that noise does not reach. So
// noise never adds up, and what lasts does; one outlier counts for no more than a factor of two.
//
// A device is compared with what was measured of it under this plan, not with what was predicted: a
// prediction that errs is no drift. And a drift alone moves nothing. Moving costs a pause and bytes
// on the links, and gains only for the steps that are left: both are weighed.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ecopipe {

// Two-sided CUSUM (Page, "Continuous inspection schemes", 1954) on the logarithm of a device's work
// time over its usual one. The slack stands above what +-10 % of noise can reach, the error of
// the learnt baseline included, so such noise never accumulates; one outlier is clipped.
struct DriftOptions {
    int baseline_steps = 12;  // their median is the usual time; steps before a baseline say nothing
    double slack = 0.35;      // ln: 1.42 times is no drift; other work on the device may do that
    double clip = 0.7;        // ln: what one step may add at most, slack included
    double threshold = 1.0;
    int evidence_steps = 5;  // at least, before a drift is told: its factor is their median
    int settle_steps = 2;    // dropped after a new plan: caches and buffers warm up
};

struct Drift {
    std::string device;
    double factor = 1;  // its work takes this many times its usual time
};

class DriftDetector {
  public:
    explicit DriftDetector(DriftOptions options = {}) : options_(options) {}

    // A new plan is in force: what devices do, and so their usual time, has changed.
    void plan_changed() { devices_.clear(); }
    void work_changed(const std::string& device) { devices_.erase(device); }
    // One committed step: milliseconds that the device computed. A step of another size than usual
    // must not be told. The drift, once it is certain; then the device's baseline is learnt anew.
    [[nodiscard]] std::optional<Drift> step(const std::string& device, double busy_ms);

  private:
    struct State {
        int seen = 0;
        std::vector<double> baseline;  // while it is being learnt
        double usual_ms = 0;
        double up = 0;
        double down = 0;
        std::vector<double> recent;  // ratios since a sum left zero
    };
    DriftOptions options_;
    std::map<std::string, State> devices_;
};

// Whether to leave the plan in force for another.
struct MoveOffer {
    double current_step_ms = 0;    // of the plan in force, at the speeds that are now
    double candidate_step_ms = 0;  // of the other
    std::uint64_t remaining_steps = 0;
    double bytes = 0;         // that would move
    double slowest_mbps = 0;  // of the links they take; 0: unlimited
    double fixed_ms = 100;    // configure, load, first step without overlap
};
struct MoveVerdict {
    bool pays = false;
    double gain_ms = 0;  // over the remaining steps
    double cost_ms = 0;
};
// A move must shorten the step by 5 % at least and save 1.5 times what it costs: predictions err.
[[nodiscard]] MoveVerdict weigh_move(const MoveOffer& offer);

}  // namespace ecopipe
