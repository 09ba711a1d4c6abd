#pragma once
// What step a pipeline that is built from its last stage up can come to: the suffix beam's guide.

#include <vector>

#include "planner/cost/cost_model.h"

namespace ecopipe {

// The layers that are still to be placed are poured over the devices that are left, the fastest
// first, each as full as the demands in suffix_beam.h and its memory allow; links are usual ones.
// Mostly a little too hopeful, since whole layers leave gaps.
class RestGuess {
  public:
    explicit RestGuess(const CostModel& model);

    // The step when layers 0..first-1 are left, the stages placed take `round_ms` there and back,
    // `used[d]` marks their devices, and the other micro-batches add `spread_ms`.
    [[nodiscard]] double step_ms(double spread_ms, double round_ms, int first,
                                 const std::vector<char>& used) const;

  private:
    struct Device {
        int index;
        double speed;                    // work of the fastest device over its own
        StageMemory plain, recomputing;  // of all layers
        double budget_bytes;
    };
    void measure_links(const CostModel& model);

    int micro_batches_;
    std::vector<Device> devices_;             // the fastest first
    std::vector<double> forward_, backward_;  // [i]: of layers 0..i-1 on the fastest
    double speeds_ = 0;                       // of all devices
    double way_ms_ = 0;                       // a usual link, there and back
};

}  // namespace ecopipe
