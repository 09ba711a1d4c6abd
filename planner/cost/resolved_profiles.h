#pragma once
// Which profile serves which device of a cluster, with partial profiles completed.

#include <string>
#include <vector>

#include "planner/cost/cluster.h"
#include "planner/cost/cost_predictor.h"
#include "planner/cost/model_profile.h"

namespace ecopipe {

struct ResolvedProfiles {
    struct Source {
        std::size_t profile = 0;  // into profiles
        double speed = 1.0;       // its times are divided by this
    };
    std::vector<ModelProfile> profiles;  // complete
    std::vector<Source> of_device;       // one a device of the cluster
    // A device's profiles at other thread counts than it has in the cluster: what it might do
    // alone.
    struct OtherThreads {
        std::size_t device = 0;
        std::size_t profile = 0;
    };
    std::vector<OtherThreads> other_threads;
    std::vector<PredictedLayers> predicted;
};

// A device with a profile of its own name uses that (of several, the one measured with the cluster
// file's `threads`, else the first), any other the first profile at its `speed`. Refused (kBadFile,
// with the profile's file and place): profiles that disagree on the model, its layers, their
// sizes or its values; two profiles of one device and thread count; a device whose `profile:` was
// not read; a partial profile that no complete one stands beside.
[[nodiscard]] Result<ResolvedProfiles> resolve_profiles(const Cluster& cluster,
                                                        const std::vector<ModelProfile>& profiles);

}  // namespace ecopipe
