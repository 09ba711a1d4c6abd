#pragma once
// The step of a 1f1b pipeline whose transfers never meet: the recurrence again (recurrence.h),
// about three times as fast because 1f1b's order is known beforehand. The local search runs it a
// million times.

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "planner/cost/pipeline_costs.h"

namespace ecopipe {

struct WaveStage {
    double forward_ms = 0, backward_ms = 0, update_ms = 0;
    Transfer down;      // to the next stage; unused on the last
    Transfer up;        // to the stage before; unused on the first
    int in_flight = 1;  // does not increase from stage to stage
};

// Keeps its scratch memory between calls. Not thread-safe.
class Wavefront {
  public:
    // What `Recurrence` gives for one_f_one_b_actions (gpipe is in_flight = M everywhere), to the
    // last bit; infinity, early, once the step is known to exceed `limit_ms`. `feed`: the first
    // stage's inputs; `up_taken_ms`: until when they keep the link that the gradients of stage 1
    // use.
    [[nodiscard]] double step_ms(std::span<const WaveStage> stages, int micro_batches,
                                 const Transfer& feed, double up_taken_ms,
                                 double limit_ms = std::numeric_limits<double>::infinity());

    // How many actions the last call ran: about 3 ns each on a core of 2023.
    [[nodiscard]] std::uint64_t actions() const { return actions_; }

  private:
    struct State {
        double now_ms;        // end of the stage's last action
        double down_free_ms;  // when its transfers end
        double up_free_ms;
        double least_ms;  // what follows its last backward at least: the way up to the first stage
    };
    void backwards(std::span<const WaveStage> stages, int micro_batches, int tick);
    void forwards(std::span<const WaveStage> stages, int micro_batches, int tick,
                  double arrival_ms);
    [[nodiscard]] bool exceeds(std::span<const WaveStage> stages, int micro_batches, int tick,
                               double limit_ms) const;

    std::uint64_t actions_ = 0;
    std::vector<State> states_;
    std::vector<double>
        gradient_ms_;  // [stage][micro-batch]: when the input of the backward is there
};

}  // namespace ecopipe
