#pragma once
// Models that are graphs, for tests of the planner.

#include <algorithm>
#include <vector>

#include "planner/cost/cost_model.h"
#include "tests/planner/reference.h"

namespace ecopipe::reference {

// What crosses the cut behind each layer, from the values.
inline void add_up_cuts(ModelProfile& profile) {
    for (LayerProfile& layer : profile.layers) layer.output_bytes_per_sample = 0;
    profile.input_bytes_per_sample = 0;
    const int layers = static_cast<int>(profile.layers.size());
    for (const ValueProfile& value : profile.values) {
        if (value.producer < 0) profile.input_bytes_per_sample += value.bytes_per_sample;
        const int last = std::min(layers - 1, value.consumers.back() - 1);
        for (int cut = std::max(0, value.producer); cut <= last; ++cut)
            profile.layers[static_cast<std::size_t>(cut)].output_bytes_per_sample +=
                value.bytes_per_sample;
    }
}

// Gives the profile's layers random values: one or two inputs, one value a layer or two, each for
// one to three layers anywhere behind its maker; some without gradients, some layers not trained.
inline void make_graph(Rng& rng, ModelProfile& profile) {
    const int layers = static_cast<int>(profile.layers.size());
    profile.values.clear();
    for (int producer = -1; producer < layers; ++producer) {
        const int count = rng.below(4) == 0 ? 2 : 1;
        for (int output = 0; output < count; ++output) {
            ValueProfile value;
            value.producer = producer;
            value.bytes_per_sample = rng.below(40000);
            value.gradient = rng.below(6) != 0;
            const auto behind = static_cast<std::uint64_t>(layers - producer - 1);
            if (behind == 0) {
                value.consumers = {layers};
            } else {
                value.consumers = {producer + 1 +
                                   (rng.below(2) == 0 ? 0 : static_cast<int>(rng.below(behind)))};
                for (std::uint64_t more = rng.below(3); more > 0; --more)
                    value.consumers.push_back(producer + 1 + static_cast<int>(rng.below(behind)));
                std::sort(value.consumers.begin(), value.consumers.end());
                value.consumers.erase(std::unique(value.consumers.begin(), value.consumers.end()),
                                      value.consumers.end());
            }
            profile.values.push_back(std::move(value));
        }
    }
    for (LayerProfile& layer : profile.layers)
        if (rng.below(4) == 0) layer.parameter_bytes = 0;
    add_up_cuts(profile);
}

// A chain's profile as a graph that is one.
inline ModelProfile as_graph(ModelProfile profile) {
    const int layers = static_cast<int>(profile.layers.size());
    for (int layer = -1; layer < layers; ++layer)
        profile.values.push_back(
            {layer,
             {layer + 1},
             layer < 0 ? profile.input_bytes_per_sample
                       : profile.layers[static_cast<std::size_t>(layer)].output_bytes_per_sample,
             true});
    return profile;
}

inline CostModel model_of(const Cluster& cluster, const ModelProfile& profile, int batch,
                          int micro_batches, Recomputation recomputation = Recomputation::kStages) {
    const auto resolved = resolve_profiles(cluster, {profile});
    return CostModel::make(cluster, resolved.value(), batch, micro_batches, 1, recomputation)
        .value();
}
inline CostModel model_of(const Instance& instance,
                          Recomputation recomputation = Recomputation::kStages) {
    return model_of(instance.cluster, instance.profile, instance.batch, instance.micro_batches,
                    recomputation);
}

// As many stages as `stages_max`, the cluster and the layers allow, or fewer, on random devices;
// `slices` groups on each.
inline std::vector<StageSpan> random_stages(Rng& rng, const Instance& instance, int devices_max,
                                            int slices = 1) {
    const int layers = static_cast<int>(instance.profile.layers.size());
    const int devices = static_cast<int>(instance.cluster.devices.size());
    std::vector<int> order(static_cast<std::size_t>(devices));
    for (std::size_t d = 0; d < order.size(); ++d) order[d] = static_cast<int>(d);
    for (std::size_t d = order.size(); d-- > 1;) std::swap(order[d], order[rng.below(d + 1)]);
    const int most = std::min({devices_max, devices, layers / slices});
    const int count = 1 + static_cast<int>(rng.below(static_cast<std::uint64_t>(most)));
    std::vector<int> cuts;
    for (int layer = 1; layer < layers; ++layer) cuts.push_back(layer);
    while (static_cast<int>(cuts.size()) > count * slices - 1)
        cuts.erase(cuts.begin() + static_cast<std::ptrdiff_t>(rng.below(cuts.size())));
    cuts.push_back(layers);
    std::vector<StageSpan> out;
    int first = 0;
    for (std::size_t k = 0; k < cuts.size(); ++k) {
        out.push_back({order[k % static_cast<std::size_t>(count)], first, cuts[k] - 1, false});
        first = cuts[k];
    }
    return out;
}

}  // namespace ecopipe::reference
