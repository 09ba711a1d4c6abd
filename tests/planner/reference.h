#pragma once
// A second opinion for tests: the cost model and a simulator written anew from INTERFACES.md,
// sharing no code with the planner but its file structures; a brute force over them; and random
// instances.

#include <cstdint>
#include <vector>

#include "core/random.h"
#include "domain/plan.h"
#include "planner/cost/cluster.h"
#include "planner/cost/model_profile.h"

namespace ecopipe::reference {

struct Instance {
    Cluster cluster;
    ModelProfile profile;  // of the first device
    int batch = 0;
    int micro_batches = 0;
};

struct InstanceShape {
    int layers_min = 1;
    int layers_max = 6;
    int devices_min = 1;
    int devices_max = 3;
    int micro_batches_min = 2;
    int micro_batches_max = 4;
    bool media = false;  // some links share a medium
    double memory_low =
        0.3;  // of what a device would need for the whole model, drawn from low to high
    double memory_high = 3;
};
Instance random_instance(Rng& rng, const InstanceShape& shape);

struct Stage {
    int device, first, last;
    Segments recomputed{};
};

// The step by the contract, simulated; K has one entry a stage. `gpipe` ignores K.
double step_ms(const Instance& instance, const std::vector<Stage>& stages,
               const std::vector<int>& K, bool gpipe);
// A stage's memory with k micro-batches in flight, and what its device has.
double peak_bytes(const Instance& instance, const Stage& stage, int k);
double budget_bytes(const Instance& instance, int device);

// The shortest step over every cut, order, subset, recomputation and the given in-flight vectors;
// infinite when nothing fits. `all_counts`: every non-increasing K with entries up to M; else
// entries from {1..2(S-s)+1, M}.
double brute_force_ms(const Instance& instance, bool gpipe, bool all_counts,
                      Recomputation recomputation = Recomputation::kStages);

}  // namespace ecopipe::reference
