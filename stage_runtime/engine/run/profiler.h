#pragma once
// Measures what each layer of a model costs on this device. The header is plain.

#include <functional>
#include <string>
#include <vector>

#include "planner/cost/model_profile.h"
#include "stage_runtime/data/dataset.h"
#include "stage_runtime/engine/model/models.h"
#include "transport/wire/messages.h"

namespace ecopipe {

struct ProfileRequest {
    ModelSpec spec;
    std::string device = "this";
    int threads = 1;
    std::vector<int> micro_batches{1, 2, 4, 8, 16};  // ascending
    OptimizerSpec optimizer;
    LossSpec loss;
    // What is measured on: so many samples of the data. Without it random images and classes.
    std::function<Result<Batch>(int samples)> batch;
    double seconds_per_size = 0.5;  // at least this long, and at least kRepeatsMin passes
    // An emulated device's: the profiler then sleeps as the emulation does. A core that idles in
    // between computes some percent slower, and sleeps in proportion to that too.
    double slowdown = 1;
};

// Every layer forward and backward as the engine runs it (an autograd graph a layer, the loss in
// the last one), medians over repeated passes of the whole model so that caches are as cold as in
// training. Backward includes the adding up of gradients, the update their norm. What
// they take in memory is read from the counting allocator. Layers left of the first
// trainable one have no backward. Errors: kUsage when a layer cannot take a size.
[[nodiscard]] Result<ModelProfile> profile_model(const ProfileRequest& request);

}  // namespace ecopipe
